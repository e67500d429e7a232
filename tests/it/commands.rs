//! The commands of the daemon: their output, exit codes, and the files that they create.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::api::{
    CommandOutput, create_session, run_command, start_daemon, start_turn, text, wait_until_ready,
};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::DEADLINE;

/// An empty home directory, which must stay empty when a command only reads.
fn home() -> TempDir {
    scratch::directory("commands")
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = codexd(home);
    command.args(arguments).current_dir(home);
    command
}

async fn run_codexd(home: &Path, arguments: &[&str]) -> CommandOutput {
    run_command(command(home, arguments)).await
}

fn assert_empty(home: &Path) {
    let entries: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.is_empty(), "unexpected files: {entries:?}");
}

fn document(ended: &CommandOutput) -> Value {
    let document = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.stdout, serde_json::to_string_pretty(&document).unwrap() + "\n");
    document
}

/// The flags with the directories of this daemon.
fn directory_flags(daemon: &Daemon) -> [String; 2] {
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    [flag("logs-dir", &daemon.logs_dir()), flag("state-dir", &daemon.state_dir())]
}

#[tokio::test]
async fn config_shows_every_value_and_source() {
    let home = home();
    let run_config = |format: &[&str]| {
        let flags = ["config", "--event-cache-size", "7", "--server-arg", "a", "--server-arg", "--b"];
        let mut command = command(home.path(), &[&flags, format].concat());
        command
            .env("BAA_NODE_ID", "lab")
            .env("BAA_CODEXD_EVENT_CACHE_SIZE", "9")
            .env("BAA_STATE_DIR", "/shared");
        run_command(command)
    };
    let ended = run_config(&["--json"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let document = document(&ended);
    let find = |name: &str| {
        let mut settings = document["settings"].as_array().unwrap().iter();
        let found = settings.find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        (found["value"].clone(), found["source"].as_str().unwrap().to_owned())
    };
    for (name, value, source) in [
        ("event-cache-size", json!(7), "--event-cache-size"),
        ("node-id", json!("lab"), "BAA_NODE_ID"),
        ("state-dir", json!("/shared/codexd"), "BAA_STATE_DIR"),
        ("server-arg", json!(["a", "--b"]), "--server-arg"),
        ("local-api-base", json!("http://127.0.0.1:4319"), "default"),
        ("server-command", json!("codex"), "default"),
        ("mode", json!("app-server"), "default"),
        ("repo-root", Value::Null, "default"),
    ] {
        assert_eq!(find(name), (value, source.to_owned()), "{name}");
    }
    assert_eq!(find("logs-dir").1, "default from HOME");

    let table = run_config(&[]).await;
    assert_eq!((table.code, table.stderr.as_str()), (Some(0), ""));
    for setting in document["settings"].as_array().unwrap() {
        let (name, source) = (setting["name"].as_str().unwrap(), setting["source"].as_str().unwrap());
        let of_setting = |line: &&str| line.starts_with(name) && line.ends_with(&format!("({source})"));
        assert!(table.stdout.lines().any(|line| of_setting(&line)), "no {name} in {}", table.stdout);
    }
    assert_empty(home.path());
}

#[tokio::test]
async fn config_places_directories_in_repository() {
    let home = home();
    let ended = run_codexd(home.path(), &["config", "--json", "--repo-root", "."]).await;
    let settings = document(&ended)["settings"].clone();
    let value = |name: &str| {
        let found = settings.as_array().unwrap().iter().find(|setting| setting["name"] == name);
        Path::new(found.unwrap()["value"].as_str().unwrap()).to_owned()
    };
    let root = value("repo-root");
    assert_eq!(value("state-dir"), root.join("state").join("codexd"));
    assert_eq!(value("logs-dir"), root.join("logs").join("codexd"));
    assert_empty(home.path());
}

#[tokio::test]
async fn status_queries_running_daemon() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    create_session(&daemon, json!({})).await;
    let home = home();
    let base = daemon.base_url();
    let ended = run_codexd(home.path(), &["status", "--local-api-base", base, "--json"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let status = document(&ended);
    assert_eq!(status["running"], true);
    assert_eq!(status["service"]["resolvedBaseUrl"], base);
    assert_eq!(status["snapshot"]["daemon"]["pid"], daemon.pid());

    let ended = run_codexd(home.path(), &["status", "--local-api-base", base]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    for part in [&format!("PID {}", daemon.pid()), base, "1, 1 active, 0 busy", "accepted"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
    assert_empty(home.path());
}

#[tokio::test]
async fn status_json_has_same_shape_without_daemon() {
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let base = daemon.base_url().to_owned();
    let home = home();
    let [logs, state] = directory_flags(&daemon);
    let arguments = ["status", "--json", "--local-api-base", &base, &logs, &state];
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let with = document(&run_codexd(home.path(), &arguments).await);
    daemon.stop().await;
    let without = document(&run_codexd(home.path(), &arguments).await);
    assert_eq!((&with["running"], &without["running"]), (&json!(true), &json!(false)));
    for part in ["/service", "/snapshot/config", "/snapshot/identity", "/snapshot/daemon/child"] {
        let missing: Vec<_> = keys(with.pointer(part).unwrap())
            .into_iter()
            .filter(|key| without.pointer(part).is_none_or(|other| other.get(key).is_none()))
            .collect();
        assert!(missing.is_empty(), "{part} lacks {missing:?} in {without:#}");
    }
    for key in keys(&with) {
        assert!(without.get(&key).is_some(), "{key} is missing in {without:#}");
    }
}

#[tokio::test]
async fn status_reads_state_of_stopped_daemon() {
    let mut daemon = start_daemon().await;
    let session = create_session(&daemon, json!({})).await;
    let base = daemon.base_url().to_owned();
    daemon.stop().await;
    let home = home();
    let [logs, state] = directory_flags(&daemon);
    let arguments = ["status", "--local-api-base", &base, &logs, &state];
    let ended = run_codexd(home.path(), &[&arguments, ["--json"].as_slice()].concat()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(3), ""));
    let status = document(&ended);
    assert_eq!(status["running"], false);
    assert!(status["message"].as_str().unwrap().contains(&base), "{status}");
    let snapshot = &status["snapshot"];
    assert_eq!(snapshot["daemon"]["started"], false);
    assert_eq!(snapshot["sessionRegistry"]["sessions"], json!([session]));
    assert!(snapshot["identity"]["daemonId"].is_string() && snapshot["recentEvents"]["events"].is_array());
    assert_eq!(
        (&status["service"]["listening"], &status["service"]["ready"]),
        (&json!(false), &json!(false))
    );

    let ended = run_codexd(home.path(), &arguments).await;
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&base), "{}", ended.stderr);
    for part in ["stopped at", "1, 1 active, 0 busy", daemon.state_dir().to_str().unwrap()] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
}

#[tokio::test]
async fn status_reports_crashed_daemon() {
    let mut daemon = start_daemon().await;
    let session = create_session(&daemon, json!({})).await;
    start_turn(&daemon, session["sessionId"].as_str().unwrap(), "hang").await;
    let base = daemon.base_url().to_owned();
    let path = daemon.state_dir().join("daemon-state.json");
    crate::support::wait::wait_until("a state file", || path.exists().then_some(())).await;
    daemon.kill().await;
    let home = home();
    let [logs, state] = directory_flags(&daemon);
    let ended = run_codexd(home.path(), &["status", "--local-api-base", &base, &logs, &state]).await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stdout.contains("did not shut down cleanly"), "{}", ended.stdout);
}

#[tokio::test]
async fn status_reports_daemon_at_another_address() {
    let daemon = start_daemon().await;
    let path = daemon.state_dir().join("daemon-state.json");
    crate::support::wait::wait_until("a state file", || path.exists().then_some(())).await;
    let home = home();
    let [logs, state] = directory_flags(&daemon);
    let base = "http://127.0.0.1:1";
    let ended = run_codexd(home.path(), &["status", "--local-api-base", base, &logs, &state]).await;
    assert_eq!(ended.code, Some(3));
    let holder = format!("The directories are in use by codexd (pid {})", daemon.pid());
    for part in [holder.as_str(), &format!("does not answer at {base}"), "another --local-api-base"] {
        assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
    }
    assert!(!ended.stdout.contains("did not shut down cleanly"), "{}", ended.stdout);
    assert!(ended.stdout.contains(&format!("(pid {})", daemon.pid())), "{}", ended.stdout);
}

#[tokio::test]
async fn status_reports_directories_never_used() {
    let home = home();
    let ended = run_codexd(home.path(), &["status", "--local-api-base", "http://127.0.0.1:1"]).await;
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("http://127.0.0.1:1"), "{}", ended.stderr);
    assert!(ended.stdout.contains("has never run with these directories"), "{}", ended.stdout);
    assert_empty(home.path());
}

