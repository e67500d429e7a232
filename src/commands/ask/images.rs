//! The images of `codexd ask --image`: read here, because the daemon need not be able to, and sent as data URLs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::codex::protocol::values::INPUT_IMAGE;
use crate::commands::failure::Failure;

/// The most bytes of all images of a turn: as Base64 and with the prompt, they fit into the 16 MiB of a request
/// (`--body-limit`).
const MAX_BYTES: u64 = 11 * 1024 * 1024;

/// The items of these images, in their order.
pub(super) fn items(paths: &[PathBuf]) -> Result<Vec<Value>, Failure> {
    let mut left = MAX_BYTES;
    paths.iter().map(|path| item(path, &mut left)).collect()
}

/// The item of an image; `left` is how many bytes are left for it and those after it.
fn item(path: &Path, left: &mut u64) -> Result<Value, Failure> {
    let failed = |error: std::io::Error| {
        Failure::usage(format!("Failed to read the image {}: {error}.", path.display()))
    };
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!("{} is not a file, so it cannot be an image.", path.display())));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile.
    File::open(path).and_then(|file| file.take(*left + 1).read_to_end(&mut bytes)).map_err(failed)?;
    *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
        Failure::usage(format!(
            "The image {} has {} bytes; all images of a turn together may have {MAX_BYTES} (11 MiB). Make it smaller.",
            path.display(),
            metadata.len()
        ))
    })?;
    let media_type = media_type(&bytes).ok_or_else(|| {
        Failure::usage(format!(
            "{} is not an image that models read; these are PNG, JPEG, GIF and WebP.",
            path.display()
        ))
    })?;
    let url = format!("data:{media_type};base64,{}", BASE64.encode(&bytes));
    Ok(json!({ "type": INPUT_IMAGE, "url": url }))
}

/// The type of an image by its first bytes.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn images_become_data_urls_by_their_content() {
        let directory = tempfile::tempdir().unwrap();
        for (bytes, url) in [
            (&b"\x89PNG\r\n\x1a\nrest"[..], "data:image/png;base64,iVBORw0KGgpyZXN0"),
            (b"\xff\xd8\xff\xe0", "data:image/jpeg;base64,/9j/4A=="),
            (b"GIF89a", "data:image/gif;base64,R0lGODlh"),
            (b"RIFF\0\0\0\0WEBP", "data:image/webp;base64,UklGRgAAAABXRUJQ"),
        ] {
            // The name says nothing about the content.
            let path = written(directory.path(), "image.txt", bytes);
            assert_eq!(items(&[path]).unwrap(), [json!({ "type": "image", "url": url })]);
        }
    }

    #[test]
    fn what_is_no_image_or_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |paths: &[PathBuf]| items(paths).unwrap_err().message;
        let text = written(directory.path(), "a.png", b"<svg>");
        assert!(refused(&[text]).contains("a.png is not an image that models read"));
        assert!(refused(&[directory.path().to_owned()]).contains("is not a file"));
        assert!(refused(&[directory.path().join("missing")]).contains("Failed to read the image"));
        let mut half = b"\x89PNG\r\n\x1a\n".to_vec();
        half.resize(6 * 1024 * 1024, 0);
        let half = written(directory.path(), "half.png", &half);
        assert_eq!(items(std::slice::from_ref(&half)).unwrap().len(), 1);
        assert!(refused(&[half.clone(), half]).contains("half.png has 6291456 bytes"));
    }
}
