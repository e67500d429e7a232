//! Sessions and turns over HTTP: their fields, and the calls to the app-server that they cause.

use std::fs;

use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    SESSIONS, TURN, create_session, keys, new_session, request_turn, start_daemon, start_turn, text,
    wait_for_event, wait_until_idle,
};
use crate::sessions::RecordingAppServer;
use crate::support::codex::untrusted;
use crate::support::daemon::Daemon;
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get, post, raw, request};
use crate::support::scratch;
use crate::support::wait::wait_until;

#[tokio::test]
async fn session_is_created_listed_and_read() {
    let daemon = start_daemon().await;
    assert_eq!(get(&daemon, SESSIONS).await.data(200), &json!({ "sessions": [] }));
    // A POST without a body creates a session with the default settings.
    let response = request(&daemon, Method::POST, SESSIONS, &[], "").await;
    let data = response.data(201);
    assert_eq!(keys(data), ["session"]);
    let first = data["session"].clone();
    let expected = [
        "sessionId",
        "purpose",
        "threadId",
        "status",
        "endpoint",
        "childPid",
        "createdAt",
        "updatedAt",
        "cwd",
        "model",
        "modelProvider",
        "serviceTier",
        "reasoningEffort",
        "currentTurnId",
        "lastTurnId",
        "lastTurnStatus",
        "metadata",
        "held",
        "closedReason",
        "trust",
        "title",
        "archived",
    ];
    assert_eq!(keys(&first), expected);
    assert_eq!((&first["purpose"], &first["status"]), (&json!("duplex"), &json!("active")));
    assert!(first["threadId"].is_string() && first["childPid"].is_u64(), "{first}");
    for null in ["currentTurnId", "lastTurnId", "lastTurnStatus"] {
        assert_eq!(first[null], Value::Null, "{null}");
    }
    assert_eq!(first["metadata"], json!({}));

    let second = create_session(&daemon, json!({})).await;
    let list = get(&daemon, SESSIONS).await;
    assert_eq!(list.data(200)["sessions"], json!([first, second]), "the sessions are not sorted by age");

    let session_id = text(&first["sessionId"]);
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    let read = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    assert_eq!(keys(read.data(200)), ["recentEvents", "session", "queuedTurns", "requests", "mcpServers"]);
    assert_eq!(read.data(200)["queuedTurns"], json!([]));
    let events = read.data(200)["recentEvents"].as_array().unwrap();
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types.first(), Some(&"session.created"), "{types:?}");
    assert!(types.contains(&"turn.accepted") && types.contains(&"app-server.turn.completed"), "{types:?}");
    for event in events {
        let detail = &event["detail"];
        let named = detail["sessionId"] == session_id || detail["threadId"] == first["threadId"];
        assert!(named, "an event of another session: {event}");
    }
    assert!(events.iter().any(|event| event["detail"]["turnId"] == turn_id));
}

#[tokio::test]
async fn unknown_session_is_not_found_with_any_id() {
    let daemon = start_daemon().await;
    let long = "x".repeat(10_000);
    for (escaped, session_id) in [
        ("unknown", "unknown"),
        ("a%2Fb", "a/b"),
        ("%22quoted%22", "\"quoted\""),
        ("with%20space", "with space"),
        ("%C3%A9t%C3%A9", "été"),
        ("%2e%2e", ".."),
        ("100%25", "100%"),
        (&long, &long),
    ] {
        let response = get(&daemon, &format!("{SESSIONS}/{escaped}")).await;
        let expected = format!("Unknown codexd session \"{session_id}\".");
        assert_eq!(response.error(404, "not_found"), expected);
        assert_eq!(request_turn(&daemon, session_id, "hi").await.error(404, "not_found"), expected);
    }
    for broken in ["%FF", "%ZZ", "%"] {
        let response = get(&daemon, &format!("{SESSIONS}/{broken}")).await;
        let message = response.error(404, "not_found");
        assert!(message.starts_with("Unknown codexd session \""), "{broken}: {message}");
    }
}

