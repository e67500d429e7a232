//! Streams of a session whose thread is replaced.

use serde_json::json;

use crate::api::{create_session, session_record, start_turn, text};
use crate::sessions::{RecordingAppServer, restart};
use crate::support::websocket::EventStream;

#[tokio::test]
async fn session_stream_follows_session_to_replacement_thread() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let before = create_session(&daemon, json!({})).await;
    let session_id = text(&before["sessionId"]);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    let path = format!("/v1/codexd/events?sessionId={session_id}");
    let mut stream = EventStream::connect_to(&daemon, &path, &[]).await;
    stream.hello().await;
    let turn_id = start_turn(&daemon, &session_id, "text=received").await;
    assert_ne!(session_record(&daemon, &session_id).await["threadId"], before["threadId"]);
    let is_end = |event: &serde_json::Value| event["type"] == "app-server.turn.completed";
    let events = stream.collect_until("the end of the turn", is_end).await;
    let types: Vec<_> = events.iter().map(|event| text(&event["type"])).collect();
    for expected in ["session.recreated", "turn.accepted", "app-server.turn.message.delta"] {
        assert!(types.iter().any(|found| found == expected), "no {expected} in {types:?}");
    }
    assert_eq!(events.last().unwrap()["detail"]["turnId"], turn_id);
}
