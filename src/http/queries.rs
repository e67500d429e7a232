//! What each query string may carry, once: the parsers read by these values, and the OpenAPI document is made from them.

use crate::http::values::StringEnum;

/// A parameter of a query string; unknown ones are ignored.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) description: &'static str,
}

/// What a parameter holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// May be given more than once.
    Texts,
    Enum(StringEnum),
    /// A whole number in this range.
    Integer {
        least: u64,
        most: u64,
    },
    /// A whole number of seconds in this range.
    Seconds {
        least: u64,
        most: u64,
    },
    /// `EPOCH-SEQ` or `SEQ`.
    Cursor,
    /// `true`, or anything else for no.
    Flag,
    /// Any parameter whose name begins so.
    Prefix,
}

const fn parameter(name: &'static str, kind: Kind, description: &'static str) -> Parameter {
    Parameter { name, kind, description }
}

impl Parameter {
    /// Reads a number; the error is a sentence.
    pub(super) fn number(&self, value: &str) -> Result<u64, String> {
        let (least, most, of) = match self.kind {
            Kind::Integer { least, most } => (least, most, ""),
            Kind::Seconds { least, most } => (least, most, " of seconds"),
            _ => (0, u64::MAX, ""),
        };
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("{} must be a whole number{of} from {least} to {most}.", self.name))
    }

    /// Reads a word; the error is a sentence.
    pub(super) fn variant(&self, value: &str) -> Result<&'static str, String> {
        match self.kind {
            Kind::Enum(words) => words.find(self.name, value),
            _ => Err(format!("{} is no word.", self.name)),
        }
    }

    /// The last value that a query string has for this parameter.
    pub(super) fn of<'q>(&self, query: Option<&'q str>) -> Option<std::borrow::Cow<'q, str>> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.filter(|(name, _)| name == self.name).map(|(_, value)| value).last()
    }
}

pub(super) const STATUS: Parameter =
    parameter("status", Kind::Enum(StringEnum::own(&["active", "closed"])), "Only sessions of this status.");
pub(super) const PURPOSE: Parameter = parameter(
    "purpose",
    Kind::Enum(StringEnum::own(&["duplex", "worker", "smoke"])),
    "Only sessions of this purpose.",
);
pub(super) const ORDER: Parameter = parameter(
    "order",
    Kind::Enum(StringEnum::own(&["newest", "oldest"])),
    "Which sessions come first; the oldest when nothing is said.",
);
pub(super) const AFTER_SESSION: Parameter =
    parameter("after", Kind::Text, "Only sessions that come after this one.");
pub(super) const SESSION_LIMIT: Parameter =
    parameter("limit", Kind::Integer { least: 1, most: 10_000 }, "How many sessions at most.");
/// A label of sessions: the rest of the name is the label's key.
pub(super) const LABEL: Parameter = parameter(
    "metadata.",
    Kind::Prefix,
    "With `metadata.KEY=VALUE` only sessions with this label; it may be given more than once.",
);
pub(super) const SESSIONS: &[Parameter] = &[STATUS, PURPOSE, ORDER, AFTER_SESSION, SESSION_LIMIT, LABEL];

pub(super) const INTERRUPT: Parameter =
    parameter("interrupt", Kind::Flag, "Whether a turn that is under way is interrupted first.");

/// How long a request waits for the end of a turn, an hour at most.
pub(super) const WAIT: Parameter = parameter(
    "wait",
    Kind::Seconds { least: 0, most: 3600 },
    "How long the answer waits for the end of the turn; it comes at once when nothing is said.",
);

pub(super) const REQUESTS_OF: Parameter =
    parameter("sessionId", Kind::Text, "Only requests of this session.");

pub(super) const AFTER: Parameter = parameter(
    "after",
    Kind::Cursor,
    "The cursor of the last event that the client has; a page begins with the oldest event when nothing is said.",
);
pub(super) const LIMIT: Parameter = parameter(
    "limit",
    Kind::Integer { least: 1, most: 1000 },
    "How many events a page has at most; 100 when nothing is said.",
);
pub(super) const ABOUT: Parameter =
    parameter("sessionId", Kind::Text, "Only events about this session or its thread.");
pub(super) const TYPES: Parameter = parameter(
    "type",
    Kind::Texts,
    "Only events whose type begins so; when it is given more than once, with any of these.",
);
pub(super) const ON_GAP: Parameter = parameter(
    "onGap",
    Kind::Enum(StringEnum::pair(&["close", "resync"])),
    "What a WebSocket does when the cursor leads nowhere: it closes, as when nothing is said, or goes on from now.",
);
pub(super) const EVENTS: &[Parameter] = &[AFTER, LIMIT, ABOUT, TYPES, ON_GAP];
