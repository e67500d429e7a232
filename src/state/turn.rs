//! The newest turns of each thread, and what a turn has to show.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::compact::{self, JsonText};
use super::events::{EventDetail, NotificationEvent, PassedThrough, TurnEvent};
use super::usage_limit::OnUsageLimit;
use crate::codex::protocol::{items, values};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::timestamp::Timestamp;

/// How many turns of a thread are kept.
const MAX_KEPT: usize = 20;
/// How many items of a turn are shown.
const MAX_ITEMS: usize = 500;
/// The most bytes of the answer, and of the JSON of the error and of the token usage, that the record of a turn has.
const MAX_KEPT_BYTES: usize = 4096;
/// The most characters of text in the summary of an item.
const MAX_SUMMARY_CHARS: usize = 200;

/// How far a turn has come; see [`super::threads`] for what leads from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// The app-server accepted it and has not reported that it runs.
    Accepted,
    /// It runs.
    Started,
    /// It met an error that the app-server does not try again after; its end follows.
    Failing,
    /// The connection ended before it did: `failed` is what is known, and the thread may correct it.
    CutOff,
    /// It ended, and nothing changes that.
    Ended,
}

/// A turn of a thread; one record for all sessions of the thread.
///
/// Its items are not in the record: they are read from the log between `first_seq` and `last_seq`, see [`Contents`].
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// The app-server's id.
    pub turn_id: TurnId,
    /// Its thread.
    pub thread_id: ThreadId,
    /// The session whose caller started it; `None` when another client of the app-server did.
    pub started_by: Option<SessionId>,
    /// How far it has come.
    pub phase: Phase,
    /// `inProgress`, `completed`, `interrupted`, `failed`, or a status of a later version.
    pub status: Cow<'static, str>,
    /// When it was first reported, RFC 3339, UTC, milliseconds.
    pub started_at: Timestamp,
    /// When it ended, RFC 3339, UTC, milliseconds.
    pub completed_at: Option<Timestamp>,
    /// The first event about it; 0 when that is not known, as for a turn of a registry of an earlier version.
    pub first_seq: u64,
    /// The newest event about it.
    pub last_seq: u64,
    /// Whether a message of its user is among its items; only until its end is final.
    pub has_user_message: bool,
    /// Whether events of it may be missing in the log: codexd did not hear of its beginning, or was without a connection
    /// while it ran.
    pub has_gap: bool,
    /// The digests of the IDs of its items until its end is final, see [`Turn::has_item`].
    pub item_digests: Vec<u64>,
    /// What it has to show without its items, if it is the newest turn of its thread and that is small.
    pub kept: KeptContents,
    /// What follows if it reaches the usage limit; `fail` once that has followed.
    pub on_usage_limit: OnUsageLimit,
}

/// The part of a turn's contents that is in its record: it can be shown when neither the log nor Codex has the turn.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptContents {
    /// The final answer, at most [`MAX_KEPT_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<str>>,
    /// The last error, in the app-server's form, at most [`MAX_KEPT_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JsonText>,
    /// Tokens used, in the app-server's form, at most [`MAX_KEPT_BYTES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_usage: Option<JsonText>,
}

impl KeptContents {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_none() && self.error.is_none() && self.token_usage.is_none()
    }

    /// Sets the answer; one that is too long is not kept.
    pub(super) fn set_text(&mut self, text: &str) {
        self.text = (text.len() <= MAX_KEPT_BYTES).then(|| text.into());
    }

    pub(super) fn set_error(&mut self, error: Option<&Value>) {
        self.error = error.and_then(|error| JsonText::of(error, MAX_KEPT_BYTES));
    }

    pub(super) fn set_token_usage(&mut self, usage: &Value) {
        self.token_usage = JsonText::of(usage, MAX_KEPT_BYTES);
    }
}

/// What a turn has to show: the fold of the events about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    /// The final answer: the newest message of the agent.
    pub text: Option<String>,
    /// The last error, in the app-server's form.
    pub error: Option<Value>,
    /// Tokens used, in the app-server's form.
    pub token_usage: Option<Value>,
    /// The summaries of its items: type, id, status and the beginning of the text.
    pub items: Vec<Value>,
    /// Whether the event with which it began is among those folded in.
    pub has_beginning: bool,
}

