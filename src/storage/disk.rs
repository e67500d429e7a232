//! The calls to the system that create, write, sync, rename or remove a file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// The rights of a folder: its owner enters it, nobody else.
pub(super) const FOLDER: u32 = 0o700;
/// The rights of a file: its owner reads and writes it, nobody else.
pub(super) const FILE: u32 = 0o600;

/// A call to the system that changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    Open,
    Write,
    Sync,
    Rename,
    Truncate,
    Remove,
}

/// The disk; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    #[cfg(test)]
    pub(super) faults: Option<std::sync::Arc<super::faults::Faults>>,
    #[cfg(feature = "mutations")]
    pub(super) mutation: Option<std::sync::Arc<str>>,
}

impl Disk {
    /// A disk whose users do one thing wrong.
    #[cfg(feature = "mutations")]
    pub(crate) fn broken(mutation: Option<&str>) -> Self {
        Self {
            #[cfg(test)]
            faults: None,
            mutation: mutation.map(Into::into),
        }
    }

    /// Whether this is what its users do wrong.
    #[cfg(feature = "mutations")]
    pub(crate) fn is_broken(&self, mutation: &str) -> bool {
        self.mutation.as_deref() == Some(mutation)
    }

    /// Makes a folder, with those above it, or makes sure that the one there is ours alone.
    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(FOLDER).create(path)?;
        let found = fs::symlink_metadata(path)?;
        if !found.is_dir() {
            return Err(refused(path, "is a symlink, not a folder"));
        }
        check_owner(path, &found)?;
        if found.mode() & 0o777 != FOLDER {
            fs::set_permissions(path, Permissions::from_mode(FOLDER))?;
        }
        Ok(())
    }

    /// Opens a file to add to its end, and makes it when there is none.
    pub(crate) fn open_append(&self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().create(true).append(true).read(true))
    }

    /// Writes a part of the bytes, like [`Write::write`].
    pub(crate) fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        self.may(Operation::Write)?;
        #[cfg(test)]
        let bytes = self.cut(bytes);
        file.write(bytes)
    }

    /// Writes all of the bytes.
    pub(crate) fn write_all(&self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(file, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns when the file's content is on disk.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        // On macOS std asks the drive itself to flush (F_FULLFSYNC).
        self.synced(|| file.sync_data())
    }

    /// Returns when the names in a folder are on disk.
    pub(crate) fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.synced(|| File::open(path)?.sync_all())
    }

    /// Carries a sync out, where it means anything.
    fn synced(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.may(Operation::Sync)?;
        #[cfg(feature = "mutations")]
        if self.is_broken("no-sync") {
            return Ok(());
        }
        // A fault has no power to cut, and a test makes thousands of syncs.
        #[cfg(test)]
        if self.faults.is_some() {
            return Ok(());
        }
        sync()
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.may(Operation::Rename)?;
        fs::rename(from, to)
    }

    /// Cuts a file off.
    pub(crate) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.may(Operation::Truncate)?;
        file.set_len(length)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.may(Operation::Remove)?;
        fs::remove_file(path)
    }

    /// Replaces a file whole: when this returns the new content is on disk, and after a power cut there is the old or
    /// the new content, never a mixture.
    ///
    /// Written beside, synced, renamed, and the folder synced: leaving out any of the four steps loses data (measured).
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.replace_all(&[(path, content)])
    }

    /// [`Disk::replace`] for several files of one directory, which change places one right after the other.
    ///
    /// When one of them cannot be written none is replaced.
    pub(crate) fn replace_all(&self, files: &[(&Path, &[u8])]) -> io::Result<()> {
        for (path, content) in files {
            self.write_beside(path, |_| Ok(content.to_vec()))?;
        }
        self.put_in_place(files.iter().map(|(path, _)| *path))
    }

    /// [`Disk::replace`] with a content that names the file it is in.
    pub(crate) fn replace_marked(
        &self,
        path: &Path,
        content: impl FnOnce(FileMark) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        self.write_beside(path, |file| content(FileMark::of(&file.metadata()?)))?;
        self.put_in_place([path].into_iter())
    }

    /// Writes and syncs the file that is to take the place of another one.
    fn write_beside(
        &self,
        path: &Path,
        content: impl FnOnce(&File) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        let temporary = beside(path, "new");
        let file = self.open(&temporary, OpenOptions::new().create(true).write(true).truncate(true))?;
        self.write_all(&file, &content(&file)?)?;
        self.sync(&file)
    }

    /// Renames what [`Disk::write_beside`] wrote, and syncs the directory.
    fn put_in_place<'a>(&self, mut paths: impl Iterator<Item = &'a Path> + Clone) -> io::Result<()> {
        let directory = paths.clone().next().and_then(Path::parent);
        paths.try_for_each(|path| self.rename(&beside(path, "new"), path))?;
        directory.map_or(Ok(()), |directory| self.sync_folder(directory))
    }

    /// Puts a file into a folder that is not codexd's own, and makes that folder when there is none: one that is there
    /// keeps its rights.
    pub fn write_for_others(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(FOLDER).create(folder)?;
        }
        if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(refused(path, "is a symlink or something else that is not a file"));
        }
        self.replace(path, content)
    }

    /// Reads a whole file; `None` when there is none.
    pub(crate) fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let mut content = Vec::new();
        match self.open_read(path) {
            Ok(mut file) => file.read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(content))
    }

    /// Opens a file to read it.
    pub(crate) fn open_read(&self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().read(true))
    }

    /// Makes a directory that is not there yet, with those above it.
    pub(crate) fn make_new_directory(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(FOLDER).create(parent)?;
        }
        DirBuilder::new().mode(FOLDER).create(path)
    }

    /// Removes a directory with all that is in it.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.may(Operation::Remove)?;
        fs::remove_dir_all(path)
    }

    /// Moves a file that cannot be used out of the way, to a name that is not taken; returns where it is now.
    pub(crate) fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let mut to = beside(path, "bad");
        for number in 1.. {
            if fs::symlink_metadata(&to).is_err() {
                break;
            }
            to = beside(path, &format!("bad-{number}"));
        }
        self.rename(path, &to)?;
        Ok(to)
    }

    /// Opens a file of ours, and sees to its rights.
    fn open(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        self.may(Operation::Open)?;
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = options.mode(FILE).custom_flags(nofollow).open(path).map_err(|error| {
            // Linux and macOS both answer ELOOP for a symlink that must not be followed (open(2)).
            if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                refused(path, "is a symlink")
            } else {
                error
            }
        })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(refused(path, "is not a file"));
        }
        check_owner(path, &found)?;
        if found.mode() & 0o777 != FILE {
            file.set_permissions(Permissions::from_mode(FILE))?;
        }
        Ok(file)
    }

    /// Whether the next call of this kind may be made.
    #[cfg(not(test))]
    #[expect(clippy::unnecessary_wraps, reason = "tests make calls fail here")]
    fn may(&self, _operation: Operation) -> io::Result<()> {
        Ok(())
    }
}

/// What tells a file from a copy of it: its inode, and the time when it was made where the file system knows it.
///
/// A rename keeps both, and a restart of the machine too; a copy has its own, also when it was written over the file.
/// The device is no part of it: its number may be another one after each mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    inode: u64,
    /// In nanoseconds since 1970.
    born: Option<u64>,
}

impl FileMark {
    /// The mark of no file: file systems number theirs from 1.
    pub(crate) const NONE: Self = Self { inode: 0, born: None };

    fn of(found: &fs::Metadata) -> Self {
        let born = found.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { inode: found.ino(), born: born.and_then(|born| u64::try_from(born.as_nanos()).ok()) }
    }

    /// The mark of the file at this path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&fs::symlink_metadata(path)?))
    }
}

pub(super) fn check_owner(path: &Path, found: &fs::Metadata) -> io::Result<()> {
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() == ours {
        return Ok(());
    }
    Err(refused(path, &format!("belongs to user {} and not to user {ours}, who runs codexd", found.uid())))
}

pub(super) fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", path.display()))
}

/// The path with something added to its name.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
