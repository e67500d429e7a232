//! Sessions after the daemon restarts: resumed, recreated, unavailable or locked threads.

use std::fs::{self, File};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{RecordingAppServer, ask_with, events_of, restart};
use crate::api::{
    SESSIONS, assert_keys, create_session, new_session, request_turn, session_record, start_turn, text,
    wait_for_event, wait_for_event_type, wait_for_turn_end, wait_until_idle, wait_until_ready,
};
use crate::support::codex::untrusted;
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::wait::wait_until;

#[tokio::test]
async fn session_keeps_its_settings_across_restart() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let settings = json!({
        "approvalPolicy": "never",
        "config": { "model_reasoning_effort": "low" },
        "cwd": app_server.directory.path(),
        "ephemeral": false,
        "model": "embedded-model-mini",
        "sandbox": "read-only",
    });
    let mut body = settings.clone();
    body["metadata"] = json!({ "owner": "a test" });
    let before = create_session(&daemon, body).await;
    let session_id = text(&before["sessionId"]);
    start_turn(&daemon, &session_id, "hello").await;
    let before = wait_until_idle(&daemon, &session_id).await;
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(session_record(&daemon, &session_id).await, before, "the start changed the record");
    assert_eq!(app_server.calls("thread/resume"), [Value::Null; 0]);
    for prompt in ["again", "and again"] {
        let turn_id = start_turn(&daemon, &session_id, prompt).await;
        let record = wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await;
        assert_eq!(record["lastTurnStatus"], "completed");
        for same in ["threadId", "createdAt", "metadata", "model", "cwd"] {
            assert_eq!(record[same], before[same], "{same}");
        }
    }
    let mut expected = settings;
    expected.as_object_mut().unwrap().remove("ephemeral");
    expected["threadId"] = before["threadId"].clone();
    expected["excludeTurns"] = json!(true);
    let expected = untrusted(expected, &before["cwd"]);
    assert_eq!(app_server.calls("thread/resume"), [expected], "the thread is resumed once for all turns");
    assert_eq!(app_server.calls("thread/start").len(), 1);
    let list = get(&daemon, SESSIONS).await;
    assert_eq!(list.data(200)["sessions"].as_array().unwrap().len(), 1);
    for event_type in ["turn.settled", "session.recreated", "session.resumed", "session.closed"] {
        assert_eq!(events_of(&daemon, event_type), [Value::Null; 0], "{event_type}");
    }
}

#[tokio::test]
async fn session_on_resumed_thread_continues_after_restart() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let first = new_session(&daemon).await;
    start_turn(&daemon, &first, "hello").await;
    let thread_id = wait_until_idle(&daemon, &first).await["threadId"].clone();
    let second = create_session(&daemon, json!({ "threadId": thread_id, "sandbox": "read-only" })).await;
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    let session_id = text(&second["sessionId"]);
    start_turn(&daemon, &session_id, "again").await;
    assert_eq!(wait_until_idle(&daemon, &session_id).await["lastTurnStatus"], "completed");
    let resumed = app_server.calls("thread/resume");
    assert_eq!(resumed.len(), 2, "one call for the client, one for the daemon");
    let expected = json!({ "sandbox": "read-only", "threadId": thread_id, "excludeTurns": true });
    let mut expected = untrusted(expected, &second["cwd"]);
    // A resumed thread keeps its own approval policy.
    expected.as_object_mut().unwrap().remove("approvalPolicy");
    assert_eq!(resumed[1], expected);
    // The other session of the thread needs no second resume in the same generation.
    start_turn(&daemon, &first, "hello").await;
    wait_until_idle(&daemon, &first).await;
    assert_eq!(app_server.calls("thread/resume").len(), 2);
}

#[tokio::test]
async fn concurrent_turns_after_restart_resume_thread_once() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    daemon.stop().await;

    let daemon = restart(&app_server, &daemon).await;
    let answers = join_all((0..10).map(|_| request_turn(&daemon, &session_id, "hang"))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (1, 9));
    for answer in refused {
        answer.error(409, "turn_in_progress");
        assert_eq!(answer.json["details"]["turnId"], taken[0].data(202)["turnId"]);
    }
    assert_eq!(app_server.calls("thread/resume").len(), 1);
    assert_eq!(app_server.calls("turn/start").len(), 2);
}

