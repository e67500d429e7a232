//! Request bodies: which are refused, with which error, and which are still accepted.

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{SESSIONS, TURN, new_session, start_daemon, text};
use crate::sessions::RecordingAppServer;
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, Target, get, post, raw, request};

/// The size limit of a body.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

async fn post_bytes(daemon: &Daemon, path: &str, body: impl Into<Bytes>) -> ApiResponse {
    request(daemon, Method::POST, path, &[], body).await
}

/// A JSON object of exactly this number of bytes.
fn body_of_length(bytes: usize) -> String {
    let frame = r#"{"ignored":""}"#.len();
    format!("{{\"ignored\":\"{}\"}}", "x".repeat(bytes - frame))
}

#[tokio::test]
async fn body_that_is_not_a_json_object_is_a_bad_request() {
    let daemon = start_daemon().await;
    let deep = "[".repeat(100_000);
    let deep_inside = format!(r#"{{"config":{}{}}}"#, r#"{"a":"#.repeat(50_000), "}".repeat(50_000));
    let not_json: [&[u8]; 9] = [
        b"{",
        b"nonsense",
        b"{\"purpose\": 'duplex'}",
        b"{} {}",
        b"{\"a\":\"\xff\xfe\"}",
        b"\xff",
        b"{\"a\":\"\\ud800\"}",
        deep.as_bytes(),
        deep_inside.as_bytes(),
    ];
    for path in [SESSIONS, TURN] {
        for body in not_json {
            let response = post_bytes(&daemon, path, body.to_vec()).await;
            let message = response.error(400, "bad_request");
            assert!(message.starts_with("Request body must be valid JSON"), "{message}");
            assert!(message.ends_with('.'), "{message}");
        }
        for body in ["[]", "1", "\"text\"", "null", "true"] {
            let response = post_bytes(&daemon, path, body).await;
            assert_eq!(response.error(400, "bad_request"), "Request body must be a JSON object.");
        }
    }
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}

#[tokio::test]
async fn empty_body_is_an_object_without_fields() {
    let daemon = start_daemon().await;
    for body in ["", " \n "] {
        assert_eq!(post_bytes(&daemon, SESSIONS, body).await.status, 201);
        let response = post_bytes(&daemon, TURN, body).await;
        assert_eq!(response.error(400, "bad_request"), "sessionId must be a non-empty string.");
    }
}

#[tokio::test]
async fn session_field_of_wrong_type_is_named_in_the_error() {
    let daemon = start_daemon().await;
    let string_fields = [
        "baseInstructions",
        "cwd",
        "developerInstructions",
        "model",
        "modelProvider",
        "personality",
        "purpose",
        "serviceTier",
        "threadId",
    ];
    let not_strings = [json!(1), json!(true), json!([]), json!({}), json!(["duplex"])];
    let mut cases: Vec<(&str, Value)> = Vec::new();
    for field in string_fields {
        cases.extend(not_strings.iter().map(|value| (field, value.clone())));
    }
    cases.extend([json!("a=b"), json!(1), json!([])].map(|value| ("config", value)));
    cases.extend([json!("true"), json!(1), json!({})].map(|value| ("ephemeral", value)));
    let not_maps = [
        json!("a"),
        json!(1),
        json!(["a"]),
        json!({ "a": 1 }),
        json!({ "a": null }),
        json!({ "a": {} }),
        json!({ "a": " " }),
        json!({ " ": "a" }),
    ];
    cases.extend(not_maps.map(|value| ("metadata", value)));
    for (field, value) in cases {
        let response = post(&daemon, SESSIONS, &json!({ field: value })).await;
        let message = response.error(400, "bad_request");
        assert!(message.contains(field) && message.ends_with('.'), "{field} = {value}: {message}");
    }
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
}

#[tokio::test]
async fn turn_field_of_wrong_type_is_named_in_the_error() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for field in ["cwd", "effort", "expectedTurnId", "model", "personality", "serviceTier", "sessionId"] {
        for value in [json!(1), json!(true), json!([]), json!({})] {
            let mut body = json!({ "sessionId": session_id, "input": "hello" });
            body[field] = value.clone();
            let response = post(&daemon, TURN, &body).await;
            let message = response.error(400, "bad_request");
            assert!(message.contains(field) && message.ends_with('.'), "{field} = {value}: {message}");
        }
    }
    for value in [json!(1), json!(true), json!({}), json!([]), json!(""), json!("  "), Value::Null] {
        for field in ["input", "prompt"] {
            let response = post(&daemon, TURN, &json!({ "sessionId": session_id, field: value })).await;
            let message = response.error(400, "bad_request");
            assert!(message.contains("input"), "{field} = {value}: {message}");
        }
    }
    for body in [json!({ "input": "hello" }), json!({ "sessionId": " ", "input": "hello" })] {
        let response = post(&daemon, TURN, &body).await;
        assert_eq!(response.error(400, "bad_request"), "sessionId must be a non-empty string.");
    }
}

