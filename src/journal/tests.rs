mod backup;
mod interleavings;

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::segments::{ACTIVE_FILE, sealed};
use super::*;
use crate::storage::Disk;
use crate::storage::faults::{Faults, Plan};

pub(super) const ROOMY: Limits = Limits { segment_bytes: 1 << 30, total_bytes: 1 << 40 };

pub(super) fn open_with(directory: &Path, disk: Disk, limits: Limits) -> Opened {
    Journal::open(directory, disk, limits, 0, 50).unwrap()
}

fn open(directory: &Path) -> Journal {
    open_with(directory, Disk::default(), ROOMY).journal
}

fn entry(message: &str) -> Entry<'_> {
    Entry::new("info", "test.event", message, Some("{\"a\":1}"))
}

pub(super) fn append(journal: &mut Journal, messages: &[&str]) {
    let lines = journal.append("2026-01-02T03:04:05.678Z", messages.iter().map(|message| entry(message)));
    journal.publish(lines);
}

fn seqs(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

async fn next(subscription: &mut Subscription) -> Vec<u64> {
    match subscription.next().await.unwrap() {
        Next::Lines(lines) => seqs(&lines),
        other => panic!("unexpected state of the next line: {other:?}"),
    }
}

/// Everything after the cursor, up to and including the latest number.
async fn read_through(journal: &Journal, cursor: u64, latest: u64) -> Vec<u64> {
    let mut subscription = journal.log().follow(cursor);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|&last| last < latest) {
        seen.extend(next(&mut subscription).await);
    }
    seen
}

pub(super) fn on_disk(journal: &Journal, cursor: u64) -> Vec<u64> {
    let mut found = Vec::new();
    journal
        .log()
        .scan(cursor, |seq, _| {
            found.push(seq);
            true
        })
        .unwrap();
    found
}

#[test]
fn line_has_the_format_of_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["plain", "with \"quotes\", \\ and \n and \u{1F600}"]);
    let lines = journal.log().recent(9);
    let event: Value = serde_json::from_slice(lines[1].json()).unwrap();
    assert_eq!(
        event,
        serde_json::json!({
            "seq": 2, "createdAt": "2026-01-02T03:04:05.678Z", "level": "info", "type": "test.event",
            "message": "with \"quotes\", \\ and \n and \u{1F600}", "detail": {"a": 1}
        })
    );
    let frame: Value = serde_json::from_slice(lines[1].message()).unwrap();
    assert_eq!(frame, serde_json::json!({"type": "event", "event": event}));
    assert!(lines[1].message().ends_with(b"\n"));
    assert_eq!(lines[1].event_type(), b"test.event");
}

#[test]
fn orderly_stop_leaves_no_gap_in_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b"]);
    journal.close().unwrap();
    let epoch = journal.log().bounds().epoch;
    let mut journal = open(directory.path());
    assert_eq!(seqs(&journal.log().recent(9)), [1, 2], "the newest lines are in memory again");
    append(&mut journal, &["c"]);
    assert_eq!(journal.log().bounds(), Bounds { epoch, oldest: 1, latest: 3 });
}

#[test]
fn crash_skips_numbers_that_may_have_been_published() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b"]);
    let epoch = journal.log().bounds().epoch;
    drop(journal);
    // The power cut removed the second line.
    let path = directory.path().join(ACTIVE_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.lines().next().unwrap().to_owned() + "\n").unwrap();
    let opened = open_with(directory.path(), Disk::default(), ROOMY);
    let mut journal = opened.journal;
    append(&mut journal, &["c"]);
    let bounds = journal.log().bounds();
    assert!(bounds.latest > 2, "2 was published");
    assert_eq!(bounds.epoch, epoch, "nothing that was synced is missing");
    assert!(opened.notices.iter().any(|notice| notice.message.contains("skipped")), "{:?}", opened.notices);
    // A client with event 2 reads on without a hole.
    assert_eq!(bounds.check(&"2".parse().unwrap()), Ok(2));
    assert_eq!(on_disk(&journal, 2), [bounds.latest]);
}

