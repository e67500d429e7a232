//! The event filter of a stream query: by type prefix and by session. Owned by `feed` and `json`, one per client.

use memchr::memmem::Finder;

use super::query::StreamQuery;
use crate::daemon::DaemonError;
use crate::http::app_state::SharedState;
use crate::ids::{SessionId, ThreadId};
use crate::journal::Line;
use crate::state::Event;

/// The type of the event that assigns a new thread to a session.
const SESSION_RECREATED_TYPE: &[u8] = b"session.recreated";

/// A filter; an event passes if it has a selected type and concerns the selected session.
#[derive(Debug)]
pub(super) struct Filter {
    types: Vec<String>,
    session_id: Option<SessionId>,
    /// The JSON fragments of which an event about the session contains at least one.
    about: Option<Vec<Finder<'static>>>,
}

impl Filter {
    /// The filter of a query; an error if its session does not exist. A stream of a session that may be created later
    /// would be silent, and clients could not distinguish it from an idle session.
    pub(super) fn for_query(state: &SharedState, query: &StreamQuery) -> Result<Self, DaemonError> {
        let session =
            query.session_id.as_ref().map(|session_id| state.daemon.sessions.get(session_id)).transpose()?;
        Ok(Self::new(query, session.as_ref().and_then(|session| session.thread_id.as_ref())))
    }

    /// The filter of a query; `thread_id` is the thread of its session, if known.
    pub(super) fn new(query: &StreamQuery, thread_id: Option<&ThreadId>) -> Self {
        let about = query.session_id.as_ref().map(|session_id| {
            let session = Some(("sessionId", session_id.as_str()));
            // Events of sub-agents name the thread at their root.
            let thread_id = thread_id.map(ThreadId::as_str);
            let threads = ["threadId", "rootThreadId"].into_iter().zip(thread_id.into_iter().cycle());
            session.into_iter().chain(threads).map(|(key, id)| finder(key, id)).collect()
        });
        Self { types: query.types.clone(), session_id: query.session_id.clone(), about }
    }

    /// Whether it passes every event.
    pub(super) fn passes_all(&self) -> bool {
        self.types.is_empty() && self.about.is_none()
    }

    /// Whether this event passes. Must be called for every event in order, because a session may get a new thread.
    pub(super) fn passes(&mut self, line: &Line) -> bool {
        let is_about = self
            .about
            .as_ref()
            .is_none_or(|about| about.iter().any(|finder| finder.find(line.json()).is_some()));
        if is_about && line.event_type() == SESSION_RECREATED_TYPE {
            self.add_thread(line);
        }
        let has_type = self.types.is_empty()
            || self.types.iter().any(|prefix| line.event_type().starts_with(prefix.as_bytes()));
        has_type && is_about
    }

    /// Adds the new thread of the selected session.
    fn add_thread(&mut self, line: &Line) {
        let event: Event = match serde_json::from_slice(line.json()) {
            Ok(event) => event,
            // Lines are written by codexd, so they are valid.
            Err(_) => return,
        };
        let detail = &event.detail;
        if let (Some(about), Some(thread_id)) = (&mut self.about, detail["threadId"].as_str())
            && detail["sessionId"].as_str() == self.session_id.as_ref().map(SessionId::as_str)
        {
            let of_thread = finder("threadId", thread_id);
            if !about.iter().any(|known| known.needle() == of_thread.needle()) {
                about.push(of_thread);
            }
        }
    }
}

/// Finds `"key":"id"` in compact JSON.
///
/// Inside a string the quotes would be escaped, so a match is always a key with that value.
fn finder(key: &str, id: &str) -> Finder<'static> {
    let text = format!("\"{key}\":{}", serde_json::Value::from(id));
    Finder::new(text.as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event_type: &str, detail: serde_json::Value) -> Line {
        let message = "about \"sessionId\":\"quoted\"";
        let json = serde_json::json!({
            "seq": 1, "createdAt": "2026-01-02T03:04:05.678Z", "level": "info", "type": event_type,
            "message": message, "detail": detail,
        });
        Line::from_json(1, json.to_string().as_bytes())
    }

    fn filter(query: &str, thread_id: Option<&str>) -> Filter {
        Filter::new(&StreamQuery::parse(query).unwrap(), thread_id.map(Into::into).as_ref())
    }

    #[test]
    fn filter_follows_session_to_its_new_thread() {
        let mut selected = filter("sessionId=s&type=app-server", Some("old"));
        let about = |thread_id: &str| line("app-server.x", serde_json::json!({"threadId": thread_id}));
        let recreated = |session_id: &str, thread_id: &str| {
            line("session.recreated", serde_json::json!({"sessionId": session_id, "threadId": thread_id}))
        };
        assert!(!selected.passes(&about("new")));
        assert!(!selected.passes(&recreated("other", "theirs")));
        assert!(
            !selected.passes(&recreated("s", "new")),
            "the type is not selected, but the thread is added"
        );
        assert!(selected.passes(&about("new")) && selected.passes(&about("old")));
        assert!(!selected.passes(&about("theirs")));
    }

    #[test]
    fn filter_matches_types_by_prefix() {
        let event = line("app-server.turn.started", serde_json::Value::Null);
        assert!(filter("", None).passes(&event));
        assert!(filter("type=app-server.turn", None).passes(&event));
        assert!(filter("type=daemon&type=app-server.turn.started", None).passes(&event));
        assert!(!filter("type=turn", None).passes(&event));
    }

    #[test]
    fn filter_matches_session_and_thread_ids_at_any_depth() {
        let about = |detail| line("x", detail);
        let mut selected = filter("sessionId=s", Some("t"));
        assert!(selected.passes(&about(serde_json::json!({"sessionId": "s"}))));
        assert!(selected.passes(&about(serde_json::json!({"params": {"threadId": "t"}}))));
        assert!(selected.passes(&about(serde_json::json!({"threadId": "sub-agent", "rootThreadId": "t"}))));
        assert!(!selected.passes(&about(serde_json::json!({"sessionId": "other", "threadId": "other"}))));
        assert!(!selected.passes(&about(serde_json::json!({"note": "\"sessionId\":\"s\""}))));
        assert!(!filter("sessionId=quoted", None).passes(&about(serde_json::Value::Null)));
    }
}
