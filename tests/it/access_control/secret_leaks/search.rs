//! Searches texts for a secret in all encodings in which it could appear.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::support::scratch;
use base64_encoder::{STANDARD, URL, encode};
use uuid::Uuid;

/// A unique secret of characters that a token may have; some of them are percent-encoded in URLs.
pub(super) fn unique_secret() -> String {
    format!("{}+.~{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Base64 with padding, as in a header.
pub(super) fn base64(bytes: &[u8]) -> String {
    let padding = "=".repeat((3 - bytes.len() % 3) % 3);
    encode(bytes, STANDARD) + &padding
}

/// The searched texts with the names of their places.
#[derive(Default)]
pub(super) struct SearchedTexts(Vec<(String, Vec<u8>)>);

impl SearchedTexts {
    /// Adds a text.
    pub(super) fn add(&mut self, name: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((name.into(), text.into()));
    }

    /// Adds the names and contents of all files below this directory.
    pub(super) fn add_files(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                self.add(name.clone(), name);
                self.add_files(&path);
            } else {
                self.add(name.clone(), [name.into_bytes(), fs::read(&path).unwrap()].concat());
            }
        }
    }

    /// The names of all texts.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The texts that contain this secret, among those whose name `is_included` accepts, with the encoding.
    pub(super) fn hits(&self, secret: &str, is_included: impl Fn(&str) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let encodings = encodings(secret.as_bytes());
        for (name, text) in self.0.iter().filter(|(name, _)| is_included(name)) {
            let lower = text.to_ascii_lowercase();
            for (encoding, encoded, is_case_sensitive) in &encodings {
                let position = if *is_case_sensitive {
                    memchr::memmem::find(text, encoded.as_bytes())
                } else {
                    memchr::memmem::find(&lower, encoded.to_ascii_lowercase().as_bytes())
                };
                if let Some(at) = position {
                    let around = String::from_utf8_lossy(&text[at.saturating_sub(80)..at]).into_owned();
                    found.push(format!("{name}, as {encoding}, after {around:?}"));
                }
            }
        }
        found
    }
}

/// All encodings of a secret: the name, the text, and whether it is case-sensitive.
fn encodings(secret: &[u8]) -> Vec<(String, String, bool)> {
    let hex_digits = |before: &str| {
        secret.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{before}{byte:02x}");
            text
        })
    };
    let plain = String::from_utf8(secret.to_vec()).unwrap();
    let mut encodings = vec![
        ("plain text".to_owned(), plain, false),
        ("hex".to_owned(), hex_digits(""), false),
        ("percent".to_owned(), hex_digits("%"), false),
        ("form encoding".to_owned(), form_urlencoded::byte_serialize(secret).collect(), false),
    ];
    for alphabet in [STANDARD, URL] {
        for shift in 0..3 {
            encodings.push((format!("base64, {shift} bytes in"), shifted(secret, shift, alphabet), true));
        }
    }
    encodings
}

/// The part of the base64 text that depends on the secret only, when the secret comes after this number of bytes.
fn shifted(secret: &[u8], shift: usize, alphabet: [u8; 2]) -> String {
    let text = encode(&[&vec![0; shift], secret].concat(), alphabet);
    let end = (shift + secret.len()) * 8 / 6;
    text.get((shift * 8).div_ceil(6)..end).unwrap().to_owned()
}

/// A base64 encoder, which avoids a dependency.
mod base64_encoder {
    /// The last two characters of the standard alphabet and of the one for URLs.
    pub(super) const STANDARD: [u8; 2] = *b"+/";
    pub(super) const URL: [u8; 2] = *b"-_";

    /// Encodes without padding.
    pub(super) fn encode(bytes: &[u8], last: [u8; 2]) -> String {
        let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(last).collect();
        let bits = |index: usize| (0..6).map(move |bit| index * 6 + bit);
        let value = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| usize::from(byte >> (7 - bit % 8) & 1));
        let characters = (0..(bytes.len() * 8).div_ceil(6))
            .map(|index| alphabet[bits(index).fold(0, |all, bit| all << 1 | value(bit))]);
        String::from_utf8(characters.collect()).unwrap()
    }
}

#[test]
fn search_finds_a_secret_in_every_encoding() {
    let secret = unique_secret();
    assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
    assert_eq!(base64(b"Hello, world"), "SGVsbG8sIHdvcmxk");
    assert_eq!(base64(b"a"), "YQ==");
    assert_eq!(encode(&[0xfb, 0xff], URL), "-_8");
    let upper = |text: String| text.to_ascii_uppercase();
    let (_, hex, _) = encodings(secret.as_bytes()).remove(1);
    let (_, percent, _) = encodings(secret.as_bytes()).remove(2);
    let escaped: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    assert_ne!(escaped, secret);
    let mut samples = vec![
        secret.clone(),
        upper(secret.clone()),
        hex.clone(),
        upper(hex),
        percent.clone(),
        upper(percent),
        escaped,
    ];
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "a", "an", "and"] {
            let text = format!("{before}{secret}{after}");
            samples.push(base64(text.as_bytes()));
            samples.push(encode(text.as_bytes(), URL));
        }
    }
    for text in &samples {
        let mut texts = SearchedTexts::default();
        texts.add("other", "nothing");
        texts.add("sample", format!("something before {text} and after"));
        let hits = texts.hits(&secret, |_| true);
        assert!(hits.iter().any(|hit| hit.starts_with("sample")), "{text} is not found: {hits:?}");
        assert!(hits.iter().all(|hit| hit.starts_with("sample")), "{hits:?}");
        assert_eq!(texts.hits(&secret, |name| name == "other"), Vec::<String>::new());
        assert_eq!(texts.hits(&unique_secret(), |_| true), Vec::<String>::new());
    }
}

#[test]
fn search_finds_a_secret_in_file_names_and_contents() {
    let directory = scratch::directory("test");
    let (inner, secret) = (directory.path().join("inner"), unique_secret());
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), [&[0xff, 0xfe][..], secret.as_bytes()].concat()).unwrap();
    fs::write(directory.path().join(format!("named-{secret}")), "").unwrap();
    let mut texts = SearchedTexts::default();
    texts.add_files(directory.path());
    assert_eq!(texts.hits(&secret, |_| true).len(), 2, "in the file, and in the name");
}
