//! File systems of a test's own: one whose power can be cut, and one that can be filled.
//!
//! Both need root and Linux; where that is not so, a test says what it leaves out.

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
    _home: TempDir,
}

enum Source {
    /// An ext4 in a file.
    Image(PathBuf),
    /// Memory.
    Memory(String),
}

impl Mount {
    /// An ext4 of its own; the error says why there can be none.
    pub(super) fn ext4(megabytes: u64) -> Result<Self, String> {
        let home = home()?;
        let image = home.path().join("disk");
        File::create(&image)
            .and_then(|file| file.set_len(megabytes << 20))
            .map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        run(Command::new("xfs_io").arg("-V"))?;
        Self::new(home, Source::Image(image))
    }

    /// A file system in memory that is full after so many kilobytes; the error says why there can be none.
    pub(super) fn memory(kilobytes: u64) -> Result<Self, String> {
        Self::new(home()?, Source::Memory(format!("size={kilobytes}k,mode=700")))
    }

    fn new(home: TempDir, source: Source) -> Result<Self, String> {
        let point = home.path().join("mount");
        fs::create_dir(&point).map_err(|error| error.to_string())?;
        let mount = Self { source, point, _home: home };
        mount.mount()?;
        Ok(mount)
    }

    pub(super) fn path(&self) -> &Path {
        &self.point
    }

    /// Takes the power away: what is not on disk by now is lost, and every call fails from now on.
    pub(super) fn cut_power(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.point)).unwrap();
    }

    /// Brings the power back; nobody may use the file system.
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
        // A failing test may leave somebody in there; then it goes when they do.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.point));
    }
}

/// The value of `found`, or `None` after printing that `what` is skipped and why.
///
/// Panics instead where `CODEXD_TEST_MOUNTS` is `required`.
pub(super) fn or_skip<T>(what: &str, found: Result<T, String>) -> Option<T> {
    found.inspect_err(|why| skip("CODEXD_TEST_MOUNTS", what, why)).ok()
}

fn home() -> Result<TempDir, String> {
    if cfg!(not(target_os = "linux")) {
        return Err("this is made for Linux".to_owned());
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