#[tokio::test]
async fn session_is_recreated_when_its_thread_is_empty() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let body = json!({ "sandbox": "read-only", "purpose": "worker", "metadata": { "a": "b" } });
    let before = create_session(&daemon, body).await;
    let session_id = text(&before["sessionId"]);
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    let answers = join_all((0..10).map(|_| request_turn(&daemon, &session_id, "deltas=3 hang-deltas"))).await;
    let taken: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert_eq!(taken.len(), 1, "{answers:?}");
    let after = session_record(&daemon, &session_id).await;
    assert_ne!(after["threadId"], before["threadId"]);
    for same in ["sessionId", "purpose", "metadata", "createdAt", "cwd", "model", "status"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    let recreated = events_of(&daemon, "session.recreated");
    assert_eq!(recreated.len(), 1);
    assert_eq!(recreated[0]["level"], "info");
    let detail = &recreated[0]["detail"];
    assert_keys(detail, &["purpose", "sessionId", "threadId", "previousThreadId", "session"]);
    assert_eq!((&detail["threadId"], &detail["previousThreadId"]), (&after["threadId"], &before["threadId"]));
    let settings = untrusted(json!({ "sandbox": "read-only" }), &before["cwd"]);
    assert_eq!(app_server.calls("thread/start"), [settings.clone(), settings]);

    // The recreated session works like any other session.
    let mut daemon = daemon;
    daemon.stop().await;
    let daemon = restart(&app_server, &daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    let last = wait_until_idle(&daemon, &session_id).await;
    assert_eq!((&last["threadId"], &last["lastTurnStatus"]), (&after["threadId"], &json!("completed")));
    assert_eq!(events_of(&daemon, "session.recreated").len(), 1);
}

#[tokio::test]
async fn session_with_missing_history_reports_why_it_refuses_turns() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let other = new_session(&daemon).await;
    for session_id in [&session_id, &other] {
        start_turn(&daemon, session_id, "hello").await;
    }
    let thread_id = wait_until_idle(&daemon, &session_id).await["threadId"].clone();
    wait_until_idle(&daemon, &other).await;
    daemon.stop().await;
    let history = app_server.file(&thread_id, "json");
    fs::rename(&history, history.with_extension("away")).unwrap();

    let daemon = restart(&app_server, &daemon).await;
    for _ in 0..2 {
        let answer = request_turn(&daemon, &session_id, "hello").await;
        let message = answer.error(409, "thread_unavailable");
        for part in [&session_id, &text(&thread_id), "no rollout found", "CODEX_HOME"] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_eq!(answer.json["details"]["threadId"], thread_id);
        // It is not queued either, because the queue is empty.
        let fields = json!({ "whenBusy": "queue" });
        ask_with(&daemon, &session_id, "hello", fields).await.error(409, "thread_unavailable");
    }
    let after = session_record(&daemon, &session_id).await;
    assert_eq!((&after["status"], &after["lastTurnStatus"]), (&json!("active"), &json!("completed")));
    assert_eq!((&after["held"], &after["closedReason"]), (&Value::Null, &Value::Null));
    for event_type in ["session.closed", "session.recreated"] {
        assert_eq!(events_of(&daemon, event_type), [Value::Null; 0]);
    }
    start_turn(&daemon, &other, "hello").await;

    fs::rename(history.with_extension("away"), &history).unwrap();
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await["threadId"], thread_id);
}

