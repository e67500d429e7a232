//! Calls of clients to methods of the real app-server, and the table of those methods.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use codexd::codex::protocol::calls::GROUPS;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Stage;
use super::sessions::events_of;
use crate::api::text;
use crate::cli::CliUser;
use crate::duplex::{delete, finished_turn};
use crate::support::codex::{codex, codex_version};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, post};
use crate::support::scratch;

const CALL: &str = "/v1/codexd/app-server/call";

async fn call(daemon: &Daemon, method: &str, params: Value) -> ApiResponse {
    post(daemon, CALL, &json!({ "method": method, "params": params })).await
}

async fn call_for_session(daemon: &Daemon, session: &Value, method: &str, params: Value) -> ApiResponse {
    post(daemon, CALL, &json!({ "method": method, "params": params, "sessionId": session["sessionId"] }))
        .await
}

/// The schema of this Codex, as it writes it.
pub(super) fn schema_of(codex: &Path, flags: &[&str]) -> TempDir {
    let directory = scratch::directory("schema");
    let mut command = Command::new(codex);
    command.args(["app-server", "generate-json-schema"]).args(flags).arg("--out").arg(directory.path());
    let status = command.env("HOME", directory.path()).status().unwrap();
    assert!(status.success(), "{status}");
    directory
}

/// The client methods that this Codex has, experimental ones included.
fn methods_of(codex: &Path) -> BTreeSet<String> {
    let directory = schema_of(codex, &["--experimental"]);
    let schema = std::fs::read(directory.path().join("ClientRequest.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let methods = schema["oneOf"].as_array().unwrap().iter();
    methods.map(|method| text(&method["properties"]["method"]["enum"][0])).collect()
}

#[test]
fn table_has_every_method_of_codex() {
    let known: BTreeSet<String> =
        GROUPS.iter().flat_map(|group| group.methods).map(|&method| method.to_owned()).collect();
    let installed = methods_of(&codex().native);
    let new: Vec<_> = installed.difference(&known).collect();
    assert!(
        new.is_empty(),
        "Codex {} has methods that src/codex/protocol/calls.rs lacks: {new:?}",
        codex().version
    );
    let newest = methods_of(&codex_version("0.171.0").native);
    let oldest = methods_of(&codex_version("0.140.0").native);
    let gone: Vec<_> =
        known.iter().filter(|&method| !newest.contains(method) && !oldest.contains(method)).collect();
    assert!(gone.is_empty(), "no tested Codex has {gone:?}");
}

#[tokio::test]
async fn call_returns_the_result_and_is_recorded_without_parameters() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    stage.turn(&session, "mock:text=[hello]").await;
    let answer = call(&stage.daemon, "thread/list", json!({ "limit": 5 })).await;
    let threads = &answer.data(200)["result"]["data"];
    assert_eq!(threads[0]["id"], session["threadId"]);
    let named = json!({ "name": "a title that is not recorded" });
    let answer = call_for_session(&stage.daemon, &session, "thread/name/set", named).await;
    assert_eq!(answer.data(200)["result"], json!({}));
    let called = stage.events.wait_for("the call", |event| {
        event["type"] == "app-server.called" && event["detail"]["method"] == "thread/name/set"
    });
    let called = called.await;
    assert_eq!(called["detail"]["sessionId"], session["sessionId"]);
    assert_eq!(called["detail"]["succeeded"], true);
    assert!(!called.to_string().contains("a title"), "{called}");
    let read = call_for_session(&stage.daemon, &session, "thread/read", json!({})).await;
    assert_eq!(read.data(200)["result"]["thread"]["name"], "a title that is not recorded");
    stage.stop().await;
}

#[tokio::test]
async fn turn_that_a_call_begins_is_the_sessions() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let session_id = text(&session["sessionId"]);
    stage.turn(&session, "mock:text=[hello]").await;
    let review = json!({ "target": { "type": "custom", "instructions": "mock:text=[looks good]" } });
    for (method, params) in [("review/start", review), ("thread/compact/start", json!({}))] {
        let answer = call_for_session(&stage.daemon, &session, method, params).await;
        let turn_id = text(&answer.data(200)["turnId"]);
        let turn = finished_turn(&stage.daemon, &session_id, &turn_id).await;
        assert_eq!(
            (&turn["startedBy"], &turn["status"]),
            (&session["sessionId"], &json!("completed")),
            "{method}"
        );
        let accepted = events_of(&stage, "turn.accepted").into_iter();
        let accepted = accepted.filter(|event| event["detail"]["turnId"] == turn_id.as_str());
        assert_eq!(accepted.count(), 1, "{method}");
    }
    stage.turn(&session, "mock:text=[still here]").await;
    stage.start_turn(&session, "mock:hang").await;
    let refused = call_for_session(&stage.daemon, &session, "thread/compact/start", json!({})).await;
    refused.error(409, "turn_in_progress");
    stage.stop().await;
}