impl Contents {
    /// Folds in an event; the caller has checked that it is about a thread in which the turn is.
    pub fn apply(&mut self, turn_id: &TurnId, event: &EventDetail) {
        match event {
            EventDetail::Turn(TurnEvent::Accepted { turn_id: id, .. })
            | EventDetail::Notification(NotificationEvent::TurnStarted { turn_id: id, .. })
                if id == turn_id =>
            {
                self.has_beginning = true;
            }
            EventDetail::Turn(TurnEvent::ItemRead { turn_id: id, item, .. })
            | EventDetail::Notification(NotificationEvent::Other(PassedThrough::ItemCompleted {
                turn_id: id,
                item,
                ..
            })) if id == turn_id => self.add_item(item),
            EventDetail::Turn(TurnEvent::Settled { turn_id: id, error: Some(error), .. })
            | EventDetail::Notification(
                NotificationEvent::TurnCompleted { turn_id: id, error: Some(error), .. }
                | NotificationEvent::TurnError { turn_id: id, error: Some(error), .. },
            ) if id == turn_id => self.error = Some(error.clone()),
            EventDetail::Notification(NotificationEvent::Other(PassedThrough::TokensUsed {
                turn_id: id,
                usage,
                ..
            })) if id == turn_id => self.token_usage = Some(usage.clone()),
            _ => {}
        }
    }

    /// Adds an item that is complete.
    pub fn add_item(&mut self, item: &Value) {
        if let Some(text) = items::agent_message(item) {
            self.text = Some(text.to_owned());
        }
        if self.items.len() < MAX_ITEMS {
            self.items.push(item_summary(item));
        }
    }

    /// Adds what only `other`, contents of the same turn, has.
    pub fn add_what_it_lacks(&mut self, other: &Self) {
        let is_known = |item: &Value| self.items.iter().any(|known| known["id"] == item["id"]);
        let missing: Vec<_> = other.items.iter().filter(|item| !is_known(item)).cloned().collect();
        let space = MAX_ITEMS.saturating_sub(self.items.len());
        self.items.extend(missing.into_iter().take(space));
        for (own, other) in [(&mut self.error, &other.error), (&mut self.token_usage, &other.token_usage)] {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        if self.text.is_none() {
            self.text.clone_from(&other.text);
        }
    }

    /// The approximate memory, in bytes.
    pub fn bytes(&self) -> usize {
        let values = self.items.iter().chain(&self.error).chain(&self.token_usage);
        // A value takes several times the memory of its text.
        self.text.as_ref().map_or(0, String::len)
            + values.map(|value| 4 * value.to_string().len()).sum::<usize>()
    }
}

impl Turn {
    /// Takes in an item that is complete.
    pub(super) fn add_item(&mut self, item: &Value) {
        if let Some(text) = items::agent_message(item) {
            self.kept.set_text(text);
        }
        self.has_user_message |= items::is_user_message(item);
        if let Some(id) = item["id"].as_str().filter(|_| self.item_digests.len() < MAX_ITEMS) {
            self.item_digests.push(compact::digest(id));
        }
    }

    /// Whether it has an item with this ID, so that those that its thread lists are recorded once; only until its end is final.
    pub fn has_item(&self, id: &str) -> bool {
        self.item_digests.contains(&compact::digest(id))
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::CutOff | Phase::Ended)
    }

    /// Notes how it began, if this is the first event about it.
    pub(super) fn begin(&mut self, seq: u64, has_gap: bool, started_at: Option<&Timestamp>) {
        if self.first_seq == seq {
            self.has_gap = has_gap;
            self.started_at = started_at.unwrap_or(&self.started_at).clone();
        }
    }

    /// Ends it; the first end counts, and only that of a turn that was cut off may be corrected.
    pub(super) fn end(&mut self, at: &Timestamp, phase: Phase, status: &str, error: Option<&Value>) {
        let is_correction = self.phase == Phase::CutOff && phase == Phase::Ended;
        if self.is_over() && !is_correction {
            return;
        }
        self.phase = phase;
        self.status = compact::status(status);
        self.completed_at.get_or_insert_with(|| at.clone());
        if error.is_some() {
            self.kept.set_error(error);
        }
    }

    /// Notes that it runs: also one whose connection ended and which went on all the same.
    pub(super) fn run(&mut self) {
        if matches!(self.phase, Phase::CutOff | Phase::Accepted) {
            self.phase = Phase::Started;
            self.status = Cow::Borrowed(values::TURN_IN_PROGRESS);
            self.completed_at = None;
        }
    }
}

/// The turns of each thread, oldest first; shared with `records.json` while that is written.
pub(super) type Threads = Arc<BTreeMap<ThreadId, VecDeque<Arc<Turn>>>>;

