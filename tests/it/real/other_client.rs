//! Other clients of an app-server, and what they do to the sessions, turns and requests of codexd.

pub(super) mod client;
pub(super) mod proxy;

use serde_json::{Value, json};

use self::client::Client;
use self::proxy::Proxy;
use super::app_server::AppServer;
use super::{create_session, submit};
use crate::duplex::pending_request;
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, post};
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::wait::wait_until;

/// A turn of about six seconds.
const SLOW_TURN: &str = "mock:deltas=20 mock:delay=300";

/// A daemon that is one of two clients of an app-server; the fields are dropped in this order.
struct Stage {
    other: Client,
    proxy: Proxy,
    daemon: Daemon,
    /// A session on a thread that the other client has too.
    session: Value,
    server: AppServer,
    home: CodexHome,
    _model: MockModel,
}

impl Stage {
    /// Starts everything; the thread has had one turn, so that it is on disk.
    async fn start() -> Self {
        let model = MockModel::start();
        let home = CodexHome::builder(&model).approval_policy("on-request").sandbox_mode("read-only").build();
        let server = AppServer::on_control_socket(&home).await;
        let proxy = Proxy::start(&home).await;
        let daemon = Daemon::builder().external(&proxy.endpoint).start().await;
        let session = create_session(&daemon, &home, &json!({})).await;
        let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=1" });
        let first = submit(&daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
        let stage =
            Self { other: Client::connect(&home).await, proxy, daemon, session, server, home, _model: model };
        assert_eq!(stage.turn_when_over(&first).await["status"], "completed");
        stage
            .other
            .call("thread/resume", json!({ "threadId": stage.thread_id(), "excludeTurns": true }))
            .await
            .unwrap();
        stage
    }

    fn thread_id(&self) -> &Value {
        &self.session["threadId"]
    }

    fn session_id(&self) -> &str {
        self.session["sessionId"].as_str().unwrap()
    }

    async fn submit(&self, prompt: &str, settings: Value) -> Value {
        let mut body = json!({ "sessionId": self.session["sessionId"], "input": prompt });
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        submit(&self.daemon, &body).await.data(202).clone()
    }

    async fn turn_when_over(&self, turn_id: &str) -> Value {
        let path = format!("/v1/codexd/sessions/{}/turns/{turn_id}?wait=30", self.session_id());
        get(&self.daemon, &path).await.data(200)["turn"].clone()
    }

    /// The other client starts a turn, and hears the message of its user.
    async fn other_starts_turn(&self, prompt: &str) -> String {
        let turn_id = self.other.start_turn(self.thread_id(), prompt).await;
        self.other
            .wait_for("the message of the user", |message| {
                message["method"] == "item/completed"
                    && message["params"]["item"]["type"] == "userMessage"
                    && message["params"]["turnId"] == turn_id
            })
            .await;
        turn_id
    }

    async fn answer(&self, request: &Value, decision: &str) -> ApiResponse {
        let path = format!("/v1/codexd/requests/{}", request["requestId"].as_str().unwrap());
        post(&self.daemon, &path, &json!({ "decision": decision })).await
    }

    fn accepted(&self, turn_id: &str) -> Vec<Value> {
        let events = self.daemon.events_on_disk().into_iter();
        let of_turn =
            |event: &Value| event["type"] == "turn.accepted" && event["detail"]["turnId"] == turn_id;
        events.filter(of_turn).map(|event| event["detail"].clone()).collect()
    }
}

#[tokio::test]
async fn turn_that_becomes_input_of_anothers_turn_is_steered() {
    let stage = Stage::start().await;
    // It arrives after the other client has started its turn, of which the daemon knows nothing when it sends this.
    stage.proxy.hold("turn/start");
    let submitted = stage.submit("mock:deltas=2", json!({ "effort": "low" }));
    let other = async {
        stage.proxy.holds_one().await;
        let turn_id = stage.other_starts_turn(SLOW_TURN).await;
        stage.proxy.release();
        turn_id
    };
    let (answer, theirs) = tokio::join!(submitted, other);
    assert_eq!((&answer["turnId"], &answer["steered"]), (&json!(theirs), &json!(true)), "{answer:#}");
    assert_eq!(answer["ignored"], json!(["effort"]));
    let accepted = stage.accepted(&theirs);
    assert_eq!((accepted.len(), &accepted[0]["steered"]), (1, &json!(true)), "{accepted:?}");

    // A queued turn waits for its end, and is delivered into the next turn of the other client the same way.
    let queued = stage.submit("mock:deltas=3", json!({ "whenBusy": "queue" })).await;
    assert_eq!((&queued["turnId"], queued.get("steered")), (&Value::Null, None), "{queued:#}");
    stage.proxy.hold("turn/start");
    let turn = stage.turn_when_over(&theirs).await;
    assert_eq!((&turn["status"], &turn["startedBy"]), (&json!("completed"), &Value::Null), "{turn:#}");
    stage.proxy.holds_one().await;
    let next = stage.other_starts_turn(SLOW_TURN).await;
    stage.proxy.release();
    let delivered = wait_until("the delivery of the queued turn", || stage.accepted(&next).pop()).await;
    assert_eq!(
        (&delivered["steered"], &delivered["queueId"]),
        (&json!(true), &queued["queueId"]),
        "{delivered:#}"
    );
    let path = format!("/v1/codexd/sessions/{}", stage.session_id());
    assert_eq!(get(&stage.daemon, &path).await.data(200)["queuedTurns"], json!([]));
    // It stays theirs: the end of the daemon does not interrupt it.
    let mut stage = stage;
    assert!(stage.daemon.stop().await.status.success());
    assert_eq!(stage.other.turn_ended(&next).await, "completed");
    stage.server.assert_alive();
}

#[tokio::test]
async fn second_answer_is_told_who_answered_first() {
    let stage = Stage::start().await;
    // The other client is first.
    let turn_id =
        stage.submit("mock:escalate=[true]", json!({})).await["turnId"].as_str().unwrap().to_owned();
    let request = pending_request(&stage.daemon, stage.session_id()).await;
    let asked = stage.other.message_about("item/commandExecution/requestApproval", &turn_id).await;
    stage.other.respond(&asked["id"], json!({ "decision": "accept" }));
    assert_eq!(stage.turn_when_over(&turn_id).await["status"], "completed");
    let late = stage.answer(&request, "decline").await;
    let message = late.error(409, "already_resolved");
    assert!(message.contains("Another client"), "{message}");
    let resolved = &late.json["details"]["request"];
    assert_eq!(
        (&resolved["resolvedBy"], &resolved["decision"]),
        (&json!("otherClient"), &Value::Null),
        "{resolved:#}"
    );

    // codexd is first.
    let turn_id =
        stage.submit("mock:escalate=[true]", json!({})).await["turnId"].as_str().unwrap().to_owned();
    let request = pending_request(&stage.daemon, stage.session_id()).await;
    let asked = stage.other.message_about("item/commandExecution/requestApproval", &turn_id).await;
    assert_eq!(stage.answer(&request, "decline").await.data(200)["request"]["resolvedBy"], "client");
    let is_resolved = |message: &Value| {
        message["method"] == "serverRequest/resolved" && message["params"]["requestId"] == asked["id"]
    };
    stage.other.wait_for("the end of the request", is_resolved).await;
    stage.other.respond(&asked["id"], json!({ "decision": "accept" }));
    let turn = stage.turn_when_over(&turn_id).await;
    let command = turn["items"].as_array().unwrap().iter().find(|item| item["type"] == "commandExecution");
    assert_eq!(command.unwrap()["status"], "declined", "{turn:#}");
    let late = stage.answer(&request, "accept").await;
    assert!(late.error(409, "already_resolved").contains("A client of codexd"), "{}", late.text);
}

#[tokio::test]
async fn request_that_ends_with_an_interrupt_was_answered_by_nobody() {
    let stage = Stage::start().await;
    for is_ours in [true, false] {
        let turn_id =
            stage.submit("mock:escalate=[true]", json!({})).await["turnId"].as_str().unwrap().to_owned();
        let request = pending_request(&stage.daemon, stage.session_id()).await;
        if is_ours {
            let body = json!({ "sessionId": stage.session["sessionId"] });
            post(&stage.daemon, "/v1/codexd/turn/interrupt", &body).await.data(202);
        } else {
            let params = json!({ "threadId": stage.thread_id(), "turnId": turn_id });
            stage.other.call("turn/interrupt", params).await.unwrap();
        }
        assert_eq!(stage.turn_when_over(&turn_id).await["status"], "interrupted");
        let late = stage.answer(&request, "accept").await;
        assert!(late.error(409, "already_resolved").ends_with("Its turn is over."), "{}", late.text);
        assert_eq!(late.json["details"]["request"]["resolvedBy"], "turnEnd");
    }
}

#[tokio::test]
async fn dynamic_tool_of_another_client_is_served_by_it() {
    let stage = Stage::start().await;
    let tool = json!({
        "type": "function", "name": "lucky_number", "description": "A number.",
        "inputSchema": { "type": "object", "properties": {} },
    });
    let params = json!({ "cwd": stage.home.workspace(), "dynamicTools": [tool] });
    let opened = stage.other.call("thread/start", params).await.unwrap();
    let thread_id = &opened["thread"]["id"];
    let first = stage.other.start_turn(thread_id, "mock:deltas=1").await;
    assert_eq!(stage.other.turn_ended(&first).await, "completed");
    let session = create_session(&stage.daemon, &stage.home, &json!({ "threadId": thread_id })).await;
    let turn_of = async |turn_id: &str| {
        let session_id = session["sessionId"].as_str().unwrap();
        let path = format!("/v1/codexd/sessions/{session_id}/turns/{turn_id}?wait=30");
        get(&stage.daemon, &path).await.data(200)["turn"].clone()
    };
    let item = |event: &Value| {
        let params = &event["detail"]["params"];
        (params["item"]["type"] == "dynamicToolCall").then(|| params["item"].clone())
    };
    for is_ours in [false, true] {
        let prompt = "mock:tool=[lucky_number] mock:deltas=2";
        let turn_id = match is_ours {
            false => stage.other.start_turn(thread_id, prompt).await,
            true => {
                let body = json!({ "sessionId": session["sessionId"], "input": prompt });
                submit(&stage.daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned()
            }
        };
        let asked = stage.other.message_about("item/tool/call", &turn_id).await;
        // codexd has received it too, and does not answer it while the client that has the tool takes its time.
        let is_of_turn = |event: &Value| event["detail"]["params"]["turnId"] == turn_id;
        wait_until("the call in the log of codexd", || {
            let events = stage.daemon.events_on_disk();
            events.iter().find(|event| is_of_turn(event) && item(event).is_some()).map(drop)
        })
        .await;
        let health = get(&stage.daemon, "/v1/codexd/models").await;
        assert_eq!(health.status, 200);
        let content = json!([{ "type": "inputText", "text": "seven" }]);
        stage.other.respond(&asked["id"], json!({ "contentItems": content, "success": true }));
        let turn = turn_of(&turn_id).await;
        assert_eq!(
            (&turn["status"], &turn["text"]),
            (&json!("completed"), &json!(text_of_deltas(2))),
            "{turn:#}"
        );
        let events = stage.daemon.events_on_disk();
        let last = events.iter().rev().filter(|event| is_of_turn(event)).find_map(item).unwrap();
        assert_eq!(
            (&last["tool"], &last["success"], &last["contentItems"]),
            (&json!("lucky_number"), &json!(true), &content),
            "{last:#}"
        );
        let requests = events.iter().filter(|event| {
            let kind = event["type"].as_str().unwrap();
            kind.starts_with("request.") || kind == "app-server.request.refused"
        });
        assert_eq!(requests.count(), 0, "ours: {is_ours}");
    }
}

#[tokio::test]
async fn turn_that_runs_when_its_thread_is_adopted_is_followed() {
    let stage = Stage::start().await;
    let opened = stage.other.call("thread/start", json!({ "cwd": stage.home.workspace() })).await.unwrap();
    let thread_id = &opened["thread"]["id"];
    let turn_id =
        stage.other.start_turn(thread_id, "mock:shell=[echo early] mock:deltas=20 mock:delay=100").await;
    // What happens before the adoption is not heard of.
    stage.other.message_about("item/agentMessage/delta", &turn_id).await;
    let session = create_session(&stage.daemon, &stage.home, &json!({ "threadId": thread_id })).await;
    assert_eq!(
        (&session["currentTurnId"], &session["lastTurnStatus"]),
        (&json!(turn_id), &json!("inProgress")),
        "{session:#}"
    );
    let path =
        format!("/v1/codexd/sessions/{}/turns/{turn_id}?wait=30", session["sessionId"].as_str().unwrap());
    let turn = get(&stage.daemon, &path).await.data(200)["turn"].clone();
    assert_eq!(
        (&turn["status"], &turn["text"], &turn["startedBy"]),
        (&json!("completed"), &json!(text_of_deltas(20)), &Value::Null)
    );
    let kinds: Vec<_> = turn["items"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["userMessage", "commandExecution", "agentMessage"], "{turn:#}");
    // What was read of it is in the log, so the answer does not depend on Codex.
    let read: Vec<_> =
        stage.daemon.events_on_disk().into_iter().filter(|event| event["type"] == "turn.item.read").collect();
    assert_eq!(read.len(), 2, "{read:#?}");
}
