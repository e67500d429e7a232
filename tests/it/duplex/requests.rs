//! Server requests and the answers of clients.

use serde_json::{Value, json};

use super::{
    REQUESTS, answer, current_request, decide, finished_turn, item, pending_request, request_path, requests,
    resolved_request, session_with,
};
use crate::api::{SESSIONS, new_session, start_daemon, start_turn, text, wait_for_event};
use crate::support::http::{get, post};
use crate::support::websocket::EventStream;

const COMMAND: &str = "item/commandExecution/requestApproval";

#[tokio::test]
async fn server_request_is_readable_before_and_after_its_answer() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command text=done").await;
    let request = pending_request(&daemon, &session_id).await;
    assert_eq!((&request["method"], &request["status"]), (&json!(COMMAND), &json!("pending")));
    assert_eq!((&request["sessionId"], &request["turnId"]), (&json!(session_id), &json!(turn_id)));
    assert_eq!(request["itemId"], request["params"]["itemId"]);
    assert!(request["createdAt"].as_str() < request["expiresAt"].as_str(), "{request}");
    for absent in ["resolvedAt", "resolvedBy", "decision", "reason"] {
        assert_eq!(request[absent], Value::Null, "{absent}");
    }
    let policy = request["params"]["proposedExecpolicyAmendment"].clone();
    let amendment = json!({ "acceptWithExecpolicyAmendment": { "execpolicy_amendment": policy } });
    assert_eq!(request["decisions"], json!(["accept", amendment, "cancel", "decline"]));
    assert_eq!(current_request(&daemon, &request["requestId"]).await, request);
    let view = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    assert_eq!(view.data(200)["requests"], json!([request]));
    assert_eq!(view.data(200)["session"]["currentTurnId"], turn_id);

    let resolved = decide(&daemon, &request["requestId"], "accept").await;
    assert_eq!((&resolved["status"], &resolved["resolvedBy"]), (&json!("resolved"), &json!("client")));
    assert_eq!((&resolved["decision"], &resolved["reason"]), (&json!("accept"), &Value::Null));
    let ended = finished_turn(&daemon, &session_id, &turn_id).await;
    assert_eq!((&ended["status"], &ended["text"]), (&json!("completed"), &json!("done")));
    assert_eq!(item(&ended, "commandExecution")["status"], "completed");
    assert_eq!(
        current_request(&daemon, &request["requestId"]).await,
        resolved,
        "a resolved request does not change"
    );
    let view = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    assert_eq!(view.data(200)["requests"], json!([]));

    let events = daemon.events_on_disk();
    let about = |event_type: &str| {
        let mut all = events.iter().filter(|event| event["type"] == event_type);
        let one = all.next().unwrap_or_else(|| panic!("no {event_type}"));
        assert!(all.next().is_none(), "two of {event_type}");
        one
    };
    let (opened, closed) = (about("request.opened"), about("request.resolved"));
    assert!(opened["seq"].as_u64() < closed["seq"].as_u64());
    assert_eq!(opened["level"], "warn");
    assert_eq!(opened["detail"]["request"], request);
    for event in [opened, closed] {
        for name in ["requestId", "sessionId", "threadId", "turnId"] {
            assert_eq!(event["detail"][name], request[name], "{name} in {event}");
        }
    }
    assert_eq!(
        (&closed["detail"]["resolvedBy"], &closed["detail"]["decision"]),
        (&json!("client"), &json!("accept"))
    );
}

#[tokio::test]
async fn server_request_applies_each_decision() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for (subject, item_type, decision, item_status, turn_status) in [
        ("command", "commandExecution", "decline", "declined", "completed"),
        ("command", "commandExecution", "cancel", "declined", "interrupted"),
        ("file", "fileChange", "accept", "completed", "completed"),
        ("file", "fileChange", "acceptForSession", "completed", "completed"),
        ("file", "fileChange", "decline", "declined", "completed"),
        ("file", "fileChange", "cancel", "declined", "interrupted"),
    ] {
        let turn_id = start_turn(&daemon, &session_id, &format!("ask={subject}")).await;
        let request = pending_request(&daemon, &session_id).await;
        let resolved = decide(&daemon, &request["requestId"], decision).await;
        assert_eq!((&resolved["resolvedBy"], &resolved["decision"]), (&json!("client"), &json!(decision)));
        let ended = finished_turn(&daemon, &session_id, &turn_id).await;
        assert_eq!(ended["status"], turn_status, "{subject} {decision}");
        assert_eq!(item(&ended, item_type)["status"], item_status, "{subject} {decision}");
    }
    for decision in ["accept", "acceptForSession", "decline"] {
        let turn_id = start_turn(&daemon, &session_id, "ask=permissions").await;
        let request = pending_request(&daemon, &session_id).await;
        assert_eq!(request["decisions"], json!(["accept", "acceptForSession", "decline"]));
        decide(&daemon, &request["requestId"], decision).await;
        assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed", "{decision}");
    }
}

