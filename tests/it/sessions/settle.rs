//! Turns whose completion is not notified: the daemon reads their thread. Reports about silent turns.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{RecordingAppServer, ask_with, events_of};
use crate::api::{
    TURN, new_session, session_record, start_daemon, start_turn, wait_for_event_type, wait_for_turn_end,
    wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, post};
use crate::support::wait::wait_until;

/// Asserts that the daemon settles a turn, whose completion is not notified, from its thread.
async fn assert_settled(prompt: &str) {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let running = new_session(&daemon).await;
    let other = start_turn(&daemon, &running, "hang").await;
    let start = Instant::now();
    let turn_id = start_turn(&daemon, &session_id, prompt).await;
    let settled_record = wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await;
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    assert_eq!(settled_record["lastTurnStatus"], "completed");
    let settled = events_of(&daemon, "turn.settled");
    assert_eq!(settled.len(), 1);
    let detail = json!({
        "sessionId": session_id, "threadId": settled_record["threadId"], "turnId": turn_id, "status": "completed",
    });
    assert_eq!((&settled[0]["level"], &settled[0]["detail"]), (&json!("warn"), &detail));
    assert_eq!(
        session_record(&daemon, &running).await["currentTurnId"],
        other,
        "the running turn was settled"
    );
    // The session continues, and a turn whose completion is notified is not settled.
    let next = start_turn(&daemon, &session_id, "hello").await;
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(next)).await["lastTurnStatus"], "completed");
    assert_eq!(events_of(&daemon, "turn.settled").len(), 1);
}

#[tokio::test]
async fn turn_without_completion_is_settled() {
    assert_settled("lose-completion").await;
}

#[tokio::test]
async fn turn_without_further_notifications_is_settled() {
    assert_settled("lose-everything-after-deltas").await;
}

#[tokio::test]
async fn settled_turn_reads_its_answer_from_the_thread() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let path = format!("{TURN}?wait=30");
    let body = json!({ "sessionId": session_id, "input": "text=kept lose-everything-after-deltas" });
    let answer = post(&daemon, &path, &body).await;
    let turn = &answer.data(202)["turn"];
    assert_eq!((&turn["status"], &turn["text"]), (&json!("completed"), &json!("kept")));
    // A turn whose thread has no answer has no text, and no second `turn.item.read` is recorded.
    let silent = post(&daemon, &path, &json!({ "sessionId": session_id, "input": "deltas=0" })).await;
    assert_eq!(silent.data(202)["turn"]["status"], "completed");
    assert_eq!(events_of(&daemon, "turn.item.read").len(), 1);
}

#[tokio::test]
async fn turn_failure_without_notification_is_settled_as_failed() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "lose-completion").await;
    let first = wait_until_idle(&daemon, &session_id).await;
    assert_eq!(first["lastTurnStatus"], "completed");
    let failed = start_turn(&daemon, &session_id, "fail").await;
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(failed)).await["lastTurnStatus"], "failed");
    assert_eq!(events_of(&daemon, "turn.settled").len(), 1);
}

#[tokio::test]
async fn silent_turn_is_reported_each_time_its_silence_doubles() {
    let daemon = Daemon::builder().arg("--stall-timeout").arg("1").start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let stalled = wait_until("three reports", || {
        let stalled = events_of(&daemon, "turn.stalled");
        (stalled.len() >= 3).then_some(stalled)
    })
    .await;
    for (event, least) in stalled.iter().zip([1, 2, 4]) {
        let detail = &event["detail"];
        assert_eq!(event["level"], "warn");
        assert_eq!((&detail["sessionId"], &detail["turnId"]), (&json!(session_id), &json!(turn_id)));
        assert!(detail["threadId"].is_string(), "{event}");
        let seconds = detail["silentSeconds"].as_u64().unwrap();
        assert!(seconds >= least, "{seconds} s instead of {least} s");
    }
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], turn_id);
    let steered = ask_with(&daemon, &session_id, "text=end", json!({ "expectedTurnId": turn_id })).await;
    assert_eq!(steered.status, 202);
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
    assert_eq!(events_of(&daemon, "child.exited"), [Value::Null; 0]);
}

#[tokio::test]
async fn missing_thread_read_is_reported_once() {
    let daemon = Daemon::builder().startup("without=thread/read").arg("--stall-timeout=1").start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    // The thread is read every two seconds; the silence is reported after 1, 2 and 4 seconds.
    wait_until("three reports", || (events_of(&daemon, "turn.stalled").len() >= 3).then_some(())).await;
    let stderr = daemon.stderr();
    let reports: Vec<&str> = stderr.lines().filter(|line| line.contains("thread/read")).collect();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(!stderr.contains("could not be found out"), "{stderr}");
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], turn_id);
    // The list of turns has the outcome that `thread/read` cannot provide.
    let lost = new_session(&daemon).await;
    let lost_turn = start_turn(&daemon, &lost, "lose-everything-after-deltas").await;
    assert_eq!(wait_for_turn_end(&daemon, &lost, &json!(lost_turn)).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn slow_app_server_is_asked_about_few_silent_turns_at_a_time() {
    const TURNS: usize = 6;
    let app_server = RecordingAppServer::new();
    let script = "\"$1\" record \"$0\" | \"$1\" app-server --store \"$2\" --startup answer-late=300";
    let daemon = app_server.builder_with_script(script).start().await;
    let mut sessions = Vec::new();
    for _ in 0..TURNS {
        sessions.push(new_session(&daemon).await);
    }
    // At once, so that all checks are due at the same time.
    let mut starting = JoinSet::new();
    for session_id in sessions {
        let base_url = daemon.base_url().to_owned();
        let body = json!({ "sessionId": session_id, "input": "hang" });
        starting.spawn(async move { post(base_url.as_str(), TURN, &body).await.data(202).clone() });
    }
    starting.join_all().await;
    // Each check reads a thread, and then the list of its turns.
    let is_check = |method: &&str| ["thread/read", "thread/turns/list"].contains(method);
    let checks = wait_until("checks of all turns", || {
        let methods = app_server.methods();
        let checks: Vec<_> = methods.iter().map(String::as_str).filter(is_check).map(str::to_owned).collect();
        (checks.len() >= 4 * TURNS).then_some(checks)
    })
    .await;
    let mut under_way = 0_i32;
    for method in &checks {
        under_way += if method == "thread/read" { 1 } else { -1 };
        assert!(under_way <= 2, "{checks:?}");
    }
}

#[tokio::test]
async fn log_states_turn_outcome() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "fail").await;
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await["lastTurnStatus"], "failed");
    let line = wait_until("the line", || {
        let stderr = daemon.stderr();
        stderr.lines().find(|line| line.contains(&turn_id) && line.contains("ended")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("WARN") && line.contains("ended: failed"), "{line}");
    assert!(!daemon.stderr().contains(&format!("turn {turn_id} completed")), "{}", daemon.stderr());
    let event = &events_of(&daemon, "app-server.turn.completed")[0];
    assert_eq!(event["message"], format!("App-server turn {turn_id} completed."));
}

#[tokio::test]
async fn turn_with_occasional_output_is_not_reported_silent() {
    let daemon = Daemon::builder().arg("--stall-timeout").arg("2").start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "deltas=20 delay=200").await;
    wait_for_event_type(&daemon, "app-server.turn.completed").await;
    wait_until_idle(&daemon, &session_id).await;
    assert_eq!(events_of(&daemon, "turn.stalled"), [Value::Null; 0]);
}
