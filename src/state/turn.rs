//! The newest turns of each thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::codex::protocol::{items, values};

/// How many turns of a thread are kept.
const MAX_KEPT: usize = 20;
/// How many items of a turn are kept.
const MAX_ITEMS: usize = 500;
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// The app-server's id.
    pub turn_id: String,
    /// Its thread.
    pub thread_id: String,
    /// The session whose caller started it; `None` when another client of the app-server did.
    pub started_by: Option<String>,
    /// How far it has come.
    pub phase: Phase,
    /// `inProgress`, `completed`, `interrupted`, `failed`, or a status of a later version.
    pub status: String,
    /// When it was first reported, RFC 3339, UTC, milliseconds.
    pub started_at: String,
    /// When it ended, RFC 3339, UTC, milliseconds.
    pub completed_at: Option<String>,
    /// The final answer: the newest message of the agent.
    pub text: Option<String>,
    /// The last error, in the app-server's form.
    pub error: Option<Value>,
    /// Tokens used, in the app-server's form.
    pub token_usage: Option<Value>,
    /// The summaries of its items: type, id, status and the beginning of the text.
    pub items: Vec<Value>,
}

impl Turn {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::CutOff | Phase::Ended)
    }

    /// Ends it; the first end counts, and only that of a turn that was cut off may be corrected.
    pub(super) fn end(&mut self, at: &str, phase: Phase, status: &str, error: Option<&Value>) {
        let is_correction = self.phase == Phase::CutOff && phase == Phase::Ended;
        if self.is_over() && !is_correction {
            return;
        }
        self.phase = phase;
        self.status = status.to_owned();
        self.completed_at.get_or_insert_with(|| at.to_owned());
        if error.is_some() {
            self.error = error.cloned();
        }
    }

    /// Notes that it runs: also one whose connection ended and which went on all the same.
    pub(super) fn run(&mut self) {
        if matches!(self.phase, Phase::CutOff | Phase::Accepted) {
            self.phase = Phase::Started;
            values::TURN_IN_PROGRESS.clone_into(&mut self.status);
            self.completed_at = None;
        }
    }
}

/// A turn as the registry of earlier versions has it: once for each session.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionTurn {
    turn_id: String,
    session_id: String,
    thread_id: Option<String>,
    status: String,
    started_at: String,
    completed_at: Option<String>,
    text: Option<String>,
    error: Option<Value>,
    token_usage: Option<Value>,
    items: Vec<Value>,
}

impl From<SessionTurn> for Turn {
    fn from(turn: SessionTurn) -> Self {
        let is_open = turn.status == values::TURN_IN_PROGRESS;
        Self {
            turn_id: turn.turn_id,
            thread_id: turn.thread_id.unwrap_or_default(),
            started_by: Some(turn.session_id),
            phase: if is_open { Phase::Started } else { Phase::Ended },
            status: turn.status,
            started_at: turn.started_at,
            completed_at: turn.completed_at,
            text: turn.text,
            error: turn.error,
            token_usage: turn.token_usage,
            items: turn.items,
        }
    }
}

/// The kept turns by thread, in the order they began, oldest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Turns {
    by_thread: BTreeMap<String, VecDeque<Arc<Turn>>>,
    /// The threads with a turn that is not over.
    #[serde(skip)]
    open: BTreeSet<String>,
    /// Those of them that mean that no turn runs.
    #[serde(skip)]
    idle: BTreeSet<String>,
}

