//! The query parameters of every route, declared once: the handlers parse with these tables, and the OpenAPI document
//! is generated from them.

use crate::http::values::StringEnum;

/// A query parameter; unknown ones are ignored.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: ParameterKind,
    pub(super) description: &'static str,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum ParameterKind {
    Text,
    /// May be repeated.
    Texts,
    Enum(StringEnum),
    /// An integer in this range.
    Integer {
        min: u64,
        max: u64,
    },
    /// A whole number of seconds in this range.
    Seconds {
        min: u64,
        max: u64,
    },
    /// `EPOCH-SEQ` or `SEQ`.
    Cursor,
    /// `true`; any other value means false.
    Flag,
    /// Any parameter whose name starts with this name.
    Prefix,
}

const fn parameter(name: &'static str, kind: ParameterKind, description: &'static str) -> Parameter {
    Parameter { name, kind, description }
}

impl Parameter {
    /// Parses a number; the error is a sentence.
    pub(super) fn parse_number(&self, value: &str) -> Result<u64, String> {
        let (min, max, of) = match self.kind {
            ParameterKind::Integer { min, max } => (min, max, ""),
            ParameterKind::Seconds { min, max } => (min, max, " of seconds"),
            _ => (0, u64::MAX, ""),
        };
        let number = value.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("{} must be a whole number{of} from {min} to {max}.", self.name))
    }

    /// Parses a value of an enum; the error is a sentence.
    pub(super) fn parse_variant(&self, value: &str) -> Result<&'static str, String> {
        match self.kind {
            ParameterKind::Enum(variants) => variants.find(self.name, value),
            _ => Err(format!("{} is not an enum.", self.name)),
        }
    }

    /// The last value of this parameter in a query string.
    pub(super) fn last_value<'q>(&self, query: Option<&'q str>) -> Option<std::borrow::Cow<'q, str>> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.filter(|(name, _)| name == self.name).map(|(_, value)| value).last()
    }
}

pub(super) const STATUS: Parameter = parameter(
    "status",
    ParameterKind::Enum(StringEnum::of_codexd(&["active", "closed"])),
    "Only sessions with this status.",
);
pub(super) const PURPOSE: Parameter = parameter(
    "purpose",
    ParameterKind::Enum(StringEnum::of_codexd(&["duplex", "worker", "smoke"])),
    "Only sessions with this purpose.",
);
pub(super) const ORDER: Parameter = parameter(
    "order",
    ParameterKind::Enum(StringEnum::of_codexd(&["newest", "oldest"])),
    "Which sessions come first; default: oldest.",
);
pub(super) const AFTER_SESSION: Parameter =
    parameter("after", ParameterKind::Text, "Only sessions that come after this one.");
pub(super) const SESSION_LIMIT: Parameter =
    parameter("limit", ParameterKind::Integer { min: 1, max: 10_000 }, "The maximum number of sessions.");
/// A label of sessions: the rest of the parameter name is the key of the label.
pub(super) const LABEL: Parameter = parameter(
    "metadata.",
    ParameterKind::Prefix,
    "`metadata.KEY=VALUE` selects sessions with this label; may be repeated.",
);
pub(super) const SESSIONS: &[Parameter] = &[STATUS, PURPOSE, ORDER, AFTER_SESSION, SESSION_LIMIT, LABEL];

pub(super) const INTERRUPT_FIRST: Parameter =
    parameter("interrupt", ParameterKind::Flag, "Whether a turn in progress is interrupted first.");

/// How long a request waits for the end of a turn, at most an hour.
pub(super) const WAIT: Parameter = parameter(
    "wait",
    ParameterKind::Seconds { min: 0, max: 3600 },
    "How long the response waits for the end of the turn; default: not at all.",
);

pub(super) const REQUEST_SESSION_ID: Parameter =
    parameter("sessionId", ParameterKind::Text, "Only requests of this session.");

pub(super) const AFTER_CURSOR: Parameter = parameter(
    "after",
    ParameterKind::Cursor,
    "The cursor of the last event that the client has; by default a page starts with the oldest event.",
);
pub(super) const EVENT_LIMIT: Parameter = parameter(
    "limit",
    ParameterKind::Integer { min: 1, max: 1000 },
    "The maximum number of events in a page; default: 100.",
);
pub(super) const EVENT_SESSION_ID: Parameter =
    parameter("sessionId", ParameterKind::Text, "Only events about this session or its thread.");
pub(super) const EVENT_TYPES: Parameter = parameter(
    "type",
    ParameterKind::Texts,
    "Only events whose type starts with this prefix; when repeated, with any of the prefixes.",
);
pub(super) const ON_GAP: Parameter = parameter(
    "onGap",
    ParameterKind::Enum(StringEnum::two_of_codexd(&["close", "resync"])),
    "What a WebSocket does when the cursor has expired: close (the default), or continue with the current state.",
);
pub(super) const EVENTS: &[Parameter] = &[AFTER_CURSOR, EVENT_LIMIT, EVENT_SESSION_ID, EVENT_TYPES, ON_GAP];
