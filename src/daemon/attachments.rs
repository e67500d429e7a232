//! Data URLs in inputs and items, such as images: the data is stored once, in a file beside the log, and named in its place.
//!
//! The recorder stores the data of an event before it writes the event, the queue puts it back before it sends a turn, and
//! the snapshot writer removes files that nothing names any more. A file has the SHA-256 of its content as its name.
//! **Invariant**: the file that a queued turn names is on disk before the turn is acknowledged, and stays until the turn has left
//! the queue.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, HEXLOWER};
use memchr::{memchr, memmem};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::journal::Log;
use crate::state::{EventDetail, NewEvent, State, TurnEvent};
use crate::storage::Disk;

/// A shorter data URL stays where it is.
const MIN_URL_BYTES: usize = 16 * 1024;
/// The longest media type with its parameters.
const MAX_MEDIA_TYPE_BYTES: usize = 100;
/// What a reference begins with; the name of the file and the media type follow.
const PREFIX: &str = "codexd-attachment:";
/// The characters of the name of a file.
const NAME_CHARS: usize = 64;
/// The clock may be set back by so much between an event and its file.
const CLOCK_STEP: Duration = Duration::from_secs(3600);

/// The files; clones share what is known of them.
#[derive(Debug, Clone)]
pub(crate) struct Attachments {
    disk: Disk,
    directory: Arc<Path>,
    checks: Arc<Checks>,
}

/// When unused files were last searched for.
#[derive(Debug, Default)]
struct Checks {
    /// The oldest event of the log at that time.
    oldest: AtomicU64,
    /// Whether a file was stored since then.
    stored: AtomicBool,
}

/// A data URL in parts.
struct DataUrl<'a> {
    media_type: &'a str,
    data: Vec<u8>,
}

impl<'a> DataUrl<'a> {
    /// Reads a long data URL that can be made again to the byte.
    fn read(url: &'a str) -> Option<Self> {
        if url.len() < MIN_URL_BYTES {
            return None;
        }
        let (media_type, text) = url.strip_prefix("data:")?.split_once(";base64,")?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/+-.;=_".contains(&byte);
        if media_type.len() > MAX_MEDIA_TYPE_BYTES || !media_type.bytes().all(is_plain) {
            return None;
        }
        // Rejects every text but the one that encoding the data gives.
        let data = BASE64.decode(text.as_bytes()).ok()?;
        Some(Self { media_type, data })
    }
}

/// The name of a file and the media type in a reference.
fn parts(reference: &str) -> Option<(&str, &str)> {
    let (name, media_type) = reference.strip_prefix(PREFIX)?.split_once(';')?;
    is_name(name).then_some((name, media_type))
}

fn is_name(name: &str) -> bool {
    name.len() == NAME_CHARS && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Calls `visit` with every text in a value.
fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_text(value, visit)),
        Value::Object(fields) => fields.values_mut().for_each(|value| each_text(value, visit)),
        _ => {}
    }
}

/// The files that an input names.
fn names_in(input: &[Value]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for value in input.iter().filter(|value| value.to_string().contains(PREFIX)) {
        each_text(&mut value.clone(), &mut |text| names.extend(parts(text).map(|(name, _)| name.to_owned())));
    }
    names
}

impl Attachments {
    pub(crate) fn new(disk: Disk, directory: &Path) -> Self {
        Self { disk, directory: directory.into(), checks: Arc::default() }
    }

    /// Replaces long data URLs of an event by references; data that cannot be stored stays in the event.
    pub(crate) fn store_in_event(&self, event: &mut NewEvent) {
        if event.text_len() < MIN_URL_BYTES {
            return;
        }
        // The records have the input of a queued turn too.
        if let NewEvent::Other(other) = &mut *event
            && let EventDetail::Turn(TurnEvent::Queued { turn, .. }) = &mut other.detail
        {
            for value in &mut turn.input {
                each_text(value, &mut |text| {
                    if let Some(reference) = self.store(text) {
                        *text = reference;
                    }
                });
            }
            *event = NewEvent::from(event.detail().clone());
        } else if let EventDetail::Turn(TurnEvent::ItemRead { .. }) | EventDetail::Notification(_) =
            event.detail()
            && let Some(json) = event.json().and_then(|json| self.store_in_text(&json))
        {
            event.set_json(json);
        }
    }

    /// The JSON with references; `None` when it has no data to store.
    fn store_in_text(&self, json: &str) -> Option<String> {
        let mut replaced = String::new();
        let mut rest = json;
        while let Some(at) = memmem::find(rest.as_bytes(), b"\"data:") {
            let (before, url) = rest.split_at_checked(at + 1)?;
            let (url, after) = url.split_at_checked(memchr(b'"', url.as_bytes())?)?;
            replaced.push_str(before);
            match self.store(url) {
                Some(reference) => replaced.push_str(&reference),
                None => replaced.push_str(url),
            }
            rest = after;
        }
        replaced.push_str(rest);
        (replaced.len() != json.len()).then_some(replaced)
    }

    /// Stores the data of a long data URL; returns the reference to it.
    fn store(&self, url: &str) -> Option<String> {
        let DataUrl { media_type, data } = DataUrl::read(url)?;
        let name = HEXLOWER.encode(&Sha256::digest(&data));
        if let Err(error) = self.write(&self.directory.join(&name), &data) {
            tracing::warn!(%error, "failed to store an attachment; it stays in the event log");
            return None;
        }
        self.checks.stored.store(true, Ordering::Relaxed);
        Some(format!("{PREFIX}{name};{media_type}"))
    }

