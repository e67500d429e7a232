//! Parses the query of the event stream. Stateless; called by the event stream handler.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::http::parse;
use crate::http::values::WholeNumber;
use crate::ids::SessionId;
use crate::journal::Cursor;

/// The maximum number of events in a page.
const MAX_PAGE_EVENTS: u64 = 1000;

/// The query of the event stream; unknown parameters are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamQuery {
    /// The cursor of the last event that the client has; by default a page starts with the oldest event.
    #[serde(default, deserialize_with = "cursor")]
    #[schemars(with = "Option<String>", extend("pattern" = "^([0-9A-Za-z]+-)?[0-9]+$"))]
    pub(crate) after: Option<Cursor>,
    /// The maximum number of events in a page; default: 100.
    #[serde(default = "default_limit")]
    limit: WholeNumber<1, MAX_PAGE_EVENTS>,
    /// Only events about this session or its thread.
    pub(crate) session_id: Option<SessionId>,
    /// Only events whose type starts with this prefix; when repeated, with any of the prefixes.
    #[serde(default, rename = "type")]
    pub(crate) types: Vec<String>,
    /// What a WebSocket does when the cursor has expired: close (the default), or continue with the current state.
    #[serde(default)]
    on_gap: OnGap,
}

/// What a WebSocket does when its cursor has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnGap {
    #[default]
    Close,
    Resync,
}

impl StreamQuery {
    /// Parses a query string; the error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        parse::query(text)
    }

    /// Whether to continue with the current state when the cursor has expired.
    pub(crate) fn resyncs(&self) -> bool {
        self.on_gap == OnGap::Resync
    }

    /// The maximum number of events in a page.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.limit.0).unwrap_or(usize::MAX)
    }
}

fn default_limit() -> WholeNumber<1, MAX_PAGE_EVENTS> {
    WholeNumber(100)
}

fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cursor>, D::Error> {
    let cursor = String::deserialize(deserializer)?.parse();
    cursor.map(Some).map_err(|error| D::Error::custom(format!(": {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_query_parses_all_parameters() {
        let query = StreamQuery::parse(
            "after=ab-7&limit=3&sessionId=s%201&type=app-server.&type=turn.&onGap=resync&x=y",
        );
        let expected = StreamQuery {
            after: Some(Cursor { epoch: Some("ab".to_owned()), seq: 7 }),
            limit: WholeNumber(3),
            session_id: Some("s 1".into()),
            types: vec!["app-server.".to_owned(), "turn.".to_owned()],
            on_gap: OnGap::Resync,
        };
        assert_eq!(query, Ok(expected));
        let plain = StreamQuery::parse("after=&type=").unwrap();
        assert_eq!((&plain.after, plain.limit(), plain.types.len()), (&None, 100, 0));
    }

    #[test]
    fn stream_query_error_names_the_parameter() {
        for (text, name) in [
            ("after=x", "after"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=a", "limit"),
            ("onGap=1", "onGap"),
        ] {
            assert!(StreamQuery::parse(text).unwrap_err().starts_with(name), "{text}");
        }
    }
}
