//! Threads that the app-server opens after `--call-timeout`, when the client already has an error.

use serde_json::{Value, json};

use super::{RecordingAppServer, events_of, post_keyed};
use crate::api::{SESSIONS, create_session, request_turn, text, wait_for_turn_end};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{get, post};
use crate::support::wait::wait_until_async;

/// A daemon whose app-server takes longer to start a thread than `--call-timeout`.
fn with_late_threads(app_server: &RecordingAppServer) -> DaemonBuilder {
    let script = "\"$1\" record \"$0\" | { \"$1\" app-server --store \"$2\" --startup late-start=1500 || kill -KILL 0; }";
    app_server.builder_with_script(script).arg("--call-timeout=1")
}

async fn sessions(daemon: &Daemon) -> Vec<Value> {
    get(daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn late_session_is_kept_and_repeated_request_waits_for_it() {
    let app_server = RecordingAppServer::new();
    let daemon = with_late_threads(&app_server).start().await;
    let fields = json!({ "metadata": { "owner": "late" } });
    let answer = post_keyed(&daemon, SESSIONS, "k", &fields).await;
    let message = answer.error(504, "app_server_timeout");
    assert!(message.contains("thread/start") && message.contains("--call-timeout"), "{message}");
    let kept = wait_until_async("the session", async || {
        let answer = post_keyed(&daemon, SESSIONS, "k", &fields).await;
        (answer.status == 201).then(|| answer.data(201)["session"].clone())
    })
    .await;
    assert_eq!(kept["metadata"]["owner"], "late");
    assert_eq!(sessions(&daemon).await.len(), 1);
    assert_eq!(app_server.calls("thread/start").len(), 1, "the repeated request started another thread");
    let turn_id = request_turn(&daemon, &text(&kept["sessionId"]), "hello").await.data(202)["turnId"].clone();
    wait_for_turn_end(&daemon, &text(&kept["sessionId"]), &turn_id).await;
}

#[tokio::test]
async fn late_session_without_key_is_listed() {
    let app_server = RecordingAppServer::new();
    let daemon = with_late_threads(&app_server).start().await;
    post(&daemon, SESSIONS, &json!({})).await.error(504, "app_server_timeout");
    let kept = wait_until_async("the session", async || sessions(&daemon).await.pop()).await;
    let created = events_of(&daemon, "session.created");
    assert_eq!((created.len(), &created[0]["detail"]["session"]["threadId"]), (1, &kept["threadId"]));
}

#[tokio::test]
async fn late_replacement_thread_belongs_to_its_session() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session = create_session(&daemon, json!({})).await;
    let session_id = text(&session["sessionId"]);
    daemon.stop().await;
    let daemon = with_late_threads(&app_server).state_from(&daemon).start().await;
    request_turn(&daemon, &session_id, "hello").await.error(504, "app_server_timeout");
    let turn_id = wait_until_async("the turn", async || {
        let answer = request_turn(&daemon, &session_id, "hello").await;
        (answer.status == 202).then(|| answer.data(202)["turnId"].clone())
    })
    .await;
    let record = wait_for_turn_end(&daemon, &session_id, &turn_id).await;
    assert_ne!(record["threadId"], session["threadId"]);
    assert_eq!(app_server.calls("thread/start").len(), 2, "one call for each of its two threads");
    assert_eq!(events_of(&daemon, "session.recreated").len(), 1);
}
