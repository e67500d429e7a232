//! Turns take little memory.

use serde_json::json;

use super::{folded, opened};

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
