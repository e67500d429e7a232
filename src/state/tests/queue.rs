//! The queues of threads: which turn is next, and when.

use serde_json::{Value, json};

use super::{folded, opened};
use crate::state::State;

fn queued(session_id: &str, id: &str, not_before: Option<&str>) -> (&'static str, Value) {
    let turn = json!({"queueId": id, "queuedAt": "T0", "input": [], "settings": {}, "notBefore": not_before});
    ("turn.queued", json!({"sessionId": session_id, "turn": turn}))
}

/// The next turn that may start at this time.
fn next(state: &State, now: &str) -> Option<String> {
    state.next_due(&"t".into(), &now.into()).map(|(_, turn)| turn.queue_id.clone())
}

#[test]
fn turn_whose_time_has_not_come_holds_none_behind_it() {
    let events = vec![
        opened("s", "t"),
        opened("z", "t"),
        queued("s", "late", Some("2026-01-01T12:00:00.000Z")),
        queued("z", "soon", Some("2026-01-01T11:00:00.000Z")),
        queued("s", "now", None),
    ];
    let state = folded(events.clone());
    for (now, first) in [
        ("2026-01-01T10:59:59.999Z", "now"),
        ("2026-01-01T11:00:00.000Z", "soon"),
        ("2026-01-01T12:00:00.000Z", "late"),
    ] {
        assert_eq!(next(&state, now).as_deref(), Some(first), "{now}");
    }
    let early = "2026-01-01T00:00:00.000Z";
    let begun = |id: &str| ("turn.accepted", json!({"sessionId": "s", "turnId": id, "queueId": id}));
    let state = folded([events.clone(), vec![begun("now")]].concat());
    assert_eq!(next(&state, early), None);
    // One that was given to the app-server may have started, so it is looked for whatever the clock says.
    let submitted = |id: &str| json!({"sessionId": "s", "queueId": id, "clientMessageId": id});
    let state = folded([events.clone(), vec![("turn.submitted", submitted("late"))]].concat());
    assert_eq!(next(&state, early).as_deref(), Some("late"));
    let rescheduled = json!({"sessionId": "z", "queueId": "soon", "notBefore": null});
    let state = folded([events, vec![("turn.rescheduled", rescheduled)]].concat());
    assert_eq!(next(&state, early).as_deref(), Some("soon"), "it keeps its place");
}
