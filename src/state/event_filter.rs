//! The selection of events by type prefix and by session. One for each client that follows the log, and each hook.

use memchr::memmem::Finder;

use super::event::Event;
use crate::ids::{SessionId, ThreadId};

/// The type of the event that assigns a new thread to a session.
const SESSION_RECREATED_TYPE: &[u8] = b"session.recreated";

/// A filter; an event passes if it has a selected type and concerns the selected session.
#[derive(Debug)]
pub struct EventFilter {
    types: Vec<String>,
    session_id: Option<SessionId>,
    /// The JSON fragments of which an event about the session contains at least one.
    about: Option<Vec<Finder<'static>>>,
}

impl EventFilter {
    /// The filter for these type prefixes (none: all types) and this session (none: all); `thread_id` is the thread of the
    /// session, if known.
    pub fn new(types: &[String], session_id: Option<&SessionId>, thread_id: Option<&ThreadId>) -> Self {
        let about = session_id.map(|session_id| {
            let session = Some(("sessionId", session_id.as_str()));
            // Events of sub-agents name the thread at their root.
            let thread_id = thread_id.map(ThreadId::as_str);
            let threads = ["threadId", "rootThreadId"].into_iter().zip(thread_id.into_iter().cycle());
            session.into_iter().chain(threads).map(|(key, id)| finder(key, id)).collect()
        });
        Self { types: types.to_owned(), session_id: session_id.cloned(), about }
    }

    /// Whether it passes every event.
    pub fn passes_all(&self) -> bool {
        self.types.is_empty() && self.about.is_none()
    }

    /// Whether the event with this type and this JSON passes. Must be called for every event in order, because a session may
    /// get a new thread.
    pub fn passes(&mut self, event_type: &[u8], json: &[u8]) -> bool {
        let is_about =
            self.about.as_ref().is_none_or(|about| about.iter().any(|finder| finder.find(json).is_some()));
        if is_about && event_type == SESSION_RECREATED_TYPE {
            self.add_thread(json);
        }
        let has_type = self.types.is_empty()
            || self.types.iter().any(|prefix| event_type.starts_with(prefix.as_bytes()));
        has_type && is_about
    }

    /// Adds the new thread of the selected session.
    fn add_thread(&mut self, json: &[u8]) {
        let event: Event = match serde_json::from_slice(json) {
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
    use serde_json::{Value, json};

    use super::*;

    fn passes(filter: &mut EventFilter, event_type: &str, detail: &Value) -> bool {
        let json = json!({
            "seq": 1, "createdAt": "2026-01-02T03:04:05.678Z", "level": "info", "type": event_type,
            "message": "about \"sessionId\":\"quoted\"", "detail": detail,
        });
        filter.passes(event_type.as_bytes(), json.to_string().as_bytes())
    }

    fn filter(types: &[&str], session_id: Option<&str>, thread_id: Option<&str>) -> EventFilter {
        let types: Vec<_> = types.iter().map(|&name| name.to_owned()).collect();
        EventFilter::new(&types, session_id.map(Into::into).as_ref(), thread_id.map(Into::into).as_ref())
    }

    #[test]
    fn filter_follows_session_to_its_new_thread() {
        let mut selected = filter(&["app-server"], Some("s"), Some("old"));
        let about = |selected: &mut _, thread_id: &str| {
            passes(selected, "app-server.x", &json!({"threadId": thread_id}))
        };
        let recreated = |selected: &mut _, session_id: &str, thread_id: &str| {
            let detail = json!({"sessionId": session_id, "threadId": thread_id});
            passes(selected, "session.recreated", &detail)
        };
        assert!(!about(&mut selected, "new"));
        assert!(!recreated(&mut selected, "other", "theirs"));
        assert!(!recreated(&mut selected, "s", "new"), "the type is not selected, but the thread is added");
        assert!(about(&mut selected, "new") && about(&mut selected, "old"));
        assert!(!about(&mut selected, "theirs"));
    }

    #[test]
    fn filter_matches_types_by_prefix() {
        let event =
            |types: &[&str]| passes(&mut filter(types, None, None), "app-server.turn.started", &Value::Null);
        assert!(event(&[]));
        assert!(event(&["app-server.turn"]));
        assert!(event(&["daemon", "app-server.turn.started"]));
        assert!(!event(&["turn"]));
    }

    #[test]
    fn filter_matches_session_and_thread_ids_at_any_depth() {
        let mut selected = filter(&[], Some("s"), Some("t"));
        let mut about = |detail| passes(&mut selected, "x", &detail);
        assert!(about(json!({"sessionId": "s"})));
        assert!(about(json!({"params": {"threadId": "t"}})));
        assert!(about(json!({"threadId": "sub-agent", "rootThreadId": "t"})));
        assert!(!about(json!({"sessionId": "other", "threadId": "other"})));
        assert!(!about(json!({"note": "\"sessionId\":\"s\""})));
        assert!(!passes(&mut filter(&[], Some("quoted"), None), "x", &Value::Null));
    }
}
