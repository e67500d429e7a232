//! codexd ends, and the app-server is restarted, at random moments during turns: no turn ends by that, and codexd records
//! every end as Codex does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::other_client::client::Client;
use super::terminal::{Background, codex_command, rollouts};
use super::{create_session, submit};
use crate::history::random::{SeededRandom, seed};
use crate::support::codex::CodexHome;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use crate::support::model::{MockModel, text_of_deltas};
use crate::support::scratch;
use crate::support::skip::skip;

/// How many faults there are. A busy machine disturbs the times of the turns, so the test runs on its own.
const ROUNDS: &str = "CODEXD_SHARED_FAULTS";

/// How long the turns last, in milliseconds.
const TURN: u64 = 1200;
const PROMPT: &str = "mock:deltas=12 mock:delay=100";

/// What happens during the turns.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGTERM to codexd.
    Stop,
    /// SIGKILL to codexd.
    Kill,
    /// Another file in the place of the program, and SIGTERM to codexd.
    Upgrade,
    /// `codex app-server daemon restart`.
    RestartOfServer,
}

/// Puts a new file in the place of a program, as an installer does.
fn install(program: &Path) {
    let new = program.with_added_extension("new");
    // Another process writes it, so that no fork of this one has it open for writing.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_codexd")).arg(&new).status().unwrap();
    assert!(copied.success());
    fs::rename(new, program).unwrap();
}

async fn turn_when_over(daemon: &Daemon, session: &Value, turn_id: &str) -> Value {
    let session_id = session["sessionId"].as_str().unwrap();
    let path = format!("/v1/codexd/sessions/{session_id}/turns/{turn_id}?wait=30");
    get(daemon, &path).await.data(200)["turn"].clone()
}

/// How the turns of all threads ended according to the files of Codex.
pub(super) fn ends_on_disk(home: &CodexHome) -> BTreeMap<String, String> {
    let files = rollouts(&home.path().join("sessions")).into_iter();
    let texts: Vec<_> = files.map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines =
        texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ends = lines.filter_map(|line| {
        let status = match line["payload"]["type"].as_str()? {
            "task_complete" => "completed",
            "turn_aborted" => "interrupted",
            _ => return None,
        };
        Some((line["payload"]["turn_id"].as_str()?.to_owned(), status.to_owned()))
    });
    ends.collect()
}

/// How the turns ended according to the log of codexd.
fn ends_in_log(daemon: &Daemon) -> BTreeMap<String, String> {
    let ends = daemon.events_on_disk().into_iter().filter_map(|event| {
        let status = match event["type"].as_str().unwrap() {
            "app-server.turn.completed" | "turn.settled" => event["detail"]["status"].as_str().unwrap(),
            "app-server.turn.completed.missing" => "missing",
            _ => return None,
        };
        Some((event["detail"]["turnId"].as_str().unwrap().to_owned(), status.to_owned()))
    });
    ends.filter(|(_, status)| status != "inProgress").collect()
}

#[tokio::test]
async fn turns_outlive_codexd_and_end_as_codex_recorded_them() {
    let Ok(rounds) = std::env::var(ROUNDS) else {
        return skip(
            ROUNDS,
            "faults during turns of two clients",
            &format!("{ROUNDS} is not set; .ci/run and .ci/full set it"),
        );
    };
    let rounds: u64 = rounds.parse().unwrap();
    let mut random = SeededRandom::new(seed());
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let _background = Background::of(&home);
    // The server that Codex starts by itself.
    let started = codex_command(&home, &["app-server", "daemon", "start"]).output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let directory = scratch::directory("program");
    let program = directory.path().join("codexd");
    install(&program);
    let builder = || Daemon::builder().real(&home).program(&program).arg("--server-strategy").arg("shared");

    let mut other = Client::connect(&home).await;
    let opened = other.call("thread/start", json!({ "cwd": home.workspace() })).await.unwrap();
    let thread_id = opened["thread"]["id"].clone();
    let first = other.start_turn(&thread_id, "mock:deltas=1").await;
    assert_eq!(other.turn_ended(&first).await, "completed");
    let mut daemon = builder().start().await;
    let on_theirs = create_session(&daemon, &home, &json!({ "threadId": thread_id })).await;
    let on_ours = create_session(&daemon, &home, &json!({})).await;

    let (mut started, mut ended) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let all = [Fault::Kill, Fault::RestartOfServer, Fault::Stop, Fault::Upgrade];
        let fault = all[usize::try_from(round).unwrap() % all.len()];
        let theirs = other.start_turn(&thread_id, PROMPT).await;
        let body = json!({ "sessionId": on_ours["sessionId"], "input": PROMPT });
        let ours = submit(&daemon, &body).await.data(202)["turnId"].as_str().unwrap().to_owned();
        // Some faults come after the turns.
        tokio::time::sleep(random.milliseconds(0, TURN * 5 / 4)).await;
        match fault {
            Fault::RestartOfServer => {
                let restarted = codex_command(&home, &["app-server", "daemon", "restart"]).output().unwrap();
                assert!(restarted.status.success(), "{restarted:?}");
                other = Client::connect(&home).await;
                let params = json!({ "threadId": thread_id, "excludeTurns": true });
                other.call("thread/resume", params).await.unwrap();
            }
            Fault::Kill => drop(daemon.kill().await),
            Fault::Upgrade => {
                install(&program);
                assert!(daemon.stop().await.status.success());
            }
            Fault::Stop => assert!(daemon.stop().await.status.success()),
        }
        if !matches!(fault, Fault::RestartOfServer) {
            tokio::time::sleep(random.milliseconds(0, TURN)).await;
            let next = builder().state_from(&daemon).start().await;
            // Its end as a value of the test would end the app-server, if it was the one that started it.
            ended.push(std::mem::replace(&mut daemon, next));
            assert_eq!(other.turn_ended(&theirs).await, "completed", "{fault:?}");
        }
        for (session, turn_id) in [(&on_theirs, &theirs), (&on_ours, &ours)] {
            let turn = turn_when_over(&daemon, session, turn_id).await;
            assert_eq!(
                (&turn["status"], &turn["text"]),
                (&json!("completed"), &json!(text_of_deltas(12))),
                "{fault:?}: {turn:#}"
            );
        }
        started.extend([theirs, ours]);
    }
    let (on_disk, in_log) = (ends_on_disk(&home), ends_in_log(&daemon));
    for turn_id in &started {
        assert_eq!(in_log.get(turn_id), on_disk.get(turn_id), "{turn_id} of {started:?}");
    }
    assert!(started.iter().all(|turn_id| on_disk[turn_id] == "completed"), "{on_disk:?}");
}