#[tokio::test]
async fn session_record_has_the_fields_of_its_creation() {
    let daemon = start_daemon().await;
    let directory = scratch::directory("test");
    let session = create_session(
        &daemon,
        json!({
            "approvalPolicy": "never",
            "baseInstructions": "base",
            "config": { "a.b": [1, null, { "c": "d" }] },
            "cwd": directory.path(),
            "developerInstructions": "developer",
            "ephemeral": true,
            "metadata": { " team ": " red ", "ticket": "7" },
            "model": "embedded-model-mini",
            "modelProvider": "mock",
            "personality": "friendly",
            "purpose": "worker",
            "sandbox": "read-only",
            "serviceTier": "flex",
            "threadId": "",
            "unknownField": { "x": 1 },
        }),
    )
    .await;
    for (field, expected) in [
        ("cwd", json!(directory.path())),
        ("model", json!("embedded-model-mini")),
        ("modelProvider", json!("mock")),
        ("serviceTier", json!("flex")),
        ("purpose", json!("worker")),
        ("metadata", json!({ "team": "red", "ticket": "7" })),
    ] {
        assert_eq!(session[field], expected, "{field}");
    }
}

#[tokio::test]
async fn string_fields_are_trimmed_and_blank_ones_count_as_absent() {
    let daemon = start_daemon().await;
    let plain = create_session(&daemon, json!({})).await;
    let mut fields =
        json!({ "purpose": " smoke ", "model": "\t embedded-model-mini \n", "modelProvider": "   " });
    for absent in ["cwd", "serviceTier", "personality", "approvalPolicy", "sandbox", "threadId"] {
        fields[absent] = json!(" ");
    }
    for null in ["config", "ephemeral", "metadata", "baseInstructions", "developerInstructions"] {
        fields[null] = Value::Null;
    }
    let session = create_session(&daemon, fields).await;
    assert_eq!(session["purpose"], "smoke");
    assert_eq!(session["model"], "embedded-model-mini");
    for same in ["cwd", "modelProvider", "serviceTier", "metadata"] {
        assert_eq!(session[same], plain[same], "{same}");
    }
}

#[tokio::test]
async fn session_purpose_accepts_three_values() {
    let daemon = start_daemon().await;
    for purpose in ["duplex", "worker", "smoke"] {
        assert_eq!(create_session(&daemon, json!({ "purpose": purpose })).await["purpose"], purpose);
    }
    let response = post(&daemon, SESSIONS, &json!({ "purpose": "Duplex" })).await;
    let message = response.error(400, "bad_request");
    assert!(message.contains("\"Duplex\"") && message.contains("purpose"), "{message}");
}

#[tokio::test]
async fn app_server_rejections_are_returned_with_their_details() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for (path, field, value, reason) in [
        (SESSIONS, "modelProvider", json!("nope"), "Model provider `nope` not found"),
        (SESSIONS, "threadId", json!("not-a-uuid"), "invalid session id"),
        (TURN, "sandboxPolicy", json!({ "type": "bogus" }), "unknown variant `bogus`"),
    ] {
        let mut body = json!({ field: value });
        if path == TURN {
            body["sessionId"] = json!(session_id);
            body["prompt"] = json!("hello");
        }
        let response = post(&daemon, path, &body).await;
        let message = response.error(400, "app_server_rejected");
        assert!(message.contains(reason), "{field}: {message}");
        let details = &response.json["details"];
        assert_eq!(details["code"], -32600, "{field}: {details}");
        assert!(details["message"].as_str().unwrap().contains(reason), "{field}: {details}");
    }
    assert_eq!(
        request_turn(&daemon, &session_id, "hello").await.status,
        202,
        "a rejected request changed the session"
    );
}

/// Starts a daemon whose child process records its stdin in this file.
async fn recording_daemon(file: &std::path::Path) -> Daemon {
    let script = "\"$1\" record \"$0\" | \"$1\" app-server";
    let (file, program) = (file.to_str().unwrap(), fake_codex());
    Daemon::builder().server("sh", &["-c", script, file, program]).start().await
}

/// Waits for the first recorded call of this method; returns its params.
async fn first_call(file: &std::path::Path, method: &str) -> Value {
    wait_until("the recorded call", || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let complete_lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut calls = complete_lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        calls.find(|call| call["method"] == method).map(|mut call| call["params"].take())
    })
    .await
}

