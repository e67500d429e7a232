//! Changes of a session by `session.updated`.

use serde_json::{Value, json};

use super::super::*;
use super::{folded, opened};

fn updated(changes: Value) -> (&'static str, Value) {
    let mut detail = json!({ "sessionId": "s", "threadId": "t" });
    detail.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    ("session.updated", detail)
}

#[test]
fn session_has_what_was_updated_last_and_keeps_the_rest() {
    let state = folded(vec![
        opened("s", "t"),
        opened("z", "t"),
        updated(json!({ "title": "first" })),
        updated(json!({ "archived": true, "model": "another", "reasoningEffort": "high" })),
        updated(json!({ "title": "second", "metadata": { "c": "d" }, "serviceTier": "flex" })),
    ]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!((session.title.as_deref(), session.archived), (Some("second"), true));
    let settings = [&session.model, &session.reasoning_effort, &session.service_tier];
    assert_eq!(settings.map(Option::as_deref), [Some("another"), Some("high"), Some("flex")]);
    assert_eq!(*session.metadata, [("c".to_owned(), "d".to_owned())].into());
    assert_eq!(session.updated_at, "T5".into());
    let other = state.sessions.get(&"z".into()).unwrap();
    assert_eq!((other.title.as_deref(), other.archived, &other.updated_at), (None, false, &"T0".into()));
    let records = serde_json::to_string(&snapshot::RecordsFile::of(&state)).unwrap();
    let restored = State::restore(Some(serde_json::from_str(&records).unwrap()), None);
    assert_eq!(restored.sessions, state.sessions);
}

#[test]
fn update_of_a_closed_session_keeps_the_time_of_its_end() {
    let closed = ("session.closed", json!({ "sessionId": "s" }));
    let state = folded(vec![opened("s", "t"), closed, updated(json!({ "title": "late" }))]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!((session.title.as_deref(), &session.updated_at), (Some("late"), &"T2".into()));
}
