//! Properties that must hold for any input; the fuzz targets in `tests/fuzz` check them.
//!
//! Each function takes any bytes and panics when a property does not hold. Functions that need files get an empty directory
//! and leave it empty. The unit tests run every file of `tests/fuzz/corpus` through the same functions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a property that does not hold ends the program"
)]

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use memchr::memmem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, ReadBuf};

use crate::codex::{
    AppServerEvent, Backlog, CallError, Listener, MessageReader, OnReply, Pending, PendingCall, StderrTail,
    redact,
};
use crate::daemon::ChildFile;
use crate::http::StreamQuery;
use crate::journal::{Bounds, Cursor, Entry, Found, Journal, Limits, MetaFile, Next, OpenFailure, seq_of};
use crate::state::snapshot::{
    self, DaemonFile, FoundRegistry, Identity, Layout, Loaded, RecentFile, RecordsFile,
};
use crate::state::{DaemonState, State};
use crate::storage::Disk;

/// A key that no input contains by chance.
const KEY: &str = "s0kDzXqR7vTnB2mYc8";

/// The output of the app-server: the events do not depend on how it is split.
///
/// The first line determines where the rest is split.
pub fn lines(data: &[u8]) {
    let (cuts, text) = first_line(data);
    let cap = 16 + 16 * usize::from(cuts.first().copied().unwrap_or(u8::MAX));
    let whole = read(vec![text], cap);
    assert_eq!(read(pieces(cuts, text), cap), whole);
    assert_eq!(whole.stdout, text);
    assert_eq!(whole.settled, PENDING_CALLS);
}

/// A cursor: its rendering parses to the same cursor, and its number decides whether it is accepted.
pub fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cursor) = text.parse::<Cursor>() else { return };
    let log = |oldest, latest| {
        let epoch = cursor.epoch.clone().unwrap_or_else(|| "present".to_owned());
        Bounds { epoch, oldest, latest }
    };
    let shown = match &cursor.epoch {
        Some(_) => log(1, 0).cursor(cursor.seq),
        None => cursor.seq.to_string(),
    };
    assert_eq!(shown.parse().as_ref(), Ok(&cursor));
    let (epoch, digits) = text.split_at(text.rfind('-').map_or(0, |dash| dash + 1));
    let digits = digits.trim_start_matches('0');
    assert_eq!(shown, format!("{epoch}{}", if digits.is_empty() { "0" } else { digits }));
    for (oldest, latest) in [(1, 0), (1, 1 << 53), (1 << 20, 1 << 30), (7, 6)] {
        let log = log(oldest, latest);
        match log.check(&cursor) {
            Ok(seq) => assert!(seq == cursor.seq && seq <= latest && seq + 1 >= oldest, "{log:?}"),
            Err(gone) => assert!(cursor.seq > latest || cursor.seq + 1 < oldest, "{gone:?} {log:?}"),
        }
    }
}

/// The query of the event stream: a parsed query parses to the same again after it was rendered.
pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = match StreamQuery::parse(&text) {
        Ok(query) => query,
        Err(sentence) => {
            assert!(sentence.ends_with('.') && !sentence.contains('\n'), "{sentence:?}");
            return;
        }
    };
    assert!((1..=1000).contains(&query.limit()));
    let mut again = form_urlencoded::Serializer::new(String::new());
    again.append_pair("limit", &query.limit().to_string());
    if let Some(cursor) = &query.after {
        let epoch = cursor.epoch.as_ref().map_or(String::new(), |epoch| format!("{epoch}-"));
        again.append_pair("after", &format!("{epoch}{}", cursor.seq));
    }
    again.extend_pairs(query.session_id.iter().map(|id| ("sessionId", id)));
    again.extend_pairs(query.types.iter().map(|prefix| ("type", prefix)));
    again.append_pair("onGap", if query.resyncs() { "resync" } else { "close" });
    assert_eq!(StreamQuery::parse(&again.finish()), Ok(query));
}

