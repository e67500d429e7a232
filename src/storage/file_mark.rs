//! [`FileMark`]: distinguishes a file from its copies.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A file's inode, and its creation time where the file system records it.
///
/// A rename and a restart of the machine keep both; a copy has others, even if it was written over the file. The device is
/// left out: its number may change with each mount.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct FileMark {
    inode: u64,
    /// In nanoseconds since 1970.
    #[serde(rename = "born")]
    created: Option<u64>,
}

impl FileMark {
    /// The mark of no file: file systems number inodes from 1.
    pub(crate) const NONE: Self = Self { inode: 0, created: None };

    /// The mark of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(found) = Self::of_statx(file, "", rustix::fs::AtFlags::EMPTY_PATH) {
            return Ok(found);
        }
        Ok(Self::of_metadata(&file.metadata()?))
    }

    /// The mark of the file at this path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(found) = Self::of_statx(rustix::fs::CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            return Ok(found);
        }
        Ok(Self::of_metadata(&std::fs::symlink_metadata(path)?))
    }

    /// Whether both may be of one file. A creation time that one of them lacks is not compared.
    pub(crate) fn is_same(self, other: Self) -> bool {
        let times = self.created.zip(other.created);
        self.inode == other.inode && times.is_none_or(|(own, other)| own == other)
    }

    /// Asks the kernel itself: the standard library reads no creation time where it is linked with musl. `None` for a kernel
    /// or a sandbox without `statx`, and for a file that cannot be read.
    #[cfg(target_os = "linux")]
    fn of_statx(
        directory: impl std::os::fd::AsFd,
        path: impl rustix::path::Arg,
        flags: rustix::fs::AtFlags,
    ) -> Option<Self> {
        use rustix::fs::StatxFlags;
        let found = rustix::fs::statx(directory, path, flags, StatxFlags::INO | StatxFlags::BTIME).ok()?;
        let has_time = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let time = found.stx_btime;
        let created = u64::try_from(time.tv_sec)
            .ok()
            .and_then(|seconds| seconds.checked_mul(1_000_000_000)?.checked_add(u64::from(time.tv_nsec)));
        Some(Self { inode: found.stx_ino, created: created.filter(|_| has_time) })
    }

    fn of_metadata(found: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let created = found.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Self { inode: found.ino(), created: created.and_then(|time| u64::try_from(time.as_nanos()).ok()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_the_same_for_the_path_and_the_open_file_and_in_every_build() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "a").unwrap();
        let file = File::open(&path).unwrap();
        let (opened, found) = (FileMark::of(&file).unwrap(), FileMark::at(&path).unwrap());
        let by_library = FileMark::of_metadata(&file.metadata().unwrap());
        for other in [found, by_library] {
            assert_eq!((opened.inode, opened.created), (other.inode, other.created));
        }
        assert!(FileMark::at(&directory.path().join("none")).is_err());
    }

    #[test]
    fn copy_is_another_file_and_a_missing_time_is_not_compared() {
        let directory = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).unwrap();
            FileMark::at(&path).unwrap()
        });
        assert!(a.is_same(a) && !a.is_same(b));
        let without_time = FileMark { created: None, ..a };
        assert!(a.is_same(without_time) && without_time.is_same(a) && !without_time.is_same(b));
        let reused = FileMark { created: Some(1), ..a };
        assert_eq!(a.is_same(reused), a.created.is_none());
    }
}