impl Turns {
    /// The turns of a registry.
    pub(super) fn restore(mut self, of_sessions: BTreeMap<String, Vec<SessionTurn>>) -> Self {
        let mut old: Vec<Turn> = of_sessions.into_values().flatten().map(Turn::from).collect();
        // Stable, so that the turns of one session keep their order.
        old.sort_by(|a, b| a.started_at.cmp(&b.started_at));
        for turn in old.into_iter().filter(|turn| !turn.thread_id.is_empty()) {
            let turns = self.by_thread.entry(turn.thread_id.clone()).or_default();
            match turns.iter_mut().find(|known| known.turn_id == turn.turn_id) {
                // Which of its sessions started it was not written down.
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
        for turns in self.by_thread.values_mut() {
            turns.drain(..turns.len().saturating_sub(MAX_KEPT));
        }
        self.open = self.by_thread.keys().cloned().collect();
        self.open.retain(|thread_id| is_open(&self.by_thread, thread_id));
        self
    }

    /// One turn of a thread.
    pub fn get(&self, thread_id: &str, turn_id: &str) -> Option<&Arc<Turn>> {
        self.of(thread_id).find(|turn| turn.turn_id == turn_id)
    }

    /// The kept turns of a thread, newest first.
    pub fn of(&self, thread_id: &str) -> impl Iterator<Item = &Arc<Turn>> {
        self.by_thread.get(thread_id).into_iter().flat_map(|turns| turns.iter().rev())
    }

    /// The turn that runs in a thread, or that is about to: the newest one that is not over.
    pub fn running(&self, thread_id: &str) -> Option<&Arc<Turn>> {
        self.of(thread_id).find(|turn| !turn.is_over())
    }

    /// All turns that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Turn>> {
        self.open.iter().flat_map(|thread_id| self.of(thread_id)).filter(|turn| !turn.is_over())
    }

    /// The threads whose status means that no turn runs, although one has not ended.
    pub fn open_in_idle_threads(&self) -> impl Iterator<Item = &String> {
        self.idle.intersection(&self.open)
    }

    /// Stores whether the thread is active.
    pub(super) fn set_thread_active(&mut self, thread_id: &str, is_active: bool) {
        if is_active {
            self.idle.remove(thread_id);
        } else if self.open.contains(thread_id) {
            self.idle.insert(thread_id.to_owned());
        }
    }

    pub(super) fn forget(&mut self, thread_id: &str) {
        self.by_thread.remove(thread_id);
        self.open.remove(thread_id);
        self.idle.remove(thread_id);
    }

    /// Changes a turn of a thread, made when it is new.
    pub(super) fn update(
        &mut self,
        at: &str,
        thread_id: &str,
        turn_id: &str,
        position: TurnPosition,
        change: impl FnOnce(&mut Turn),
    ) {
        let turns = self.by_thread.entry(thread_id.to_owned()).or_default();
        let known = turns.iter().rposition(|turn| turn.turn_id == turn_id);
        let mut turn = known.and_then(|known| turns.remove(known)).unwrap_or_else(|| {
            Arc::new(Turn {
                turn_id: turn_id.to_owned(),
                thread_id: thread_id.to_owned(),
                started_by: None,
                phase: Phase::Accepted,
                status: values::TURN_IN_PROGRESS.to_owned(),
                started_at: at.to_owned(),
                completed_at: None,
                text: None,
                error: None,
                token_usage: None,
                items: Vec::new(),
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
        };
        change(Arc::make_mut(&mut turn));
        turns.insert(index, turn);
        // A turn that has not ended is kept at any age, because a client may wait for its end.
        if turns.len() > MAX_KEPT
            && let Some(oldest) = turns.iter().position(|turn| turn.is_over())
        {
            turns.remove(oldest);
        }
        if is_open(&self.by_thread, thread_id) {
            self.open.insert(thread_id.to_owned());
        } else {
            self.open.remove(thread_id);
            self.idle.remove(thread_id);
        }
    }
}

/// The position of a turn among those of its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnPosition {
    /// It is the newest as far as is known.
    Newest,
    /// It began to run just now, so it is the newest.
    Running,
    /// The thread has newer ones.
    Older,
}

fn is_open(by_thread: &BTreeMap<String, VecDeque<Arc<Turn>>>, thread_id: &str) -> bool {
    by_thread.get(thread_id).is_some_and(|turns| turns.iter().any(|turn| !turn.is_over()))
}

impl PartialEq for Turns {
    fn eq(&self, other: &Self) -> bool {
        self.by_thread == other.by_thread
    }
}

/// Adds an item that is complete.
pub(super) fn add_item(turn: &mut Turn, item: &Value) {
    if let Some(text) = items::agent_message(item) {
        turn.text = Some(text.to_owned());
    }
    if turn.items.len() < MAX_ITEMS {
        turn.items.push(item_summary(item));
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
