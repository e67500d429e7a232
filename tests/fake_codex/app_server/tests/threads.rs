//! Tests of threads: settings, history, and restarts with a store.

use std::path::Path;

use serde_json::{Value, json};

use super::{Client, turn_params};

fn finished_turn(client: &mut Client, thread: &str, text: &str) {
    client.turn(thread, text);
    client.until_method("turn/completed");
}

fn statuses(thread: &Value) -> Vec<&str> {
    thread["turns"].as_array().unwrap().iter().map(|turn| turn["status"].as_str().unwrap()).collect()
}

/// Stores a thread with one completed turn and one that a crash interrupted.
fn crashed_thread(store: &Path) -> String {
    let mut client = Client::ready("", Some(store));
    let thread = client.thread();
    finished_turn(&mut client, &thread, "first text=one");
    client.turn(&thread, "second crash");
    client.endings.recv_timeout(super::MESSAGE_TIMEOUT).unwrap();
    client.shut_down();
    thread
}

#[test]
fn thread_start_applies_and_returns_settings() {
    let mut client = Client::ready("", None);
    let params = json!({ "cwd": "/somewhere", "sandbox": "read-only", "approvalPolicy": "untrusted",
                         "serviceTier": null, "model": "m", "personality": "pragmatic", "bogus": 1 });
    let result = client.call("thread/start", &params).unwrap();
    assert_eq!(result["cwd"], "/somewhere");
    assert_eq!(result["sandbox"], json!({ "type": "readOnly", "networkAccess": false }));
    assert_eq!(result["approvalPolicy"], "untrusted");
    assert_eq!(result["serviceTier"], "default");
    assert_eq!(result["model"], "m");
    assert_eq!(result["thread"]["status"], json!({ "type": "idle" }));
    let other = client.call("thread/start", &json!({ "serviceTier": "fast", "ephemeral": true })).unwrap();
    assert_eq!(other["serviceTier"], json!(null));
    assert_eq!(other["thread"]["ephemeral"], true);
    assert!(client.call("thread/start", &json!({ "sandbox": "bogus" })).unwrap_err().contains("`bogus`"));
}

#[test]
fn errors_contain_the_id_of_the_unknown_thread() {
    let mut client = Client::ready("", None);
    let id = "01a1f6f9-0000-7f01-9691-e14dbb6508ca";
    let error = client.call("turn/start", &turn_params(id, "x")).unwrap_err();
    assert_eq!(error, format!("thread not found: {id}"));
    let error = client.call("thread/resume", &json!({ "threadId": id })).unwrap_err();
    assert_eq!(error, format!("no rollout found for thread id {id}"));
    let error = client.call("thread/resume", &json!({ "threadId": "bad-id" })).unwrap_err();
    assert!(error.starts_with("invalid session id: "));
}

#[test]
fn stored_thread_marks_the_turn_of_a_crash_as_interrupted() {
    let store = super::directory();
    let thread = crashed_thread(store.path());
    let mut client = Client::ready("", Some(store.path()));
    let error = client.call("turn/start", &turn_params(&thread, "x")).unwrap_err();
    assert_eq!(error, format!("thread not found: {thread}"));
    let id = client.request("thread/resume", &json!({ "threadId": thread, "cwd": "/elsewhere" }));
    assert_eq!(client.message()["method"], "deprecationNotice");
    assert_eq!(client.message()["params"]["status"]["type"], "idle");
    let result = client.response_to(id).unwrap();
    assert_eq!(statuses(&result["thread"]), ["completed", "interrupted"]);
    assert_eq!(result["thread"]["preview"], "first text=one");
    assert_eq!(result["thread"]["turns"][0]["items"][1]["text"], "one");
    assert_eq!(result["cwd"], "/elsewhere");
    finished_turn(&mut client, &thread, "third");
}

