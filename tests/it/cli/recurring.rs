//! The command lines of `docs/recurring.md`: cron, systemd and launchd run them in their own ways.

use std::process::Command;

use serde_json::Value;

use super::{document, user_with_session};
use crate::api::{SESSIONS, run_command, start_turn, text, wait_for_event_type};
use crate::support::http::{Target, get};

const PAGE: &str = include_str!("../../../docs/recurring.md");
/// The path of codexd on the page.
const DOCUMENTED_PATH: &str = "/usr/local/bin/codexd";

/// The contents of the code block of this language that contains `part`.
fn block(language: &str, part: &str) -> &'static str {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.split_once('\n').filter(|(name, _)| *name == language));
    blocks.map(|(_, block)| block).find(|block| block.contains(part)).unwrap()
}

/// The arguments of the launchd agent.
fn launchd_arguments() -> Vec<String> {
    let agent: plist::Dictionary = plist::from_bytes(block("xml", "ProgramArguments").as_bytes()).unwrap();
    let arguments = agent["ProgramArguments"].as_array().unwrap();
    arguments.iter().map(|argument| argument.as_string().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_recipe_queues_a_turn_behind_the_running_one() {
    let (daemon, user, session_id) = user_with_session().await;
    start_turn(&daemon, &session_id, "hang").await;
    let cron = block("crontab", DOCUMENTED_PATH).trim();
    let cron = cron.splitn(6, ' ').last().unwrap();
    let systemd = block("ini", "ExecStart=");
    let systemd = systemd.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let described = block("sh", "codexd ask").trim();
    let launchd = launchd_arguments();
    let program = env!("CARGO_BIN_EXE_codexd");
    let shell = |line: &str| vec!["sh".to_owned(), "-c".to_owned(), line.replace(DOCUMENTED_PATH, program)];
    let on_path = described.replacen("codexd", program, 1);
    let lines = [shell(cron), shell(systemd), launchd, shell(&on_path)];
    for (index, arguments) in lines.into_iter().enumerate() {
        let filled = arguments.iter().map(|argument| match argument.as_str() {
            DOCUMENTED_PATH => program.to_owned(),
            "ID" => session_id.clone(),
            other => other.replace("--session ID", &format!("--session {session_id}")),
        });
        let filled: Vec<_> = filled.collect();
        // As these programs run a command: with hardly any environment, and without a terminal.
        let mut command = Command::new(&filled[0]);
        command.args(&filled[1..]).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", user.directory());
        command.env("BAA_CODEXD_LOCAL_API_BASE", daemon.base_url()).current_dir(user.directory());
        let ended = run_command(command).await;
        assert_eq!(ended.code, Some(0), "{filled:?}: {ended:?}");
        assert!(ended.stdout.contains("is queued"), "{ended:?}");
        let view = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
        let queued = view.data(200)["queuedTurns"].as_array().unwrap();
        assert_eq!(queued.len(), index + 1, "{filled:?}");
        assert_eq!(queued[index]["input"][0]["text"], "Review the open issues.");
    }
}

#[tokio::test]
async fn detached_ask_prints_the_turn_and_resume_queue_starts_it_before_its_time() {
    let (daemon, user, session_id) = user_with_session().await;
    let time = "2999-01-01T00:00:00.000Z";
    let arguments = ["ask", "--session", &session_id, "--detach", "--json", "hello", "--not-before", time];
    let asked = document(&user.run(&arguments).await);
    assert_eq!((&asked["sessionId"], &asked["turnId"]), (&Value::from(&*session_id), &Value::Null));
    let queue_id = text(&asked["queueId"]);
    let listed = user.run(&["sessions"]).await.stdout;
    assert!(listed.contains(" waits until "), "{listed}");
    let unknown = user.run(&["resume-queue", &session_id, "--turn", "unknown"]).await;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let resumed = user.run(&["resume-queue", &session_id, "--turn", &queue_id]).await;
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_eq!(wait_for_event_type(&daemon, "turn.accepted").await["detail"]["queueId"], queue_id);
    let wrong =
        user.run(&["ask", "--session", &session_id, "--detach", "hello", "--not-before", "soon"]).await;
    assert_eq!((wrong.code, wrong.stdout.as_str()), (Some(2), ""), "{wrong:?}");
    assert!(wrong.stderr.contains("--not-before: it must be a time"), "{wrong:?}");
    // A turn that starts at once has its own ID already.
    let started = user.run(&["ask", "--detach", "hello"]).await;
    assert_eq!(started.code, Some(0), "{started:?}");
    assert!(started.stdout.contains("has started"), "{started:?}");
}
