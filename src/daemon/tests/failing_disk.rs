//! The recorder and its threads on a failing disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Map;
use tempfile::TempDir;

use super::new_session;
use crate::config::{Config, Environment, Settings};
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::recovery::{self, Opened, StateDirectories};
use crate::daemon::{StartError, events};
use crate::ids::{SessionId, ThreadId};
use crate::state::snapshot::{self, Loaded};
use crate::state::{RequestPolicy, Session};
use crate::storage::faults::{Faults, Plan};
use crate::storage::{Disk, Operation};

const OPERATIONS: [Operation; 6] = [
    Operation::Open,
    Operation::Write,
    Operation::Sync,
    Operation::Rename,
    Operation::Truncate,
    Operation::Remove,
];

fn config(root: &Path) -> Config {
    let mut settings = Settings::from_flags(["--event-segment-bytes=4096"]).unwrap();
    settings.paths.repo_root = Some(root.to_owned());
    Config::resolve(settings, &Environment::new()).unwrap()
}

fn open(config: &Config, disk: Disk) -> Result<Opened, StartError> {
    let directories = StateDirectories::take_on(disk, config).map_err(StartError::Open)?;
    Ok(recovery::open(config, &directories)?)
}

fn start(config: &Config, disk: Disk) -> Result<Recorder, StartError> {
    let opened = open(config, disk)?;
    Recorder::start(config, opened).map_err(StartError::Recorder)
}

/// A session whose event is long, so that segments fill up soon.
fn session(session_id: &str) -> Session {
    Session { thread_id: Some(ThreadId::new("t".repeat(300))), ..new_session(session_id) }
}

/// Records `count` sessions durably; returns the IDs of those that were acknowledged.
async fn record_sessions(recorder: &Recorder, name: &str, count: usize) -> Vec<SessionId> {
    let mut durable = Vec::new();
    for number in 0..count {
        let session_id = format!("{name}-{number}");
        let opened = events::session_opened(
            &session(&session_id),
            false,
            Map::new(),
            RequestPolicy::default(),
            None,
            None,
        );
        if recorder.record_durably(move |_| vec![opened]).await.is_ok() {
            durable.push(SessionId::new(session_id));
        }
    }
    durable
}

const DIRECTORIES: [&str; 2] = ["state/codexd", "logs/codexd"];

/// The files, each with what changes when it is modified or replaced.
fn listing(root: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let files = DIRECTORIES.iter().flat_map(|directory| fs::read_dir(root.join(directory)).unwrap());
    // A file that is renamed or removed meanwhile makes the next listing another one.
    let found = files.filter_map(|file| {
        let path = file.unwrap().path();
        fs::metadata(&path).ok().map(|found| (path, found))
    });
    found.map(|(path, found)| (path, (found.ino(), found.len(), found.mtime(), found.mtime_nsec()))).collect()
}

/// A copy of all files at one moment, as a kill at that moment would leave them.
///
/// No kill leaves a mix of the states before and after a rename, so the copy is repeated until no file changed
/// meanwhile.
fn image(from: &Path) -> TempDir {
    loop {
        let to = tempfile::tempdir().unwrap();
        let before = listing(from);
        for directory in DIRECTORIES {
            fs::create_dir_all(to.path().join(directory)).unwrap();
        }
        let copy = |path: &PathBuf| {
            let target = to.path().join(path.strip_prefix(from).unwrap());
            match path.ends_with("event-log.json") {
                // A kill leaves the original file, and codexd detects a copy.
                true => fs::hard_link(path, target),
                false => fs::copy(path, target).map(drop),
            }
        };
        let copied = before.keys().all(|path| copy(path).is_ok());
        if copied && listing(from) == before {
            return to;
        }
    }
}

/// Asserts that a start finds these sessions, this log, no number to use again, and every file readable.
fn assert_durable(root: &Path, durable: &[SessionId], epoch: &str, reported: u64, case: &str) {
    let opened = open(&config(root), Disk::default()).unwrap();
    for session_id in durable {
        assert!(opened.state.sessions.get(session_id).is_some(), "{case}: {session_id} is lost");
    }
    let bounds = opened.journal.log().bounds();
    assert_eq!(bounds.epoch, epoch, "{case}: the log passes for another one: {:?}", opened.notices);
    assert!(
        bounds.latest >= reported,
        "{case}: {reported} was reported and the next is {}",
        bounds.latest + 1
    );
    let unreadable = opened.notices.iter().find(|notice| notice.message().contains("could not be read"));
    assert!(unreadable.is_none(), "{case}: {unreadable:?}");
}

