//! Mounted file systems for one test: an ext4 image whose power can be cut, and a tmpfs that can be filled.
//!
//! Both need root and Linux; otherwise the test prints that it is skipped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::scratch;
use crate::support::skip::skip;
use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
pub(super) struct Mount {
    source: Source,
    point: PathBuf,
    _directory: TempDir,
}

enum Source {
    /// An ext4 file system in an image file.
    Image(PathBuf),
    /// A tmpfs with these mount options.
    Memory(String),
}

impl Mount {
    /// Mounts a new ext4 image; the error states why that is impossible.
    pub(super) fn ext4(megabytes: u64) -> Result<Self, String> {
        let directory = directory()?;
        let image = directory.path().join("disk");
        File::create(&image)
            .and_then(|file| file.set_len(megabytes << 20))
            .map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("xfs_io").arg("-V"))?;
        Self::new(directory, Source::Image(image))
    }

    /// Mounts a tmpfs with this capacity; the error states why that is impossible.
    pub(super) fn memory(kilobytes: u64) -> Result<Self, String> {
        Self::new(directory()?, Source::Memory(format!("size={kilobytes}k,mode=700")))
    }

    fn new(directory: TempDir, source: Source) -> Result<Self, String> {
        let point = directory.path().join("mount");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        let mount = Self { source, point, _directory: directory };
        mount.mount()?;
        Ok(mount)
    }

    pub(super) fn path(&self) -> &Path {
        &self.point
    }

    /// Simulates a power cut: unsynced data is lost, and every later call fails.
    pub(super) fn cut_power(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point)).unwrap();
    }

    /// Mounts the file system again; no process may use it during the call.
    pub(super) fn restore_power(&self) {
        run(Command::new("umount").arg(&self.point)).unwrap();
        self.mount().unwrap();
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        match &self.source {
            Source::Image(image) => command.args(["-t", "ext4", "-o", "loop"]).arg(image),
            Source::Memory(options) => command.args(["-t", "tmpfs", "-o", options, "tmpfs"]),
        };
        run(command.arg(&self.point))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A failing test may leave processes that use it; the lazy unmount completes when they end.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
    }
}

/// The value of `found`, or `None` after printing that `what` is skipped and why.
///
/// Panics instead where `CODEXD_TEST_MOUNTS` is `required`.
pub(super) fn or_skip<T>(what: &str, found: Result<T, String>) -> Option<T> {
    found.inspect_err(|why| skip("CODEXD_TEST_MOUNTS", what, why)).ok()
}

fn directory() -> Result<TempDir, String> {
    if cfg!(not(target_os = "linux")) {
        return Err("this test needs Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("only root can mount".to_owned());
    }
    Ok(scratch::directory("disk"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
