//! Tests of request bodies: invalid, valid, and oversized.

use futures_util::future::join_all;
use serde_json::json;

use super::{SESSION, TestApp};

const SESSIONS: &str = "/v1/codexd/sessions";
const TURN: &str = "/v1/codexd/turn";

#[tokio::test]
async fn invalid_body_error_names_the_problem() {
    let app = TestApp::new().await;
    for path in [SESSIONS, TURN] {
        for (body, part) in [
            ("nonsense", "valid JSON"),
            ("{\"a\":1", "valid JSON"),
            ("{} {}", "valid JSON"),
            ("[]", "a JSON object"),
            ("null", "a JSON object"),
            ("\"text\"", "a JSON object"),
        ] {
            let response = app.post(path, body).await;
            let message = response.error(400, "bad_request");
            assert!(message.contains(part), "{path} {body}: {message}");
        }
        app.post(path, b"{\"a\":\"\xff\"}".to_vec()).await.error(400, "bad_request");
        app.post(path, "[".repeat(100_000)).await.error(400, "bad_request");
    }
    app.stop().await;
}

#[tokio::test]
async fn create_session_error_names_invalid_field() {
    let app = TestApp::new().await;
    for (field, value) in [
        ("purpose", json!("batch")),
        ("purpose", json!(1)),
        ("baseInstructions", json!(1)),
        ("cwd", json!(["/"])),
        ("developerInstructions", json!({})),
        ("model", json!(false)),
        ("modelProvider", json!(1)),
        ("personality", json!(1)),
        ("serviceTier", json!(1)),
        ("threadId", json!(1)),
        ("ephemeral", json!("yes")),
        ("config", json!("x")),
        ("config", json!([])),
        ("metadata", json!("x")),
        ("metadata", json!({ "a": 1 })),
        ("metadata", json!({ "a": " " })),
        ("metadata", json!({ " ": "a" })),
        ("metadata", json!({ "a": null })),
    ] {
        let body = json!({ field: value });
        let response = app.post(SESSIONS, body.to_string()).await;
        let message = response.error(400, "bad_request");
        assert!(message.contains(field), "{body}: {message}");
    }
    app.stop().await;
}

#[tokio::test]
async fn submit_turn_error_names_invalid_field() {
    let app = TestApp::new().await;
    for (field, value) in [
        ("sessionId", json!(1)),
        ("sessionId", json!(" ")),
        ("sessionId", json!(null)),
        ("input", json!("")),
        ("input", json!(" \n")),
        ("input", json!([])),
        ("input", json!(null)),
        ("input", json!(1)),
        ("input", json!({ "type": "text" })),
        ("expectedTurnId", json!(1)),
        ("cwd", json!(1)),
        ("effort", json!(1)),
        ("model", json!([])),
        ("personality", json!({})),
        ("serviceTier", json!(true)),
    ] {
        let mut body = json!({ "sessionId": SESSION, "input": "hello" });
        body[field] = value;
        let response = app.post(TURN, body.to_string()).await;
        let message = response.error(400, "bad_request");
        assert!(message.contains(field), "{body}: {message}");
    }
    app.post(TURN, "{}").await.error(400, "bad_request");
    let message = app.post(TURN, json!({ "sessionId": SESSION }).to_string()).await;
    assert!(message.error(400, "bad_request").contains("input"));
    app.stop().await;
}

#[tokio::test]
async fn valid_bodies_fail_only_without_app_server() {
    let app = TestApp::new().await;
    // Concurrently: each request waits while the app-server may still start.
    let requests = [
        (SESSIONS, json!({})),
        // Unknown fields are ignored; empty and null values count as absent.
        (SESSIONS, json!({ "unknown": [1], "purpose": " ", "cwd": "", "config": null, "metadata": null })),
        (
            SESSIONS,
            json!({ "purpose": " worker ", "sandbox": "read-only", "approvalPolicy": { "any": "thing" } }),
        ),
        (SESSIONS, json!({ "threadId": "thread-a", "ephemeral": false, "metadata": { "a": "b" } })),
        (TURN, json!({ "sessionId": SESSION, "input": "hello" })),
        (TURN, json!({ "sessionId": " session-a ", "prompt": "hello" })),
        (
            TURN,
            json!({ "sessionId": SESSION, "input": " ", "prompt": [{ "type": "text", "text": "hello" }] }),
        ),
        (TURN, json!({ "sessionId": SESSION, "input": "hello", "expectedTurnId": "turn-a" })),
    ];
    let requests = requests.map(|(path, body)| (path, body.to_string()));
    // A session with default settings needs no body.
    let empty = ["", " \r\n"].map(|body| (SESSIONS, body.to_owned()));
    let requests = requests.into_iter().chain(empty);
    let responses = requests.map(async |(path, body)| (app.post(path, body.clone()).await, body));
    for (response, body) in join_all(responses).await {
        let message = response.error(503, "app_server_unavailable");
        assert!(message.contains("no-codex") && message.contains("next try is in"), "{body}: {message}");
        let seconds = response.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
        assert!((1..=60).contains(&seconds), "{body}: {seconds}");
    }
    app.stop().await;
}

#[tokio::test]
async fn turn_of_unknown_or_closed_session_needs_no_app_server() {
    let app = TestApp::new().await;
    let response = app.post(TURN, json!({ "sessionId": "unknown", "input": "hello" }).to_string()).await;
    assert_eq!(response.error(404, "not_found"), "Unknown codexd session \"unknown\".");
    app.daemon.sessions.close(&SESSION.into(), false).await.unwrap();
    let response = app.post(TURN, json!({ "sessionId": SESSION, "input": "hello" }).to_string()).await;
    assert!(response.error(409, "session_not_active").contains(SESSION));
    app.stop().await;
}

#[tokio::test]
async fn body_over_16_mib_is_rejected() {
    let app = TestApp::new().await;
    let limit = 16 * 1024 * 1024;
    let response = app.post(SESSIONS, vec![b' '; limit + 1]).await;
    assert!(response.error(413, "payload_too_large").contains(&limit.to_string()));
    app.post(SESSIONS, vec![b' '; limit]).await.error(503, "app_server_unavailable");
    app.stop().await;
}