#[tokio::test]
async fn server_request_accepts_complete_response() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for (subject, result, decision) in [
        ("command", json!({ "decision": "accept" }), json!("accept")),
        ("input", json!({ "answers": { "colour": { "answers": ["red"] } } }), Value::Null),
    ] {
        let turn_id = start_turn(&daemon, &session_id, &format!("ask={subject}")).await;
        let request = pending_request(&daemon, &session_id).await;
        let resolved = answer(&daemon, &request["requestId"], &json!({ "result": result })).await;
        assert_eq!(resolved.data(200)["request"]["decision"], decision);
        assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
    }
}

#[tokio::test]
async fn server_request_stays_pending_after_invalid_answer() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let request_id = &request["requestId"];
    for (body, part) in [
        (json!({ "decision": "acceptForSession" }), "decision \"acceptForSession\""),
        (json!({ "decision": "Accept" }), "\"accept\""),
        (json!({ "decision": 1 }), "decision 1"),
        (json!({ "result": "accept" }), "result"),
        (json!({ "result": [] }), "result"),
        (json!({ "decision": "accept", "result": {} }), "not both"),
        (json!({ "decision": null }), "decision"),
        (json!({}), "decision"),
    ] {
        let refused = answer(&daemon, request_id, &body).await;
        let message = refused.error(400, "bad_request");
        assert!(message.contains(part) && message.ends_with('.'), "{body}: {message}");
    }
    assert_eq!(current_request(&daemon, request_id).await, request);
    decide(&daemon, request_id, "accept").await;
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
}

#[tokio::test]
async fn unknown_server_request_is_not_found() {
    let daemon = start_daemon().await;
    for request_id in ["nope", "request-00000000-0000-4000-8000-000000000000", "%ff"] {
        let path = format!("{REQUESTS}/{request_id}");
        get(&daemon, &path).await.error(404, "not_found");
        post(&daemon, &path, &json!({ "decision": "accept" })).await.error(404, "not_found");
    }
    let mut client = EventStream::connect(&daemon).await;
    client.hello().await;
    let refused = client.ask(&json!({ "type": "respond", "requestId": "nope", "decision": "accept" })).await;
    assert_eq!((&refused["type"], &refused["error"]), (&json!("error"), &json!("not_found")));
    assert_eq!(refused["requestId"], "nope");
    assert!(refused["message"].as_str().unwrap().contains("nope"), "{refused}");
    for wrong in
        [json!({ "type": "respond" }), json!({ "type": "respond", "requestId": 1, "decision": "accept" })]
    {
        let refused = client.ask(&wrong).await;
        assert_eq!(refused["type"], "error", "{refused}");
        assert_eq!(refused["requestId"], "", "{refused}");
    }
    assert_eq!(
        client.ask(&json!({ "type": "ping" })).await["type"],
        "pong",
        "the stream stays open after an error"
    );
}

#[tokio::test]
async fn server_request_accepts_only_first_answer() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command").await;
    let request = pending_request(&daemon, &session_id).await;
    let resolved = decide(&daemon, &request["requestId"], "decline").await;
    for body in [json!({ "decision": "accept" }), json!({ "decision": "nonsense" }), json!({ "result": {} })]
    {
        let late = answer(&daemon, &request["requestId"], &body).await;
        late.error(409, "already_resolved");
        assert_eq!(late.json["details"]["request"], resolved);
    }
    let ended = finished_turn(&daemon, &session_id, &turn_id).await;
    assert_eq!(item(&ended, "commandExecution")["status"], "declined");
}

