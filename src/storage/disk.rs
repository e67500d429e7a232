//! The calls to the system that create, write, sync, rename or remove a file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;

use super::file_mark::FileMark;

/// The permissions of a directory: only its owner may enter it.
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// The permissions of a file: only its owner may read and write it.
pub(super) const FILE_MODE: u32 = 0o600;

/// How much of a new file is in memory while it is written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Writes the content of a new file.
pub(crate) type Content<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

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

/// Performs the calls; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    #[cfg(test)]
    pub(super) faults: Option<std::sync::Arc<super::faults::Faults>>,
    #[cfg(feature = "mutations")]
    pub(super) mutation: Option<std::sync::Arc<str>>,
}

impl Disk {
    /// A disk whose users have one deliberate bug.
    #[cfg(feature = "mutations")]
    pub(crate) fn broken(mutation: Option<&str>) -> Self {
        Self {
            #[cfg(test)]
            faults: None,
            mutation: mutation.map(Into::into),
        }
    }

    /// Whether this is the deliberate bug.
    #[cfg(feature = "mutations")]
    pub(crate) fn is_broken(&self, mutation: &str) -> bool {
        self.mutation.as_deref() == Some(mutation)
    }

    /// Creates a directory and its parents, or checks that an existing one is ours and fixes its permissions.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let found = fs::symlink_metadata(path)?;
        if !found.is_dir() {
            return Err(refused(path, "is a symlink, not a directory"));
        }
        check_owner(path, &found)?;
        if found.mode() & 0o777 != DIRECTORY_MODE {
            fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
        }
        Ok(())
    }

    /// Opens a file for appending, and creates it if there is none.
    pub(crate) fn open_append(&self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().create(true).append(true).read(true))
    }

    /// Writes some of the bytes, like [`Write::write`].
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

    /// Writes all of the bytes at an offset.
    pub(crate) fn write_all_at(&self, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            self.may(Operation::Write)?;
            #[cfg(test)]
            let some = self.cut(bytes);
            #[cfg(not(test))]
            let some = bytes;
            match file.write_at(some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns when the content of the file is on disk.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        self.synced(|| flushed(file, file.sync_data()))
    }

    /// Returns when the entries of a directory are on disk.
    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.synced(|| {
            let directory = File::open(path)?;
            flushed(&directory, directory.sync_all())
        })
    }

    /// Performs a sync unless a test or a mutation disables it.
    fn synced(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.may(Operation::Sync)?;
        #[cfg(feature = "mutations")]
        if self.is_broken("no-sync") {
            return Ok(());
        }
        // Injected faults include no power cut, and a test makes thousands of syncs.
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

    /// Moves a file, also to another file system; the caller syncs both directories.
    pub(crate) fn move_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let file = self.open_read(from)?;
                self.replace_all(&[(to, Box::new(|new| io::copy(&mut &file, new).map(drop)))])?;
                self.remove(from)
            }
            moved => moved,
        }
    }

    /// Moves the files of a directory into another one, which is created if there is none, and removes the directory.
    pub(crate) fn move_directory(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.create_directory(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            self.move_file(&entry.path(), &to.join(entry.file_name()))?;
        }
        self.sync_directory(to)?;
        self.remove_directory(from)
    }

    /// Truncates a file.
    pub(crate) fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.may(Operation::Truncate)?;
        file.set_len(length)
    }

    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        self.may(Operation::Remove)?;
        fs::remove_file(path)
    }

    /// Replaces a file atomically: when this returns, the new content is on disk, and after a power cut the file has the old or
    /// the new content, never a mixture.
    ///
    /// It writes a temporary file, syncs it, renames it, and syncs the directory: without any of the four steps data is lost
    /// (measured).
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.replace_all(&[(path, Box::new(|file| file.write_all(content)))])
    }

    /// [`Disk::replace`] for several files of one directory, renamed one right after the other.
    ///
    /// If one of them cannot be written, none is replaced.
    pub(crate) fn replace_all(&self, files: &[(&Path, Content<'_>)]) -> io::Result<()> {
        for (path, content) in files {
            self.write_temporary(path, |_, file| content(file))?;
        }
        self.rename_temporaries(files.iter().map(|(path, _)| *path))
    }

    /// [`Disk::replace`] with a content that identifies its own file.
    pub(crate) fn replace_marked(
        &self,
        path: &Path,
        content: impl FnOnce(FileMark) -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        self.write_temporary(path, |file, buffer| buffer.write_all(&content(FileMark::of(file)?)?))?;
        self.rename_temporaries([path].into_iter())
    }

    /// Writes and syncs the temporary file that will replace another one.
    fn write_temporary(
        &self,
        path: &Path,
        content: impl FnOnce(&File, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let temporary = beside(path, "new");
        let file = self.open(&temporary, OpenOptions::new().create(true).write(true).truncate(true))?;
        let mut buffer = BufWriter::with_capacity(BUFFER_BYTES, DiskFile { disk: self, file: &file });
        content(&file, &mut buffer)?;
        buffer.flush()?;
        drop(buffer);
        self.sync(&file)
    }

    /// Renames what [`Disk::write_temporary`] wrote, and syncs the directory.
    fn rename_temporaries<'a>(&self, mut paths: impl Iterator<Item = &'a Path> + Clone) -> io::Result<()> {
        let directory = paths.clone().next().and_then(Path::parent);
        paths.try_for_each(|path| self.rename(&beside(path, "new"), path))?;
        directory.map_or(Ok(()), |directory| self.sync_directory(directory))
    }

    /// Writes a file into a directory that is not codexd's, and creates the directory if there is none; the permissions of an
    /// existing one stay.
    pub fn write_shared(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
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

    /// The first and the last bytes of a file that is longer than both; `None` for others.
    pub(crate) fn read_ends(&self, path: &Path, bytes: usize) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        if !fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() > 2 * bytes as u64) {
            return Ok(None);
        }
        let file = self.open_read(path)?;
        let (mut head, mut tail) = (vec![0; bytes], vec![0; bytes]);
        file.read_exact_at(&mut head, 0)?;
        file.read_exact_at(&mut tail, file.metadata()?.len() - bytes as u64)?;
        Ok(Some((head, tail)))
    }

    /// Opens a file for reading.
    pub(crate) fn open_read(&self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().read(true))
    }

    /// Opens an existing file for changes in place.
    pub(crate) fn open_write(&self, path: &Path) -> io::Result<File> {
        self.open(path, OpenOptions::new().write(true))
    }

    /// Sets the modification time of a file to the present.
    pub(crate) fn touch(&self, path: &Path) -> io::Result<()> {
        self.open_write(path)?.set_modified(SystemTime::now())
    }

    /// Creates a directory that must not exist yet, and its parents.
    pub(crate) fn create_new_directory(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(parent)?;
        }
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    /// Removes a directory and everything in it.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.may(Operation::Remove)?;
        fs::remove_dir_all(path)
    }

    /// Renames an unusable file to a free name; returns its new path.
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

    /// Opens one of our files and fixes its permissions.
    fn open(&self, path: &Path, options: &mut OpenOptions) -> io::Result<File> {
        self.may(Operation::Open)?;
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = options.mode(FILE_MODE).custom_flags(nofollow).open(path).map_err(|error| {
            // Linux and macOS return ELOOP for a symlink that must not be followed (open(2)).
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
        if found.mode() & 0o777 != FILE_MODE {
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
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

/// A file that is written with the calls of a disk.
struct DiskFile<'a> {
    disk: &'a Disk,
    file: &'a File,
}

impl Write for DiskFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(self.file, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The result of a sync, with what the file system can do: on macOS std asks the drive to flush (F_FULLFSYNC), which SMB,
/// NFS and FUSE do not know. They get a plain fsync.
fn flushed(file: &File, result: io::Result<()>) -> io::Result<()> {
    use rustix::io::Errno;
    match result {
        Err(error)
            if [Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOTTY, Errno::INVAL]
                .iter()
                .any(|unknown| error.raw_os_error() == Some(unknown.raw_os_error())) =>
        {
            Ok(rustix::fs::fsync(file)?)
        }
        result => result,
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

/// The path with a suffix added to its name.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}