#[tokio::test]
async fn line_without_reserved_number_is_not_published() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut journal = open_with(directory.path(), faults.disk(), ROOMY).journal;
    append(&mut journal, &["a", "b"]);
    // After an orderly stop nothing is reserved.
    journal.close().unwrap();
    let mut journal = open_with(directory.path(), faults.disk(), ROOMY).journal;
    let mut subscription = journal.log().follow(2);
    let kind = std::io::ErrorKind::StorageFull;
    faults.plan(Some(Plan { operation: crate::storage::Operation::Write, first: 1, forever: true, kind }));
    append(&mut journal, &["c"]);
    append(&mut journal, &["d"]);
    assert!(journal.failing().is_some());
    assert_eq!((journal.log().bounds().latest, seqs(&journal.log().recent(9))), (2, vec![1, 2]));
    assert!(subscription.step().await.unwrap().is_none());
    // A run after a kill may use the numbers, because no client has seen them.
    let image = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), image.path().join(file.file_name())).unwrap();
    }
    let mut other = open(image.path());
    append(&mut other, &["another c"]);
    assert_eq!(other.log().bounds().latest, 3);

    faults.plan(None);
    assert_eq!(journal.recover().unwrap(), Recovered { lost: None });
    assert_eq!(next(&mut subscription).await, [3, 4]);
    assert_eq!(seqs(&journal.log().recent(9)), [1, 2, 3, 4]);
    assert_eq!(on_disk(&journal, 0), [1, 2, 3, 4]);
}

#[test]
fn lost_log_gets_a_new_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b"]);
    journal.close().unwrap();
    let epoch = journal.log().bounds().epoch;
    std::fs::remove_file(directory.path().join(ACTIVE_FILE)).unwrap();
    let opened = open_with(directory.path(), Disk::default(), ROOMY);
    let bounds = opened.journal.log().bounds();
    assert_ne!(bounds.epoch, epoch);
    assert_eq!(bounds.latest, 2, "numbers are never used twice all the same");
    let old = format!("{epoch}-1").parse().unwrap();
    assert_eq!(bounds.check(&old), Err(CursorExpired::OtherEpoch));

    // The same when the state files know more events than the log has.
    let known = Journal::open(directory.path(), Disk::default(), ROOMY, 77, 50).unwrap().journal;
    assert_eq!(known.log().bounds().latest, 77);
}

#[test]
fn log_opens_after_any_truncation_and_sets_the_torn_line_aside() {
    let directory = tempfile::tempdir().unwrap();
    append(&mut open(directory.path()), &["a", "b", "c"]);
    let path = directory.path().join(ACTIVE_FILE);
    let meta = std::fs::read(directory.path().join("event-log.json")).unwrap();
    let text = std::fs::read(&path).unwrap();
    for cut in 0..text.len() {
        std::fs::write(&path, &text[..cut]).unwrap();
        std::fs::write(directory.path().join("event-log.json"), &meta).unwrap();
        let journal = open(directory.path());
        let whole = text[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!(on_disk(&journal, 0), (1..=whole).collect::<Vec<_>>(), "cut at {cut}");
        let torn: Vec<u8> = text[..cut].iter().rev().take_while(|&&byte| byte != b'\n').copied().collect();
        if !torn.is_empty() {
            let aside = std::fs::read(directory.path().join("events.torn")).unwrap();
            assert!(aside.iter().rev().eq(torn.iter()), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn subscription_waits_for_new_lines() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b"]);
    let mut subscription = journal.log().follow(1);
    assert_eq!(next(&mut subscription).await, [2]);
    let waiting = tokio::spawn(async move { next(&mut subscription).await });
    append(&mut journal, &["c"]);
    assert_eq!(waiting.await.unwrap(), [3]);
}

#[tokio::test]
async fn subscription_far_behind_reads_files_and_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 500_000, ..ROOMY };
    let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
    let long = "x".repeat(3000);
    for _ in 0..40 {
        append(&mut journal, &[long.as_str(); 100]);
    }
    let latest = journal.log().bounds().latest;
    assert!(journal.log().tail.oldest().unwrap() > 1, "the test needs lines that left the memory");
    assert!(sealed(directory.path()).unwrap().len() > 5, "the test needs several segments");
    assert_eq!(read_through(&journal, 7, latest).await, (8..=latest).collect::<Vec<_>>());
}

#[tokio::test]
async fn line_longer_than_any_buffer_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let huge = "y".repeat(6 * 1024 * 1024);
    append(&mut journal, &["a"]);
    append(&mut journal, &[&huge]);
    append(&mut journal, &["b"]);
    assert_eq!(read_through(&journal, 0, 3).await, [1, 2, 3]);
}

#[test]
fn rotation_during_a_scrub_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1_000, total_bytes: 20_000 };
    let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
    append(&mut journal, &["first"]);
    let log = journal.log();
    let writing = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..1_000).for_each(|_| append(&mut journal, &["one", "two", "three"]));
            writing.store(false, std::sync::atomic::Ordering::Relaxed);
        });
        while writing.load(std::sync::atomic::Ordering::Relaxed) {
            let damage = log.scrub(log.bounds().latest).unwrap();
            assert!(damage.is_empty(), "{damage:?}");
        }
    });
}

