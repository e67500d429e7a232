//! Copies of a log that is written, cut into segments and shortened all the time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tempfile::TempDir;

use super::{ROOMY, append, on_disk, open, open_with};
use crate::journal::segments::{ACTIVE_FILE, sealed};
use crate::journal::{CopiedLog, Hole, Journal, Limits, copy};
use crate::storage::Disk;
use crate::storage::faults::Faults;

/// A disk that syncs nothing, which would take most of the time here.
fn unsynced() -> Disk {
    Arc::new(Faults::default()).disk()
}

fn copied(from: &TempDir) -> (CopiedLog, TempDir) {
    let to = tempfile::tempdir().unwrap();
    let copied = copy(&unsynced(), from.path(), to.path()).unwrap();
    (copied, to)
}

/// The numbers of a copy, by opening it; it has to be another log than `epoch`.
fn opened(to: &TempDir, epoch: &str) -> Vec<u64> {
    let opened = open_with(to.path(), Disk::default(), ROOMY);
    assert_ne!(opened.journal.log().bounds().epoch, epoch, "{:?}", opened.notices);
    assert!(opened.notices.iter().any(|notice| notice.message.contains("is a copy")), "{:?}", opened.notices);
    assert_eq!(opened.journal.log().scrub(u64::MAX).unwrap().len(), 0);
    on_disk(&opened.journal, 0)
}

#[test]
fn copy_during_rotation_misses_no_line() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 700, total_bytes: 40_000 };
    let mut journal = open_with(directory.path(), unsynced(), limits).journal;
    append(&mut journal, &["first"]);
    let epoch = journal.log().bounds().epoch;
    let (written, over) = (AtomicU64::new(1), AtomicBool::new(false));
    let (mut most, mut moved) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut journal = journal;
            // Bounded, so that a failure of the other thread ends the test.
            for _ in 0..200_000 {
                if over.load(Ordering::Acquire) {
                    break;
                }
                append(&mut journal, &["one", "two", "three"]);
                // The files that were sealed stay open until they are synced.
                journal.sync().sync().unwrap();
                assert_eq!(journal.failing(), None);
                written.store(journal.log().bounds().latest, Ordering::Release);
            }
        });
        for _ in 0..20 {
            let (oldest, before) = (sealed(directory.path()).unwrap(), written.load(Ordering::Acquire));
            let (copied, to) = copied(&directory);
            let (first, last) = copied.events.unwrap();
            assert_eq!(copied.holes, []);
            assert!(last >= before, "{last} of {before}");
            assert_eq!(opened(&to, &epoch), (first..=last).collect::<Vec<_>>());
            most = most.max(sealed(to.path()).unwrap().len());
            moved += u32::from(oldest != sealed(directory.path()).unwrap());
        }
        over.store(true, Ordering::Release);
    });
    assert!(most > 3 && moved > 3, "the test needs rotations: {most} segments, {moved} copies with one");
}

#[test]
fn copy_of_a_closed_log_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 300, total_bytes: 1 << 40 };
    let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
    for _ in 0..9 {
        append(&mut journal, &["one", "two"]);
    }
    journal.close().unwrap();
    let epoch = journal.log().bounds().epoch;
    drop(journal);
    let (copied, to) = copied(&directory);
    assert_eq!((copied.events, copied.holes), (Some((1, 18)), vec![]));
    let size = |directory: &TempDir| -> u64 {
        let files = sealed(directory.path()).unwrap().into_iter().map(|segment| segment.path);
        files
            .chain([directory.path().join(ACTIVE_FILE), directory.path().join("event-log.json")])
            .map(|path| fs::metadata(path).unwrap().len())
            .sum()
    };
    assert_eq!(copied.bytes, size(&to));
    assert_eq!(opened(&to, &epoch), (1..=18).collect::<Vec<_>>());
}

#[test]
fn copy_reports_missing_lines_but_not_skipped_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 300, total_bytes: 1 << 40 };
    let open_small = || -> Journal { open_with(directory.path(), Disk::default(), limits).journal };
    append(&mut open_small(), &["a", "b", "c", "d"]);
    let mut journal = open_small();
    append(&mut journal, &["after a crash"]);
    let last = journal.log().bounds().latest;
    assert!(last > 5);
    let (whole, _to) = copied(&directory);
    assert_eq!((whole.events, whole.holes), (Some((1, last)), vec![]));

    // Half a line, as a reader may find it during a write, is not in the copy.
    let path = directory.path().join(ACTIVE_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}{{\"seq\":")).unwrap();
    let (_, to) = copied(&directory);
    assert_eq!(fs::read_to_string(to.path().join(ACTIVE_FILE)).unwrap(), text);

    let segment = sealed(directory.path()).unwrap().remove(0);
    let text = fs::read_to_string(&segment.path).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("{\"seq\":2,")).collect();
    fs::write(&segment.path, lines.join("\n") + "\n").unwrap();
    let (damaged, _to) = copied(&directory);
    assert_eq!(damaged.holes, [Hole { from: 2, through: 2 }], "the log itself has it no more");
    drop(open(directory.path()));
}