#[tokio::test]
async fn session_fields_reach_the_app_server_unchanged() {
    let directory = scratch::directory("test");
    let file = directory.path().join("stdin");
    let daemon = recording_daemon(&file).await;
    let settings = json!({
        "approvalPolicy": { "granular": { "rules": true } },
        "baseInstructions": "base",
        "config": { "a.b": [1, null, { "c": " d " }], "e": "" },
        "cwd": directory.path(),
        "developerInstructions": "developer",
        "ephemeral": false,
        "model": "embedded-model",
        "modelProvider": "mock",
        "personality": "friendly",
        "sandbox": "read-only",
        "serviceTier": "fast",
    });
    let mut body = settings.clone();
    body["metadata"] = json!({ "team": "red" });
    body["purpose"] = json!("worker");
    create_session(&daemon, body).await;
    assert_eq!(first_call(&file, "thread/start").await, untrusted(settings.clone(), &settings["cwd"]));
    let initialize = first_call(&file, "initialize").await;
    assert_eq!(initialize["clientInfo"]["name"], "baa-conductor-codexd");
    assert_eq!(initialize["clientInfo"]["title"], "codexd local service");
}

/// Codex renames its approval policies between versions, so Codex validates them and not codexd.
#[tokio::test]
async fn unknown_approval_policy_is_passed_to_the_app_server() {
    for policy in ["on-failure", "granular", "a-future-policy"] {
        let directory = scratch::directory("test");
        let file = directory.path().join("stdin");
        let daemon = recording_daemon(&file).await;
        let response = post(&daemon, SESSIONS, &json!({ "approvalPolicy": policy })).await;
        assert_ne!(response.json["error"], "bad_request", "{response:?}");
        assert_eq!(first_call(&file, "thread/start").await["approvalPolicy"], policy);
        let body = json!({ "sessionId": new_session(&daemon).await, "input": "x", "approvalPolicy": policy });
        let response = post(&daemon, TURN, &body).await;
        assert_ne!(response.json["error"], "bad_request", "{response:?}");
        assert_eq!(first_call(&file, "turn/start").await["approvalPolicy"], policy);
    }
    let directory = scratch::directory("test");
    let file = directory.path().join("stdin");
    let daemon = recording_daemon(&file).await;
    let arguments = ["ask", "--approval-policy", "on-failure", "x"];
    crate::api::run_command(crate::cli::command(daemon.base_url(), directory.path(), &arguments)).await;
    assert_eq!(first_call(&file, "thread/start").await["approvalPolicy"], "on-failure");
}

/// `granular` is not a policy name that Codex accepts, but a field of the object form of a policy.
#[tokio::test]
async fn granular_is_not_offered_as_an_approval_policy() {
    let daemon = start_daemon().await;
    let directory = scratch::directory("test");
    let help =
        crate::api::run_command(crate::cli::command(daemon.base_url(), directory.path(), &["ask", "--help"]))
            .await;
    let text = async |path: &str| {
        let host = daemon.authority();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        raw(&daemon, head.as_bytes()).await
    };
    for (source, text) in [
        ("ask --help", help.stdout),
        ("/openapi.json", text("/openapi.json").await),
        ("/describe", text("/describe").await),
        ("the page", text("/").await),
    ] {
        assert!(text.contains("on-request") || source == "/describe", "{source} lists no policies: {text}");
        assert!(!text.contains("granular"), "{source} offers granular");
    }
}

#[tokio::test]
async fn turn_fields_reach_the_app_server_unchanged() {
    let directory = scratch::directory("test");
    let file = directory.path().join("stdin");
    let daemon = recording_daemon(&file).await;
    let session = create_session(&daemon, json!({})).await;
    let defaults = untrusted(json!({}), &session["cwd"]);
    assert_eq!(first_call(&file, "thread/start").await, defaults, "absent fields are not omitted");
    let settings = json!({
        "approvalPolicy": "never",
        "collaborationMode": { "mode": "plan", "settings": { "model": "m" } },
        "cwd": directory.path(),
        "effort": "high",
        "model": "embedded-model",
        "outputSchema": { "type": "object", "properties": {} },
        "personality": "none",
        "sandboxPolicy": { "type": "readOnly" },
        "serviceTier": "fast",
        "summary": "concise",
    });
    let mut body = settings.clone();
    body["sessionId"] = session["sessionId"].clone();
    body["prompt"] = json!("  hello there  ");
    let response = post(&daemon, TURN, &body).await;
    assert_eq!(keys(response.data(202)), ["accepted", "session", "turnId"]);
    assert_eq!(response.data(202)["accepted"], true);
    let mut expected = settings;
    expected["threadId"] = session["threadId"].clone();
    expected["input"] = json!([{ "type": "text", "text": "hello there", "text_elements": [] }]);
    let mut call = first_call(&file, "turn/start").await;
    // With this ID codexd finds the turn again when the response to the call is lost.
    let message_id = call.as_object_mut().unwrap().remove("clientUserMessageId").unwrap();
    assert!(message_id.as_str().unwrap().starts_with("codexd-"), "{message_id}");
    assert_eq!(call, expected);
}

