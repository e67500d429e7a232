//! Turns with the real app-server: streaming, model failures, steering, resumed threads, long prompts, rejections.

use serde_json::{Value, json};

use super::{Stage, WAITING_PROMPT, submit};
use crate::support::http::post;
use crate::support::model::text_of_deltas;

#[tokio::test]
async fn turn_streams_ordered_deltas_of_its_text() {
    let mut stage = Stage::start().await;
    let settings = json!({ "metadata": { "owner": "a test" }, "purpose": "worker" });
    let session = stage.session(&settings).await;
    assert_eq!((&session["status"], &session["purpose"]), (&json!("active"), &json!("worker")));
    assert_eq!((&session["model"], &session["modelProvider"]), (&json!("mock-model"), &json!("mock")));
    assert_eq!(session["cwd"], stage.home.workspace().to_str().unwrap());
    assert_eq!(session["metadata"], json!({ "owner": "a test" }));
    for absent in ["currentTurnId", "lastTurnId", "lastTurnStatus"] {
        assert_eq!(session[absent], Value::Null, "{absent}");
    }

    let turn = stage.turn(&session, "answer mock:deltas=20 mock:delay=1").await;
    assert_eq!(turn.status(), "completed");
    let text = text_of_deltas(20);
    assert_eq!(turn.text(), text);
    assert_eq!(turn.items("item/completed", "agentMessage")[0]["text"], text);
    assert_eq!(turn.of("app-server.turn.message.delta").len(), 20);
    let order = [
        "session.created",
        "turn.accepted",
        "app-server.turn.started",
        "app-server.turn.message.delta",
        "app-server.turn.completed",
    ];
    let positions = order.map(|event_type| turn.position(event_type));
    assert!(positions.is_sorted(), "{order:?} are at {positions:?}");

    let turn_id = &turn.events.last().unwrap()["detail"]["turnId"];
    let record = stage.record(&session).await;
    assert_eq!(record["lastTurnId"], *turn_id);
    assert_eq!((&record["currentTurnId"], &record["lastTurnStatus"]), (&Value::Null, &json!("completed")));
    assert_eq!(record["threadId"], session["threadId"]);
    assert!(record["updatedAt"].as_str() >= session["updatedAt"].as_str());
    stage.stop().await;
    assert!(stage.daemon.events_on_disk().iter().any(|event| event == turn.events.last().unwrap()));
}

#[tokio::test]
async fn model_failure_is_retried_and_then_fails_turn() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn = stage.turn(&session, "mock:fail").await;
    assert_eq!(turn.status(), "failed");
    let errors = turn.of("app-server.turn.error");
    let will_retry: Vec<_> = errors.iter().map(|event| &event["detail"]["willRetry"]).collect();
    assert_eq!(will_retry, [true, false]);
    for error in errors {
        assert_eq!(error["level"], "error");
        assert!(error["detail"]["error"]["message"].is_string(), "{error}");
    }
    assert!(turn.events.last().unwrap()["detail"]["error"].is_object());
    assert_eq!(stage.record(&session).await["lastTurnStatus"], "failed");
    // The session still works.
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
    assert_eq!(stage.record(&session).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn running_turn_accepts_steering_and_rejects_second_turn() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn_id = stage.start_turn(&session, WAITING_PROMPT).await;
    let is_started = |event: &Value| event["type"] == "app-server.turn.started";
    stage.events.wait_for("the start of the turn", is_started).await;
    assert_eq!(stage.record(&session).await["currentTurnId"], turn_id);

    let another = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=1" });
    let refused = submit(&stage.daemon, &another).await;
    assert!(refused.error(409, "turn_in_progress").contains(&turn_id), "{}", refused.text);
    let mut steering = json!({ "sessionId": session["sessionId"], "input": "turn around mock:deltas=2" });
    steering["expectedTurnId"] = json!("somewhere-else");
    submit(&stage.daemon, &steering).await.error(400, "app_server_rejected");
    steering["expectedTurnId"] = json!(turn_id);
    assert_eq!(submit(&stage.daemon, &steering).await.data(202)["turnId"], turn_id);
    stage.end_waiting_command();

    let turn = stage.rest_of(&turn_id).await;
    assert_eq!((turn.status(), turn.text()), ("completed", text_of_deltas(2)));
    assert_eq!(turn.of("turn.accepted").len(), 1);
    assert!(stage.model.requests().last().unwrap().to_string().contains("turn around"));
    // A finished turn cannot be steered.
    submit(&stage.daemon, &steering).await.error(400, "app_server_rejected");
}