#[test]
fn rotation_does_not_seal_a_file_that_replaced_the_active_one_or_was_cut_off() {
    let limits = Limits { segment_bytes: 1_000, total_bytes: 1 << 30 };
    let replace = |active: &Path| {
        let older = active.with_extension("older");
        let text = std::fs::read_to_string(active).unwrap();
        std::fs::write(&older, text.split_inclusive('\n').next().unwrap()).unwrap();
        std::fs::rename(older, active).unwrap();
    };
    let cut_off = |active: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(active).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    for damage in [&replace as &dyn Fn(&Path), &cut_off] {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
        append(&mut journal, &["one", "two", "three"]);
        journal.sync().sync().unwrap();
        damage(&directory.path().join(ACTIVE_FILE));
        for _ in 0..10 {
            append(&mut journal, &["more", "and more"]);
        }
        journal.sync().sync().unwrap_err();
        assert_eq!(journal.recover().unwrap(), Recovered { lost: None });
        append(&mut journal, &["the last one"]);
        journal.sync().sync().unwrap();
        assert_eq!(on_disk(&journal, 0), (1..=24).collect::<Vec<_>>());
        assert_eq!(journal.log().scrub(24).unwrap(), []);
    }
}

#[tokio::test]
async fn log_stays_within_its_size_and_reports_removed_events() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 10_000, total_bytes: 50_000 };
    let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
    let mut slow = journal.log().follow(0);
    let long = "x".repeat(500);
    for _ in 0..2_000 {
        append(&mut journal, &[&long]);
    }
    let total: u64 = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(total <= 60_000, "{total} bytes");
    let bounds = journal.log().bounds();
    assert!(bounds.oldest > 1_800 && bounds.oldest < 2_000, "{bounds:?}");
    assert_eq!(bounds.check(&"0".parse().unwrap()), Err(CursorExpired::Expired));
    assert_eq!(on_disk(&journal, 0), (bounds.oldest..=2_000).collect::<Vec<_>>());
    // A subscription at removed lines gets `Next::Expired`, unless memory still has them.
    let long = "x".repeat(200_000);
    for _ in 0..40 {
        append(&mut journal, &[&long]);
    }
    assert!(matches!(slow.next().await.unwrap(), Next::Expired));

    journal.close().unwrap();
    let again = open_with(directory.path(), Disk::default(), limits).journal;
    assert_eq!(again.log().bounds().oldest, journal.log().bounds().oldest);
}

#[test]
fn damage_in_the_middle_is_found_reported_and_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b", "c", "d", "e"]);
    journal.close().unwrap();
    let path = directory.path().join(ACTIVE_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[1].replace_range(10..12, "\0\0");
    lines[2] = lines[2].replace('}', "");
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let journal = open(directory.path());
    let damage = journal.log().scrub(5).unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((damage[0].after, damage[0].before), (1, Some(4)));
    assert_eq!(damage[0].key, (1, lines[0].len() as u64 + 1));
    let mut position = match journal.log().seek(0).unwrap() {
        super::log::Seek::At(position) => position,
        super::log::Seek::Expired => panic!("the log begins at 1"),
    };
    assert_eq!(
        seqs(&position.lines(0, u64::MAX, 99, 1 << 20).unwrap()),
        [1, 4, 5],
        "no reader receives a damaged line"
    );
}

