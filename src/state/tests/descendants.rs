//! Threads of sub-agents and the sessions at their root.

use serde_json::{Value, json};

use super::super::*;
use super::{folded, opened};

fn collab(thread_id: &str, turn_id: &str, receiver: &str) -> (&'static str, Value) {
    let item = json!({
        "type": "collabAgentToolCall", "id": "i", "tool": "spawnAgent", "status": "completed",
        "senderThreadId": thread_id, "receiverThreadIds": [receiver],
    });
    let params = json!({ "threadId": thread_id, "turnId": turn_id, "item": item });
    ("app-server.notification", json!({ "notificationMethod": "item/completed", "params": params }))
}

fn accepted(session_id: &str, thread_id: &str, turn_id: &str) -> (&'static str, Value) {
    let detail = json!({ "sessionId": session_id, "threadId": thread_id, "turnId": turn_id });
    ("turn.accepted", detail)
}

fn begun(thread_id: &str, turn_id: &str, root: Option<&str>) -> (&'static str, Value) {
    let detail =
        json!({ "threadId": thread_id, "turnId": turn_id, "rootTurnId": root, "status": "inProgress" });
    ("app-server.turn.started", detail)
}

#[test]
fn session_of_the_root_turn_decides_for_its_sub_agents() {
    // Codex 0.160 does not name the root of a turn.
    for names_root in [true, false] {
        let root = |turn_id| names_root.then_some(turn_id);
        let state = folded(vec![
            opened("s", "t"),
            opened("z", "t"),
            accepted("s", "t", "u"),
            collab("t", "u", "child"),
            begun("child", "c1", root("u")),
            collab("child", "c1", "grandchild"),
            begun("grandchild", "g1", root("u")),
        ]);
        for (thread_id, turn_id) in [("t", "u"), ("child", "c1"), ("grandchild", "g1")] {
            assert_eq!(
                state.deciding_session(&thread_id.into(), Some(&turn_id.into())),
                Some(&"s".into()),
                "{thread_id}"
            );
            let root = state.descendants.root(&thread_id.into(), Some(&turn_id.into()));
            assert_eq!((root.thread_id, root.turn_id), ("t".into(), Some("u".into())), "{thread_id}");
        }
        assert_eq!(state.descendants.running(&"t".into(), Some(&"u".into())).len(), 2);
        assert_eq!(state.descendants.running(&"t".into(), Some(&"other".into())), []);
        let registry = serde_json::to_string(&snapshot::RecordsFile::of(&state)).unwrap();
        let restored = State::restore(Some(serde_json::from_str(&registry).unwrap()), None);
        assert_eq!(restored.descendants, state.descendants);
    }
}

#[test]
fn no_session_decides_for_descendants_of_a_turn_without_session() {
    let events = vec![
        opened("s", "t"),
        accepted("s", "t", "u"),
        collab("t", "u", "child"),
        begun("child", "c1", None),
        ("app-server.turn.completed", json!({ "threadId": "child", "turnId": "c1", "status": "completed" })),
        ("app-server.turn.completed", json!({ "threadId": "t", "turnId": "u", "status": "completed" })),
        begun("t", "foreign", None),
        collab("t", "foreign", "child"),
        begun("child", "c2", None),
    ];
    let state = folded(events);
    assert_eq!(state.deciding_session(&"child".into(), Some(&"c2".into())), None);
    assert_eq!(state.descendants.root(&"child".into(), Some(&"c2".into())).turn_id, Some("foreign".into()));
}

#[test]
fn agents_that_call_each_other_keep_their_root() {
    let state = folded(vec![
        opened("s", "t"),
        accepted("s", "t", "u"),
        collab("t", "u", "a"),
        collab("t", "u", "b"),
        begun("a", "a1", None),
        begun("b", "b1", None),
        collab("a", "a1", "b"),
        collab("b", "b1", "a"),
        collab("a", "a1", "t"),
        collab("b", "b1", "b"),
    ]);
    for (thread_id, turn_id) in [("a", "a1"), ("b", "b1")] {
        assert_eq!(state.descendants.root(&thread_id.into(), Some(&turn_id.into())).thread_id, "t".into());
        assert_eq!(state.deciding_session(&thread_id.into(), Some(&turn_id.into())), Some(&"s".into()));
    }
    assert_eq!(state.descendants.root(&"t".into(), None).thread_id, "t".into());
}

#[test]
fn descendants_are_removed_with_the_last_session_of_their_root() {
    let thread = json!({ "threadId": "child", "parentThreadId": "t" });
    let mut events = vec![opened("s", "t"), ("app-server.thread.started", thread)];
    let state = folded(events.clone());
    assert_eq!(state.descendants.root(&"child".into(), None).thread_id, "t".into());
    events.push(("session.closed", json!({ "sessionId": "s" })));
    events.push(("session.forgotten", json!({ "sessionId": "s" })));
    assert!(folded(events).descendants.is_empty());
}

#[test]
fn thread_without_session_has_no_descendants() {
    let state = folded(vec![opened("s", "t"), collab("elsewhere", "u", "child")]);
    assert!(state.descendants.is_empty());
}

#[test]
fn turn_that_starts_before_its_thread_is_announced_is_known() {
    let mut events = vec![
        opened("s", "t"),
        accepted("s", "t", "u"),
        begun("child", "c1", Some("u")),
        begun("other", "o1", None),
        ("app-server.turn.completed", json!({ "threadId": "other", "turnId": "o1", "status": "completed" })),
        collab("t", "u", "child"),
        collab("t", "u", "other"),
    ];
    let running = |events: &[(&'static str, Value)]| {
        folded(events.to_vec()).descendants.running(&"t".into(), Some(&"u".into()))
    };
    assert_eq!(running(&events), [("child".into(), "c1".into())]);
    events.push((
        "app-server.turn.completed",
        json!({ "threadId": "child", "turnId": "c1", "status": "completed" }),
    ));
    assert_eq!(running(&events), []);
}

#[test]
fn turn_within_a_turn_of_its_thread_is_no_turn_of_the_thread() {
    let completed = json!({ "threadId": "t", "turnId": "u", "status": "completed" });
    let state = folded(vec![
        opened("s", "t"),
        accepted("s", "t", "u"),
        begun("t", "inner", Some("u")),
        ("app-server.turn.completed", completed),
    ]);
    assert!(state.turns.get(&"t".into(), &"inner".into()).is_none());
    assert!(state.turns.running(&"t".into()).is_none());
    assert_eq!(state.sessions.get(&"s".into()).unwrap().last_turn_id, Some("u".into()));
}