    fn write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.len() == data.len() as u64) {
            // It is not older than the event that names it.
            return self.disk.touch(path);
        }
        self.disk.create_directory(&self.directory)?;
        self.disk.replace(path, data)
    }

    /// Whether an input has references.
    pub(crate) fn are_in(input: &[Value]) -> bool {
        !names_in(input).is_empty()
    }

    /// Puts the data URLs back into an input.
    pub(crate) fn restore(&self, mut input: Vec<Value>) -> io::Result<Vec<Value>> {
        let mut failure = None;
        for value in &mut input {
            each_text(value, &mut |text| {
                let Some((name, media_type)) = parts(text) else { return };
                match self.disk.read(&self.directory.join(name)) {
                    Ok(Some(data)) => *text = format!("data:{media_type};base64,{}", BASE64.encode(&data)),
                    Ok(None) => failure = Some(io::ErrorKind::NotFound.into()),
                    Err(error) => failure = Some(error),
                }
            });
        }
        failure.map_or(Ok(input), Err)
    }

    /// Removes files that neither the log nor a queued turn names, and the oldest ones that no queued turn names while all
    /// together are longer than `max_bytes`.
    pub(crate) fn remove_unused(&self, log: &Log, state: impl FnOnce() -> BTreeSet<String>, max_bytes: u64) {
        let oldest = log.bounds().oldest;
        let was = self.checks.oldest.swap(oldest, Ordering::Relaxed);
        if !self.checks.stored.swap(false, Ordering::Relaxed) && was == oldest {
            return;
        }
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let since = time_of(log, oldest).and_then(|time| time.checked_sub(CLOCK_STEP));
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect();
        // The newest first.
        files.sort_by(|a, b| b.cmp(a));
        let queued = state();
        let mut total = 0;
        for (modified, bytes, path) in files {
            total += bytes;
            let is_queued = path.file_name().is_some_and(|name| queued.contains(&*name.to_string_lossy()));
            let is_unused = since.is_some_and(|since| modified < since) || total > max_bytes;
            if is_unused
                && !is_queued
                && let Err(error) = self.disk.remove(&path)
            {
                tracing::warn!(%error, path = %path.display(), "failed to remove an attachment");
            }
        }
    }
}

/// The files that queued turns name.
pub(crate) fn queued(state: &State) -> BTreeSet<String> {
    let turns = state.private.sessions.values().flat_map(|session| &session.queue);
    turns.flat_map(|turn| names_in(&turn.input)).collect()
}

/// The time of an event, or of the next one.
fn time_of(log: &Log, seq: u64) -> Option<SystemTime> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        created_at: String,
    }
    let mut time = None;
    let read = |_, json: &[u8]| {
        let head: Option<Head> = serde_json::from_slice(json).ok();
        let at: Option<jiff::Timestamp> = head.and_then(|head| head.created_at.parse().ok());
        time = at.map(Into::into);
        false
    };
    log.scan(seq.saturating_sub(1), read).ok()?;
    time
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(media_type: &str, byte: u8) -> String {
        format!("data:{media_type};base64,{}", BASE64.encode(&[byte; 13_000]))
    }

    #[test]
    fn data_is_stored_once_and_restored_to_the_byte() {
        let directory = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(Disk::default(), &directory.path().join("attachments"));
        let value = json!({ "a": [url("image/png", 1), "text"], "b": url("image/png", 1), "c": url("image/svg+xml", 2) });
        let stored = attachments.store_in_text(&value.to_string()).unwrap();
        assert!(stored.len() < 1000, "{stored}");
        assert_eq!(std::fs::read_dir(directory.path().join("attachments")).unwrap().count(), 2);
        let input = vec![serde_json::from_str::<Value>(&stored).unwrap()];
        assert!(Attachments::are_in(&input));
        assert_eq!(attachments.restore(input).unwrap(), [value]);
    }

    #[test]
    fn text_that_could_not_be_restored_stays() {
        let directory = tempfile::tempdir().unwrap();
        let attachments = Attachments::new(Disk::default(), directory.path());
        let data = BASE64.encode(&[7; 13_000]);
        let long = "x".repeat(20_000);
        for text in [
            "data:image/png;base64,AAAA".to_owned(),
            format!("data:image/png,{data}"),
            format!("data:image/png;base64,{}", data.trim_end_matches('=')),
            format!("data:image/png;base64,{data}\n"),
            format!("data:{};base64,{data}", "p".repeat(200)),
            format!("data:a\"b;base64,{data}"),
            format!(" {}", url("image/png", 1)),
            format!("say \"data:image/png;base64,{data}\" and \"data:"),
            format!("data:{long}"),
        ] {
            let json = json!({ "text": text }).to_string();
            assert_eq!(attachments.store_in_text(&json), None, "{:?}", text.get(..30));
        }
        // Cut off in the middle.
        assert_eq!(attachments.store_in_text(&format!("{{\"a\":\"{}", url("image/png", 1))), None);
        let other = vec![json!("codexd-attachment:no;image/png"), json!({ "codexd-attachment:": 1 })];
        assert_eq!(attachments.restore(other.clone()).unwrap(), other);
    }
}
