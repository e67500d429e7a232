//! Files that hold a secret, such as the auth token.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::disk::{Disk, FILE_MODE, check_owner, refused};

/// Shows whether a file is still the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    permissions: (u32, u32),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file at a path; of a symlink its own.
    pub fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&std::fs::symlink_metadata(path)?))
    }

    /// The time of the last change, in seconds since 1970.
    pub fn changed_at(&self) -> i64 {
        self.changed.0
    }
}

impl From<&Metadata> for Stamp {
    fn from(found: &Metadata) -> Self {
        Self {
            file: (found.dev(), found.ino()),
            size: found.size(),
            permissions: (found.mode(), found.uid()),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Reads a file of at most `limit` bytes that is ours and that no other user may access.
///
/// Unlike those of other files its permissions are not fixed: other users may already have read it.
pub fn read_secret(path: &Path, limit: u64) -> io::Result<(Vec<u8>, Stamp)> {
    // Opening a FIFO without a writer must not block.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            true => refused(path, "is a symlink"),
            false => io::Error::new(error.kind(), format!("{} cannot be opened ({error})", path.display())),
        }
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refused(path, "is not a file"));
    }
    check_owner(path, &found)?;
    if found.mode() & 0o077 != 0 {
        let permissions = found.mode() & 0o777;
        return Err(refused(
            path,
            &format!("has the permissions {permissions:04o}, and others must have none; chmod 600 it"),
        ));
    }
    if found.size() > limit {
        return Err(refused(path, &format!("is longer than {limit} bytes")));
    }
    let mut secret = Vec::new();
    file.take(limit).read_to_end(&mut secret)?;
    Ok((secret, Stamp::from(&found)))
}

impl Disk {
    /// Creates a file with a secret; fails with `AlreadyExists` when there is one.
    pub fn create_secret(&self, path: &Path, secret: &[u8]) -> io::Result<()> {
        // No other user can open it at any time, for any umask.
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
        file.set_permissions(PermissionsExt::from_mode(FILE_MODE))?;
        file.write_all(secret)?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), |directory| self.sync_directory(directory))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secret_is_read_only_with_safe_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let disk = Disk::default();
        disk.create_secret(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (secret, stamp) = read_secret(&path, 3).unwrap();
        assert_eq!((secret.as_slice(), Stamp::of(&path).unwrap()), (b"one".as_slice(), stamp));
        assert_eq!(disk.create_secret(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        disk.replace(&path, b"two").unwrap();
        assert_ne!(Stamp::of(&path).unwrap(), stamp);
        assert_eq!(read_secret(&path, 3).unwrap().0, b"two");

        let refusal = |path: &Path| read_secret(path, 3).unwrap_err().to_string();
        for permissions in [0o640, 0o604, 0o620, 0o700 | 0o010] {
            fs::set_permissions(&path, PermissionsExt::from_mode(permissions)).unwrap();
            assert!(
                refusal(&path).contains(&format!("has the permissions {permissions:04o}")),
                "{}",
                refusal(&path)
            );
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&path, "four").unwrap();
        assert!(refusal(&path).ends_with("is longer than 3 bytes"));
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(refusal(&link).ends_with("is a symlink"));
        assert!(refusal(directory.path()).ends_with("is not a file"));
        assert!(refusal(&directory.path().join("none")).contains("cannot be opened"));
    }
}
