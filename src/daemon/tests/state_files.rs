//! When the state files are written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{TestRecorder, config};

/// Waits until a state file includes this event; returns the inode of the file.
async fn inode_with(path: &Path, seq: u64) -> u64 {
    loop {
        let inode = fs::metadata(path).unwrap().ino();
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        if file["throughSeq"] == seq {
            return inode;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn change_is_written_to_the_daemon_state_once_although_the_recent_events_follow_later() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path(), &[]);
    let (daemon, recent) = (&config.paths.daemon_state, &config.paths.recent_events);
    let test_recorder = TestRecorder::start(&config);
    let mut inodes = Vec::new();
    // The first change may come while the start still reads the log, which has the files written again.
    for name in ["a", "b"] {
        test_recorder.open_session(name).await;
        let seq = test_recorder.recorder.view().state().through;
        inodes = vec![inode_with(daemon, seq).await];
        inode_with(recent, seq).await;
        inodes.push(inode_with(daemon, seq).await);
    }
    assert_eq!(inodes[0], inodes[1]);
    test_recorder.recorder.stop().await;
}
