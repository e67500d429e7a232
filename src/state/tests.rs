mod descendants;
mod events;
mod queue;
mod titles;
mod turns;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ids::ThreadId;

fn session(session_id: &str, thread_id: &str) -> Value {
    json!({
        "sessionId": session_id, "purpose": "duplex", "threadId": thread_id, "status": "active",
        "endpoint": "stdio://test", "childPid": 7, "createdAt": "T0", "updatedAt": "T0", "cwd": "/w",
        "model": "m", "modelProvider": "p", "serviceTier": null, "reasoningEffort": null,
        "currentTurnId": null, "lastTurnId": null, "lastTurnStatus": null, "metadata": {"a": "b"}
    })
}

fn opened(session_id: &str, thread_id: &str) -> (&'static str, Value) {
    let detail = json!({
        "sessionId": session_id, "threadId": thread_id, "purpose": "duplex",
        "session": session(session_id, thread_id), "settings": {"model": "m"}
    });
    ("session.created", detail)
}

fn event(seq: u64, event_type: &str, detail: Value) -> Event {
    Event {
        seq,
        created_at: format!("T{seq}").as_str().into(),
        level: Level::Info,
        event_type: event_type.to_owned(),
        message: "why".to_owned(),
        detail,
    }
}

fn fold(state: &mut State, events: &[Event]) {
    for event in events {
        event.apply_to(state);
    }
}

fn folded(events: Vec<(&str, Value)>) -> State {
    let mut state = State::default();
    let events: Vec<_> =
        events.into_iter().zip(1..).map(|((name, detail), seq)| event(seq, name, detail)).collect();
    fold(&mut state, &events);
    state
}

fn turn(status: &str) -> Value {
    json!({"threadId": "t", "turnId": "u", "status": status})
}

