//! The newest turns of each session, as things that can be read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// How many turns of a session are kept.
const KEPT: usize = 20;
/// How many items of a turn are kept.
const ITEMS: usize = 500;
/// How many characters of an item's words its short form has.
const SHORT: usize = 200;

/// A turn, as clients see it; absent values are written out as `null`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Turn {
    /// Its name.
    pub turn_id: String,
    /// Its session.
    pub session_id: String,
    /// Its thread.
    pub thread_id: Option<String>,
    /// `inProgress`, `completed`, `interrupted`, `failed`, or a newer word of the app-server.
    pub status: String,
    /// When it was accepted, RFC 3339, UTC, milliseconds.
    pub started_at: String,
    /// When it ended, RFC 3339, UTC, milliseconds.
    pub completed_at: Option<String>,
    /// The final answer: the newest message of the agent.
    pub text: Option<String>,
    /// The last error, in the app-server's form.
    pub error: Option<Value>,
    /// Tokens used, in the app-server's form.
    pub token_usage: Option<Value>,
    /// What happened, in short: each item's type, id, status and a few words.
    pub items: Vec<Value>,
}

impl Turn {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.status != super::IN_PROGRESS
    }
}

/// The kept turns by session, oldest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Turns {
    by_session: BTreeMap<String, VecDeque<Arc<Turn>>>,
}

impl Turns {
    /// One turn of a session.
    pub fn get(&self, session_id: &str, turn_id: &str) -> Option<&Arc<Turn>> {
        self.of(session_id).find(|turn| turn.turn_id == turn_id)
    }

    /// The kept turns of a session, newest first.
    pub fn of(&self, session_id: &str) -> impl Iterator<Item = &Arc<Turn>> {
        self.by_session.get(session_id).into_iter().flat_map(|turns| turns.iter().rev())
    }

    pub(super) fn forget(&mut self, session_id: &str) {
        self.by_session.remove(session_id);
    }

    /// A turn of a session, made when it is new.
    pub(super) fn entry(
        &mut self,
        at: &str,
        session_id: &str,
        thread_id: Option<&str>,
        turn_id: &str,
    ) -> &mut Turn {
        let turns = self.by_session.entry(session_id.to_owned()).or_default();
        let place = match turns.iter().rposition(|turn| turn.turn_id == turn_id) {
            Some(place) => place,
            None => {
                if turns.len() >= KEPT {
                    turns.pop_front();
                }
                turns.push_back(Arc::new(Turn {
                    turn_id: turn_id.to_owned(),
                    session_id: session_id.to_owned(),
                    thread_id: thread_id.map(str::to_owned),
                    status: super::IN_PROGRESS.to_owned(),
                    started_at: at.to_owned(),
                    completed_at: None,
                    text: None,
                    error: None,
                    token_usage: None,
                    items: Vec::new(),
                }));
                turns.len() - 1
            }
        };
        Arc::make_mut(&mut turns[place])
    }
}

/// Adds an item that is complete.
pub(super) fn add_item(turn: &mut Turn, item: &Value) {
    if item["type"] == "agentMessage"
        && let Some(text) = item["text"].as_str()
    {
        turn.text = Some(text.to_owned());
    }
    if turn.items.len() < ITEMS {
        turn.items.push(in_short(item));
    }
}

/// An item in short: what kind of thing it was, how it ended, and a few words of it.
pub fn in_short(item: &Value) -> Value {
    let mut short = Map::new();
    for name in ["type", "id", "status", "exitCode", "durationMs", "cwd"] {
        if let Some(value) = item.get(name).filter(|value| !value.is_null()) {
            short.insert(name.to_owned(), value.clone());
        }
    }
    let words = ["command", "text"].iter().find_map(|name| item[name].as_str()).map(str::to_owned);
    let said =
        || item["content"].as_array()?.iter().find_map(|part| part["text"].as_str()).map(str::to_owned);
    if let Some(words) = words.or_else(said) {
        let short_words: String = words.chars().take(SHORT).collect();
        short.insert("words".to_owned(), short_words.into());
    }
    if let Some(changes) = item["changes"].as_array() {
        let paths = changes.iter().map(|change| json!({ "path": change["path"], "kind": change["kind"] }));
        short.insert("changes".to_owned(), paths.collect());
    }
    Value::Object(short)
}
