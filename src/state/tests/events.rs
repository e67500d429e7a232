//! How events are written and read.

use serde_json::{Value, json};

use super::super::*;

/// Types whose message has more than the detail.
const WITH_OTHER_MESSAGE: [&str; 12] = [
    "daemon.started",
    "state.recovered",
    "child.external",
    "child.spawn.failed",
    "child.error",
    "child.kill.failed",
    "child.stderr",
    "child.backoff",
    "app-server.connect.failed",
    "app-server.transport.closed",
    "app-server.message.invalid",
    "session.forgotten",
];

/// Types whose detail is made as text.
const RAW: [&str; 3] =
    ["app-server.turn.message.delta", "app-server.turn.plan.delta", "app-server.notification"];

fn read(event_type: &str, detail: &Value) -> NewEvent {
    EventDetail::read(event_type, detail).unwrap_or_else(|| panic!("{event_type} {detail}")).into()
}

#[test]
fn documented_events_are_written_as_they_are_read() {
    let documentation = include_str!("../../../docs/api.md");
    let examples = documentation.lines().filter(|line| line.starts_with("{\"type\":") && !line.contains('…'));
    let mut count = 0;
    for example in examples {
        let example: Value = serde_json::from_str(example).unwrap();
        let event_type = example["type"].as_str().unwrap();
        if example.get("detail").is_none() || RAW.contains(&event_type) {
            continue;
        }
        count += 1;
        let event = read(event_type, &example["detail"]);
        assert_eq!(event.detail().event_type(), event_type);
        assert_eq!(event.json().unwrap_or("null".into()), example["detail"].to_string(), "{event_type}");
        if !WITH_OTHER_MESSAGE.contains(&event_type) {
            assert_eq!(*event.message(), example["message"], "{event_type}");
        }
    }
    assert!(count > 25, "{count}");
}

#[test]
fn details_keep_every_digit() {
    let long: Value = serde_json::from_str("[1e400,123456789012345678901234567890,-0.10]").unwrap();
    let turn =
        json!({ "threadId": "t", "turnId": "u", "status": "failed", "willRetry": false, "error": long });
    let queued = json!({ "queueId": "q", "queuedAt": "T0", "input": long, "settings": { "a": long } });
    for (event_type, detail) in [
        ("app-server.turn.completed", turn.clone()),
        ("app-server.turn.error", turn.clone()),
        ("turn.settled", super::with(turn.clone(), json!({ "sessionId": "s" }))),
        ("turn.item.read", super::with(turn, json!({ "item": { "n": long } }))),
        ("turn.queued", json!({ "sessionId": "s", "turn": queued })),
        ("app-server.connected", json!({ "userAgent": long })),
        ("request.resolved", json!({ "requestId": "r", "resolvedBy": "client", "decision": long })),
    ] {
        let event = read(event_type, &detail);
        let json = event.json().unwrap();
        assert!(json.contains(&long.to_string()), "{event_type}: {json}");
        let again = read(event_type, &serde_json::from_str(&json).unwrap());
        assert_eq!(again.json().unwrap(), json, "{event_type}");
    }
    let params = json!({ "threadId": "t", "turnId": "u", "item": long });
    let detail = json!({ "notificationMethod": "item/completed", "params": params });
    let item = long;
    let (thread_id, turn_id) = ("t".into(), "u".into());
    let change = PassedThrough::ItemCompleted { thread_id, turn_id, item };
    let expected = EventDetail::from(NotificationEvent::Other(change));
    assert_eq!(EventDetail::read("app-server.notification", &detail), Some(expected));
}

#[test]
fn detail_of_another_version_is_read_leniently() {
    let closed = |reason: Option<&str>| {
        let reason = reason.map(str::to_owned);
        Some(SessionEvent::Closed { session_id: "s".into(), reason }.into())
    };
    for (event_type, detail, expected) in [
        ("session.closed", json!({ "sessionId": "s", "reason": "r", "new": 1 }), closed(Some("r"))),
        ("session.closed", json!({ "sessionId": "s" }), closed(None)),
        ("session.closed", json!({ "sessionId": "s", "reason": 5 }), closed(None)),
        ("session.closed", json!({ "reason": "r" }), None),
        ("session.closed", json!({ "sessionId": 5 }), None),
        ("session.closed", Value::Null, None),
        ("session.renamed", json!({ "sessionId": "s" }), None),
        ("daemon.stopped", json!({ "reason": "r" }), Some(DaemonEvent::Stopped {}.into())),
        ("daemon.stopped", Value::Null, Some(DaemonEvent::Stopped {}.into())),
        ("daemon.stopped", json!("text"), Some(DaemonEvent::Stopped {}.into())),
    ] {
        assert_eq!(EventDetail::read(event_type, &detail), expected, "{event_type} {detail}");
    }
}
