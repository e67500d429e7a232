//! Parses the query of the event stream. Stateless; called by the event stream handler.

use crate::http::queries::{AFTER_CURSOR, EVENT_LIMIT, EVENT_SESSION_ID, EVENT_TYPES, ON_GAP};
use crate::journal::Cursor;

/// The default number of events in a page.
const DEFAULT_PAGE_EVENTS: usize = 100;

/// The parameters of the event stream; unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamQuery {
    /// The last event that the client has.
    pub(crate) after: Option<Cursor>,
    /// The maximum number of events in a page.
    pub(crate) limit: usize,
    /// Only events about this session.
    pub(crate) session_id: Option<String>,
    /// Only events whose type starts with one of these; empty means all.
    pub(crate) types: Vec<String>,
    /// Whether to continue with the current state when the cursor has expired.
    pub(crate) resync: bool,
}

impl StreamQuery {
    /// Parses a query string; the error is a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut query = Self {
            after: None,
            limit: DEFAULT_PAGE_EVENTS,
            session_id: None,
            types: Vec::new(),
            resync: false,
        };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            match &*name {
                name if name == AFTER_CURSOR.name => query.after = Some(parse_cursor(value)?),
                name if name == EVENT_LIMIT.name => {
                    query.limit =
                        usize::try_from(EVENT_LIMIT.parse_number(value)?).unwrap_or(DEFAULT_PAGE_EVENTS);
                }
                name if name == EVENT_SESSION_ID.name => query.session_id = Some(value.to_owned()),
                name if name == EVENT_TYPES.name => query.types.push(value.to_owned()),
                name if name == ON_GAP.name => query.resync = ON_GAP.parse_variant(value)? == "resync",
                _ => {}
            }
        }
        Ok(query)
    }
}

pub(super) fn parse_cursor(value: &str) -> Result<Cursor, String> {
    value.parse().map_err(|error| format!("{}: {error}.", AFTER_CURSOR.name))
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
            limit: 3,
            session_id: Some("s 1".to_owned()),
            types: vec!["app-server.".to_owned(), "turn.".to_owned()],
            resync: true,
        };
        assert_eq!(query, Ok(expected));
        let plain = StreamQuery::parse("after=&type=").unwrap();
        assert_eq!((plain.after, plain.limit, plain.types.len()), (None, DEFAULT_PAGE_EVENTS, 0));
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