#[test]
fn implausible_number_is_damage_and_not_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["a", "b"]);
    journal.close().unwrap();
    let path = directory.path().join(ACTIVE_FILE);
    let text =
        std::fs::read_to_string(&path).unwrap().replace("{\"seq\":2,", "{\"seq\":18446744073709551615,");
    std::fs::write(&path, text).unwrap();
    let mut journal = open(directory.path());
    append(&mut journal, &["c"]);
    assert_eq!(journal.log().bounds().latest, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_cursor_is_found_in_any_segments(
        sizes in prop::collection::vec(0..5000usize, 1..200), cursor in 0..220u64, segment_bytes in 1_000..200_000u64,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = open_with(directory.path(), Disk::default(), Limits { segment_bytes, ..ROOMY }).journal;
        for size in &sizes {
            append(&mut journal, &[&"z".repeat(*size)]);
        }
        let expected: Vec<_> = (cursor + 1..=sizes.len() as u64).collect();
        prop_assert_eq!(on_disk(&journal, cursor), expected.clone());
        prop_assert_eq!(on_disk(&open(directory.path()), cursor), expected);
    }

    #[test]
    fn log_opens_after_any_bit_flips(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32, any::<bool>()), 1..20),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits { segment_bytes: 400, ..ROOMY };
        let mut journal = open_with(directory.path(), Disk::default(), limits).journal;
        for number in 0..10 {
            append(&mut journal, &[&format!("event {number}")]);
        }
        drop(journal);
        for (place, bit, in_meta) in flips {
            let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap()
                .map(|file| file.unwrap().path())
                .filter(|path| path.ends_with("event-log.json") == in_meta)
                .collect();
            let path = place.get(&files);
            let mut text = std::fs::read(path).unwrap();
            if !text.is_empty() {
                let at = place.index(text.len());
                text[at] ^= 1 << bit;
                std::fs::write(path, text).unwrap();
            }
        }
        let opened = match Journal::open(directory.path(), Disk::default(), limits, 0, 50) {
            // A flip made the version of the format one that only a newer codexd knows, so the log is left alone.
            Err(OpenFailure::Newer { .. }) => return Ok(()),
            opened => opened.unwrap(),
        };
        let mut journal = opened.journal;
        journal.log().scrub(u64::MAX).unwrap();
        append(&mut journal, &["after"]);
        let read = on_disk(&journal, 0);
        prop_assert!(read.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", read);
        prop_assert_eq!(read.last().copied(), Some(journal.log().bounds().latest));
    }
}

#[test]
fn disk_failure_at_any_call_loses_no_synced_event_and_recovers() {
    use crate::storage::Operation;
    for operation in [
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::Open,
        Operation::Truncate,
        Operation::Remove,
    ] {
        for forever in [false, true] {
            for first in 1.. {
                let directory = tempfile::tempdir().unwrap();
                let faults = Arc::new(Faults::default());
                let limits = Limits { segment_bytes: 1_500, total_bytes: 1 << 30 };
                let mut journal = open_with(directory.path(), faults.disk(), limits).journal;
                faults.plan(Some(Plan { operation, first, forever, kind: std::io::ErrorKind::StorageFull }));
                let mut synced = 0;
                for number in 0..40 {
                    let _ = journal.recover();
                    append(&mut journal, &[&format!("event {number}"), "and another"]);
                    if journal.failing().is_none() && journal.sync().sync().is_ok() {
                        synced = journal.log().bounds().latest;
                    }
                }
                let failed = faults.failed();
                let published = journal.next_seq - 1;
                let case = format!("{operation:?} {first} forever={forever}");
                assert_eq!(
                    on_disk(&journal, 0),
                    (1..=on_disk(&journal, 0).len() as u64).collect::<Vec<_>>(),
                    "{case}"
                );
                assert!(on_disk(&journal, 0).len() as u64 >= synced, "{case}: what was synced is there");

                // Space is free again: everything is written, because memory still has it.
                faults.plan(None);
                assert_eq!(journal.recover().unwrap(), Recovered { lost: None }, "{case}");
                assert_eq!(journal.failing(), None, "{case}");
                journal.sync().sync().unwrap();
                assert_eq!(on_disk(&journal, 0), (1..=published).collect::<Vec<_>>(), "{case}");

                // Then the same fault while the next run opens the log.
                drop(journal);
                faults.plan(Some(Plan {
                    operation,
                    first: 1,
                    forever: false,
                    kind: std::io::ErrorKind::StorageFull,
                }));
                let opened = Journal::open(directory.path(), faults.disk(), limits, 0, 50);
                drop(opened);
                faults.plan(None);
                let journal = open_with(directory.path(), faults.disk(), limits).journal;
                assert_eq!(on_disk(&journal, 0), (1..=published).collect::<Vec<_>>(), "{case}, opened again");
                if failed == 0 {
                    break;
                }
            }
        }
    }
}