#[tokio::test]
async fn turn_input_items_are_passed_unchanged() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let items = json!([
        { "type": "text", "text": "  two words  ", "text_elements": [] },
        { "type": "image", "url": "data:image/png;base64,AA==" },
    ]);
    let body = json!({ "sessionId": session_id, "input": items, "prompt": "is not read" });
    let turn_id = text(&post(&daemon, TURN, &body).await.data(202)["turnId"]);
    let user_item = wait_for_event(&daemon, "the user's item", |event| {
        let params = &event["detail"]["params"];
        params["turnId"] == turn_id && params["item"]["type"] == "userMessage"
    })
    .await;
    assert_eq!(user_item["detail"]["params"]["item"]["content"], items);
}

#[tokio::test]
async fn prompt_of_a_million_characters_is_passed_unchanged() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let prompt = "é".repeat(1_000_000);
    let turn_id = start_turn(&daemon, &session_id, &prompt).await;
    let record = wait_until_idle(&daemon, &session_id).await;
    assert_eq!((&record["lastTurnId"], &record["lastTurnStatus"]), (&json!(turn_id), &json!("completed")));
    let user_item = wait_for_event(&daemon, "the user's item", |event| {
        event["detail"]["params"]["item"]["type"] == "userMessage"
    })
    .await;
    assert_eq!(user_item["detail"]["params"]["item"]["content"][0]["text"].as_str(), Some(prompt.as_str()));
}

#[tokio::test]
async fn directory_is_checked_for_local_app_servers_only() {
    let cwd = json!({ "cwd": "/on/another/machine" });
    for (endpoint, status, code) in [
        ("ws://127.0.0.1:1", 400, "bad_request"),
        ("unix:///nowhere/socket", 400, "bad_request"),
        ("ws://codexd.invalid:1", 503, "app_server_unavailable"),
    ] {
        let daemon = Daemon::builder().external(endpoint).start().await;
        let response = post(&daemon, SESSIONS, &cwd).await;
        let message = response.error(status, code);
        assert_eq!(message.contains("directory"), status == 400, "{endpoint}: {message}");
        let relative = post(&daemon, SESSIONS, &json!({ "cwd": "relative" })).await;
        assert!(relative.error(400, "bad_request").contains("absolute"), "{}", relative.text);
    }
}

#[tokio::test]
async fn paths_are_passed_byte_by_byte() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let home = scratch::directory("paths");
    let session_id = new_session(&daemon).await;
    std::fs::create_dir(home.path().join("proj")).unwrap();
    for name in ["proj ", " proj", "proj\u{a0}", "proj\u{3000}", "proj\n", "\u{2003}"] {
        let path = home.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let created = post(&daemon, SESSIONS, &json!({ "cwd": path })).await;
        assert_eq!(created.data(201)["session"]["cwd"], json!(path), "{name:?}");
        assert_eq!(app_server.calls("thread/start").pop().unwrap()["cwd"], json!(path), "{name:?}");
        // The path of an image is part of an item, which is passed unchanged.
        let input = json!([{ "type": "text", "text": "hello" }, { "type": "localImage", "path": path }]);
        let body = json!({ "sessionId": session_id, "input": input, "cwd": path });
        post(&daemon, &format!("{TURN}?wait=30"), &body).await.data(202);
        let call = app_server.calls("turn/start").pop().unwrap();
        assert_eq!((&call["cwd"], &call["input"]), (&json!(path), &input), "{name:?}");
    }
    for absent in ["proj  ", "\u{a0}proj"] {
        let path = home.path().join(absent);
        post(&daemon, SESSIONS, &json!({ "cwd": path })).await.error(400, "bad_request");
    }
    // A blank or null path counts as absent.
    for blank in [json!(""), json!(" \t"), Value::Null] {
        post(&daemon, SESSIONS, &json!({ "cwd": blank })).await.data(201);
    }
}