#[test]
fn turn_goes_from_accepted_to_completed() {
    let accepted = ("turn.accepted", json!({"sessionId": "s", "threadId": "t", "turnId": "u"}));
    let state = folded(vec![opened("s", "t"), accepted.clone()]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!(session.current_turn_id, Some("u".into()));
    assert_eq!(session.last_turn_status.as_deref(), Some("inProgress"));
    assert_eq!(state.turns.open().count(), 1);

    let state = folded(vec![
        opened("s", "t"),
        accepted.clone(),
        ("app-server.turn.started", turn("inProgress")),
        ("app-server.turn.completed", turn("completed")),
        // An acceptance that comes late does not revive the turn.
        accepted,
    ]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!(session.current_turn_id, None);
    assert_eq!(session.last_turn_id, Some("u".into()));
    assert_eq!(session.last_turn_status.as_deref(), Some("completed"));
    assert_eq!(session.updated_at, "T4".into());
    assert_eq!(state.turns.open().count(), 0);
}

#[test]
fn retried_error_keeps_the_turn_and_final_error_ends_it() {
    let error = |will_retry| {
        ("app-server.turn.error", json!({"threadId": "t", "turnId": "u", "willRetry": will_retry}))
    };
    let state = folded(vec![opened("s", "t"), error(true)]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!(session.current_turn_id, Some("u".into()));
    assert_eq!(session.last_turn_status.as_deref(), Some("inProgress"));

    let state = folded(vec![opened("s", "t"), error(true), error(false)]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!(session.current_turn_id, None);
    assert_eq!(session.last_turn_status.as_deref(), Some("failed"));
}

#[test]
fn missing_completion_fails_the_turn() {
    let state = folded(vec![
        opened("s", "t"),
        ("app-server.turn.started", turn("inProgress")),
        ("app-server.turn.completed.missing", json!({"sessionId": "s", "threadId": "t", "turnId": "u"})),
    ]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!(session.current_turn_id, None);
    assert_eq!(session.last_turn_status.as_deref(), Some("failed"));
}

#[test]
fn turns_of_foreign_threads_change_nothing() {
    let before = folded(vec![opened("s", "other")]);
    let mut after = before.clone();
    fold(&mut after, &[event(2, "app-server.turn.started", turn("inProgress"))]);
    assert_eq!(after.sessions, before.sessions);
    assert_eq!(after.sessions_updated_at, before.sessions_updated_at);
}

#[test]
fn closed_session_has_no_turn_and_is_not_busy() {
    let state = folded(vec![
        opened("s", "t"),
        ("app-server.turn.started", turn("inProgress")),
        ("session.closed", json!({"sessionId": "s"})),
    ]);
    let session = state.sessions.get(&"s".into()).unwrap();
    assert_eq!((session.status, &session.current_turn_id), (SessionStatus::Closed, &None));
}

#[test]
fn turn_belongs_to_the_session_that_started_it() {
    let accepted = |session_id: &str, turn_id: &str, steered: bool| {
        let detail = json!({"sessionId": session_id, "threadId": "t", "turnId": turn_id, "steered": steered});
        ("turn.accepted", detail)
    };
    let begun = |turn_id| ("app-server.turn.started", json!({"threadId": "t", "turnId": turn_id}));
    let sessions = vec![opened("s", "t"), opened("z", "t")];
    let events = [sessions.clone(), vec![accepted("s", "u", false), accepted("z", "u", true), begun("v")]];
    let state = folded(events.concat());
    assert_eq!(state.owner_of(&"t".into(), &"u".into()), Some(&"s".into()));
    assert_eq!(state.owner_of(&"t".into(), &"v".into()), None, "another client of the app-server started it");
    assert_eq!(state.owner_of(&"t".into(), &"w".into()), None);
    for session_id in ["s", "z"] {
        let session = state.sessions.get(&session_id.into()).unwrap();
        assert_eq!(session.current_turn_id, Some("v".into()), "both have the turns of their thread");
    }
    let state = folded([sessions, vec![begun("u"), accepted("z", "u", true)]].concat());
    assert_eq!(
        state.owner_of(&"t".into(), &"u".into()),
        None,
        "who steers a turn of another one does not start it"
    );
}

#[test]
fn turns_of_an_older_registry_move_to_their_threads() {
    let turn = |session_id: &str, turn_id: &str, status: &str, at: &str| {
        json!({
            "turnId": turn_id, "sessionId": session_id, "threadId": "t", "status": status, "startedAt": at,
            "completedAt": null, "text": "hi", "error": null, "tokenUsage": null, "items": [],
        })
    };
    let registry = json!({
        "throughSeq": 7, "updatedAt": "T7", "sessions": [session("s", "t"), session("z", "t")],
        "turns": {
            "s": [turn("s", "u", "inProgress", "T1"), turn("s", "w", "inProgress", "T3")],
            "z": [turn("z", "u", "completed", "T1"), turn("z", "v", "completed", "T2")],
        },
    });
    let state = State::restore(Some(serde_json::from_value(registry).unwrap()), None);
    let turns: Vec<_> =
        state.turns.of(&"t".into()).map(|turn| (turn.turn_id.as_str(), turn.is_over())).collect();
    assert_eq!(turns, [("w", false), ("v", true), ("u", true)]);
    assert_eq!(state.owner_of(&"t".into(), &"v".into()), Some(&"z".into()));
    assert_eq!(
        state.owner_of(&"t".into(), &"u".into()),
        None,
        "two sessions have it, and which started it was not written"
    );
    assert_eq!(state.turns.running(&"t".into()).map(|turn| turn.turn_id.as_str()), Some("w"));
    let written = serde_json::to_value(snapshot::RecordsFile::of(&state)).unwrap();
    assert_eq!(written.get("turns"), None);
    let again = State::restore(Some(serde_json::from_value(written).unwrap()), None);
    assert_eq!(again.turns, state.turns);
}

#[test]
fn queued_turns_have_one_order_for_all_sessions_of_a_thread() {
    let queued = |session_id: &str, id: &str| {
        let turn = json!({"queueId": id, "queuedAt": "T0", "input": [], "settings": {}});
        ("turn.queued", json!({"sessionId": session_id, "turn": turn}))
    };
    let mut events = vec![opened("s", "t"), opened("z", "t"), opened("o", "other")];
    events.extend([queued("z", "1"), queued("s", "2"), queued("o", "3"), queued("z", "4")]);
    let state = folded(events);
    let queue: Vec<_> = state
        .queue_of(&"t".into())
        .map(|(session_id, turn)| (session_id.as_str(), &*turn.queue_id))
        .collect();
    assert_eq!(queue, [("z", "1"), ("s", "2"), ("z", "4")]);
    assert_eq!(state.queued_threads().into_iter().map(ThreadId::as_str).collect::<Vec<_>>(), ["other", "t"]);
}

#[test]
fn queued_turn_stays_until_it_is_accepted_or_rejected() {
    let queued = |id: &str| {
        let turn = json!({"queueId": id, "queuedAt": "T0", "input": [], "settings": {}});
        ("turn.queued", json!({"sessionId": "s", "turn": turn}))
    };
    let waiting = |events: Vec<(&str, Value)>| {
        let state = folded([vec![opened("s", "t"), queued("1"), queued("2"), queued("3")], events].concat());
        state
            .private
            .queue(&"s".into())
            .map(|turn| (turn.queue_id.clone(), turn.submitted))
            .collect::<Vec<_>>()
    };
    let rest = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), false)).collect::<Vec<_>>();
    assert_eq!(waiting(vec![]), rest(&["1", "2", "3"]));
    let about = |id| json!({"sessionId": "s", "turnId": "u", "queueId": id, "clientMessageId": id});
    assert_eq!(waiting(vec![("turn.submitted", about("1"))])[0], ("1".to_owned(), true));
    assert_eq!(waiting(vec![("turn.accepted", about("1"))]), rest(&["2", "3"]));
    assert_eq!(waiting(vec![("turn.rejected", about("2"))]), rest(&["1", "3"]));
}

#[test]
fn idempotency_key_keeps_the_first_response() {
    let turn = json!({"sessionId": "s", "threadId": "t", "turnId": "u"});
    let submitted =
        ("turn.submitted", with(turn.clone(), json!({"clientMessageId": "c", "idempotency": key("k")})));
    let state = folded(vec![opened("s", "t"), submitted.clone()]);
    assert_eq!(state.private.answers.get("k").unwrap().session, None, "the outcome is not known yet");
    let accepted = ("turn.accepted", with(turn, json!({"idempotency": key("k")})));
    let completed =
        ("app-server.turn.completed", json!({"threadId": "t", "turnId": "u", "status": "completed"}));
    let state = folded(vec![opened("s", "t"), submitted, accepted, completed]);
    let answer = state.private.answers.get("k").unwrap();
    assert_eq!(answer.turn_id, Some("u".into()));
    let then = answer.session.as_ref().unwrap();
    assert_eq!(then.last_turn_status.as_deref(), Some("inProgress"), "as it was answered, not as it is now");
}

#[test]
fn repeated_answer_has_the_session_as_it_was_also_after_its_record_changed() {
    let (name, mut created) = opened("s", "t");
    created["idempotency"] = key("k");
    let mut again = session("s", "t2");
    again["childPid"] = json!(8);
    let recreated = ("session.recreated", json!({"sessionId": "s", "threadId": "t2", "session": again}));
    let closed = ("session.closed", json!({"sessionId": "s"}));
    let forgotten = ("session.forgotten", json!({"sessionId": "s"}));
    let trusted = ("session.trust", json!({"sessionId": "s", "threadId": "t2", "trust": "trusted"}));
    let events = [(name, created), trusted, recreated, closed, forgotten];
    let first: SessionBody = serde_json::from_value(session("s", "t")).unwrap();
    let first = Session::from(first);
    for count in 1..=events.len() {
        let state = folded(events[..count].to_vec());
        let registry = serde_json::to_value(snapshot::RecordsFile::of(&state)).unwrap();
        let restored = State::restore(Some(serde_json::from_value(registry).unwrap()), None);
        for state in [&state, &restored] {
            let answer = state.private.answers.get("k").unwrap();
            assert_eq!(state.session_of_answer(&answer).as_ref(), Some(&first), "after {count} events");
        }
    }
}

#[test]
fn record_of_a_turn_keeps_little() {
    let begun = |turn_id: &str| {
        ("app-server.turn.started", json!({"threadId": "t", "turnId": turn_id, "status": "inProgress"}))
    };
    let said = |turn_id: &str, text: &str| {
        let item = json!({"type": "agentMessage", "id": "i", "text": text});
        let params = json!({"threadId": "t", "turnId": turn_id, "item": item});
        ("app-server.notification", json!({"notificationMethod": "item/completed", "params": params}))
    };
    let long = "x".repeat(4097);
    let events = vec![opened("s", "t"), begun("u"), said("u", "old"), begun("v"), said("v", "new")];
    let state = folded([events.clone(), vec![begun("w"), said("w", &long)]].concat());
    assert!(state.turns.of(&"t".into()).all(|turn| turn.kept == turn::KeptContents::default()));
    let state = folded(events);
    let kept: Vec<_> = state.turns.of(&"t".into()).map(|turn| turn.kept.text.as_deref()).collect();
    assert_eq!(kept, [Some("new"), None], "only the newest turn has its answer");
    let seqs: Vec<_> = state.turns.of(&"t".into()).map(|turn| (turn.first_seq, turn.last_seq)).collect();
    assert_eq!(seqs, [(4, 5), (2, 3)]);
}

#[test]
fn found_turn_has_its_status_and_is_shown_only_as_the_newest() {
    let found = |status: &str, is_newest: bool| {
        let detail = json!({
            "sessionId": "s", "threadId": "t", "turnId": "u", "status": status, "isNewest": is_newest,
        });
        ("turn.accepted", detail)
    };
    let newer = ("turn.accepted", json!({ "sessionId": "s", "turnId": "v" }));
    for (events, current, last, status) in [
        (vec![found("interrupted", true)], None, "u", "interrupted"),
        (vec![found("inProgress", true)], Some("u"), "u", "inProgress"),
        (vec![newer, found("completed", false)], Some("v"), "v", "inProgress"),
    ] {
        let state = folded(std::iter::once(opened("s", "t")).chain(events).collect());
        let session = state.sessions.get(&"s".into()).unwrap();
        assert_eq!(session.current_turn_id, current.map(Into::into));
        assert_eq!(session.last_turn_id, Some(last.into()));
        assert_eq!(session.last_turn_status.as_deref(), Some(status));
    }
}

#[test]
fn later_report_of_the_app_server_corrects_the_last_turn_only() {
    let missing =
        ("app-server.turn.completed.missing", json!({"sessionId": "s", "threadId": "t", "turnId": "u"}));
    let settled =
        |turn_id, status| ("turn.settled", json!({"sessionId": "s", "turnId": turn_id, "status": status}));
    let session = |events: Vec<(&str, Value)>| folded(events).sessions.get(&"s".into()).unwrap().clone();
    let begun = vec![opened("s", "t"), ("app-server.turn.started", turn("inProgress")), missing];
    let after = session([begun.clone(), vec![settled("u", "interrupted")]].concat());
    assert_eq!((after.last_turn_status.as_deref(), &after.current_turn_id), (Some("interrupted"), &None));
    let after = session([begun.clone(), vec![settled("older", "interrupted")]].concat());
    assert_eq!(after.last_turn_status.as_deref(), Some("failed"));
    let after = session([begun, vec![settled("u", "inProgress")]].concat());
    assert_eq!(after.current_turn_id, Some("u".into()), "an app-server that keeps running still runs it");
}

#[test]
fn child_state_follows_its_events() {
    let started = ("daemon.started", json!({"strategy": "spawn", "pid": 10}));
    let child = ("child.started", json!({"pid": 11}));
    let exited = |expected| ("child.exited", json!({"code": 3, "signal": null, "expected": expected}));
    let status = |events: Vec<(&str, Value)>| folded(events).daemon.child.status;

    assert_eq!(status(vec![started.clone()]), ChildStatus::Starting);
    assert_eq!(
        status(vec![started.clone(), child.clone(), ("app-server.connected", json!({}))]),
        ChildStatus::Running
    );
    assert_eq!(status(vec![started.clone(), child.clone(), exited(true)]), ChildStatus::Stopped);
    let exited_child = folded(vec![started, child, exited(false)]).daemon.child;
    assert_eq!(exited_child.status, ChildStatus::Failed);
    assert_eq!((exited_child.pid, exited_child.exit_code), (None, Some(3)));
    assert_eq!(exited_child.last_error.as_deref(), Some("why"));
    assert_eq!(exited_child.state, ChildPhase::Backoff);

    let external = ("daemon.started", json!({"strategy": "external"}));
    assert_eq!(
        status(vec![external.clone(), ("app-server.connected", json!({}))]),
        ChildStatus::External,
        "a connection does not make the process ours"
    );
    assert_eq!(status(vec![external, ("daemon.stopped", Value::Null)]), ChildStatus::Idle);
}

fn with(mut detail: Value, more: Value) -> Value {
    detail.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    detail
}

fn key(name: &str) -> Value {
    json!({"key": name, "digest": "d", "expiresAt": "T9999"})
}

fn any_event() -> impl Strategy<Value = (&'static str, Value)> {
    let id = prop_oneof![Just("a"), Just("b"), Just("c")];
    let status = prop_oneof![Just("inProgress"), Just("completed"), Just("interrupted"), Just("failed")];
    (0..26u8, id.clone(), id.clone(), id, status, any::<bool>()).prop_map(|(kind, s, t, u, status, flag)| {
        let turn = json!({"sessionId": s, "threadId": t, "turnId": u, "status": status, "willRetry": flag});
        match kind {
            0 => (
                "daemon.started",
                json!({"strategy": if flag {"spawn"} else {"external"}, "pid": 1}),
            ),
            1 => ("daemon.stopped", Value::Null),
            2 => ("child.started", json!({"pid": 2})),
            3 => ("child.exited", json!({"code": 1, "signal": null, "expected": flag})),
            4 => ("app-server.connected", json!({"generation": 2})),
            24 | 25 => (
                if kind == 24 { "child.backoff" } else { "child.crash_loop" },
                json!({"until": "T", "deaths": 3, "cause": "it exited", "stderrTail": [s, t]}),
            ),
            5 | 6 => opened(s, t),
            7 => ("session.closed", turn),
            8 => ("turn.accepted", turn),
            9 => ("app-server.turn.started", turn),
            10 => ("app-server.turn.completed", turn),
            11 => ("app-server.turn.error", turn),
            12 => ("app-server.turn.completed.missing", turn),
            13 => ("session.forgotten", turn),
            14 => ("turn.submitted", with(turn, json!({"clientMessageId": "c", "queueId": u, "idempotency": key(t)}))),
            15 => ("turn.accepted", with(turn, json!({"queueId": u, "idempotency": key(t)}))),
            16 => ("turn.rejected", with(turn, json!({"queueId": u, "idempotencyKey": t}))),
            17 => ("turn.queued", with(turn, json!({
                "turn": {"queueId": u, "queuedAt": "T0", "input": [{"type": "text"}], "settings": {"a": 1}},
                "idempotency": key(t),
            }))),
            18 => ("turn.settled", turn),
            19 => ("request.opened", json!({"request": {
                "requestId": u, "method": "m", "status": "pending", "sessionId": s, "threadId": t, "turnId": null,
                "itemId": null, "decisions": ["accept"], "params": {}, "createdAt": "T0", "expiresAt": "T9",
                "resolvedAt": null, "resolvedBy": null, "decision": null, "reason": null,
            }})),
            21 => ("app-server.notification", json!({"notificationMethod": "item/completed", "params": {
                "threadId": t, "turnId": u, "item": {"type": "agentMessage", "id": "i", "text": status},
            }})),
            22 => ("app-server.notification", json!({"notificationMethod": "thread/tokenUsage/updated", "params": {
                "threadId": t, "turnId": u, "tokenUsage": {"total": 1},
            }})),
            20 => ("request.resolved", json!({
                "requestId": u, "resolvedBy": "client", "decision": "accept", "reason": null,
            })),
            _ => ("app-server.turn.message.delta", turn),
        }
    })
}

proptest! {
    #[test]
    fn snapshot_and_tail_equal_the_whole_log(
        events in prop::collection::vec(any_event(), 0..60), cut in 0..60usize, overlap in 0..5usize,
        ahead in 0..5usize, lost in 0..6u8,
    ) {
        let events: Vec<_> =
            events.into_iter().zip(1..).map(|((name, detail), seq)| event(seq, name, detail)).collect();
        let cut = cut.min(events.len());
        let mut whole = State::default();
        fold(&mut whole, &events);

        let mut half = State::default();
        fold(&mut half, &events[..cut]);
        // A crash between the two files leaves one of them older.
        let mut newer = half.clone();
        fold(&mut newer, &events[cut..(cut + ahead).min(events.len())]);
        let registry = serde_json::to_string(&snapshot::RecordsFile::of(&newer)).unwrap();
        let daemon = serde_json::to_string(&snapshot::DaemonFile::of(&half, |daemon| daemon)).unwrap();
        let mut restored = State::restore(
            (lost != 1).then(|| serde_json::from_str(&registry).unwrap()),
            (lost != 2).then(|| serde_json::from_str(&daemon).unwrap()),
        );
        // Reading a little too much of the log changes nothing; where one of the files was lost it is read whole.
        let from = if matches!(lost, 1 | 2) { 0 } else { cut.saturating_sub(overlap) };
        fold(&mut restored, &events[from..]);
        prop_assert_eq!(restored, whole);
    }

    #[test]
    fn event_text_holds_the_whole_change((name, detail) in any_event()) {
        let read = EventDetail::read(name, &detail).unwrap();
        if !matches!(read, EventDetail::Notification(NotificationEvent::Other(_) | NotificationEvent::MessageDelta {})) {
            let written = NewEvent::new(read.clone());
            let written = written.json().map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
            prop_assert_eq!(EventDetail::read(name, &written), Some(read));
        }
    }

    #[test]
    fn closed_sessions_are_listed_in_the_order_of_their_end(events in prop::collection::vec(any_event(), 0..60)) {
        let state = folded(events);
        let mut expected: Vec<_> = state.sessions.iter()
            .filter(|session| session.status == SessionStatus::Closed).cloned().collect();
        expected.sort_by_key(|session| session.updated_at.clone());
        prop_assert_eq!(state.sessions.closed().cloned().collect::<Vec<_>>(), expected);
        prop_assert_eq!(state.sessions.closed_count(), state.sessions.closed().count());
    }

    #[test]
    fn open_turns_are_unfinished_turns_also_after_restore(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let state = folded(events);
        let registry = serde_json::to_string(&snapshot::RecordsFile::of(&state)).unwrap();
        let restored = State::restore(Some(serde_json::from_str(&registry).unwrap()), None);
        for state in [&state, &restored] {
            let threads = ["a", "b", "c"].map(ThreadId::new);
            let expected: Vec<_> = threads.iter().flat_map(|thread_id| state.turns.of(thread_id))
                .filter(|turn| turn.status == crate::codex::protocol::values::TURN_IN_PROGRESS).cloned().collect();
            prop_assert_eq!(state.turns.open().cloned().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn active_sessions_of_a_thread_show_the_same_turns(events in prop::collection::vec(any_event(), 0..60)) {
        let state = folded(events);
        for turn in state.turns.open() {
            let running = state.turns.running(&turn.thread_id).unwrap();
            for session in state.sessions.active_in_thread(&turn.thread_id) {
                let shown = session.current_turn_id.as_ref();
                let expected = Some(&running.turn_id).filter(|_| running.phase != Phase::Failing);
                prop_assert_eq!(shown, expected);
            }
        }
    }
}