/// The stderr tail: it does not depend on how stderr is split, and contains no secret.
///
/// The first line determines where the rest is split.
pub fn redaction(data: &[u8]) {
    let (cuts, text) = first_line(data);
    let tail = |pieces: Vec<&[u8]>| {
        let mut tail = StderrTail::default();
        pieces.into_iter().for_each(|piece| tail.take(piece));
        tail.lines()
    };
    assert_eq!(tail(pieces(cuts, text)), tail(vec![text]));

    let text = String::from_utf8_lossy(text);
    let shown = redact(&text);
    assert_eq!(redact(&shown), shown);
    if text.contains(KEY) {
        return;
    }
    let near: usize = cuts.iter().map(|cut| usize::from(*cut)).sum();
    let middle = (0..=near).rev().find(|middle| text.is_char_boundary(*middle));
    let (before, after) = text.split_at(middle.unwrap_or_default());
    for secret in ["sk-", "Bearer ", "OPENAI_API_KEY=", "\"my_token\": \""] {
        let shown = redact(&format!("{before} {secret}{KEY} {after}"));
        assert!(!shown.contains(KEY), "{shown:?}");
    }
}

/// A state file: what was loaded is the same after it was saved, and an unusable file is kept.
///
/// The first letter of the first line selects the file.
pub fn state_file(data: &[u8], directory: &Path) {
    let (name, content) = first_line(data);
    let path = directory.join("file.json");
    match name.first() {
        Some(b'i') => reload::<Identity>(&path, content),
        Some(b'd') => reload::<DaemonFile<DaemonState>>(&path, content),
        Some(b'r') => reload::<RecentFile<serde_json::Value>>(&path, content),
        Some(b'e') => reload_meta(directory, content),
        Some(b'c') => {
            if let Some(file) = ChildFile::read(content) {
                file.save(&Disk::default(), &path).unwrap();
                let again = ChildFile::read(&fs::read(&path).unwrap()).expect("what was saved");
                assert_eq!(text(&again), text(&file));
            }
        }
        _ => {}
    }
    empty(directory);
}

/// The session registry of any version: like other state files, and the records made from it are the same after they were
/// saved.
pub fn registry(data: &[u8], directory: &Path) {
    let path = directory.join("file.json");
    reload::<RecordsFile>(&path, data);
    if let Ok(Loaded::Good(file)) = snapshot::load::<FoundRegistry>(&Disk::default(), &path) {
        let restore = |file: RecordsFile| {
            let through = file.through_seq;
            let mut state = State::restore(Some(file), None);
            state.skip_through(through);
            state
        };
        let state = restore(file.into_records());
        snapshot::save(&Disk::default(), &path, &RecordsFile::of(&state)).unwrap();
        let again = match snapshot::load(&Disk::default(), &path) {
            Ok(Loaded::Good(again)) => restore(again),
            other => panic!("{other:?}"),
        };
        assert_eq!(again, state);
    }
    empty(directory);
}