#[tokio::test]
async fn server_request_accepts_one_of_two_concurrent_answers() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let mut client = EventStream::connect(&daemon).await;
    client.hello().await;
    for _ in 0..10 {
        let turn_id = start_turn(&daemon, &session_id, "ask=command").await;
        let opened = client.wait_for("the request", |event| event["type"] == "request.opened").await;
        let request_id = &opened["detail"]["requestId"];
        let over_socket = json!({ "type": "respond", "requestId": request_id, "decision": "accept" });
        let over_http = json!({ "decision": "decline" });
        let (socket_response, http_response) =
            tokio::join!(client.ask(&over_socket), answer(&daemon, request_id, &over_http));
        let request = current_request(&daemon, request_id).await;
        if http_response.status == 200 {
            assert_eq!(
                (&socket_response["type"], &socket_response["error"]),
                (&json!("error"), &json!("already_resolved"))
            );
            assert_eq!(socket_response["details"]["request"], request);
            assert_eq!(socket_response["requestId"], *request_id);
            assert_eq!(http_response.data(200)["request"], request);
            assert_eq!(request["decision"], "decline");
        } else {
            http_response.error(409, "already_resolved");
            assert_eq!(http_response.json["details"]["request"], request);
            assert_eq!(
                (&socket_response["type"], &socket_response["request"]),
                (&json!("responded"), &request)
            );
            assert_eq!(request["decision"], "accept");
        }
        let ended = finished_turn(&daemon, &session_id, &turn_id).await;
        let item_status = if request["decision"] == "accept" { "completed" } else { "declined" };
        assert_eq!(item(&ended, "commandExecution")["status"], item_status);
    }
    let events = daemon.events_on_disk();
    let count = |event_type: &str| events.iter().filter(|event| event["type"] == event_type).count();
    assert_eq!((count("request.opened"), count("request.resolved")), (10, 10));
}

#[tokio::test]
async fn server_request_list_starts_with_pending_requests() {
    let daemon = start_daemon().await;
    let (first, second) = (new_session(&daemon).await, new_session(&daemon).await);
    let mut old = Vec::new();
    for _ in 0..2 {
        let turn_id = start_turn(&daemon, &first, "ask=file").await;
        let request = pending_request(&daemon, &first).await;
        decide(&daemon, &request["requestId"], "accept").await;
        finished_turn(&daemon, &first, &turn_id).await;
        old.push(request["requestId"].clone());
    }
    start_turn(&daemon, &first, "ask=command").await;
    let waiting = pending_request(&daemon, &first).await;
    start_turn(&daemon, &second, "ask=command").await;
    let other = pending_request(&daemon, &second).await;
    let names = |list: &[Value]| list.iter().map(|request| text(&request["requestId"])).collect::<Vec<_>>();
    let (waiting, other) = (text(&waiting["requestId"]), text(&other["requestId"]));
    let (oldest, newest) = (text(&old[0]), text(&old[1]));
    assert_eq!(names(&requests(&daemon, &first).await), [&waiting, &newest, &oldest].map(String::clone));
    assert_eq!(names(&requests(&daemon, &second).await), std::slice::from_ref(&other));
    let unknown = get(&daemon, "/v1/codexd/requests?sessionId=unknown").await;
    assert_eq!(unknown.error(404, "not_found"), "Unknown codexd session \"unknown\".");
    let all = get(&daemon, REQUESTS).await.data(200)["requests"].as_array().unwrap().clone();
    assert_eq!(names(&all), [waiting, other, newest, oldest]);
}

#[tokio::test]
async fn unsupported_server_request_is_refused_at_once() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=unknown").await;
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
    let refused =
        wait_for_event(&daemon, "the refusal", |event| event["type"] == "app-server.request.refused").await;
    assert_eq!(refused["detail"]["requestMethod"], "item/unheardOf/request");
    assert_eq!(requests(&daemon, &session_id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn server_requests_of_one_turn_arrive_in_sequence() {
    let daemon = start_daemon().await;
    let session_id = session_with(&daemon, json!({ "requests": "ask" })).await;
    let turn_id = start_turn(&daemon, &session_id, "ask=command ask=file ask=permissions ask=input").await;
    for method in [
        COMMAND,
        "item/fileChange/requestApproval",
        "item/permissions/requestApproval",
        "item/tool/requestUserInput",
    ] {
        let request = pending_request(&daemon, &session_id).await;
        assert_eq!(request["method"], method);
        decide(&daemon, &request["requestId"], "decline").await;
        resolved_request(&daemon, &request["requestId"]).await;
    }
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "completed");
    assert_eq!(get(&daemon, &format!("{}/", request_path(&json!("nope")))).await.status, 404);
}
