use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn entry(message: &str) -> Entry<'_> {
    Entry { level: "info", event_type: "test.event", message, detail: Some("{\"a\":1}") }
}

fn open(folder: &tempfile::TempDir) -> Journal {
    Journal::open(&folder.path().join("events.jsonl"), 0, 50).unwrap().journal
}

fn append(journal: &mut Journal, messages: &[&str]) {
    let (lines, written) =
        journal.append("2026-01-02T03:04:05.678Z", messages.iter().map(|message| entry(message)));
    written.unwrap();
    journal.publish(&lines);
}

fn follow(journal: &Journal, cursor: u64) -> Subscription {
    Subscription::new(cursor, journal.tail(), journal.reader())
}

fn seqs(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

#[test]
fn a_line_is_the_event_as_the_contract_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder);
    append(&mut journal, &["plain", "with \"quotes\", \\ and \n and \u{1F600}"]);
    let lines = journal.tail().recent(9);
    let event: Value = serde_json::from_slice(lines[1].json()).unwrap();
    assert_eq!(
        event,
        serde_json::json!({
            "seq": 2, "createdAt": "2026-01-02T03:04:05.678Z", "level": "info", "type": "test.event",
            "message": "with \"quotes\", \\ and \n and \u{1F600}", "detail": {"a": 1}
        })
    );
    let frame: Value = serde_json::from_slice(&lines[1].frame()).unwrap();
    assert_eq!(frame, serde_json::json!({"type": "event", "event": event}));
    assert!(lines[1].frame().ends_with(b"\n"));
}

#[test]
fn numbers_go_on_after_a_restart_and_after_what_is_known_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    append(&mut open(&folder), &["a", "b"]);
    let mut journal = open(&folder);
    assert_eq!(seqs(&journal.tail().recent(9)), [1, 2], "the newest lines are in memory again");
    append(&mut journal, &["c"]);
    assert_eq!(journal.tail().latest(), 3);

    let mut journal = Journal::open(&folder.path().join("events.jsonl"), 70, 50).unwrap().journal;
    append(&mut journal, &["d"]);
    assert_eq!(journal.tail().latest(), 71);
}

#[test]
fn an_unfinished_last_line_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    append(&mut open(&folder), &["a", "b"]);
    let path = folder.path().join("events.jsonl");
    let text = std::fs::read(&path).unwrap();
    for cut in 0..text.len() {
        std::fs::write(&path, &text[..cut]).unwrap();
        let opened = Journal::open(&path, 0, 50).unwrap();
        let whole = text[..cut].iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!(opened.journal.tail().latest(), whole, "cut at {cut}");
        let rest = text[..cut].iter().rev().take_while(|&&byte| byte != b'\n').count() as u64;
        assert_eq!(opened.torn_bytes, rest, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_subscription_waits_for_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder);
    append(&mut journal, &["a", "b"]);
    let mut subscription = follow(&journal, 1);
    assert_eq!(seqs(&subscription.next().await.unwrap()), [2]);
    let waiting = tokio::spawn(async move { seqs(&subscription.next().await.unwrap()) });
    append(&mut journal, &["c"]);
    assert_eq!(waiting.await.unwrap(), [3]);
}

#[tokio::test]
async fn a_subscription_that_is_far_behind_reads_the_file_and_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder);
    let long = "x".repeat(3000);
    for _ in 0..40 {
        append(&mut journal, &[long.as_str(); 100]);
    }
    let latest = journal.tail().latest();
    assert!(journal.tail().oldest().unwrap() > 1, "the test needs lines that left the memory");
    let mut subscription = follow(&journal, 7);
    let mut seen = Vec::new();
    while seen.last() != Some(&latest) {
        let lines = subscription.next().await.unwrap();
        assert!(lines.iter().map(Line::len).sum::<usize>() < 512 * 1024, "a step is bounded");
        seen.extend(seqs(&lines));
    }
    assert_eq!(seen, (8..=latest).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_line_longer_than_any_buffer_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder);
    let huge = "y".repeat(6 * 1024 * 1024);
    append(&mut journal, &["a"]);
    append(&mut journal, &[&huge]);
    append(&mut journal, &["b"]);
    let mut subscription = follow(&journal, 0);
    let mut seen = Vec::new();
    while seen.last() != Some(&3) {
        seen.extend(seqs(&subscription.next().await.unwrap()));
    }
    assert_eq!(seen, [1, 2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_cursor_is_found(sizes in prop::collection::vec(0..5000usize, 1..200), cursor in 0..220u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(&folder);
        let texts: Vec<_> = sizes.iter().map(|&size| "z".repeat(size)).collect();
        append(&mut journal, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut found = Vec::new();
        journal.reader().scan(cursor, |seq, _| { found.push(seq); true }).unwrap();
        prop_assert_eq!(found, (cursor + 1..=sizes.len() as u64).collect::<Vec<_>>());
    }
}