#[tokio::test]
async fn call_is_limited_to_what_the_setting_allows() {
    let stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let refused = call(&stage.daemon, "thread/start", json!({})).await;
    refused.error(400, "bad_request");
    assert_eq!(refused.json["details"]["instead"], "POST /v1/codexd/sessions");
    let run = json!({ "command": ["touch", "made"] });
    let refused = call(&stage.daemon, "command/exec", run.clone()).await;
    refused.error(403, "forbidden");
    assert_eq!(refused.json["details"]["setting"], "--app-server-calls");
    call(&stage.daemon, "no/such/method", json!({})).await.error(403, "forbidden");
    let other = json!({ "threadId": "another" });
    call_for_session(&stage.daemon, &session, "thread/read", other).await.error(400, "bad_request");
    let unknown = json!({ "method": "thread/read", "sessionId": "unknown" });
    post(&stage.daemon, CALL, &unknown).await.error(404, "not_found");
    post(&stage.daemon, CALL, &json!({ "params": {} })).await.error(400, "bad_request");
    let rejected = call(&stage.daemon, "thread/read", json!({ "threadId": "not an id" })).await;
    rejected.error(400, "app_server_rejected");
    drop(stage);

    let none =
        Stage::start_with(|home| Daemon::builder().real(home).arg("--app-server-calls").arg("none")).await;
    let refused = call(&none.daemon, "thread/list", json!({})).await;
    assert!(
        refused.error(403, "forbidden").contains("--app-server-calls safe to allow it"),
        "{}",
        refused.text
    );
    drop(none);

    let all =
        Stage::start_with(|home| Daemon::builder().real(home).arg("--app-server-calls").arg("all")).await;
    let ran = call(&all.daemon, "command/exec", run).await;
    assert_eq!(ran.data(200)["result"]["exitCode"], 0);
    call(&all.daemon, "no/such/method", json!({})).await.error(400, "app_server_rejected");
}

#[tokio::test]
async fn threads_of_codex_are_listed_with_their_sessions() {
    let mut stage = Stage::start().await;
    let mut sessions = Vec::new();
    for text in ["first", "second", "third"] {
        let session = stage.session(&json!({})).await;
        stage.turn(&session, &format!("mock:text=[{text}] the {text} question")).await;
        sessions.push(session);
    }
    let named = json!({ "name": "a named thread" });
    call_for_session(&stage.daemon, &sessions[0], "thread/name/set", named).await.data(200);
    let closed = format!("/v1/codexd/sessions/{}", sessions[1]["sessionId"].as_str().unwrap());
    delete(&stage.daemon, &closed).await.data(200);
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&stage.daemon, &format!("/v1/codexd/threads?limit=2{after}")).await;
        let data = page.data(200);
        listed.extend(data["threads"].as_array().unwrap().clone());
        let Some(next) = data["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(listed.len(), 3, "{listed:?}");
    let of =
        |session: &Value| listed.iter().find(|thread| thread["threadId"] == session["threadId"]).unwrap();
    assert_eq!(of(&sessions[0])["title"], "a named thread");
    assert_eq!(of(&sessions[0])["sessionId"], sessions[0]["sessionId"]);
    assert_eq!(of(&sessions[1])["sessionId"], Value::Null, "the session is closed");
    assert_eq!(of(&sessions[2])["title"], "mock:text=[third] the third question");
    assert_eq!(of(&sessions[2])["cwd"], sessions[2]["cwd"]);
    let found = get(&stage.daemon, "/v1/codexd/threads?search=named").await;
    assert_eq!(found.data(200)["threads"].as_array().unwrap().len(), 1);
    let elsewhere = get(&stage.daemon, "/v1/codexd/threads?cwd=/nowhere").await;
    assert_eq!(elsewhere.data(200)["threads"], json!([]));
    // A thread is opened as a session in one step, once.
    let user = CliUser::of(&stage.daemon);
    let thread_id = text(&sessions[1]["threadId"]);
    let opened = user.run(&["threads", "--open", &thread_id, "--json"]).await;
    let opened: Value = serde_json::from_str(&opened.stdout).unwrap();
    assert_eq!(opened["session"]["threadId"], sessions[1]["threadId"]);
    assert_ne!(opened["session"]["sessionId"], sessions[1]["sessionId"]);
    let again = user.run(&["threads", "--open", &thread_id]).await;
    assert!(again.stdout.contains(opened["session"]["sessionId"].as_str().unwrap()), "{again:?}");
    let unknown = user.run(&["threads", "--open", "01a1f75b-eeb6-7381-8804-85c03f1acb17"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    call_for_session(&stage.daemon, &sessions[2], "thread/archive", json!({})).await.data(200);
    let archived = get(&stage.daemon, "/v1/codexd/threads?archived=true").await;
    assert_eq!(archived.data(200)["threads"][0]["threadId"], sessions[2]["threadId"]);
    stage.stop().await;
}
