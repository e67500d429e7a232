//! What other clients of an app-server do while codexd does not hear of it: when it is not connected, or has not resumed the
//! thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::other_client::client::Client;
use super::other_client::proxy::Proxy;
use super::{create_session, record, submit};
use crate::support::codex::CodexHome;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::get;
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::wait::{wait_until, wait_until_async};

/// A turn of about six seconds.
const SLOW_TURN: &str = "mock:deltas=20 mock:delay=300";

/// An app-server with a thread that codexd has a session on; codexd does not run. The fields are dropped in this order.
struct Stage {
    /// The daemon that has ended.
    before: Daemon,
    session: Value,
    server: AppServer,
    home: CodexHome,
    _model: MockModel,
}

fn builder(home: &CodexHome) -> DaemonBuilder {
    Daemon::builder().external("unix://").env("CODEX_HOME", home.path())
}

impl Stage {
    /// The thread has had one turn of codexd.
    async fn start() -> Self {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let server = AppServer::on_control_socket(&home).await;
        let mut before = builder(&home).start().await;
        let session = create_session(&before, &home, &json!({})).await;
        let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=1" });
        let first = submit(&before, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
        assert_eq!(turn_when_over(&before, &session, &first).await["status"], "completed");
        assert!(before.stop().await.status.success());
        Self { before, session, server, home, _model: model }
    }

    /// Another client that has the thread open.
    async fn other_client(&self) -> Client {
        let other = Client::connect(&self.home).await;
        let params = json!({ "threadId": self.session["threadId"], "excludeTurns": true });
        other.call("thread/resume", params).await.unwrap();
        other
    }

    /// Starts the app-server again, which then has loaded no thread.
    async fn restart_server(&mut self) {
        self.server.signal(Signal::TERM);
        self.server.wait_for_end().await;
        self.server = AppServer::on_control_socket(&self.home).await;
    }
}

async fn turn_when_over(daemon: &Daemon, session: &Value, turn_id: &str) -> Value {
    let session_id = session["sessionId"].as_str().unwrap();
    let path = format!("/v1/codexd/sessions/{session_id}/turns/{turn_id}?wait=30");
    get(daemon, &path).await.data(200)["turn"].clone()
}

/// Waits until the daemon is connected.
async fn connected(daemon: &Daemon) {
    wait_until_async("a connection", async || {
        (get(daemon, "/healthz").await.json["service"]["ready"] == true).then_some(())
    })
    .await;
}

/// Asserts that the record has the slow turn as the running one, and then all of its answer.
async fn assert_followed(daemon: &Daemon, session: &Value, turn_id: &str) {
    // An event is on disk a moment before it changes the records.
    wait_until_async("the turn in the record", async || {
        (record(daemon, session).await["currentTurnId"] == turn_id).then_some(())
    })
    .await;
    assert_whole(daemon, session, turn_id).await;
}

/// Asserts that the slow turn completes, with all of its answer; returns it.
async fn assert_whole(daemon: &Daemon, session: &Value, turn_id: &str) -> Value {
    let turn = turn_when_over(daemon, session, turn_id).await;
    assert_eq!(
        (&turn["status"], &turn["text"]),
        (&json!("completed"), &json!(text_of_deltas(20))),
        "{turn:#}"
    );
    turn
}

/// The types of the items of a turn.
fn kinds(turn: &Value) -> Vec<&Value> {
    turn["items"].as_array().unwrap().iter().map(|item| &item["type"]).collect()
}

/// The events that name a turn, without those of its messages.
fn events_of(daemon: &Daemon, turn_id: &str) -> Vec<Value> {
    let events = daemon.events_on_disk().into_iter();
    events.filter(|event| event["detail"]["turnId"] == turn_id).collect()
}

#[tokio::test]
async fn turns_that_were_not_heard_of_are_recorded_after_the_next_connection() {
    for is_loaded in [true, false] {
        let mut stage = Stage::start().await;
        let other = stage.other_client().await;
        let mut missed = Vec::new();
        for prompt in ["mock:deltas=2", "mock:shell=[echo hi]", "mock:deltas=3"] {
            let turn_id = other.start_turn(&stage.session["threadId"], prompt).await;
            assert_eq!(other.turn_ended(&turn_id).await, "completed");
            missed.push(turn_id);
        }
        if !is_loaded {
            drop(other);
            stage.restart_server().await;
        }
        let mut daemon = builder(&stage.home).state_from(&stage.before).start().await;
        wait_until_async("the turns of the other client", async || {
            (record(&daemon, &stage.session).await["lastTurnId"] == missed[2]).then_some(())
        })
        .await;
        for (turn_id, item_count) in missed.iter().zip([2, 3, 2]) {
            let events = events_of(&daemon, turn_id);
            let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
            let mut expected = vec!["app-server.turn.started"];
            expected.extend(vec!["turn.item.read"; item_count]);
            expected.push("turn.settled");
            assert_eq!(types, expected, "loaded: {is_loaded}");
            let (first, last) = (&events[0]["detail"], &events.last().unwrap()["detail"]);
            assert_eq!((&first["readFromThread"], &last["status"]), (&json!(true), &json!("completed")));
            let turn = turn_when_over(&daemon, &stage.session, turn_id).await;
            assert_eq!(
                (&turn["startedAt"], &turn["startedBy"]),
                (&first["startedAt"], &Value::Null),
                "{turn:#}"
            );
            assert_eq!(kinds(&turn).len(), item_count, "{turn:#}");
        }
        let first = &events_of(&daemon, &missed[1])[0];
        assert_eq!(first["detail"]["previousTurnId"], missed[0]);
        // They are known then.
        let recorded = daemon.events_on_disk().len();
        assert!(daemon.stop().await.status.success());
        let again = builder(&stage.home).state_from(&daemon).start().await;
        connected(&again).await;
        let body = json!({ "sessionId": stage.session["sessionId"], "input": "mock:deltas=1" });
        let next = submit(&again, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
        assert_eq!(turn_when_over(&again, &stage.session, &next).await["status"], "completed");
        let events = again.events_on_disk();
        let of_missed =
            |event: &&Value| missed.iter().any(|turn_id| event["detail"]["turnId"] == turn_id.as_str());
        assert_eq!(events.iter().skip(recorded).filter(of_missed).count(), 0);
    }
}

#[tokio::test]
async fn thread_that_another_client_opens_later_is_followed() {
    let mut stage = Stage::start().await;
    stage.restart_server().await;
    let daemon = builder(&stage.home).state_from(&stage.before).start().await;
    connected(&daemon).await;
    // No client of codexd uses the session.
    let other = stage.other_client().await;
    let turn_id = other.start_turn(&stage.session["threadId"], SLOW_TURN).await;
    let is_delta = |event: &Value| event["type"] == "app-server.turn.message.delta";
    wait_until("the answer of the turn", || events_of(&daemon, &turn_id).iter().any(is_delta).then_some(()))
        .await;
    assert_followed(&daemon, &stage.session, &turn_id).await;
}

/// Codex lists a turn as interrupted before its thread is active; the proxy makes that moment long.
#[tokio::test]
async fn turn_that_is_listed_before_its_thread_is_active_is_not_taken_for_interrupted() {
    let mut stage = Stage::start().await;
    stage.restart_server().await;
    let is_listed = Arc::new(AtomicBool::new(false));
    let proxy = Proxy::start_with(&stage.home, {
        let is_listed = Arc::clone(&is_listed);
        move |message| {
            let newest = message.pointer_mut("/result/data/0");
            let Some(running) = newest.filter(|turn| turn["status"] == "inProgress") else { return false };
            running["status"] = json!("interrupted");
            !is_listed.swap(true, Ordering::Relaxed)
        }
    })
    .await;
    let daemon = Daemon::builder().external(&proxy.endpoint).state_from(&stage.before).start().await;
    connected(&daemon).await;
    // codexd resumes the thread, and lists its turns, when the other client has opened it.
    proxy.hold("thread/resume");
    let other = stage.other_client().await;
    proxy.holds_one().await;
    let turn_id = other.start_turn(&stage.session["threadId"], SLOW_TURN).await;
    other.message_about("item/agentMessage/delta", &turn_id).await;
    proxy.release();
    wait_until("the list of the turns", || is_listed.load(Ordering::Relaxed).then_some(())).await;
    assert_followed(&daemon, &stage.session, &turn_id).await;
    let events = events_of(&daemon, &turn_id);
    assert!(!events.iter().any(|event| event["type"] == "turn.settled"), "{events:#?}");
}

#[tokio::test]
async fn turn_of_another_client_that_was_cut_off_is_settled_after_the_next_connection() {
    let mut stage = Stage::start().await;
    let other = stage.other_client().await;
    let turn_id = other.start_turn(&stage.session["threadId"], SLOW_TURN).await;
    other.message_about("item/agentMessage/delta", &turn_id).await;
    drop(other);
    // On SIGTERM, Codex would finish the turn.
    stage.server.signal(Signal::KILL);
    stage.server.wait_for_end().await;
    stage.server = AppServer::on_control_socket(&stage.home).await;
    let daemon = builder(&stage.home).state_from(&stage.before).start().await;
    wait_until("the beginning of the turn", || (!events_of(&daemon, &turn_id).is_empty()).then_some(()))
        .await;
    let turn = turn_when_over(&daemon, &stage.session, &turn_id).await;
    assert_eq!(turn["status"], "interrupted", "{turn:#}");
    assert_eq!(record(&daemon, &stage.session).await["currentTurnId"], Value::Null);
}

#[tokio::test]
async fn turn_that_ends_before_its_thread_is_read_is_shown_whole() {
    let stage = Stage::start().await;
    let mut first = builder(&stage.home).state_from(&stage.before).start().await;
    let body = json!({ "sessionId": stage.session["sessionId"], "input": SLOW_TURN });
    let turn_id = submit(&first, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
    // Nothing of it is heard but its acceptance.
    first.kill().await;
    let proxy = Proxy::start(&stage.home).await;
    proxy.hold("thread/turns/list");
    let daemon = Daemon::builder().external(&proxy.endpoint).state_from(&first).start().await;
    proxy.holds_one().await;
    wait_until("the end of the turn", || {
        let events = events_of(&daemon, &turn_id);
        events.iter().any(|event| event["type"] == "app-server.turn.completed").then_some(())
    })
    .await;
    proxy.release();
    let turn = assert_whole(&daemon, &stage.session, &turn_id).await;
    assert_eq!(kinds(&turn), ["userMessage", "agentMessage"], "{turn:#}");
    assert!(turn["tokenUsage"].is_object(), "{turn:#}");
}
