//! The recorded history: events, runs of connections, acknowledgements.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// One event as a client received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventText {
    pub(super) seq: u64,
    /// The event's JSON, compact.
    pub(super) text: Arc<str>,
}

/// One step in the history of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A connection started with the events after this sequence number.
    Connected { after: u64 },
    /// An event arrived.
    Event(EventText),
    /// The daemon confirmed that the client has everything through this sequence number.
    Bookmark(u64),
    /// The daemon reported missing events with this reason; no step follows.
    Gap(String),
}

/// What one client received over a series of connections, each of which resumed where the previous one ended.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) client: String,
    /// The epoch of the log; empty until the daemon reports it.
    pub(super) epoch: String,
    pub(super) filter: Filter,
    pub(super) steps: Vec<Step>,
}

impl Run {
    /// All events in the order of their arrival.
    pub(super) fn events(&self) -> impl Iterator<Item = &EventText> {
        self.steps.iter().filter_map(|step| match step {
            Step::Event(event) => Some(event),
            _ => None,
        })
    }

    /// The cursor with which the client resumes.
    pub(super) fn cursor(&self) -> String {
        match self.epoch.as_str() {
            // No message with an epoch has arrived yet.
            "" => self.reached().to_string(),
            epoch => format!("{epoch}-{}", self.reached()),
        }
    }

    /// The sequence number through which the client has everything.
    pub(super) fn reached(&self) -> u64 {
        self.steps.iter().rev().find_map(Step::reaches).unwrap_or(0)
    }
}

impl Step {
    /// The sequence number that the client has reached after this step, if the step changes it.
    pub(super) fn reaches(&self) -> Option<u64> {
        match self {
            Step::Connected { after } => Some(*after),
            Step::Event(event) => Some(event.seq),
            Step::Bookmark(seq) => Some(*seq),
            Step::Gap(_) => None,
        }
    }
}

/// The event filter of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Prefixes of event types; an empty list matches all.
    pub(super) types: Vec<String>,
    /// A session ID and its thread ID; `None` matches all.
    pub(super) session: Option<(String, String)>,
}

impl Filter {
    /// Whether the filter matches an event, by the rules of the API.
    pub(super) fn matches(&self, fields: &FilterFields) -> bool {
        let of_type =
            self.types.is_empty() || self.types.iter().any(|start| fields.event_type.starts_with(start));
        of_type
            && self.session.as_ref().is_none_or(|(session_id, thread_id)| {
                fields.sessions.contains(session_id) || fields.threads.contains(thread_id)
            })
    }
}

/// The fields that filters match on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilterFields {
    pub(super) event_type: String,
    /// Every `sessionId` at any depth.
    pub(super) sessions: Vec<String>,
    /// Every `threadId` at any depth.
    pub(super) threads: Vec<String>,
}

impl FilterFields {
    pub(super) fn of(text: &str) -> Self {
        let event: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let event_type = event["type"].as_str().unwrap_or_default().to_owned();
        let mut fields = Self { event_type, sessions: Vec::new(), threads: Vec::new() };
        fields.collect(&event);
        fields
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

/// A write that codexd acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    Session { session_id: String, thread_id: String },
    Turn { session_id: String, turn_id: String },
}

/// The recorded history of a test, and the log and sessions at its end.
#[derive(Debug)]
pub(super) struct History {
    pub(super) runs: Vec<Run>,
    pub(super) acknowledgements: Vec<Acknowledgement>,
    /// The epoch of the log at the end.
    pub(super) epoch: String,
    /// The log at the end, from its oldest event on.
    pub(super) log: Vec<EventText>,
    /// The sessions at the end.
    pub(super) sessions: Vec<Value>,
}

/// All known events of one epoch by sequence number.
pub(super) type Known = BTreeMap<u64, FilterFields>;

impl History {
    /// All events of this epoch that the log or any client has.
    pub(super) fn known(&self, epoch: &str) -> Known {
        let log = self.log.iter().filter(|_| self.epoch == epoch);
        let received = self.runs.iter().filter(|run| run.epoch == epoch).flat_map(Run::events);
        let mut known = Known::new();
        for event in log.chain(received) {
            known.entry(event.seq).or_insert_with(|| FilterFields::of(&event.text));
        }
        known
    }
}

/// Stores each event text once, regardless of the number of clients that receive it.
#[derive(Debug, Default)]
pub(super) struct Texts(Mutex<HashMap<u64, Vec<Arc<str>>>>);

impl Texts {
    pub(super) fn intern(&self, text: &str) -> EventText {
        let seq = seq_of(text);
        let mut texts = self.0.lock().unwrap();
        let same = texts.entry(seq).or_default();
        let known = same.iter().find(|known| ***known == *text).cloned();
        let text = known.unwrap_or_else(|| {
            same.push(text.into());
            Arc::clone(&same[same.len() - 1])
        });
        EventText { seq, text }
    }
}

fn seq_of(text: &str) -> u64 {
    let digits = text.strip_prefix("{\"seq\":").and_then(|rest| rest.split_once(','));
    digits
        .and_then(|(digits, _)| digits.parse().ok())
        .unwrap_or_else(|| panic!("the event does not begin with its sequence number: {text}"))
}
