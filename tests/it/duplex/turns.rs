//! Turns as records: reading, waiting, interrupting, and input validation before the turn starts.

use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{INTERRUPT, decide, finished_turn, interrupt, item, pending_request};
use crate::api::{
    SESSIONS, TURN, new_session, request_bytes, request_turn, session_record, start_daemon, start_turn,
    wait_for_event, wait_for_event_type, wait_for_turn_end, wait_until_idle,
};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, Target, get, post};
use crate::support::wait::wait_until;

async fn read_turn(daemon: &Daemon, session_id: &str, turn_id: &str, query: &str) -> ApiResponse {
    get(daemon, &format!("{SESSIONS}/{session_id}/turns/{turn_id}{query}")).await
}

#[tokio::test]
async fn turn_is_readable_while_running_and_after_its_end() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "command ask=command text=done").await;
    let request = pending_request(&daemon, &session_id).await;
    let running = read_turn(&daemon, &session_id, &turn_id, "").await.data(200)["turn"].clone();
    assert_eq!((&running["turnId"], &running["sessionId"]), (&json!(turn_id), &json!(session_id)));
    assert_eq!((&running["status"], &running["completedAt"]), (&json!("inProgress"), &Value::Null));
    assert_eq!(running["text"], Value::Null);
    // A wait of 0 s returns at once.
    assert_eq!(
        read_turn(&daemon, &session_id, &turn_id, "?wait=0").await.data(200)["turn"]["status"],
        "inProgress"
    );
    let waited = read_turn(&daemon, &session_id, &turn_id, "?wait=1").await;
    assert_eq!(waited.data(200)["turn"]["status"], "inProgress");

    let path = format!("{SESSIONS}/{session_id}/turns/{turn_id}?wait=30");
    let (waited, _) = tokio::join!(get(&daemon, &path), decide(&daemon, &request["requestId"], "accept"));
    let finished = &waited.data(200)["turn"];
    assert_eq!((&finished["status"], &finished["text"]), (&json!("completed"), &json!("done")));
    assert_eq!(finished["startedAt"], running["startedAt"]);
    assert!(finished["completedAt"].as_str() >= finished["startedAt"].as_str(), "{finished}");
    assert_eq!(finished["error"], Value::Null);
    assert!(finished["tokenUsage"].is_object(), "{finished}");
    let summary = item(finished, "commandExecution")["words"].as_str().unwrap();
    assert!(!summary.is_empty());
    assert_eq!(item(finished, "userMessage")["words"], "command ask=command text=done");
    assert_eq!(read_turn(&daemon, &session_id, &turn_id, "").await.data(200)["turn"], *finished);
}

#[tokio::test]
async fn turn_request_with_wait_returns_finished_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let start_turn = async |prompt: &str, wait: &str| {
        post(&daemon, &format!("{TURN}{wait}"), &json!({ "sessionId": session_id, "input": prompt })).await
    };
    let answer = start_turn("text=hello", "?wait=30").await;
    let data = answer.data(202);
    assert_eq!((&data["turn"]["status"], &data["turn"]["text"]), (&json!("completed"), &json!("hello")));
    assert_eq!(data["turn"]["turnId"], data["turnId"]);
    let answer = start_turn("fail", "?wait=30").await;
    assert_eq!(answer.data(202)["turn"]["status"], "failed");
    assert!(answer.data(202)["turn"]["error"].is_object(), "{}", answer.text);
    assert!(start_turn("text=plain", "").await.data(202).get("turn").is_none());
    wait_until_idle(&daemon, &session_id).await;
    // A wait that ends before the turn is not an error.
    let answer = start_turn("hang", "?wait=1").await;
    assert_eq!(answer.data(202)["turn"]["status"], "inProgress");
    for wrong in ["?wait=x", "?wait=-1", "?wait=1.5", "?wait=3601"] {
        let message = start_turn("hello", wrong).await.error(400, "bad_request").to_owned();
        assert!(message.contains("wait") && message.contains("3600"), "{wrong}: {message}");
    }
}

