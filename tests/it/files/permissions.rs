//! Whose the files are: ours alone, and what is not ours is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::{STATE_FILES, names, prepared, stopped_daemon};
use crate::api::{idle, ready, session, turn};
use crate::support::daemon::{Daemon, DaemonBuilder};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// Asserts that both folders and all in them are for their owner alone.
fn assert_ours_alone(daemon: &Daemon) {
    for folder in [daemon.state_dir(), daemon.logs_dir()] {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        assert_eq!(mode(folder.parent().unwrap()), 0o700, "{}", folder.display());
        for name in names(&folder) {
            assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
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
        let session_id = session(&daemon).await;
        turn(&daemon, &session_id, "deltas=100 stderr-flood=10000").await;
        idle(&daemon, &session_id).await;
        daemon.stop().await;
        assert!(names(&daemon.logs_dir()).len() > 6, "rotated files are among them");
        assert_ours_alone(&daemon);
    }
}

#[tokio::test]
async fn start_restricts_permissions_of_existing_files() {
    let before = stopped_daemon().await;
    for folder in [before.state_dir(), before.logs_dir()] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        for name in names(&folder) {
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o666)).unwrap();
        }
    }
    let mut after = Daemon::builder().state_from(&before).start().await;
    ready(&after).await;
    after.stop().await;
    assert_ours_alone(&after);
}

/// Every file that a start opens, and where a new one would be written first.
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
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).unwrap();
        fs::write(&victim, "{}").unwrap();
        symlink(&victim, &path).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}: {}", path.display(), refusal.stderr);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(refusal.stderr.contains(name) && refusal.stderr.contains("symlink"), "{}", refusal.stderr);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "{}", "{}", path.display());
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "it is left as it is");
        fs::rename(&kept, &path).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}

#[tokio::test]
async fn symlinked_directory_is_refused() {
    let before = stopped_daemon().await;
    for folder in [before.state_dir(), before.logs_dir()] {
        let elsewhere = folder.with_extension("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}", refusal.stderr);
        assert!(refusal.stderr.contains("is a symlink, not a folder"), "{}", refusal.stderr);
        fs::remove_file(&folder).unwrap();
        fs::rename(&elsewhere, &folder).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know what was not tried")]
#[tokio::test]
async fn directories_and_files_of_another_user_are_refused() {
    /// Nobody, on the systems these tests run on; any other user would do.
    const SOMEBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "SKIPPED: directories_and_files_of_another_user_are_refused: only root can give files away"
        );
        return;
    }
    let before = stopped_daemon().await;
    let mut paths = opened_files(&before);
    paths.extend([before.state_dir(), before.logs_dir()]);
    for path in paths {
        chown(&path, Some(SOMEBODY), None).unwrap();
        let refusal = Daemon::builder().state_from(&before).start_refused().await;
        assert_eq!(refusal.status.code(), Some(2), "{}: {}", path.display(), refusal.stderr);
        assert!(refusal.stderr.contains("belongs to user 65534"), "{}", refusal.stderr);
        assert!(refusal.stderr.contains(path.to_str().unwrap()), "{}", refusal.stderr);
        chown(&path, Some(0), None).unwrap();
    }
    Daemon::builder().state_from(&before).start().await;
}
