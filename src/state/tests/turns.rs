//! Turns take little memory, and know their place and whether all of them was heard.

use serde_json::{Value, json};

use super::super::{State, snapshot};
use super::{folded, opened};

type NamedEvent = (&'static str, Value);

fn started(turn_id: &str) -> NamedEvent {
    ("app-server.turn.started", json!({ "threadId": "t", "turnId": turn_id, "status": "inProgress" }))
}

fn ended(turn_id: &str) -> NamedEvent {
    ("app-server.turn.completed", json!({ "threadId": "t", "turnId": turn_id, "status": "completed" }))
}

/// A turn that was not heard of, as its thread reports it.
fn read(turn_id: &str, previous: Option<&str>) -> [NamedEvent; 2] {
    let (started_at, ended_at) = ("2026-01-01T00:00:01.000Z", "2026-01-01T00:00:02.000Z");
    let start = json!({
        "threadId": "t", "turnId": turn_id, "status": "inProgress", "readFromThread": true,
        "startedAt": started_at, "previousTurnId": previous,
    });
    let end = json!({ "sessionId": "s", "threadId": "t", "turnId": turn_id, "status": "completed", "completedAt": ended_at });
    [("app-server.turn.started", start), ("turn.settled", end)]
}

#[test]
fn turns_share_the_text_of_their_ids_with_other_records() {
    let accepted =
        |turn_id: &str| ("turn.accepted", json!({ "sessionId": "s", "threadId": "t", "turnId": turn_id }));
    let state = folded(vec![opened("s", "t"), accepted("u"), accepted("v")]);
    let session_id = &state.sessions.get(&"s".into()).unwrap().session_id;
    let turns: Vec<_> = state.turns.of(&"t".into()).collect();
    assert!(std::ptr::eq(turns[0].thread_id.as_str(), turns[1].thread_id.as_str()));
    for turn in turns {
        assert!(std::ptr::eq(turn.started_by.as_ref().unwrap().as_str(), session_id.as_str()));
    }
}

#[test]
fn turn_that_was_not_heard_of_has_its_place_in_the_thread() {
    let known = [opened("s", "t"), started("a"), ended("a")];
    // One that began after the connection was heard first.
    let newer = [started("d"), ended("d")];
    for (newer, previous, order) in [
        (&newer[..], Some("a"), ["d", "c", "b", "a"]),
        (&newer[..1], Some("a"), ["d", "c", "b", "a"]),
        (&newer[..1], None, ["d", "c", "b", "a"]),
    ] {
        let events =
            [known.to_vec(), newer.to_vec(), read("b", previous).into(), read("c", Some("b")).into()];
        let state = folded(events.concat());
        let turns: Vec<_> = state.turns.of(&"t".into()).collect();
        assert_eq!(turns.iter().map(|turn| turn.turn_id.as_str()).collect::<Vec<_>>(), order);
        let last = state.sessions.get(&"s".into()).unwrap().last_turn_id.clone();
        assert_eq!(last, Some("d".into()));
        let read = &turns[1];
        assert_eq!(read.started_at.text(), "2026-01-01T00:00:01.000Z");
        assert_eq!(read.completed_at.as_ref().unwrap().text(), "2026-01-01T00:00:02.000Z");
    }
}

#[test]
fn turn_has_a_gap_unless_it_was_heard_from_its_beginning_on_one_connection() {
    let connected = || ("app-server.connected", json!({}));
    let accepted = |steered: bool| {
        ("turn.accepted", json!({ "sessionId": "s", "threadId": "t", "turnId": "u", "steered": steered }))
    };
    let [read, settled] = read("u", None);
    for (events, has_gap) in [
        (vec![started("u"), ended("u")], false),
        (vec![accepted(false), started("u"), ended("u")], false),
        (vec![started("u"), ended("u"), connected()], false),
        (vec![started("u"), connected(), ended("u")], true),
        (vec![accepted(false), connected(), started("u")], true),
        (vec![accepted(true), ended("u")], true),
        (vec![ended("u")], true),
        (vec![read, settled], true),
    ] {
        let state = folded([vec![opened("s", "t")], events.clone()].concat());
        assert_eq!(state.turns.get(&"t".into(), &"u".into()).unwrap().has_gap, has_gap, "{events:?}");
    }
}

#[test]
fn turn_knows_its_items_until_it_ends_also_after_a_start() {
    let item = |id: &str| {
        let item = json!({ "type": "plan", "id": id });
        let params = json!({ "threadId": "t", "turnId": "u", "item": item });
        ("app-server.notification", json!({ "notificationMethod": "item/completed", "params": params }))
    };
    let turn = |status: &str| json!({ "threadId": "t", "turnId": "u", "status": status });
    let events =
        vec![opened("s", "t"), ("app-server.turn.started", turn("inProgress")), item("i"), item("j")];
    let state = folded(events.clone());
    let file = serde_json::to_value(snapshot::RecordsFile::of(&state)).unwrap();
    let row = &file["threads"]["t"]["turns"][0][6];
    assert_eq!(row["itemDigests"].as_array().unwrap().len(), 2);
    // As an earlier version wrote it.
    let mut earlier = file.clone();
    earlier["threads"]["t"]["turns"][0][6] = json!({ "phase": "started", "itemIds": ["i", "j"] });
    let restored = |file| State::restore(Some(serde_json::from_value(file).unwrap()), None);
    for state in [state, restored(file), restored(earlier)] {
        let turn = state.turns.get(&"t".into(), &"u".into()).unwrap();
        assert_eq!(["i", "j", "k"].map(|id| turn.has_item(id)), [true, true, false]);
    }
    let ended = folded([events, vec![("app-server.turn.completed", turn("completed"))]].concat());
    assert!(!ended.turns.get(&"t".into(), &"u".into()).unwrap().has_item("i"));
}