/// The event log: it opens for any content of its files, its numbers rise, and appended lines stay.
///
/// Lines of three dashes separate `event-log.json`, a sealed segment and `events.jsonl`; the last one is always present.
pub fn log(data: &[u8], directory: &Path) {
    let mut parts = vec![data];
    while let Some(at) =
        parts.last().and_then(|rest| memmem::find(rest, b"---\n")).filter(|_| parts.len() < 3)
    {
        let rest = parts.pop().unwrap_or_default();
        parts.extend([&rest[..at], &rest[at + 4..]]);
    }
    let names = ["event-log.json", "events-00000000000000000001.jsonl", "events.jsonl"];
    for (name, part) in names.iter().rev().zip(parts.iter().rev()) {
        Disk::default().replace(&directory.join(name), part).unwrap();
    }
    let lines = whole_lines(directory);
    let Some(mut journal) = open_log(directory) else {
        assert_eq!(whole_lines(directory), lines, "a log in a newer format is not changed");
        return empty(directory);
    };
    let old = numbers(&journal);
    let before = journal.log().bounds();
    assert!(old.last().is_none_or(|last| *last <= before.latest), "{old:?} {before:?}");

    let entry = Entry::new("info", "test.event", "added", Some("{\"a\":1}"));
    let mut added = Vec::new();
    for _ in 0..2 {
        let lines = journal.append("2026-01-02T03:04:05.678Z", [entry; 2].into_iter());
        added.extend(lines.iter().map(|line| line.seq));
        journal.publish(lines);
    }
    assert_eq!(journal.failing(), None);
    assert_eq!(added, (before.latest + 1..=before.latest + 4).collect::<Vec<_>>());
    let all = [old, added.clone()].concat();
    assert_eq!(numbers(&journal), all);
    assert_eq!(follow(&journal, before.latest), added);
    journal.log().scrub(before.latest).unwrap();

    let epoch = journal.log().bounds().epoch;
    journal.close().unwrap();
    drop(journal);
    let journal = open_log(directory).expect("the log has the present format");
    let after = journal.log().bounds();
    assert_eq!((after.epoch, after.latest), (epoch, before.latest + 4));
    let again = numbers(&journal);
    // A line that was damaged to a number that is assigned later counts from then on.
    if lines.iter().all(|line| seq_of(line).is_none_or(|seq| seq <= before.latest)) {
        assert_eq!(again, all);
    }
    drop(journal);
    assert!(lines.is_subset(&whole_lines(directory)), "a line is lost");
    empty(directory);
}

/// The first line and the rest.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'\n', data) {
        Some(newline) => (&data[..newline], &data[newline + 1..]),
        None => (&[], data),
    }
}

/// The text in pieces of the lengths in `cuts`, which repeat.
fn pieces<'a>(cuts: &[u8], mut text: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts.iter().filter(|cut| **cut > 0).cycle() {
        if text.len() <= usize::from(*cut) {
            break;
        }
        let (piece, rest) = text.split_at(usize::from(*cut));
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn empty(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        Disk::default().remove(&entry.unwrap().path()).unwrap();
    }
}

/// How many calls are pending while the output is read.
const PENDING_CALLS: usize = 8;

/// What the message reader delivered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    events: Vec<String>,
    stdout: Vec<u8>,
    settled: usize,
}

struct EventCollector(Arc<Mutex<Output>>);

impl Listener for EventCollector {
    fn on_event(&mut self, event: AppServerEvent<'_>) {
        let mut output = self.0.lock().unwrap();
        match event {
            AppServerEvent::Stdout(block) => output.stdout.extend_from_slice(&block),
            AppServerEvent::Notification { params, .. } | AppServerEvent::Request { params, .. } => {
                serde_json::from_str::<&RawValue>(params).expect("parameters are JSON");
                output.events.push(format!("{event:?}"));
            }
            other => output.events.push(format!("{other:?}")),
        }
    }

    fn flush(&mut self) {}
}

struct ReplyCollector(Arc<Mutex<Output>>);

impl OnReply for ReplyCollector {
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>) {
        let mut output = self.0.lock().unwrap();
        output.events.push(format!("{outcome:?}"));
        output.settled += 1;
    }
}

/// Reads the output of an app-server that arrives in these pieces.
fn read(pieces: Vec<&[u8]>, cap: usize) -> Output {
    let output = Arc::<Mutex<Output>>::default();
    let pending = Arc::new(Pending::default());
    for _ in 0..PENDING_CALLS {
        let (call, _) = PendingCall::new("".into(), Arc::default(), ReplyCollector(Arc::clone(&output)));
        assert!(pending.register(call).is_ok());
    }
    let mut reader = MessageReader::new(pending, EventCollector(Arc::clone(&output)), Backlog::new());
    let stream = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect());
    let end = reader.read_lines(stream, cap).now_or_never().expect("the stream never waits");
    drop(reader);
    let mut output = std::mem::take(&mut *output.lock().unwrap());
    output.events.push(format!("{end:?}"));
    output
}

