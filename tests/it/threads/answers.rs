//! Late and lost responses to `turn/start`, and interrupts that arrive before the turn has started.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::two_on_one_thread;
use crate::api::{
    SESSIONS, TURN, new_session, request_turn, session_record, start_daemon, start_turn, text,
    wait_for_event_type, wait_until_idle,
};
use crate::cli::CliUser;
use crate::cli::ask::RunningCommand;
use crate::duplex::{delete, finished_turn, interrupt};
use crate::sessions::{RecordingAppServer, ask_with, events_of, queue};
use crate::support::daemon::Daemon;
use crate::support::http::post;
use crate::support::wait::wait_until;

/// Asserts that the daemon identifies a turn whose response to `turn/start` is lost, before the call times out.
async fn assert_identified_without_response(daemon: &Daemon) {
    let (first, second, _) = two_on_one_thread(daemon).await;
    let began = Instant::now();
    let body = json!({ "sessionId": first, "input": "answer-never text=identified" });
    let path = format!("{TURN}?wait=10");
    let (answer, queued) = tokio::join!(post(daemon, &path, &body), async {
        let is_started = || (events_of(daemon, "app-server.turn.started").len() == 2).then_some(());
        wait_until("the turn", is_started).await;
        ask_with(daemon, &second, "text=next", json!({ "whenBusy": "queue" })).await
    },);
    let data = answer.data(202);
    assert_eq!((&data["turn"]["status"], &data["turn"]["text"]), (&json!("completed"), &json!("identified")));
    assert_eq!(data["turn"]["startedBy"], first);
    assert_eq!(queued.status, 202, "{}", queued.text);
    let accepted = wait_until("the other turn", || {
        Some(events_of(daemon, "turn.accepted")).filter(|accepted| accepted.len() == 3)
    })
    .await;
    let ours = accepted.iter().filter(|event| event["detail"]["turnId"] == data["turnId"]);
    assert_eq!(ours.count(), 1);
    for session_id in [&first, &second] {
        assert_eq!(wait_until_idle(daemon, session_id).await["lastTurnStatus"], "completed");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
}

#[tokio::test]
async fn lost_turn_start_response_is_recovered_from_user_item() {
    assert_identified_without_response(&start_daemon().await).await;
}

#[tokio::test]
async fn lost_turn_start_response_is_recovered_from_thread() {
    let app_server = RecordingAppServer::new();
    assert_identified_without_response(&app_server.builder_without_user_notifications().start().await).await;
}

#[tokio::test]
async fn late_turn_start_response_does_not_reopen_turn() {
    let app_server = RecordingAppServer::new();
    // Only the response identifies the turn.
    let daemon = app_server.builder_without_user_notifications().start().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let (late, next) = tokio::join!(request_turn(&daemon, &first, "answer-late=700 text=late"), async {
        wait_for_turn_starts(&app_server, 2).await;
        ask_with(&daemon, &second, "text=next", json!({ "whenBusy": "queue" })).await
    });
    let late = text(&late.data(202)["turnId"]);
    assert_eq!(finished_turn(&daemon, &second, &late).await["text"], "late");
    assert_eq!(next.status, 202, "{}", next.text);
    wait_until("both ends", || (events_of(&daemon, "app-server.turn.completed").len() == 3).then_some(()))
        .await;
    for session_id in [&first, &second] {
        let record = wait_until_idle(&daemon, session_id).await;
        assert_eq!(record["lastTurnStatus"], "completed");
        assert_ne!(record["lastTurnId"], late);
    }
    assert_eq!(events_of(&daemon, "turn.accepted").len(), 3);
    assert_eq!(events_of(&daemon, "turn.settled"), [Value::Null; 0]);
    start_turn(&daemon, &first, "hello").await;
}

#[tokio::test]
async fn interrupt_is_kept_while_turn_start_is_outstanding() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_notifications().start().await;
    let (first, second, _) = two_on_one_thread(&daemon).await;
    let (turn, interrupted) = tokio::join!(request_turn(&daemon, &first, "answer-late=800 hang"), async {
        wait_for_turn_starts(&app_server, 2).await;
        interrupt(&daemon, &second).await
    });
    let turn_id = text(&turn.data(202)["turnId"]);
    let data = interrupted.data(202);
    assert_eq!((&data["interrupted"], &data["pending"]), (&json!(true), &json!(false)));
    assert_eq!(data["turn"]["turnId"], turn_id);
    assert_eq!(finished_turn(&daemon, &first, &turn_id).await["status"], "interrupted");
    interrupt(&daemon, &first).await.error(409, "no_turn");
}