/// The kept turns by thread, in the order they began, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    by_thread: Threads,
    /// The threads with a turn that is not over.
    open: BTreeSet<ThreadId>,
    /// Those of them that mean that no turn runs.
    idle: BTreeSet<ThreadId>,
}

impl Turns {
    /// Takes over the turns of a registry: those of each thread, and those that an earlier version wrote.
    pub(super) fn restore(&mut self, by_thread: Threads, mut earlier: Vec<Turn>) {
        self.by_thread = by_thread;
        // Stable, so that the turns of one thread keep their order.
        earlier.sort_by(|a, b| a.started_at.cmp(&b.started_at));
        for turn in earlier.into_iter().filter(|turn| !turn.thread_id.as_str().is_empty()) {
            let turns = Arc::make_mut(&mut self.by_thread).entry(turn.thread_id.clone()).or_default();
            match turns.iter_mut().find(|known| known.turn_id == turn.turn_id) {
                // Version 1 had it once for each session, and did not tell which of them started it.
                Some(known) => {
                    let known = Arc::make_mut(known);
                    if turn.is_over() && !known.is_over() {
                        *known = turn;
                    }
                    known.started_by = None;
                }
                None => turns.push_back(Arc::new(turn)),
            }
        }
        for turns in Arc::make_mut(&mut self.by_thread).values_mut() {
            turns.drain(..turns.len().saturating_sub(MAX_KEPT));
            keep_contents_of_newest(turns);
        }
        self.open = self.by_thread.keys().cloned().collect();
        self.open.retain(|thread_id| is_open(&self.by_thread, thread_id));
    }

    /// One turn of a thread.
    pub fn get(&self, thread_id: &ThreadId, turn_id: &TurnId) -> Option<&Arc<Turn>> {
        self.of(thread_id).find(|turn| turn.turn_id == *turn_id)
    }

    /// The kept turns of a thread, newest first.
    pub fn of(&self, thread_id: &ThreadId) -> impl Iterator<Item = &Arc<Turn>> {
        self.by_thread.get(thread_id).into_iter().flat_map(|turns| turns.iter().rev())
    }

    /// The turn that runs in a thread, or that is about to: the newest one that is not over.
    pub fn running(&self, thread_id: &ThreadId) -> Option<&Arc<Turn>> {
        self.of(thread_id).find(|turn| !turn.is_over())
    }

    /// The kept turns of each thread, oldest first.
    pub(super) fn by_thread(&self) -> &Threads {
        &self.by_thread
    }