#[tokio::test]
async fn recorder_loses_no_ack_when_any_disk_call_fails() {
    for operation in OPERATIONS {
        for forever in [false, true] {
            for first in 1.. {
                let case = format!("{operation:?} {first} forever={forever}");
                let root = tempfile::tempdir().unwrap();
                let config = config(root.path());
                let faults = Arc::new(Faults::default());
                let before = start(&config, faults.disk()).unwrap();
                let mut durable = record_sessions(&before, "before", 2).await;
                assert_eq!(durable.len(), 2);
                let epoch = before.view().log.bounds().epoch;
                before.stop().await;

                // The start is part of the run: it may fail, but then no commit is acknowledged.
                let kind = io::ErrorKind::StorageFull;
                faults.plan(Some(Plan { operation, first, forever, kind }));
                let mut reported = 0;
                if let Ok(during) = start(&config, faults.disk()) {
                    durable.extend(record_sessions(&during, "during", 12).await);
                    reported = during.view().log.bounds().latest;
                    let killed = image(root.path());
                    assert_durable(killed.path(), &durable, &epoch, reported, &format!("{case}, killed"));
                    during.stop().await;
                }
                let failed = faults.failed();

                // The same fault once more in the next start, which may give up, but must not make it worse.
                faults.plan(Some(Plan { operation, first: 1, forever: false, kind }));
                if let Ok(again) = start(&config, faults.disk()) {
                    again.stop().await;
                }
                faults.plan(None);
                assert_durable(root.path(), &durable, &epoch, reported, &case);
                if failed == 0 {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn recorder_keeps_all_events_when_the_disk_recovers() {
    for operation in [Operation::Write, Operation::Sync] {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let faults = Arc::new(Faults::default());
        let recorder = start(&config, faults.disk()).unwrap();
        let mut durable = record_sessions(&recorder, "before", 2).await;
        faults.plan(Some(Plan { operation, first: 1, forever: true, kind: io::ErrorKind::StorageFull }));
        assert_eq!(record_sessions(&recorder, "during", 5).await, [], "{operation:?}");
        assert!(recorder.view().storage_error().is_some());
        faults.plan(None);
        // It tries again by itself.
        let mut events = recorder.view().log.follow(0);
        let recovered = async {
            loop {
                let crate::journal::Next::Lines(lines) = events.next().await.unwrap() else {
                    panic!("a gap")
                };
                if lines.iter().any(|line| line.event_type() == b"storage.recovered") {
                    return;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), recovered).await.unwrap();
        durable.extend(record_sessions(&recorder, "after", 2).await);
        assert_eq!(durable.len(), 4);
        // The events that could not be acknowledged are in the log now.
        durable.extend((0..5).map(|number| SessionId::new(format!("during-{number}"))));
        let bounds = recorder.view().log.bounds();
        let killed = image(root.path());
        assert_durable(
            killed.path(),
            &durable,
            &bounds.epoch,
            bounds.latest,
            &format!("{operation:?}, killed"),
        );
        recorder.stop().await;
        assert_durable(root.path(), &durable, &bounds.epoch, bounds.latest, &format!("{operation:?}"));
    }
}

/// A file of one version.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct File(String);

impl snapshot::Layout for File {
    const VERSION: u32 = 1;

    fn head(&self) -> (u32, u64) {
        (0, 0)
    }
}

#[test]
fn snapshot_is_old_or_new_when_any_disk_call_fails() {
    for operation in OPERATIONS {
        for forever in [false, true] {
            for first in 1.. {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("file.json");
                let faults = Arc::new(Faults::default());
                let disk = faults.disk();
                snapshot::save(&disk, &path, &File("old".to_owned())).unwrap();
                let plan = |first| Some(Plan { operation, first, forever, kind: io::ErrorKind::StorageFull });
                faults.plan(plan(first));
                let saved = snapshot::save(&disk, &path, &File("new".to_owned())).is_ok();
                let failed = faults.failed();
                // What cannot be read for a moment is no reason to set it aside.
                faults.plan(plan(1));
                let read = snapshot::load::<File>(&disk, &path);
                assert!(matches!(read, Err(_) | Ok(Loaded::Good(_))), "{operation:?}: {read:?}");
                faults.plan(None);
                let Loaded::Good(File(found)) = snapshot::load::<File>(&disk, &path).unwrap() else {
                    panic!("{operation:?} {first} forever={forever}: the snapshot is unreadable");
                };
                assert!(found == "new" || (!saved && found == "old"), "{operation:?} {first}: {found}");
                if failed == 0 {
                    assert!(saved);
                    break;
                }
            }
        }
    }
}
