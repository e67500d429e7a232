//! `/describe` alone is enough to operate codexd: a daemon accepts every example in it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::{
    SESSIONS, TURN, create_session, new_session, start_daemon, start_turn, text, wait_until_ready,
};
use crate::duplex::{INTERRUPT, finished_turn, pending_request, request_path};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post, request};
use crate::support::scratch;

/// The longest document: a model reads it whole.
const MAX_BYTES: usize = 16 * 1024;

/// The JSON text with the words of the examples replaced.
fn filled(body: &Value, words: &[(&str, &str)]) -> Value {
    let text = words.iter().fold(body.to_string(), |text, (word, value)| text.replace(word, value));
    let body: Value = serde_json::from_str(&text).unwrap();
    let left = ["_ID\"", "/home/me"].iter().find(|left| text.contains(**left));
    assert_eq!(left, None, "nothing stands for it: {body}");
    body
}

/// Sends the body; returns the data of the response, which must be a success and ignore no field.
async fn accepted(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let response = post(daemon, path, body).await;
    assert!((200..300).contains(&response.status), "{path} {body}: {}", response.text);
    assert_eq!(response.json["data"]["ignored"], Value::Null, "{path} {body}");
    response.json["data"].clone()
}

#[tokio::test]
async fn describe_is_small_and_each_example_in_it_is_accepted() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let describe = get(&daemon, "/describe").await;
    assert!(describe.text.len() <= MAX_BYTES, "{} bytes", describe.text.len());
    let examples: BTreeMap<String, Value> =
        serde_json::from_value(describe.json["examples"].clone()).unwrap();
    let bodies = |route: &str| examples[route]["bodies"].as_array().unwrap().clone();
    let with_bodies: Vec<_> = examples
        .iter()
        .filter(|(_, example)| example.get("bodies").is_some())
        .map(|(route, _)| &**route)
        .collect();
    let tested = [
        "PATCH /v1/codexd/sessions/:session_id",
        "POST /v1/codexd/app-server/call",
        "POST /v1/codexd/app-server/restart",
        "POST /v1/codexd/hooks",
        "POST /v1/codexd/requests/:request_id",
        "POST /v1/codexd/sessions",
        "POST /v1/codexd/sessions/:session_id/queue/resume",
        "POST /v1/codexd/turn",
        "POST /v1/codexd/turn/interrupt",
    ];
    assert_eq!(with_bodies, tested, "an example that nobody sends");
    for route in tested {
        for body in bodies(route) {
            for name in body.as_object().unwrap().keys() {
                let fields = text(&examples[route]["fields"]);
                assert!(fields.split(", ").any(|field| field == name), "{route} has {fields}, not {name}");
            }
        }
    }

    let directory = scratch::directory("project");
    let first = create_session(&daemon, json!({})).await;
    let [session_id, thread_id] = ["sessionId", "threadId"].map(|key| text(&first[key]));
    let ended = start_turn(&daemon, &session_id, "text=hello").await;
    finished_turn(&daemon, &session_id, &ended).await;
    let of_session = [
        ("SESSION_ID", session_id.as_str()),
        ("THREAD_ID", thread_id.as_str()),
        ("/home/me/project", directory.path().to_str().unwrap()),
    ];
    for body in bodies("POST /v1/codexd/sessions") {
        accepted(&daemon, SESSIONS, &filled(&body, &of_session)).await;
    }
    for body in bodies("PATCH /v1/codexd/sessions/:session_id") {
        let path = format!("{SESSIONS}/{session_id}");
        let response = request(&daemon, hyper::Method::PATCH, &path, &[], body.to_string()).await;
        assert_eq!(response.data(200)["ignored"], Value::Null, "{body}");
    }
    for body in bodies("POST /v1/codexd/app-server/call") {
        accepted(&daemon, "/v1/codexd/app-server/call", &filled(&body, &of_session)).await;
    }

    for body in bodies("POST /v1/codexd/turn") {
        let session_id = new_session(&daemon).await;
        let running = match body.get("expectedTurnId") {
            Some(_) => start_turn(&daemon, &session_id, "ask=command").await,
            None => String::new(),
        };
        let words = [("SESSION_ID", session_id.as_str()), ("TURN_ID", running.as_str())];
        accepted(&daemon, TURN, &filled(&body, &words)).await;
    }
    for body in bodies("POST /v1/codexd/turn/interrupt") {
        let session_id = new_session(&daemon).await;
        start_turn(&daemon, &session_id, "ask=command").await;
        accepted(&daemon, INTERRUPT, &filled(&body, &[("SESSION_ID", &session_id)])).await;
    }

    let pattern = text(&examples["decision"]);
    for body in bodies("POST /v1/codexd/requests/:request_id") {
        let session_id = new_session(&daemon).await;
        let prompt =
            if body.get("decision").is_some() { "ask=command text=done" } else { "ask=input text=done" };
        let turn_id = start_turn(&daemon, &session_id, prompt).await;
        let request = pending_request(&daemon, &session_id).await;
        for decision in request["decisions"].as_array().unwrap().iter().filter_map(Value::as_str) {
            assert!(pattern.contains(decision), "{pattern} has no {decision}");
        }
        let question = request["params"]["questions"][0]["id"].as_str().unwrap_or_default();
        let body = filled(&body, &[("QUESTION_ID", question)]);
        accepted(&daemon, &request_path(&request["requestId"]), &body).await;
        let turn = finished_turn(&daemon, &session_id, &turn_id).await;
        assert_eq!(turn["status"], "completed", "{turn}");
    }
    for body in bodies("POST /v1/codexd/sessions/:session_id/queue/resume") {
        let later =
            json!({ "sessionId": session_id, "input": "text=later", "notBefore": "2999-01-01T00:00:00Z" });
        let queue_id = text(&accepted(&daemon, TURN, &later).await["queueId"]);
        let path = format!("{SESSIONS}/{session_id}/queue/resume");
        accepted(&daemon, &path, &filled(&body, &[("QUEUE_ID", &queue_id)])).await;
    }
    // After every event that they would deliver.
    for body in bodies("POST /v1/codexd/hooks") {
        accepted(&daemon, "/v1/codexd/hooks", &body).await;
    }
    for body in bodies("POST /v1/codexd/app-server/restart") {
        accepted(&daemon, "/v1/codexd/app-server/restart", &filled(&body, &[])).await;
    }
}

#[tokio::test]
async fn describe_names_the_queries_of_all_routes() {
    let daemon = start_daemon().await;
    let describe = get(&daemon, "/describe").await.json;
    for (route, names) in [
        ("GET /v1/codexd/sessions", "status, purpose, archived, threadId, order, after, limit, metadata.KEY"),
        ("POST /v1/codexd/turn", "wait"),
        ("WS /v1/codexd/events", "after, limit, sessionId, type, onGap"),
    ] {
        assert_eq!(describe["examples"][route]["query"], names, "{route}");
    }
    let extensions = describe["extensions"].as_array().unwrap();
    let threads = extensions.iter().find(|route| route["path"] == "/v1/codexd/threads").unwrap();
    assert_eq!(threads["query"], json!(["search", "cwd", "archived", "limit", "after"]));
    assert!(describe["routes"].as_array().unwrap().iter().all(|route| route.get("query").is_none()));
}
