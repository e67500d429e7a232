//! Calls and their responses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::{CALL_TIMEOUT, CallError, Connection, Log, until_idle};
use crate::codex::rpc::client::Wait;
use crate::codex::rpc::pending::OnReply;
use crate::codex::rpc::wire::RpcError;

const WAIT: Wait = Wait::Limited(CALL_TIMEOUT);

/// Notes the outcome of a call, under a name.
struct NoteReply(&'static str, Log);

impl OnReply for NoteReply {
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>) {
        let outcome = outcome.map_or_else(|error| error.to_string(), |result| result.get().to_owned());
        self.1.add(format!("{}: {outcome}", self.0));
    }
}

#[tokio::test(start_paused = true)]
async fn responses_out_of_order_reach_their_callers() {
    let mut connection = Connection::new();
    let calls = ["a", "b", "c"].map(|method| connection.call(method));
    let mut ids = Vec::new();
    for method in ["a", "b", "c"] {
        ids.push((method, connection.next_call(method).await));
    }
    for (method, id) in ids.into_iter().rev() {
        connection.respond(id, &format!("\"for {method}\"")).await;
    }
    for (call, method) in calls.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(call.await.unwrap().unwrap(), format!("\"for {method}\""));
    }
}

#[tokio::test(start_paused = true)]
async fn error_response_names_the_method_of_its_call() {
    let mut connection = Connection::new();
    let call = connection.call("turn/start");
    let id = connection.next_call("turn/start").await;
    connection.receive(format!("{{\"error\":{{\"code\":-32600,\"message\":\"no\"}},\"id\":{id}}}\n")).await;
    let error = RpcError { code: -32600, message: "no".to_owned(), data: None };
    assert_eq!(call.await.unwrap(), Err(CallError::Refused { method: "turn/start".to_owned(), error }));
}

#[tokio::test(start_paused = true)]
async fn end_of_stream_fails_pending_and_later_calls() {
    let mut connection = Connection::new();
    let calls = ["a", "b", "c"].map(|method| connection.call(method));
    for method in ["a", "b", "c"] {
        connection.next_call(method).await;
    }
    let (client, pending) = (connection.client.clone(), connection.pending.clone());
    let (end, _) = connection.end().await;
    assert_eq!(end.source, "stdout.end");
    let closed = Err(CallError::Closed { cause: end.message });
    for call in calls {
        assert_eq!(call.await.unwrap(), closed);
    }
    let later = client.call("d", &json!({}), CALL_TIMEOUT).await.map(|result| result.get().to_owned());
    assert_eq!(later, closed);
    // A later cause changes nothing.
    pending.close("another cause");
    let later = client.call("e", &json!({}), CALL_TIMEOUT).await.map(|result| result.get().to_owned());
    assert_eq!(later, closed);
}