    /// All turns that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.open.iter().flat_map(|thread_id| self.of(thread_id)).filter(|turn| !turn.is_over())
    }

    /// The threads whose status means that no turn runs, although one has not ended.
    pub fn open_in_idle_threads(&self) -> impl Iterator<Item = &ThreadId> {
        self.idle.intersection(&self.open)
    }

    /// Stores whether the thread is active.
    pub(super) fn set_thread_active(&mut self, thread_id: &ThreadId, is_active: bool) {
        if is_active {
            self.idle.remove(thread_id);
        } else if self.open.contains(thread_id) {
            self.idle.insert(thread_id.clone());
        }
    }

    /// Takes in that there is a new connection: what happened to the open turns since the last one was not heard of.
    pub(super) fn note_connection(&mut self) {
        for thread_id in &self.open {
            let turns = Arc::make_mut(&mut self.by_thread).get_mut(thread_id).into_iter().flatten();
            for turn in turns.filter(|turn| !turn.is_over()) {
                Arc::make_mut(turn).has_gap = true;
            }
        }
    }

    pub(super) fn forget(&mut self, thread_id: &ThreadId) {
        Arc::make_mut(&mut self.by_thread).remove(thread_id);
        self.open.remove(thread_id);
        self.idle.remove(thread_id);
    }

    /// Changes a turn of a thread, made when it is new; `seq` and `at` are the number and the time of the event.
    pub(super) fn update(
        &mut self,
        (seq, at): (u64, &Timestamp),
        thread_id: &ThreadId,
        turn_id: &TurnId,
        position: TurnPosition<'_>,
        change: impl FnOnce(&mut Turn),
    ) {
        let entry = Arc::make_mut(&mut self.by_thread).entry(thread_id.clone());
        // The text of the key, which all turns of the thread share.
        let thread_id = entry.key().clone();
        let turns = entry.or_default();
        let known = turns.iter().rposition(|turn| turn.turn_id == *turn_id);
        let mut turn = known.and_then(|known| turns.remove(known)).unwrap_or_else(|| {
            Arc::new(Turn {
                turn_id: turn_id.clone(),
                thread_id: thread_id.clone(),
                started_by: None,
                phase: Phase::Accepted,
                status: Cow::Borrowed(values::TURN_IN_PROGRESS),
                started_at: at.clone(),
                completed_at: None,
                first_seq: seq,
                last_seq: seq,
                has_user_message: false,
                has_gap: true,
                item_digests: Vec::new(),
                kept: KeptContents::default(),
                on_usage_limit: OnUsageLimit::default(),
            })
        });
        // A turn that runs is newer than one of which nothing but its acceptance is known: one runs at a time.
        let runs = |turn: &Arc<Turn>| matches!(turn.phase, Phase::Started | Phase::Failing);
        let last = turns.len();
        let index = match (known, position) {
            (Some(known), TurnPosition::Running) if runs(&turn) || turn.is_over() => known,
            (_, TurnPosition::Running) => last,
            (Some(known), _) => known,
            (None, TurnPosition::Newest) => turns.iter().position(runs).unwrap_or(last),
            (None, TurnPosition::Older) => last.saturating_sub(1),
            (None, TurnPosition::After(previous)) => {
                let previous = turns.iter().position(|turn| Some(&turn.turn_id) == previous);
                // One that is not kept is older than all of them, and what runs is newer than a turn that was not heard of.
                let running = || turns.iter().position(|turn| !turn.is_over()).unwrap_or(last);
                previous.map_or_else(running, |previous| previous + 1)
            }
        };
        {
            let turn = Arc::make_mut(&mut turn);
            turn.last_seq = seq;
            change(turn);
            if turn.phase == Phase::Ended {
                turn.item_digests = Vec::new();
                turn.has_user_message = false;
                turn.on_usage_limit = OnUsageLimit::default();
            }
        }
        turns.insert(index, turn);
        keep_contents_of_newest(turns);
        // A turn that has not ended is kept at any age, because a client may wait for its end.
        if turns.len() > MAX_KEPT
            && let Some(oldest) = turns.iter().position(|turn| turn.is_over())
        {
            turns.remove(oldest);
        }
        if is_open(&self.by_thread, &thread_id) {
            self.open.insert(thread_id);
        } else {
            self.open.remove(&thread_id);
            self.idle.remove(&thread_id);
        }
    }
}

/// The position of a turn among those of its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnPosition<'a> {
    /// It is the newest as far as is known.
    Newest,
    /// It began to run just now, so it is the newest.
    Running,
    /// The thread has newer ones.
    Older,
    /// The thread has it directly after this one; it is new to the records.
    After(Option<&'a TurnId>),
}

/// Removes what the records of older turns kept of their contents.
fn keep_contents_of_newest(turns: &mut VecDeque<Arc<Turn>>) {
    let older = turns.len().saturating_sub(1);
    for turn in turns.iter_mut().take(older).filter(|turn| !turn.kept.is_empty()) {
        Arc::make_mut(turn).kept = KeptContents::default();
    }
}

fn is_open(by_thread: &Threads, thread_id: &ThreadId) -> bool {
    by_thread.get(thread_id).is_some_and(|turns| turns.iter().any(|turn| !turn.is_over()))
}

impl PartialEq for Turns {
    fn eq(&self, other: &Self) -> bool {
        self.by_thread == other.by_thread
    }
}

/// The summary of an item: its type, how it ended, and the beginning of its text.
pub fn item_summary(item: &Value) -> Value {
    let mut short = Map::new();
    for name in ["type", "id", "status", "exitCode", "durationMs", "cwd"] {
        if let Some(value) = item.get(name).filter(|value| !value.is_null()) {
            short.insert(name.to_owned(), value.clone());
        }
    }
    let text = ["command", "text"].iter().find_map(|name| item[name].as_str()).map(str::to_owned);
    let content =
        || item["content"].as_array()?.iter().find_map(|part| part["text"].as_str()).map(str::to_owned);
    if let Some(text) = text.or_else(content) {
        let summary: String = text.chars().take(MAX_SUMMARY_CHARS).collect();
        short.insert("words".to_owned(), summary.into());
    }
    if let Some(changes) = item["changes"].as_array() {
        let paths = changes.iter().map(|change| json!({ "path": change["path"], "kind": change["kind"] }));
        short.insert("changes".to_owned(), paths.collect());
    }
    Value::Object(short)
}