#[tokio::test]
async fn body_limit_is_16_mib_by_default() {
    let daemon = start_daemon().await;
    assert_eq!(post_bytes(&daemon, SESSIONS, body_of_length(MAX_BODY_BYTES)).await.status, 201);
    for bytes in [MAX_BODY_BYTES + 1, 4 * MAX_BODY_BYTES] {
        for path in [SESSIONS, TURN] {
            let response = post_bytes(&daemon, path, body_of_length(bytes)).await;
            let message = response.error(413, "payload_too_large");
            assert!(message.contains(&MAX_BODY_BYTES.to_string()), "{message}");
        }
    }
}

#[tokio::test]
async fn body_limit_applies_to_chunked_bodies() {
    let daemon = start_daemon().await;
    let head = format!(
        "POST {SESSIONS} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        daemon.authority(),
    );
    let chunk = "x".repeat(1024 * 1024);
    let mut bytes = head.into_bytes();
    for _ in 0..=16 {
        bytes.extend_from_slice(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes());
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let response = raw(&daemon, &bytes).await;
    assert!(
        response.starts_with("HTTP/1.1 413 ") && response.contains("\"payload_too_large\""),
        "{response:?}"
    );
}

#[tokio::test]
async fn byte_order_mark_before_the_body_is_skipped() {
    let daemon = start_daemon().await;
    let body = b"\xef\xbb\xbf{\"purpose\": \"worker\"}";
    let created = post_bytes(&daemon, SESSIONS, body.to_vec()).await;
    assert_eq!(created.data(201)["session"]["purpose"], "worker");
}

#[tokio::test]
async fn encoded_body_is_refused_with_415() {
    let daemon = start_daemon().await;
    let gzip: &[u8] =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    for encoding in ["gzip", "GZIP", "br, gzip", "identity, deflate"] {
        let headers = [("content-encoding", encoding)];
        let response = request(&daemon, Method::POST, SESSIONS, &headers, gzip).await;
        let message = response.error(415, "unsupported_media_type");
        assert!(message.contains("Content-Encoding"), "{message}");
        assert_eq!(response.headers["accept-encoding"], "identity");
    }
    for (encoding, body) in [("identity", "{}"), ("", "{}"), ("gzip", "")] {
        let response =
            request(&daemon, Method::POST, SESSIONS, &[("content-encoding", encoding)], body).await;
        assert_eq!(response.status, 201, "{encoding} {body}: {}", response.text);
    }
}

#[tokio::test]
async fn whole_numbers_are_accepted_in_any_notation() {
    let daemon = start_daemon().await;
    for accepted in ["600", "600.0", "6e2", "6.00E+2"] {
        let body = format!("{{\"requestTimeoutSeconds\": {accepted}}}");
        assert_eq!(post_bytes(&daemon, SESSIONS, body).await.status, 201, "{accepted}");
    }
    for refused in ["600.5", "0.0", "-1.0", "1e99", "86401.0", "\"600\"", "123456789012345678901234567890"] {
        let body = format!("{{\"requestTimeoutSeconds\": {refused}}}");
        let response = post_bytes(&daemon, SESSIONS, body).await;
        assert!(response.error(400, "bad_request").contains("requestTimeoutSeconds"), "{}", response.text);
    }
}

#[tokio::test]
async fn session_close_ignores_its_body() {
    let daemon = start_daemon().await;
    for body in ["", "{}", "{\"reason\": \"done\"}", "no JSON"] {
        let path = format!("{SESSIONS}/{}", new_session(&daemon).await);
        let closed = request(&daemon, Method::DELETE, &path, &[], body).await;
        assert_eq!(closed.data(200)["session"]["status"], "closed", "{body}");
    }
}

#[tokio::test]
async fn numbers_reach_the_app_server_digit_by_digit() {
    const NUMBERS: &str =
        r#"{"n":123456789012345678901234567890,"f":0.10000000000000000000001,"z":1.50,"e":1e+400,"m":-0.0}"#;
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let created = post_bytes(&daemon, SESSIONS, format!("{{\"config\": {{\"a\": [{NUMBERS}]}}}}")).await;
    let session_id = text(&created.data(201)["session"]["sessionId"]);
    let start_turn = async |daemon: &Daemon, wait: u8| {
        let body =
            format!("{{\"sessionId\": \"{session_id}\", \"input\": \"hello\", \"outputSchema\": {NUMBERS}}}");
        post_bytes(daemon, &format!("{TURN}?wait={wait}"), body).await.data(202).clone()
    };
    start_turn(&daemon, 30).await;
    assert!(daemon.stop().await.status.success());
    let daemon = app_server.builder().state_from(&daemon).start().await;
    start_turn(&daemon, 30).await;
    let recording = std::fs::read_to_string(app_server.recording()).unwrap();
    for (method, count) in [("thread/start", 1), ("thread/resume", 1), ("turn/start", 2)] {
        let method_field = format!("\"method\":\"{method}\"");
        let calls: Vec<_> = recording.lines().filter(|line| line.contains(&method_field)).collect();
        assert_eq!(calls.len(), count, "{method}: {recording}");
        assert!(calls.iter().all(|line| line.contains(NUMBERS)), "{method}: {calls:?}");
    }
}