#[tokio::test]
async fn ignored_fields_are_listed_in_body_and_header() {
    let daemon = start_daemon().await;
    let header = |response: &crate::support::http::ApiResponse| {
        let value = response.headers.get("codexd-ignored");
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let body =
        json!({ "sandboxPolicy": { "type": "readOnly" }, "sanbox": "x", "lastTurnId": "t", "effort": null });
    let created = post(&daemon, SESSIONS, &body).await;
    assert_eq!(created.data(201)["ignored"], json!(["sandboxPolicy", "sanbox", "lastTurnId"]));
    assert_eq!(header(&created).unwrap(), "sandboxPolicy, sanbox, lastTurnId");
    let session_id = text(&created.data(201)["session"]["sessionId"]);

    let body = json!({ "sessionId": session_id, "input": "hang", "sandbox": "read-only", "wörd, two": 1 });
    let accepted = post(&daemon, TURN, &body).await;
    assert_eq!(accepted.data(202)["ignored"], json!(["sandbox", "wörd, two"]));
    assert_eq!(header(&accepted).unwrap(), "sandbox, w?rd??two");
    let body = json!({
        "sessionId": session_id, "input": "hang", "prompt": "other", "whenBusy": "steer", "effort": "high", "y": 1,
    });
    let key = [("idempotency-key", "steer")];
    for _ in 0..2 {
        let steered = request(&daemon, Method::POST, TURN, &key, body.to_string()).await;
        assert_eq!(steered.data(202)["turnId"], accepted.data(202)["turnId"]);
        assert_eq!(steered.data(202)["ignored"], json!(["prompt", "y", "effort"]));
        assert_eq!(header(&steered).unwrap(), "prompt, y, effort");
    }
    let body = json!({
        "sessionId": session_id, "input": "more", "expectedTurnId": accepted.data(202)["turnId"],
        "sandboxPolicy": { "type": "readOnly" },
    });
    let steered = post(&daemon, TURN, &body).await;
    assert_eq!(
        steered.data(202)["ignored"],
        json!(["sandboxPolicy"]),
        "settings of a steered turn are not ignored"
    );
    wait_until_idle(&daemon, &session_id).await;
    post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "hang" })).await.data(202);
    let interrupted =
        post(&daemon, "/v1/codexd/turn/interrupt", &json!({ "sessionId": session_id, "x": 1 })).await;
    assert_eq!(interrupted.data(202)["ignored"], json!(["x"]));
    let body = json!({ "sessionId": session_id, "input": "hello", "whenBusy": "steer", "effort": "high" });
    let started = post(&daemon, TURN, &body).await;
    assert_eq!(started.data(202).get("ignored"), None, "settings of a new turn are ignored");

    let plain = post(&daemon, SESSIONS, &json!({})).await;
    assert_eq!((header(&plain), plain.data(201).get("ignored")), (None, None));
}

#[tokio::test]
async fn environment_of_a_codex_session_does_not_reach_the_app_server() {
    let directory = scratch::directory("test");
    let file = directory.path().join("environment");
    let script = "env > \"$0.part\" && mv \"$0.part\" \"$0\"; exec \"$1\" app-server --store \"$2\"";
    let (program, store) = (fake_codex(), directory.path().join("store"));
    let arguments = ["-c", script, file.to_str().unwrap(), program, store.to_str().unwrap()];
    let mut builder = Daemon::builder().server("sh", &arguments).env("CODEX_HOME", directory.path());
    let names = [
        "CODEX_THREAD_ID",
        "CODEX_SANDBOX",
        "CODEX_SANDBOX_NETWORK_DISABLED",
        "CODEX_INTERNAL_ORIGINATOR_OVERRIDE",
    ];
    for name in names {
        builder = builder.env(name, "of-a-session");
    }
    let daemon = builder.start().await;
    create_session(&daemon, json!({})).await;
    let environment = fs::read_to_string(&file).unwrap();
    assert!(environment.contains("CODEX_HOME="), "{environment}");
    assert!(!environment.contains("of-a-session"), "{environment}");
}