#[tokio::test]
async fn session_is_kept_when_another_writer_locks_its_thread() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    let thread_id = wait_until_idle(&daemon, &session_id).await["threadId"].clone();
    daemon.stop().await;

    let writer = File::options().write(true).open(app_server.file(&thread_id, "lock")).unwrap();
    writer.lock().unwrap();
    let daemon = restart(&app_server, &daemon).await;
    let answer = request_turn(&daemon, &session_id, "hello").await;
    assert!(answer.error(409, "thread_locked").contains(&text(&thread_id)), "{}", answer.text);
    assert_eq!(answer.json["details"]["threadId"], thread_id);
    assert!(answer.json["details"]["message"].as_str().unwrap().contains("active writer"));
    let tries = app_server.calls("thread/resume").len();
    assert!((2..=10).contains(&tries), "{tries} attempts");
    assert_eq!(session_record(&daemon, &session_id).await["status"], "active");
    // A second session on the thread and a fork of it need the lock too.
    for fields in [json!({ "threadId": thread_id }), json!({ "forkFrom": session_id })] {
        let answer = post(&daemon, SESSIONS, &fields).await;
        assert!(answer.error(409, "thread_locked").contains("end that process"), "{}", answer.text);
        assert_eq!(answer.json["details"]["threadId"], thread_id);
    }
    let tries = app_server.calls("thread/resume").len();

    // The writer releases the lock during the next attempt.
    let requesting = request_turn(&daemon, &session_id, "hello again");
    let releasing = async {
        wait_until("another attempt", || (app_server.calls("thread/resume").len() > tries).then_some(()))
            .await;
        drop(writer);
    };
    let (answer, ()) = tokio::join!(requesting, releasing);
    let turn_id = answer.data(202)["turnId"].clone();
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &turn_id).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn turn_cut_off_by_kill_fails_and_then_takes_thread_outcome() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "deltas=3 hang-deltas").await;
    wait_for_event_type(&daemon, "app-server.turn.message.delta").await;
    daemon.kill().await;

    let daemon = restart(&app_server, &daemon).await;
    let cut = session_record(&daemon, &session_id).await;
    assert_eq!((&cut["lastTurnId"], &cut["lastTurnStatus"]), (&json!(turn_id), &json!("failed")));
    assert_eq!(cut["currentTurnId"], Value::Null);
    let missing = wait_for_event_type(&daemon, "app-server.turn.completed.missing").await;
    assert_eq!(missing["detail"]["transportCloseSource"], "daemon.restart");
    assert_eq!(events_of(&daemon, "turn.settled"), [Value::Null; 0]);

    let next = start_turn(&daemon, &session_id, "hello").await;
    let settled = events_of(&daemon, "turn.settled");
    assert_eq!(settled.len(), 1);
    let expected = json!({
        "sessionId": session_id, "threadId": cut["threadId"], "turnId": turn_id, "status": "interrupted",
    });
    assert_eq!((&settled[0]["level"], &settled[0]["detail"]), (&json!("warn"), &expected));
    let accepted = wait_for_event(&daemon, "the next turn", |event| {
        event["type"] == "turn.accepted" && event["detail"]["turnId"] == next
    })
    .await;
    assert!(settled[0]["seq"].as_u64() < accepted["seq"].as_u64());
    assert_eq!(wait_for_turn_end(&daemon, &session_id, &json!(next)).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn turn_is_read_back_in_full_after_restart_and_after_loss_of_log() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let mut turn_ids = Vec::new();
    let long = "y".repeat(5000);
    for prompt in [format!("command=ls text={long}"), "command=ls command=pwd text=two".to_owned()] {
        let turn_id = start_turn(&daemon, &session_id, &prompt).await;
        wait_for_turn_end(&daemon, &session_id, &json!(turn_id)).await;
        turn_ids.push(turn_id);
    }
    let read = async |daemon: &Daemon| {
        let mut turns = Vec::new();
        for turn_id in &turn_ids {
            let turn = get(daemon, &format!("{SESSIONS}/{session_id}/turns/{turn_id}")).await;
            turns.push(turn.data(200)["turn"].clone());
        }
        turns
    };
    let first = read(&daemon).await;
    assert_eq!((&first[0]["text"], &first[1]["text"]), (&json!(long), &json!("two")));
    let commands = |turn: &Value| {
        let items = turn["items"].as_array().unwrap().iter();
        items.filter(|item| item["type"] == "commandExecution").count()
    };
    assert_eq!((commands(&first[0]), commands(&first[1])), (1, 2));
    assert_eq!(read(&daemon).await, first, "from the cache");
    daemon.kill().await;
    let mut daemon = restart(&app_server, &daemon).await;
    assert_eq!(read(&daemon).await, first, "after SIGKILL");
    daemon.stop().await;
    let records = fs::read_to_string(daemon.state_dir().join("records.json")).unwrap();
    assert!(!records.contains("commandExecution") && !records.contains(&long), "{records}");
    let daemon = restart(&app_server, &daemon).await;
    assert_eq!(read(&daemon).await, first, "after a stop");

    let mut daemon = daemon;
    daemon.stop().await;
    fs::remove_dir_all(daemon.logs_dir()).unwrap();
    let daemon = restart(&app_server, &daemon).await;
    wait_until_ready(&daemon).await;
    for (turn, first) in read(&daemon).await.iter().zip(&first) {
        for same in ["turnId", "startedBy", "status", "startedAt", "completedAt", "text"] {
            assert_eq!(turn[same], first[same], "{same} without the log");
        }
        assert_eq!(commands(turn), commands(first), "without the log");
    }
}