#[tokio::test]
async fn invalid_settings_print_one_sentence_and_change_nothing() {
    let home = home();
    for (arguments, expected) in [
        (["--nonsense"].as_slice(), "--nonsense"),
        (&["begin"], "begin"),
        (&["execute"], "execute"),
        (&["--mode", "exec"], "app-server is the only mode"),
        (&["--server-strategy", "maybe"], "spawn, shared or external"),
        (&["--server-strategy", "external"], "--server-endpoint"),
        (&["--local-api-base", "nonsense"], "absolute URL"),
        (&["--local-api-base", "https://127.0.0.1:1"], "http"),
        (&["--local-api-base", "http://0.0.0.0:1"], "loopback"),
        (&["--local-api-base", "http://example.com:1"], "loopback"),
        (&["--local-api-base", "http://127.0.0.1:1/path"], "path"),
        (&["--local-api-base", "http://127.0.0.1:1?a=b"], "query"),
        (&["--local-api-base", "http://127.0.0.1:1#a"], "fragment"),
        (&["--local-api-base", "http://user:secret@127.0.0.1:1"], "credentials"),
        (&["--event-stream-path", "events"], "slash"),
        (&["--event-stream-path", "/healthz"], "a route of codexd"),
        (&["--event-cache-size", "0"], "whole number"),
        (&["--event-cache-size", "many"], "whole number"),
        (&["--server-cwd", "nowhere"], "does not exist"),
        (&["status", "--run-once"], "--run-once"),
    ] {
        let refused = run_codexd(home.path(), arguments).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("codexd: ") && refused.stderr.ends_with(".\n"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains(expected), "{arguments:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    }
    let mut with_variable = command(home.path(), &["start"]);
    with_variable.env("BAA_CODEXD_MODE", "exec");
    let refused = run_command(with_variable).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("BAA_CODEXD_MODE"), "{}", refused.stderr);
    assert_empty(home.path());
}

#[tokio::test]
async fn smoke_passes_and_removes_its_files() {
    let (home, temporary) = (home(), home());
    let smoke = |arguments: &[&str]| {
        let mut command = command(home.path(), arguments);
        command.env("TMPDIR", temporary.path());
        run_command(command)
    };
    let ended = smoke(&["smoke", "--json"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let document = document(&ended);
    assert_eq!(document["ok"], true);
    assert!(document["milliseconds"].is_u64());
    let names: Vec<_> = document["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| {
            assert_eq!(check["status"], "ok", "{check}");
            check["name"].as_str().unwrap()
        })
        .collect();
    // The details of files are their paths, and the snapshot is that after the stop.
    let path = document["checks"][0]["detail"].as_str().unwrap();
    assert!(Path::new(path).ends_with("logs/events.jsonl"), "{path}");
    assert_eq!(document["snapshot"]["config"]["paths"]["structuredEventLogPath"], path);
    assert_eq!(document["snapshot"]["daemon"]["started"], false);
    assert_eq!(document["snapshot"]["sessionRegistry"]["sessions"][0]["purpose"], "smoke");
    assert!(names.contains(&"turn_completed") && names.contains(&"event_stream"), "{names:?}");

    let ended = smoke(&["smoke"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for name in names {
        assert!(ended.stdout.contains(name), "no {name} in {}", ended.stdout);
    }
    assert!(ended.stdout.lines().last().unwrap().starts_with("smoke passed in "), "{}", ended.stdout);
    assert_empty(home.path());
    assert_empty(temporary.path());
}

#[tokio::test]
async fn help_and_version_go_to_stdout() {
    let home = home();
    for arguments in [["help"], ["--help"], ["-h"]] {
        let ended = run_codexd(home.path(), &arguments).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        for part in ["start", "status", "config", "smoke", "--version"] {
            assert!(ended.stdout.contains(part), "no {part} in {}", ended.stdout);
        }
        assert!(!ended.stdout.contains("demo-app-server"), "the help shows a hidden subcommand");
    }
    for arguments in [["help", "start"], ["start", "--help"], ["start", "-h"]] {
        // The help names a variable that is blank, and shows no value.
        let mut command = command(home.path(), &arguments);
        command.env("BAA_CODEXD_REPO_ROOT", " ").env("BAA_CODEXD_SERVER_ENDPOINT", "ws://user:secret@host");
        let ended = run_command(command).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        for part in ["--repo-root <PATH>", "--run-once", "Paths:", "Limits:", "[default: mini-main]"] {
            assert!(ended.stdout.contains(part), "no {part} in {}", ended.stdout);
        }
        let is_brief = arguments[1] == "-h";
        assert_eq!(ended.stdout.contains("[env: BAA_CODEXD_REPO_ROOT]"), !is_brief, "{}", ended.stdout);
        assert!(!ended.stdout.contains("secret"), "{}", ended.stdout);
    }
    let ended = run_codexd(home.path(), &["--version"]).await;
    assert_eq!(ended.stdout, format!("codexd {}\n", env!("CODEXD_LONG_VERSION")));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_empty(home.path());
}

#[tokio::test]
async fn help_json_lists_commands_and_settings() {
    let home = home();
    for arguments in [&["help", "--json"][..], &["--json", "help"], &["--help", "--json"]] {
        let ended = run_codexd(home.path(), arguments).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        let document = document(&ended);
        let names: Vec<_> =
            document["commands"].as_array().unwrap().iter().map(|command| text(&command["name"])).collect();
        for name in ["start", "status", "config", "smoke", "ask", "doctor"] {
            assert!(names.contains(&name.to_owned()), "no {name} in {names:?}");
        }
        assert!(!names.contains(&"demo-app-server".to_owned()), "{names:?}");
        let settings = document["settings"].as_array().unwrap();
        let root = settings.iter().find(|setting| setting["flag"] == "--repo-root").unwrap();
        assert_eq!(root["variable"], "BAA_CODEXD_REPO_ROOT");
    }
    let one = document(&run_codexd(home.path(), &["help", "start", "--json"]).await);
    assert_eq!(one["name"], "start");
    assert!(one["arguments"].as_array().unwrap().iter().any(|argument| argument["flag"] == "--run-once"));
    let unknown = run_codexd(home.path(), &["help", "nothing", "--json"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""));
    assert!(unknown.stderr.contains("nothing"), "{}", unknown.stderr);
}

/// The flags of a daemon with the fake app-server on a free port.
fn fake_flags() -> [&'static str; 8] {
    [
        "--local-api-base",
        "http://127.0.0.1:0",
        "--server-command",
        fake_codex(),
        "--server-arg",
        "app-server",
        "--node-id",
        "lab",
    ]
}

#[tokio::test]
async fn start_is_default_and_prints_status_line() {
    let home = home();
    let mut command = tokio::process::Command::from(command(home.path(), &fake_flags()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut process = command.spawn().unwrap();
    let mut stdout = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    tokio::time::timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("no first line").unwrap();
    let field = |line: &str, name: &str| {
        let found = line.split_whitespace().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    };
    assert_eq!(field(&line, "started"), "true");
    assert_eq!(field(&line, "node"), "lab");
    assert_eq!(field(&line, "pid"), process.id().unwrap().to_string());
    let base = field(&line, "resolved_base");
    assert_eq!(field(&line, "ws_url"), format!("ws://{}/v1/codexd/events", base.authority()));
    assert_eq!(get(base.as_str(), "/healthz").await.status, 200);
    // The daemon uses the default directories of the user, not the current directory.
    let state = field(&line, "state_dir");
    assert!(Path::new(&state).starts_with(home.path()) && Path::new(&state).join("identity.json").exists());

    let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(DEADLINE, stdout.read_to_string(&mut rest)).await.expect("no last lines").unwrap();
    assert!(process.wait().await.unwrap().success());
    assert!(rest.starts_with("codexd stopped after SIGTERM\n"), "{rest}");
    assert_eq!(field(&rest, "started"), "false");
    assert_eq!(field(&rest, "resolved_base"), "not-listening");
}

#[tokio::test]
async fn run_once_starts_prints_status_and_stops() {
    let home = home();
    let once = run_codexd(home.path(), &[fake_flags().as_slice(), &["--run-once", "--json"]].concat()).await;
    assert_eq!(once.code, Some(0), "{once:?}");
    let status = document(&once);
    let daemon = &status["snapshot"]["daemon"];
    assert_eq!(daemon["started"], false);
    assert!(daemon["startedAt"].is_string() && daemon["stoppedAt"].is_string(), "{daemon}");
    assert_eq!(daemon["child"]["status"], "stopped");
    let events = status["snapshot"]["recentEvents"]["events"].as_array().unwrap();
    let has = |event_type: &str| events.iter().any(|event| event["type"] == event_type);
    assert!(has("app-server.connected") && has("daemon.stopped"), "{events:?}");

    let once = run_codexd(home.path(), &[fake_flags().as_slice(), &["--run-once"]].concat()).await;
    assert_eq!((once.code, once.stdout.lines().count()), (Some(0), 1), "{once:?}");
    assert!(once.stdout.contains("started=false"), "{}", once.stdout);
}

#[tokio::test]
async fn run_once_without_app_server_fails_with_sentence() {
    let home = home();
    let flags = ["--run-once", "--local-api-base", "http://127.0.0.1:0", "--server-command", "missing-codex"];
    let once = run_codexd(home.path(), &flags).await;
    assert_eq!(once.code, Some(1), "{once:?}");
    assert!(once.stderr.lines().any(|line| line.contains("missing-codex")), "{}", once.stderr);
    assert!(once.stderr.contains("npm install"), "{}", once.stderr);
}
