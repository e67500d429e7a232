//! Two-way communication with the app-server: server requests, waiting for turns and interrupting them, and sessions
//! that are forked, listed and closed.

mod requests;
mod sessions;
mod turns;
mod unanswered;

use hyper::Method;
use serde_json::{Value, json};

use crate::api::{SESSIONS, create_session, text};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, post, request};
use crate::support::wait::wait_until_async;

pub(crate) const REQUESTS: &str = "/v1/codexd/requests";
pub(crate) const INTERRUPT: &str = "/v1/codexd/turn/interrupt";

/// Returns the server requests of a session, pending ones first.
pub(crate) async fn requests(daemon: &Daemon, session_id: &str) -> Vec<Value> {
    let answer = get(daemon, &format!("{REQUESTS}?sessionId={session_id}")).await;
    answer.data(200)["requests"].as_array().unwrap().clone()
}

/// Waits until a request is pending in this session; returns it.
pub(crate) async fn pending_request(daemon: &Daemon, session_id: &str) -> Value {
    wait_until_async("a request of the app-server", async || {
        requests(daemon, session_id).await.into_iter().find(|request| request["status"] == "pending")
    })
    .await
}

/// Returns the current state of a request.
pub(crate) async fn current_request(daemon: &Daemon, request_id: &Value) -> Value {
    get(daemon, &request_path(request_id)).await.data(200)["request"].clone()
}

/// Waits until a request is resolved; returns it.
pub(crate) async fn resolved_request(daemon: &Daemon, request_id: &Value) -> Value {
    wait_until_async("the end of the request", async || {
        Some(current_request(daemon, request_id).await).filter(|request| request["status"] == "resolved")
    })
    .await
}

/// Returns the path of a request.
pub(crate) fn request_path(request_id: &Value) -> String {
    format!("{REQUESTS}/{}", text(request_id))
}

/// Answers a request; returns the response of any status.
pub(crate) async fn answer(daemon: &Daemon, request_id: &Value, body: &Value) -> ApiResponse {
    post(daemon, &request_path(request_id), body).await
}

/// Answers a request with this decision and asserts that it is accepted; returns the request.
pub(crate) async fn decide(daemon: &Daemon, request_id: &Value, decision: &str) -> Value {
    answer(daemon, request_id, &json!({ "decision": decision })).await.data(200)["request"].clone()
}

/// Waits until a turn has ended; returns it.
pub(crate) async fn finished_turn(daemon: &Daemon, session_id: &str, turn_id: &str) -> Value {
    let path = format!("{SESSIONS}/{session_id}/turns/{turn_id}?wait=30");
    let turn = get(daemon, &path).await.data(200)["turn"].clone();
    assert_ne!(turn["status"], "inProgress", "{turn}");
    turn
}

/// Interrupts the running turn of a session; returns the response of any status.
pub(crate) async fn interrupt(daemon: &Daemon, session_id: &str) -> ApiResponse {
    post(daemon, INTERRUPT, &json!({ "sessionId": session_id })).await
}

/// Sends a DELETE.
pub(crate) async fn delete(daemon: &Daemon, path: &str) -> ApiResponse {
    request(daemon, Method::DELETE, path, &[], "").await
}

/// Returns the first item of this type in a turn.
pub(crate) fn item<'a>(turn: &'a Value, kind: &str) -> &'a Value {
    let items = turn["items"].as_array().unwrap();
    items.iter().find(|item| item["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {turn:#}"))
}

/// Creates a session with these fields; returns its ID.
pub(crate) async fn session_with(daemon: &Daemon, fields: Value) -> String {
    text(&create_session(daemon, fields).await["sessionId"])
}