#[tokio::test(start_paused = true)]
async fn aborted_reader_fails_pending_calls() {
    let mut connection = Connection::new();
    let call = connection.call("a");
    connection.next_call("a").await;
    connection.reader.abort();
    let Err(CallError::Closed { cause }) = call.await.unwrap() else { panic!("the call was not failed") };
    assert!(cause.contains("reader"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn call_times_out_and_its_late_response_is_dropped() {
    let mut connection = Connection::new();
    let timeout = Duration::from_secs(5);
    let began = tokio::time::Instant::now();
    let params = json!({});
    let call = tokio::time::timeout(CALL_TIMEOUT, connection.client.call("slow", &params, timeout));
    let call = call.await.expect("the call never gives up");
    assert_eq!(began.elapsed().as_secs(), 5);
    let Err(error) = call else { panic!("an answer out of nothing") };
    assert_eq!(error, CallError::Timeout { method: "slow".to_owned(), after: timeout });
    assert_eq!(connection.pending.len(), 0);

    let late = connection.next_call("slow").await;
    let next = connection.call("next");
    let id = connection.next_call("next").await;
    connection.respond(late, "\"too late\"").await;
    assert!(!next.is_finished());
    connection.respond(id, "\"in time\"").await;
    assert_eq!(next.await.unwrap().unwrap(), "\"in time\"");
    assert!(connection.end().await.1.is_empty());
}

#[tokio::test(start_paused = true)]
async fn abandoned_call_does_not_affect_others() {
    let mut connection = Connection::new();
    let gone = connection.call("gone");
    let id = connection.next_call("gone").await;
    gone.abort();
    let stays = connection.call("stays");
    let next = connection.next_call("stays").await;
    connection.respond(id, "1").await;
    connection.respond(next, "2").await;
    assert_eq!(stays.await.unwrap().unwrap(), "2");
    assert_eq!(connection.pending.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn older_generation_cannot_respond_to_a_newer_one() {
    let (mut old, mut new) = (Connection::new(), Connection::new());
    let (asked_old, asked_new) = (old.call("a"), new.call("a"));
    let id = old.next_call("a").await;
    // Both count IDs from 1, which could confuse them.
    assert_eq!(new.next_call("a").await, id);
    old.respond(id, "\"old\"").await;
    assert_eq!(asked_old.await.unwrap().unwrap(), "\"old\"");
    old.end().await;
    until_idle().await;
    assert!(!asked_new.is_finished());
    new.respond(id, "\"new\"").await;
    assert_eq!(asked_new.await.unwrap().unwrap(), "\"new\"");
}

#[tokio::test(start_paused = true)]
async fn call_beyond_the_in_flight_limit_waits_for_a_response() {
    let mut connection = Connection::new();
    let calls: Vec<_> = (0..66).map(|_| connection.call("a")).collect();
    until_idle().await;
    assert_eq!((connection.sent.len(), connection.pending.len()), (64, 64));
    let mut ids = Vec::new();
    for _ in 0..64 {
        ids.push(connection.next_call("a").await);
    }
    connection.respond(ids[40], "1").await;
    assert_eq!(connection.sent.len(), 1);
    connection.next_call("a").await;
    // The last call times out although it was never sent, as do those that were sent with it.
    let outcomes = futures_util::future::join_all(calls).await;
    let answered = outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count();
    assert_eq!(answered, 1);
    let timed_out = |outcome: &Result<_, CallError>| matches!(outcome, Err(CallError::Timeout { .. }));
    assert_eq!(outcomes.iter().filter(|outcome| timed_out(outcome.as_ref().unwrap())).count(), 65);
    assert_eq!(connection.pending.len(), 0);
    // All permits are free again.
    let _calls: Vec<_> = (0..64).map(|_| connection.call("b")).collect();
    until_idle().await;
    assert_eq!(connection.pending.len(), 64);
}

#[tokio::test(start_paused = true)]
async fn unencodable_call_fails_alone() {
    let connection = Connection::new();
    let impossible = BTreeMap::from([((1, 2), 3)]);
    let Err(error) = connection.client.call("a", &impossible, CALL_TIMEOUT).await else {
        panic!("an answer out of nothing")
    };
    assert!(matches!(&error, CallError::Malformed { method, .. } if method == "a"), "{error}");
    assert_eq!((connection.sent.len(), connection.pending.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn reply_is_handled_between_earlier_and_later_messages() {
    let mut connection = Connection::new();
    let (client, notes) = (connection.client.clone(), connection.notes.clone());
    let settled = notes.clone();
    let call = tokio::spawn(async move {
        client.call_in_order("turn/start", &json!({}), WAIT, NoteReply("", settled)).await;
        // The caller continues only after its call was settled.
        notes.add("returned");
    });
    let id = connection.next_call("turn/start").await;
    let block = format!(
        "{{\"method\":\"before\"}}\n{{\"id\":{id},\"result\":\"answer\"}}\n{{\"method\":\"after\"}}\n"
    );
    connection.receive(block).await;
    call.await.unwrap();
    let notes = connection.notes.all();
    assert_eq!(
        notes.iter().filter(|note| *note != "returned").collect::<Vec<_>>(),
        ["before null", ": \"answer\"", "after null",]
    );
    assert!(notes.iter().position(|note| note == "returned") > Some(1), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn reply_is_handled_once_for_every_kind_of_failure() {
    let connection = Connection::new();
    let (client, notes) = (connection.client.clone(), connection.notes.clone());
    let note = |name| NoteReply(name, notes.clone());
    client.call_in_order("a", &json!({}), Wait::Limited(Duration::from_secs(1)), note("timeout")).await;
    client.call_in_order("a", &BTreeMap::from([((), ())]), WAIT, note("malformed")).await;
    let waiting = note("closed");
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.call_in_order("a", &json!({}), WAIT, waiting).await }
    });
    until_idle().await;
    drop(connection.stdout);
    call.await.unwrap();
    client.call_in_order("a", &json!({}), WAIT, note("refused")).await;
    let notes = notes.all();
    assert_eq!(notes.len(), 4, "{notes:?}");
    for (note, name) in notes.iter().zip(["timeout", "malformed", "closed", "refused"]) {
        assert!(note.starts_with(name), "{notes:?}");
    }
}