#[tokio::test]
async fn turn_continues_when_waiting_client_disconnects() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "ask=command text=done" });
    let mut stream = TcpStream::connect(daemon.authority()).await.unwrap();
    let bytes = request_bytes(&daemon, &format!("{TURN}?wait=600"), &body);
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let request = pending_request(&daemon, &session_id).await;
    drop(stream);
    decide(&daemon, &request["requestId"], "accept").await;
    let accepted = wait_for_event_type(&daemon, "turn.accepted").await;
    let record = wait_for_turn_end(&daemon, &session_id, &accepted["detail"]["turnId"]).await;
    assert_eq!(record["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn turn_wait_ends_with_app_server_crash() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let body = json!({ "sessionId": session_id, "input": "deltas=4 crash" });
    let answer = post(&daemon, &format!("{TURN}?wait=30"), &body).await;
    assert_eq!(answer.data(202)["turn"]["status"], "failed");
    assert!(answer.data(202)["turn"]["completedAt"].is_string(), "{}", answer.text);
}

#[tokio::test]
async fn unknown_turn_is_not_found() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let without_turns = new_session(&daemon).await;
    let turn_id = start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    for (session_id, turn_id) in [
        (session_id.as_str(), "nope"),
        (session_id.as_str(), "%ff"),
        (without_turns.as_str(), turn_id.as_str()),
        ("nope", turn_id.as_str()),
    ] {
        for query in ["", "?wait=30"] {
            read_turn(&daemon, session_id, turn_id, query).await.error(404, "not_found");
        }
    }
}

#[tokio::test]
async fn turn_store_keeps_newest_and_reads_older_from_thread() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    let mut turn_ids = Vec::new();
    for number in 0..25 {
        let turn_id = start_turn(&daemon, &session_id, &format!("text=answer-{number}")).await;
        wait_until_idle(&daemon, &session_id).await;
        turn_ids.push(turn_id);
    }
    for (number, turn_id) in turn_ids.iter().enumerate() {
        let found = read_turn(&daemon, &session_id, turn_id, "").await.data(200)["turn"].clone();
        assert_eq!(found["turnId"], *turn_id);
        assert_eq!(
            (&found["status"], &found["text"]),
            (&json!("completed"), &json!(format!("answer-{number}")))
        );
        // Only the turns in the records have their token usage.
        assert_eq!(found["tokenUsage"].is_object(), number >= 5, "turn {number}");
    }
}

#[tokio::test]
async fn turns_are_kept_across_restart() {
    for killed in [true, false] {
        let mut daemon = start_daemon().await;
        let session_id = new_session(&daemon).await;
        let turn_id = start_turn(&daemon, &session_id, "text=remembered").await;
        let before = finished_turn(&daemon, &session_id, &turn_id).await;
        if killed {
            daemon.kill().await;
        } else {
            daemon.stop().await;
        }
        let daemon = Daemon::builder().state_from(&daemon).start().await;
        let after = read_turn(&daemon, &session_id, &turn_id, "").await.data(200)["turn"].clone();
        assert_eq!(after, before, "killed: {killed}");
    }
}

/// Waits for the command of this turn; returns its PID.
async fn command_pid(daemon: &Daemon, turn_id: &str) -> Pid {
    let started = wait_for_event(daemon, "the command", |event| {
        let params = &event["detail"]["params"];
        params["turnId"] == turn_id && params["item"]["processId"].is_string()
    })
    .await;
    let pid = started["detail"]["params"]["item"]["processId"].as_str().unwrap().parse().unwrap();
    Pid::from_raw(pid).unwrap()
}