#[tokio::test]
async fn resumed_thread_keeps_its_history_across_restart() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let turn = stage.turn(&session, "remember the blue heron mock:text=[noted]").await;
    assert_eq!(turn.status(), "completed");
    stage.stop().await;

    let mut stage = stage.restart().await;
    let old = stage.record(&session).await;
    assert_eq!((&old["status"], &old["lastTurnStatus"]), (&json!("active"), &json!("completed")));
    let resumed = stage.session(&json!({ "threadId": session["threadId"] })).await;
    assert_eq!(resumed["threadId"], session["threadId"]);
    assert_ne!(resumed["sessionId"], session["sessionId"]);
    assert_eq!(
        (&resumed["lastTurnId"], &resumed["lastTurnStatus"]),
        (&old["lastTurnId"], &json!("completed"))
    );
    assert_eq!(resumed["currentTurnId"], Value::Null);
    let turn = stage.turn(&resumed, "which bird was it mock:deltas=1").await;
    assert_eq!(turn.of("session.resumed").len(), 1);
    assert_eq!(turn.status(), "completed");
    let requests = stage.model.requests();
    assert_eq!(requests.len(), 2);
    let request = requests.last().unwrap().to_string();
    for earlier in ["remember the blue heron", "noted", "which bird was it"] {
        assert!(request.contains(earlier), "the request to the model lacks {earlier:?}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn megabyte_prompt_reaches_model_unchanged() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let numbers: String = (0..).map(|number| format!("{number:07} ")).take(125_000).collect();
    let prompt = format!("{} mock:deltas=1", numbers.trim_end());
    assert!(prompt.len() > 1_000_000);
    assert_eq!(stage.turn(&session, &prompt).await.status(), "completed");
    let request = stage.model.requests().pop().unwrap();
    let texts =
        request["input"].as_array().unwrap().iter().flat_map(|item| item["content"].as_array()).flatten();
    assert!(texts.into_iter().any(|part| part["text"] == prompt), "the model received a different prompt");
}

#[tokio::test]
async fn app_server_rejection_is_a_client_error() {
    let mut stage = Stage::start().await;
    for rejected in [
        json!({ "modelProvider": "bogus" }),
        json!({ "threadId": "bogus" }),
        json!({ "threadId": "01a1f6fb-b866-75a2-b64e-8e17d77fc57f" }),
    ] {
        let answer = post(&stage.daemon, "/v1/codexd/sessions", &rejected).await;
        answer.error(400, "app_server_rejected");
        assert_eq!(answer.json["details"]["code"], -32600, "{rejected}: {}", answer.text);
        assert!(answer.json["details"]["message"].is_string(), "{rejected}: {}", answer.text);
    }
    let session = stage.session(&json!({})).await;
    for rejected in [
        json!({ "input": [{ "type": "image" }] }),
        json!({ "approvalPolicy": { "bogus": {} } }),
        json!({ "sandboxPolicy": { "type": "bogus" } }),
    ] {
        let mut body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=1" });
        body.as_object_mut().unwrap().extend(rejected.as_object().unwrap().clone());
        let answer = submit(&stage.daemon, &body).await;
        answer.error(400, "app_server_rejected");
        assert_eq!(answer.json["details"]["code"], -32600, "{rejected}: {}", answer.text);
    }
    // The session still works.
    assert_eq!(stage.record(&session).await["currentTurnId"], Value::Null);
    assert_eq!(stage.turn(&session, "mock:deltas=1").await.status(), "completed");
}

#[tokio::test]
async fn turn_completes_on_previous_release() {
    let mut stage = Stage::start_version("0.169.0").await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:deltas=2").await.status(), "completed");
    stage.stop().await;
    let connected = stage.daemon.events_on_disk();
    let connected = connected.iter().find(|event| event["type"] == "app-server.connected").unwrap();
    assert!(connected["detail"]["userAgent"].as_str().unwrap().contains("/0.169.0 "), "{connected}");
}