/// A stream that returns one piece after the other.
struct Pieces<'a>(VecDeque<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            let (now, later) = piece.split_at(piece.len().min(into.remaining()));
            into.put_slice(now);
            if !later.is_empty() {
                self.0.push_front(later);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn reload<T: Serialize + DeserializeOwned + Debug + Layout>(path: &Path, content: &[u8]) {
    let disk = Disk::default();
    disk.replace(path, content).unwrap();
    match snapshot::load::<T>(&disk, path).unwrap() {
        Loaded::Good(first) => {
            snapshot::save(&disk, path, &first).unwrap();
            match snapshot::load::<T>(&disk, path).unwrap() {
                Loaded::Good(second) => assert_eq!(text(&second), text(&first)),
                other => panic!("{other:?}"),
            }
        }
        Loaded::SetAside { moved_to, .. } => {
            assert_eq!(fs::read(moved_to).unwrap(), content);
            assert!(!path.exists());
        }
        Loaded::Newer { version, known } => {
            assert!(version > known && known == T::VERSION);
            assert_eq!(fs::read(path).unwrap(), content);
        }
        Loaded::Missing => panic!("the file is missing"),
    }
}

fn reload_meta(directory: &Path, content: &[u8]) {
    let disk = Disk::default();
    let path = directory.join("event-log.json");
    disk.replace(&path, content).unwrap();
    let file = MetaFile::new(directory, disk);
    match file.load().unwrap() {
        Found::Good(first) | Found::Copied(first) => {
            file.save(&first).unwrap();
            match file.load().unwrap() {
                Found::Good(second) => assert_eq!(second, first),
                other => panic!("{other:?}"),
            }
        }
        Found::Newer(_) => assert_eq!(fs::read(&path).unwrap(), content),
        Found::Bad(_) => assert!(!path.exists()),
        Found::Missing => panic!("the file is missing"),
    }
}

/// Opens the log; `None` if a newer version of the program wrote it.
fn open_log(directory: &Path) -> Option<Journal> {
    // Small, so that segments are sealed.
    let limits = Limits { segment_bytes: 512, total_bytes: 1 << 40 };
    match Journal::open(directory, Disk::default(), limits, 0, 50) {
        Ok(opened) => Some(opened.journal),
        Err(OpenFailure::Newer { .. }) => None,
        Err(OpenFailure::Io(error)) => panic!("the log does not open: {error}"),
    }
}

/// The numbers of all lines; checks that they rise.
fn numbers(journal: &Journal) -> Vec<u64> {
    let mut numbers = Vec::new();
    let note = |seq, json: &[u8]| {
        assert!(!json.contains(&b'\n'));
        numbers.push(seq);
        true
    };
    journal.log().scan(0, note).unwrap();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    numbers
}

/// All lines of all files of the log.
fn whole_lines(directory: &Path) -> BTreeSet<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("events"));
    let whole = |text: Vec<u8>| {
        let lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.into_iter().filter(|line| line.ends_with(b"\n"))
    };
    logs.flat_map(|entry| whole(fs::read(entry.path()).unwrap())).collect()
}

/// The numbers of the lines that a subscription delivers.
fn follow(journal: &Journal, cursor: u64) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut reader = journal.log().follow(cursor);
    let mut numbers = Vec::new();
    while let Some(next) = runtime.block_on(reader.step()).unwrap() {
        match next {
            Next::Lines(lines) => numbers.extend(lines.iter().map(|line| line.seq)),
            Next::Missing(hole) => reader.jump(hole.through),
            Next::Expired => panic!("what follows {} is gone", reader.cursor()),
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the corpus of a target.
    fn run(target: &str, property: impl Fn(&[u8], &Path)) {
        let directory = tempfile::tempdir().unwrap();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let data = fs::read(entry.unwrap().path()).unwrap();
            property(&data, directory.path());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }

    #[test]
    fn properties_hold_for_the_corpora() {
        run("lines", |data, _| lines(data));
        run("cursor", |data, _| cursor(data));
        run("query", |data, _| query(data));
        run("redaction", |data, _| redaction(data));
        run("state_file", state_file);
        run("registry", registry);
        run("log", log);
    }
}
