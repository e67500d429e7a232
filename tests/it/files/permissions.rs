//! Permissions: files are private to their owner; symlinks and files of other users are refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{STATE_FILES, names, prepared, stopped_daemon};
use crate::api::{new_session, start_turn, wait_until_idle, wait_until_ready};
use crate::support::daemon::{Daemon, DaemonBuilder};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// Asserts that only the owner can access both directories and their files.
fn assert_private(daemon: &Daemon) {
    for directory in [daemon.state_dir(), daemon.logs_dir()] {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        assert_eq!(mode(directory.parent().unwrap()), 0o700, "{}", directory.display());
        for name in names(&directory) {
            assert_eq!(mode(&directory.join(&name)), 0o600, "{name}");
        }
    }
}

fn under_umask(umask: &str) -> DaemonBuilder {
    prepared(&format!("umask {umask}"))
        .arg("--event-segment-bytes")
        .arg("4096")
        .arg("--output-log-bytes")
        .arg("4096")
}

#[tokio::test]
async fn files_are_private_regardless_of_umask() {
    for umask in ["000", "027", "077"] {
        let mut daemon = under_umask(umask).start().await;
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, "deltas=100 stderr-flood=10000").await;
        wait_until_idle(&daemon, &session_id).await;
        daemon.stop().await;
        assert!(names(&daemon.logs_dir()).len() > 6, "the test needs rotated files");
        assert_private(&daemon);
    }
}

#[tokio::test]
async fn start_restricts_permissions_of_existing_files() {
    let before = stopped_daemon().await;
    for directory in [before.state_dir(), before.logs_dir()] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        for name in names(&directory) {
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o666)).unwrap();
        }
    }
    let mut after = Daemon::builder().state_from(&before).start().await;
    wait_until_ready(&after).await;
    after.stop().await;
    assert_private(&after);
}

/// Returns the paths of all files that a start opens or creates.
fn opened_files(daemon: &Daemon) -> Vec<PathBuf> {
    let (state, logs) = (daemon.state_dir(), daemon.logs_dir());
    let state_files = STATE_FILES.iter().copied().chain(["codexd.lock"]).map(|name| state.join(name));
    let log_files = ["events.jsonl", "event-log.json", "stdout.log", "stderr.log", "codexd.lock"];
    state_files.chain(log_files.iter().map(|name| logs.join(name))).collect()
}

#[tokio::test]
async fn symlinked_file_is_refused_and_not_followed() {
    let before = stopped_daemon().await;
    let victim = before.state_dir().parent().unwrap().join("victim");
    for path in opened_files(&before) {
        let renamed = path.with_extension("kept");
        fs::rename(&path, &renamed).unwrap();
        fs::write(&victim, "{}").unwrap();
        symlink(&victim, &path).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}: {}", path.display(), refusal.stderr);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(refusal.stderr.contains(name) && refusal.stderr.contains("symlink"), "{}", refusal.stderr);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "{}", "{}", path.display());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "the start replaced the symlink");
        fs::rename(&renamed, &path).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}

#[tokio::test]
async fn symlinked_directory_is_refused() {
    let before = stopped_daemon().await;
    for directory in [before.state_dir(), before.logs_dir()] {
        let moved_directory = directory.with_extension("moved");
        fs::rename(&directory, &moved_directory).unwrap();
        symlink(&moved_directory, &directory).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
        assert!(refusal.stderr.contains("is a symlink, not a directory"), "{}", refusal.stderr);
        fs::remove_file(&directory).unwrap();
        fs::rename(&moved_directory, &directory).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}

#[expect(clippy::print_stderr, reason = "a skipped test must be visible in the output")]
#[tokio::test]
async fn directories_and_files_of_another_user_are_refused() {
    /// The user `nobody` on the systems these tests run on; any other user works.
    const OTHER_UID: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "SKIPPED: directories_and_files_of_another_user_are_refused: only root can change the owner of files"
        );
        return;
    }
    let before = stopped_daemon().await;
    let mut paths = opened_files(&before);
    paths.extend([before.state_dir(), before.logs_dir()]);
    for path in paths {
        chown(&path, Some(OTHER_UID), None).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}: {}", path.display(), refusal.stderr);
        assert!(refusal.stderr.contains("belongs to user 65534"), "{}", refusal.stderr);
        assert!(refusal.stderr.contains(path.to_str().unwrap()), "{}", refusal.stderr);
        chown(&path, Some(0), None).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}