#[test]
fn end_of_turn_is_stored_before_turn_completed() {
    let store = super::directory();
    let mut client = Client::ready("", Some(store.path()));
    let thread = client.thread();
    finished_turn(&mut client, &thread, "text=one");
    let file = std::fs::read(store.path().join(format!("{thread}.json"))).unwrap();
    let stored: Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(statuses(&stored), ["completed"]);
    assert_eq!(stored["turns"][0]["items"][1]["text"], "one");
}

#[test]
fn history_can_be_excluded_and_paged() {
    let store = super::directory();
    let thread = crashed_thread(store.path());
    let mut client = Client::ready("", Some(store.path()));
    let result = client.call("thread/resume", &json!({ "threadId": thread, "excludeTurns": true })).unwrap();
    assert_eq!(result["thread"]["turns"], json!([]));
    let list = |client: &mut Client, cursor: &Value| {
        let params = json!({ "threadId": thread, "limit": 1, "cursor": cursor });
        client.call("thread/turns/list", &params).unwrap()
    };
    let first = list(&mut client, &json!(null));
    assert_eq!(first["data"][0]["status"], "interrupted");
    let second = list(&mut client, &first["nextCursor"]);
    assert_eq!(second["data"][0]["items"].as_array().unwrap().len(), 2);
    assert_eq!(second["nextCursor"], json!(null));
}

#[test]
fn thread_without_a_turn_is_not_stored() {
    let store = super::directory();
    let mut client = Client::ready("", Some(store.path()));
    let thread = client.thread();
    client.shut_down();
    let mut client = Client::ready("", Some(store.path()));
    let error = client.call("thread/resume", &json!({ "threadId": thread })).unwrap_err();
    assert_eq!(error, format!("no rollout found for thread id {thread}"));
}

#[test]
fn stored_thread_has_one_writer() {
    let store = super::directory();
    let mut first = Client::ready("", Some(store.path()));
    let thread = first.thread();
    finished_turn(&mut first, &thread, "x");
    let mut second = Client::ready("", Some(store.path()));
    let params = json!({ "threadId": thread });
    let error = second.call("thread/resume", &params).unwrap_err();
    assert_eq!(error, format!("thread {thread} already has an active writer"));
    let read = second.call("thread/read", &params).unwrap();
    assert_eq!(read["thread"]["status"]["type"], "notLoaded");
    first.shut_down();
    assert!(second.call("thread/resume", &params).is_ok());
}

#[test]
fn fork_copies_the_history_under_a_new_id() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    finished_turn(&mut client, &thread, "x");
    client.turn(&thread, "hang");
    let result = client.call("thread/fork", &json!({ "threadId": thread })).unwrap();
    let fork = client.until_method("thread/started")["params"]["thread"].clone();
    assert_eq!(fork, result["thread"]);
    assert_eq!(fork["forkedFromId"], thread);
    assert_eq!(statuses(&fork), ["completed", "interrupted"]);
    let ids = client.call("thread/loaded/list", &json!({})).unwrap();
    assert_eq!(ids["data"].as_array().unwrap().len(), 2);
}

#[test]
fn unsubscribed_thread_sends_no_notifications() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "hang");
    let params = json!({ "threadId": thread });
    let status = |client: &mut Client| client.call("thread/unsubscribe", &params).unwrap()["status"].clone();
    assert_eq!(status(&mut client), "unsubscribed");
    assert_eq!(status(&mut client), "notSubscribed");
    let unknown = json!({ "threadId": "01a1f6f9-0000-7f01-9691-e14dbb6508ca" });
    assert_eq!(client.call("thread/unsubscribe", &unknown).unwrap()["status"], "notLoaded");
    // `thread/resume` subscribes again.
    client.call("thread/resume", &params).unwrap();
    client.turn(&thread, "x");
    client.until_method("turn/completed");
}

#[test]
fn token_usage_adds_up_over_turns() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    finished_turn(&mut client, &thread, "deltas=4");
    client.turn(&thread, "deltas=6");
    let usage = client.until_method("thread/tokenUsage/updated")["params"]["tokenUsage"].clone();
    assert_eq!(usage["total"]["totalTokens"], 210);
    assert_eq!(usage["last"]["totalTokens"], 106);
}
