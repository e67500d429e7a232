//! A file system that does not respond: every call on it blocks until it is released.
//!
//! It is a FUSE mount whose server never reads. It needs root and Linux; without them a test prints what it skips.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::scratch;
use super::skip::skip;

/// A mounted file system that does not respond; when it is dropped, blocked calls return an error.
pub(crate) struct Hanging {
    /// The server side, which is never read.
    server: Option<File>,
    point: PathBuf,
    _home: Option<TempDir>,
}

impl Hanging {
    /// Mounts one in a new directory; returns `None` after printing why that is impossible.
    ///
    /// Panics instead if `CODEXD_TEST_MOUNTS` is `required`.
    pub(crate) fn mount() -> Option<Self> {
        Self::or_skip(|| {
            let home = scratch::directory("hanging");
            let point = home.path().join("mount");
            fs::create_dir(&point).map_err(|error| error.to_string())?;
            Self::try_mount(point, Some(home))
        })
    }

    /// Mounts one over a directory; files that were opened there before still work.
    pub(crate) fn over(directory: &Path) -> Option<Self> {
        Self::or_skip(|| Self::try_mount(directory.to_owned(), None))
    }

    fn or_skip(mount: impl FnOnce() -> Result<Self, String>) -> Option<Self> {
        mount().inspect_err(|why| skip("CODEXD_TEST_MOUNTS", "a file system that does not respond", why)).ok()
    }

    fn try_mount(point: PathBuf, home: Option<TempDir>) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount".to_owned());
        }
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let server = server.map_err(|error| format!("/dev/fuse: {error}"))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).map_err(|error| error.to_string())?;
        mount("codexd-test", &point, "fuse", MountFlags::empty(), options.as_c_str())
            .map_err(|error| format!("mount: {error}"))?;
        Ok(Self { server: Some(server), point, _home: home })
    }

    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Ends all blocked calls; from now on each call fails.
    pub(crate) fn release(&mut self) {
        self.server = None;
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.release();
        let _ = unmount(&self.point, UnmountFlags::DETACH);
    }
}