#[tokio::test]
async fn pending_interrupt_ends_turn_after_late_turn_start_response() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let (turn, interrupted) =
        tokio::join!(request_turn(&daemon, &session_id, "answer-late=7000 hang"), async {
            wait_for_turn_starts(&app_server, 1).await;
            interrupt(&daemon, &session_id).await
        });
    let data = interrupted.data(202);
    // If the start of the turn was notified before, the turn is interrupted at once.
    assert_eq!(data["pending"], data["turn"].is_null(), "{data}");
    assert_ne!(data["interrupted"], data["pending"], "{data}");
    let turn_id = text(&turn.data(202)["turnId"]);
    assert_eq!(finished_turn(&daemon, &session_id, &turn_id).await["status"], "interrupted");
}

#[tokio::test]
async fn session_closes_with_turn_while_turn_start_is_outstanding() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_notifications().start().await;
    let (first, second, thread_id) = two_on_one_thread(&daemon).await;
    let (turn, closed) = tokio::join!(request_turn(&daemon, &first, "answer-late=800 hang"), async {
        wait_for_turn_starts(&app_server, 2).await;
        delete(&daemon, &format!("{SESSIONS}/{first}?interrupt=true")).await
    });
    let turn_id = text(&turn.data(202)["turnId"]);
    let session = &closed.data(200)["session"];
    assert_eq!((&session["status"], &closed.data(200)["pending"]), (&json!("closed"), &json!(false)));
    assert_eq!(
        (&session["lastTurnId"], &session["lastTurnStatus"]),
        (&json!(turn_id), &json!("interrupted"))
    );
    assert_eq!(session_record(&daemon, &second).await["lastTurnStatus"], "interrupted");
    assert_eq!(app_server.calls("turn/interrupt"), [json!({ "threadId": thread_id, "turnId": turn_id })]);
    crate::api::start_turn(&daemon, &second, "hello").await;
}

/// Waits until the app-server has received this number of `turn/start` calls.
async fn wait_for_turn_starts(app_server: &RecordingAppServer, count: usize) {
    wait_until("the turn/start call", || (app_server.calls("turn/start").len() == count).then_some(())).await;
}

#[tokio::test]
async fn ctrl_c_before_turn_start_leaves_no_turn() {
    let app_server = RecordingAppServer::new();
    // Each message takes 1.5 seconds, so the session does not exist before that time.
    let daemon = app_server.builder_with_delayed_input().start().await;
    let user = CliUser::of(&daemon);
    let asking = RunningCommand::new(user.command(&["ask", "hang"]));
    wait_until("the thread/start call", || (!app_server.calls("thread/start").is_empty()).then_some(()))
        .await;
    asking.signal(Signal::INT);
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    wait_for_event_type(&daemon, "session.closed").await;
    assert_eq!(app_server.calls("turn/start"), [Value::Null; 0]);
}

#[tokio::test]
async fn ctrl_c_during_turn_start_interrupts_turn() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_with_delayed_input().start().await;
    let user = CliUser::of(&daemon);
    let asking = RunningCommand::new(user.command(&["ask", "hang"]));
    wait_for_turn_starts(&app_server, 1).await;
    asking.signal(Signal::INT);
    let ended = asking.ended().await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let created = wait_for_event_type(&daemon, "session.created").await;
    let record = wait_until_idle(&daemon, &text(&created["detail"]["sessionId"])).await;
    assert_eq!(record["lastTurnStatus"], "interrupted");
}

#[tokio::test]
async fn queued_turn_interrupted_during_start_does_not_run() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder_without_user_messages().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    queue(&daemon, &session_id, "answer-late=800 hang").await;
    ask_with(&daemon, &session_id, "text=end", json!({ "expectedTurnId": running })).await.data(202);
    wait_for_turn_starts(&app_server, 2).await;
    let data = interrupt(&daemon, &session_id).await.data(202).clone();
    assert_eq!(data["turn"]["status"], "interrupted", "{data}");
    assert_ne!(data["turn"]["turnId"], running);
}

#[tokio::test]
async fn interrupt_during_thread_resume_withdraws_turn() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    daemon.stop().await;

    let daemon = app_server.builder_with_delayed_input().state_from(&daemon).start().await;
    let (turn, interrupted) = tokio::join!(request_turn(&daemon, &session_id, "hang"), async {
        wait_until("the thread/resume call", || {
            (!app_server.calls("thread/resume").is_empty()).then_some(())
        })
        .await;
        interrupt(&daemon, &session_id).await
    });
    let data = interrupted.data(202);
    assert_eq!((&data["interrupted"], &data["turn"]), (&json!(true), &Value::Null));
    turn.error(409, "turn_interrupted");
    assert_eq!(app_server.calls("turn/start").len(), 1);
}
