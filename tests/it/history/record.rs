//! What is written down: events, runs of connections, promises.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// One event as somebody got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) seq: u64,
    /// The event's JSON, compact.
    pub(super) text: Arc<str>,
}

/// One thing that happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A connection began, with the events after this number.
    Connected { after: u64 },
    /// An event came.
    Event(Seen),
    /// The client was told that it has everything through this number.
    Bookmark(u64),
    /// The client was told that events are missing, and why; nothing follows.
    Gap(String),
}

/// What one client got on one run of connections, each of which began where the one before had ended.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) client: String,
    /// The name of the log.
    pub(super) epoch: String,
    pub(super) filter: Filter,
    pub(super) steps: Vec<Step>,
}

impl Run {
    /// All events, in the order in which they came.
    pub(super) fn events(&self) -> impl Iterator<Item = &Seen> {
        self.steps.iter().filter_map(|step| match step {
            Step::Event(seen) => Some(seen),
            _ => None,
        })
    }

    /// What the client says to go on from there.
    pub(super) fn cursor(&self) -> String {
        match self.epoch.as_str() {
            // Nothing that names the log has come yet.
            "" => self.reached().to_string(),
            epoch => format!("{epoch}-{}", self.reached()),
        }
    }

    /// The number up to which the client knows that it has everything.
    pub(super) fn reached(&self) -> u64 {
        self.steps.iter().rev().find_map(Step::reaches).unwrap_or(0)
    }
}

impl Step {
    /// How far the client is after this step, if that is how it moves.
    pub(super) fn reaches(&self) -> Option<u64> {
        match self {
            Step::Connected { after } => Some(*after),
            Step::Event(seen) => Some(seen.seq),
            Step::Bookmark(seq) => Some(*seq),
            Step::Gap(_) => None,
        }
    }
}

/// What a client asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Beginnings of types; none means all.
    pub(super) types: Vec<String>,
    /// A session and its thread; none means all.
    pub(super) session: Option<(String, String)>,
}

impl Filter {
    /// Whether an event is one of those that were asked for; told from its parsed text, by the words of the interface.
    pub(super) fn wants(&self, facts: &Facts) -> bool {
        let of_type =
            self.types.is_empty() || self.types.iter().any(|start| facts.event_type.starts_with(start));
        of_type
            && self.session.as_ref().is_none_or(|(session_id, thread_id)| {
                facts.sessions.contains(session_id) || facts.threads.contains(thread_id)
            })
    }
}

/// What filters go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) event_type: String,
    /// Every `sessionId` at any depth.
    pub(super) sessions: Vec<String>,
    /// Every `threadId` at any depth.
    pub(super) threads: Vec<String>,
}

impl Facts {
    pub(super) fn of(text: &str) -> Self {
        let event: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let event_type = event["type"].as_str().unwrap_or_default().to_owned();
        let mut facts = Self { event_type, sessions: Vec::new(), threads: Vec::new() };
        facts.collect(&event);
        facts
    }

    fn collect(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value.as_str()) {
                        ("sessionId", Some(id)) => self.sessions.push(id.to_owned()),
                        ("threadId", Some(id)) => self.threads.push(id.to_owned()),
                        _ => self.collect(value),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| self.collect(value)),
            _ => {}
        }
    }
}

/// Something that codexd said is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Promise {
    Session { session_id: String, thread_id: String },
    Turn { session_id: String, turn_id: String },
}

/// Everything that was written down, and what the log has in the end.
#[derive(Debug)]
pub(super) struct History {
    pub(super) runs: Vec<Run>,
    pub(super) promises: Vec<Promise>,
    /// The name of the log in the end.
    pub(super) epoch: String,
    /// The log in the end, from its oldest event on.
    pub(super) log: Vec<Seen>,
    /// The sessions in the end.
    pub(super) sessions: Vec<Value>,
}

/// Every event of one epoch that anybody knows, by its number.
pub(super) type Known = BTreeMap<u64, Facts>;

impl History {
    /// Every event of this epoch that the log or any client has.
    pub(super) fn known(&self, epoch: &str) -> Known {
        let log = self.log.iter().filter(|_| self.epoch == epoch);
        let seen = self.runs.iter().filter(|run| run.epoch == epoch).flat_map(Run::events);
        let mut known = Known::new();
        for seen in log.chain(seen) {
            known.entry(seen.seq).or_insert_with(|| Facts::of(&seen.text));
        }
        known
    }
}

/// Keeps each text once, however many clients get it.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<HashMap<u64, Vec<Arc<str>>>>);

impl Texts {
    pub(super) fn seen(&self, text: &str) -> Seen {
        let seq = seq_of(text);
        let mut texts = self.0.lock().unwrap();
        let same = texts.entry(seq).or_default();
        let known = same.iter().find(|known| ***known == *text).cloned();
        let text = known.unwrap_or_else(|| {
            same.push(text.into());
            Arc::clone(&same[same.len() - 1])
        });
        Seen { seq, text }
    }
}

fn seq_of(text: &str) -> u64 {
    let digits = text.strip_prefix("{\"seq\":").and_then(|rest| rest.split_once(','));
    digits
        .and_then(|(digits, _)| digits.parse().ok())
        .unwrap_or_else(|| panic!("an event that does not begin with its number: {text}"))
}
