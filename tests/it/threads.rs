//! Threads with several sessions: all sessions share one order of turns, one subscription and one end of each turn.

mod answers;
mod order;
mod owners;
mod streams;

use serde_json::{Value, json};

use crate::api::{create_session, text};
use crate::support::daemon::Daemon;

/// Creates two sessions on one thread; returns their IDs and the ID of the thread.
async fn two_on_one_thread(daemon: &Daemon) -> (String, String, String) {
    two_on_one_thread_with(daemon, json!({})).await
}

/// Like `two_on_one_thread`, with these fields for the second session.
async fn two_on_one_thread_with(daemon: &Daemon, mut fields: Value) -> (String, String, String) {
    let first = create_session(daemon, json!({})).await;
    // A thread without a turn has no file that could be resumed.
    let turn_id = crate::api::start_turn(daemon, &text(&first["sessionId"]), "text=first").await;
    crate::api::wait_for_turn_end(daemon, &text(&first["sessionId"]), &json!(turn_id)).await;
    fields["threadId"] = first["threadId"].clone();
    let second = create_session(daemon, fields).await;
    assert_eq!(second["threadId"], first["threadId"]);
    (text(&first["sessionId"]), text(&second["sessionId"]), text(&first["threadId"]))
}
