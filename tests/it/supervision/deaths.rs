//! App-servers that end by themselves.

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::{assert_recovered, child, follow, generation, number, types_of_supervision};
use crate::api::{ready, session, setback, start, turn};
use crate::support::wait::wait_until;

#[tokio::test]
async fn whatever_it_dies_of_another_takes_its_place() {
    for (prompt, exit_code, signal) in [
        ("crash=0", json!(0), Value::Null),
        ("crash=1", json!(1), Value::Null),
        ("crash=101", json!(101), Value::Null),
        ("abort", Value::Null, json!("SIGABRT")),
        ("kill", Value::Null, json!("SIGKILL")),
        ("stderr-flood=3000000 crash=2", json!(2), Value::Null),
        ("spawn-background=300 spawn-double=300 spawn-double=300 kill", Value::Null, json!("SIGKILL")),
    ] {
        let daemon = start().await;
        let mut events = follow(&daemon).await;
        let session_id = session(&daemon).await;
        turn(&daemon, &session_id, prompt).await;
        let child = assert_recovered(&daemon, &mut events, 2).await;
        assert_eq!((&child["deaths"], &child["nextStartAt"]), (&json!(1), &Value::Null), "{prompt}");
        assert_eq!((&child["lastError"], &child["stderrTail"]), (&Value::Null, &json!([])), "{prompt}");
        let setback = setback(&daemon).await;
        let detail = &setback["detail"];
        assert_eq!((&detail["exitCode"], &detail["signal"]), (&exit_code, &signal), "{prompt}");
        assert_eq!((&setback["level"], &detail["deaths"]), (&json!("warn"), &json!(1)));
        assert!((400..=600).contains(&detail["delayMs"].as_u64().unwrap()), "{detail}");
        assert!(detail["until"].as_str() > setback["createdAt"].as_str(), "{setback}");
        assert_eq!(
            types_of_supervision(&daemon.events_on_disk()),
            [
                "child.started",
                "app-server.connected",
                "app-server.transport.closed",
                "app-server.turn.completed.missing",
                "child.exited",
                "child.backoff",
                "child.started",
                "app-server.connected",
            ],
            "{prompt}"
        );
    }
}

#[tokio::test]
async fn a_signal_at_any_moment_is_survived() {
    let daemon = start().await;
    let mut events = follow(&daemon).await;
    // Each dies a little later in its turn than the one before, by another signal.
    for (life, end) in [(1, Signal::SEGV), (2, Signal::KILL), (3, Signal::KILL), (4, Signal::BUS)] {
        let child = generation(&daemon, life).await;
        let session_id = session(&daemon).await;
        turn(&daemon, &session_id, "spawn-double=300 deltas=100000 delay=1").await;
        let mut heard = 0;
        events
            .wait_for("some of the turn", |event| {
                heard += u64::from(event["type"] == "app-server.turn.message.delta");
                heard >= life * 7
            })
            .await;
        // The first of those that mean a fault only takes away the handler with which Rust looks for overflows.
        wait_until("its end", || kill_process(number(&child["pid"]), end).err()).await;
        events.wait_for("the pause", |event| event["type"] == "child.backoff").await;
    }
    let child = assert_recovered(&daemon, &mut events, 5).await;
    assert_eq!(child["deaths"], 4);
}

#[tokio::test]
async fn the_last_words_are_shown_without_their_secrets() {
    let daemon = start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    let prompt = "stderr=first stderr=sk-abcdefghijklmnop stderr=OPENAI_API_KEY=hunter22 crash";
    turn(&daemon, &session_id, prompt).await;
    let setback = setback(&daemon).await;
    let tail = setback["detail"]["stderrTail"].as_array().unwrap();
    assert_eq!(tail[tail.len() - 3..], [json!("first"), json!("sk-***"), json!("OPENAI_API_KEY=***")]);
    let said = daemon.events_on_disk().into_iter().filter(|event| event["type"] == "child.stderr");
    let said: Vec<String> = said.map(|event| event["message"].to_string()).collect();
    assert!(said.iter().any(|message| message.contains("first")), "{said:?}");
    assert!(
        !said.iter().any(|message| message.contains("hunter22") || message.contains("abcdefgh")),
        "{said:?}"
    );
}

#[tokio::test]
async fn odd_answers_are_no_reason_to_replace_it() {
    let daemon = start().await;
    for prompt in ["answer-twice", "answer-foreign", "answer-late=200", "garbage"] {
        let session_id = session(&daemon).await;
        turn(&daemon, &session_id, prompt).await;
        assert_eq!(crate::api::idle(&daemon, &session_id).await["lastTurnStatus"], "completed", "{prompt}");
    }
    let child = child(&daemon).await;
    assert_eq!((&child["generation"], &child["deaths"]), (&json!(1), &json!(0)));
}