#[tokio::test]
async fn interrupt_ends_turn_and_its_processes() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for prompt in ["spawn=600", "spawn-background=600 hang-deltas"] {
        let turn_id = start_turn(&daemon, &session_id, prompt).await;
        let pid = command_pid(&daemon, &turn_id).await;
        assert!(test_kill_process(pid).is_ok());
        let answer = interrupt(&daemon, &session_id).await;
        let data = answer.data(202);
        assert_eq!((&data["interrupted"], &data["commandsEnded"]), (&json!(true), &json!(true)));
        assert_eq!(data["commandsReason"], Value::Null);
        assert_eq!(
            (&data["turn"]["turnId"], &data["turn"]["status"]),
            (&json!(turn_id), &json!("interrupted"))
        );
        wait_until("the end of the process", || test_kill_process(pid).is_err().then_some(())).await;
        let record = session_record(&daemon, &session_id).await;
        assert_eq!(
            (&record["currentTurnId"], &record["lastTurnStatus"]),
            (&Value::Null, &json!("interrupted"))
        );
    }
    assert_eq!(request_turn(&daemon, &session_id, "hello").await.status, 202);
}

#[tokio::test]
async fn interrupt_accepts_only_the_running_turn() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    interrupt(&daemon, "nope").await.error(404, "not_found");
    let message = interrupt(&daemon, &session_id).await.error(409, "no_turn").to_owned();
    assert!(message.contains(&session_id), "{message}");
    post(&daemon, INTERRUPT, &json!({})).await.error(400, "bad_request");
    post(&daemon, INTERRUPT, &json!({ "sessionId": session_id, "turnId": 1 }))
        .await
        .error(400, "bad_request");

    let turn_id = start_turn(&daemon, &session_id, "hang").await;
    let other = post(&daemon, INTERRUPT, &json!({ "sessionId": session_id, "turnId": "other" })).await;
    other.error(409, "turn_in_progress");
    assert_eq!(other.json["details"], json!({ "sessionId": session_id, "turnId": turn_id }));
    assert_eq!(session_record(&daemon, &session_id).await["currentTurnId"], turn_id);
    let named = post(&daemon, INTERRUPT, &json!({ "sessionId": session_id, "turnId": turn_id })).await;
    assert_eq!(named.data(202)["turn"]["status"], "interrupted");
    interrupt(&daemon, &session_id).await.error(409, "no_turn");
}

#[tokio::test]
async fn turn_input_is_validated_before_the_turn_starts() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for (field, value, parts) in [
        ("approvalPolicy", json!(7), ["approvalPolicy", "object"]),
        ("personality", json!("weird"), ["personality", "pragmatic"]),
        ("summary", json!("weird"), ["summary", "concise"]),
        ("cwd", json!("relative"), ["cwd", "absolute"]),
        ("cwd", json!("/no/such/directory"), ["cwd", "existing directory"]),
        ("cwd", json!("/dev/null"), ["cwd", "directory"]),
        ("input", json!([{ "type": "bogus" }]), ["input[0].type", "localImage"]),
        ("input", json!([1]), ["input[0]", "object"]),
        (
            "input",
            json!([{ "type": "text", "text": "a" }, { "type": "text", "text": " " }]),
            ["input[1].text", "non-empty"],
        ),
        ("input", json!([{ "type": "text" }]), ["input[0].text", "non-empty"]),
    ] {
        let mut body = json!({ "sessionId": session_id, "prompt": "hello" });
        body[field] = value;
        let answer = post(&daemon, TURN, &body).await;
        let message = answer.error(400, "bad_request");
        assert!(
            parts.iter().all(|part| message.contains(part)) && message.ends_with('.'),
            "{body}: {message}"
        );
    }
    assert_eq!(session_record(&daemon, &session_id).await["lastTurnId"], Value::Null);
}

#[tokio::test]
async fn interrupt_tolerates_concurrent_turn_end() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    for _ in 0..40 {
        let turn_id = start_turn(&daemon, &session_id, "text=x").await;
        let answer = interrupt(&daemon, &session_id).await;
        if answer.status == 202 {
            let data = answer.data(202);
            assert_eq!(data["turn"]["turnId"], turn_id);
            assert_eq!(data["interrupted"], json!(data["turn"]["status"] == "interrupted"));
            assert_ne!(data["turn"]["status"], "inProgress");
        } else {
            answer.error(409, "no_turn");
        }
        wait_until_idle(&daemon, &session_id).await;
    }
}
