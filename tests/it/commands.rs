//! The command line: what each command prints where, and how it exits.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::api::{Ended, create, ready, run, start, text, turn};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::DEADLINE;

/// A home of nobody's, which has to stay empty when a command only looks.
fn home() -> TempDir {
    scratch::directory("commands")
}

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = codexd(home);
    command.args(arguments).current_dir(home);
    command
}

async fn codexd_says(home: &Path, arguments: &[&str]) -> Ended {
    run(command(home, arguments)).await
}

fn assert_empty(home: &Path) {
    let left: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "made without need: {left:?}");
}

fn document(ended: &Ended) -> Value {
    let document = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.stdout, serde_json::to_string_pretty(&document).unwrap() + "\n");
    document
}

/// The flags that point a command at the folders of this daemon.
fn folders(daemon: &Daemon) -> [String; 2] {
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    [flag("logs-dir", &daemon.logs_dir()), flag("state-dir", &daemon.state_dir())]
}

#[tokio::test]
async fn config_shows_every_value_and_source() {
    let home = home();
    let asked = |format: &[&str]| {
        let flags = ["config", "--event-cache-size", "7", "--server-arg", "a", "--server-arg", "--b"];
        let mut command = command(home.path(), &[&flags, format].concat());
        command
            .env("BAA_NODE_ID", "lab")
            .env("BAA_CODEXD_EVENT_CACHE_SIZE", "9")
            .env("BAA_STATE_DIR", "/shared");
        run(command)
    };
    let shown = asked(&["--json"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let document = document(&shown);
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

    let table = asked(&[]).await;
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
    let shown = codexd_says(home.path(), &["config", "--json", "--repo-root", "."]).await;
    let settings = document(&shown)["settings"].clone();
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
    let daemon = start().await;
    ready(&daemon).await;
    create(&daemon, json!({})).await;
    let home = home();
    let base = daemon.base_url();
    let shown = codexd_says(home.path(), &["status", "--local-api-base", base, "--json"]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    let status = document(&shown);
    assert_eq!(status["running"], true);
    assert_eq!(status["service"]["resolvedBaseUrl"], base);
    assert_eq!(status["snapshot"]["daemon"]["pid"], daemon.pid());

    let shown = codexd_says(home.path(), &["status", "--local-api-base", base]).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    for part in [&format!("PID {}", daemon.pid()), base, "1, 1 active, 0 busy", "accepted"] {
        assert!(shown.stdout.contains(part), "no {part:?} in {}", shown.stdout);
    }
    assert_empty(home.path());
}

#[tokio::test]
async fn status_json_has_same_shape_without_daemon() {
    let mut daemon = start().await;
    ready(&daemon).await;
    let base = daemon.base_url().to_owned();
    let home = home();
    let [logs, state] = folders(&daemon);
    let asked = ["status", "--json", "--local-api-base", &base, &logs, &state];
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let with = document(&codexd_says(home.path(), &asked).await);
    daemon.stop().await;
    let without = document(&codexd_says(home.path(), &asked).await);
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
    let mut daemon = start().await;
    let session = create(&daemon, json!({})).await;
    let base = daemon.base_url().to_owned();
    daemon.stop().await;
    let home = home();
    let [logs, state] = folders(&daemon);
    let asked = ["status", "--local-api-base", &base, &logs, &state];
    let shown = codexd_says(home.path(), &[&asked, ["--json"].as_slice()].concat()).await;
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(3), ""));
    let status = document(&shown);
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

    let shown = codexd_says(home.path(), &asked).await;
    assert_eq!(shown.code, Some(3));
    assert_eq!(shown.stderr.lines().count(), 1, "{}", shown.stderr);
    assert!(shown.stderr.contains(&base), "{}", shown.stderr);
    for part in ["stopped at", "1, 1 active, 0 busy", daemon.state_dir().to_str().unwrap()] {
        assert!(shown.stdout.contains(part), "no {part:?} in {}", shown.stdout);
    }
}

#[tokio::test]
async fn status_reports_crashed_daemon() {
    let mut daemon = start().await;
    let session = create(&daemon, json!({})).await;
    turn(&daemon, session["sessionId"].as_str().unwrap(), "hang").await;
    let base = daemon.base_url().to_owned();
    let path = daemon.state_dir().join("daemon-state.json");
    crate::support::wait::wait_until("a state file", || path.exists().then_some(())).await;
    daemon.kill().await;
    let home = home();
    let [logs, state] = folders(&daemon);
    let shown = codexd_says(home.path(), &["status", "--local-api-base", &base, &logs, &state]).await;
    assert_eq!(shown.code, Some(3));
    assert!(shown.stdout.contains("did not shut down cleanly"), "{}", shown.stdout);
}

#[tokio::test]
async fn status_reports_daemon_at_another_address() {
    let daemon = start().await;
    let path = daemon.state_dir().join("daemon-state.json");
    crate::support::wait::wait_until("a state file", || path.exists().then_some(())).await;
    let home = home();
    let [logs, state] = folders(&daemon);
    let base = "http://127.0.0.1:1";
    let shown = codexd_says(home.path(), &["status", "--local-api-base", base, &logs, &state]).await;
    assert_eq!(shown.code, Some(3));
    let holder = format!("The directories are in use by codexd with pid {}", daemon.pid());
    for part in [holder.as_str(), &format!("does not answer at {base}"), "another --local-api-base"] {
        assert!(shown.stderr.contains(part), "no {part:?} in {}", shown.stderr);
    }
    assert!(!shown.stdout.contains("did not shut down cleanly"), "{}", shown.stdout);
    assert!(shown.stdout.contains(&format!("with pid {}", daemon.pid())), "{}", shown.stdout);
}

#[tokio::test]
async fn status_reports_directories_never_used() {
    let home = home();
    let shown = codexd_says(home.path(), &["status", "--local-api-base", "http://127.0.0.1:1"]).await;
    assert_eq!(shown.code, Some(3));
    assert!(shown.stderr.contains("http://127.0.0.1:1"), "{}", shown.stderr);
    assert!(shown.stdout.contains("has never run with these directories"), "{}", shown.stdout);
    assert_empty(home.path());
}

#[tokio::test]
async fn invalid_settings_print_one_sentence_and_change_nothing() {
    let home = home();
    for (arguments, said) in [
        (["--nonsense"].as_slice(), "--nonsense"),
        (&["begin"], "begin"),
        (&["exec"], "exec"),
        (&["--mode", "exec"], "app-server is the only mode"),
        (&["--server-strategy", "maybe"], "spawn or external"),
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
        let refused = codexd_says(home.path(), arguments).await;
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("codexd: ") && refused.stderr.ends_with(".\n"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains(said), "{arguments:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("secret"), "{}", refused.stderr);
    }
    let mut with_variable = command(home.path(), &["start"]);
    with_variable.env("BAA_CODEXD_MODE", "exec");
    let refused = run(with_variable).await;
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
        run(command)
    };
    let shown = smoke(&["smoke", "--json"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let document = document(&shown);
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

    let shown = smoke(&["smoke"]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for name in names {
        assert!(shown.stdout.contains(name), "no {name} in {}", shown.stdout);
    }
    assert!(shown.stdout.lines().last().unwrap().starts_with("smoke passed in "), "{}", shown.stdout);
    assert_empty(home.path());
    assert_empty(temporary.path());
}

#[tokio::test]
async fn help_and_version_go_to_stdout() {
    let home = home();
    for arguments in [["help"], ["--help"], ["-h"]] {
        let shown = codexd_says(home.path(), &arguments).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
        for part in
            ["start", "status", "config", "smoke", "--repo-root", "BAA_CODEXD_REPO_ROOT", "--run-once"]
        {
            assert!(shown.stdout.contains(part), "no {part} in {}", shown.stdout);
        }
        assert!(!shown.stdout.contains("demo-app-server"), "the help shows a hidden subcommand");
    }
    let shown = codexd_says(home.path(), &["--version"]).await;
    assert_eq!(shown.stdout, format!("codexd {}\n", env!("CODEXD_LONG_VERSION")));
    assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
    assert_empty(home.path());
}

#[tokio::test]
async fn help_json_lists_commands_and_settings() {
    let home = home();
    for arguments in [&["help", "--json"][..], &["--json", "help"], &["--help", "--json"]] {
        let shown = codexd_says(home.path(), arguments).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
        let document = document(&shown);
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
    let one = document(&codexd_says(home.path(), &["help", "start", "--json"]).await);
    assert_eq!(one["name"], "start");
    assert!(one["arguments"].as_array().unwrap().iter().any(|argument| argument["flag"] == "--run-once"));
    let unknown = codexd_says(home.path(), &["help", "nothing", "--json"]).await;
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
    tokio::time::timeout(DEADLINE, stdout.read_line(&mut line)).await.expect("the first line").unwrap();
    let word = |line: &str, name: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
    };
    assert_eq!(word(&line, "started"), "true");
    assert_eq!(word(&line, "node"), "lab");
    assert_eq!(word(&line, "pid"), process.id().unwrap().to_string());
    let base = word(&line, "resolved_base");
    assert_eq!(word(&line, "ws_url"), format!("ws://{}/v1/codexd/events", base.authority()));
    assert_eq!(get(base.as_str(), "/healthz").await.status, 200);
    // Neither the folder it was started in nor anything but the person's own folders is used.
    let state = word(&line, "state_dir");
    assert!(Path::new(&state).starts_with(home.path()) && Path::new(&state).join("identity.json").exists());

    let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(DEADLINE, stdout.read_to_string(&mut rest)).await.expect("the last lines").unwrap();
    assert!(process.wait().await.unwrap().success());
    assert!(rest.starts_with("codexd stopped after SIGTERM\n"), "{rest}");
    assert_eq!(word(&rest, "started"), "false");
    assert_eq!(word(&rest, "resolved_base"), "not-listening");
}

#[tokio::test]
async fn run_once_starts_prints_status_and_stops() {
    let home = home();
    let once = codexd_says(home.path(), &[fake_flags().as_slice(), &["--run-once", "--json"]].concat()).await;
    assert_eq!(once.code, Some(0), "{once:?}");
    let status = document(&once);
    let daemon = &status["snapshot"]["daemon"];
    assert_eq!(daemon["started"], false);
    assert!(daemon["startedAt"].is_string() && daemon["stoppedAt"].is_string(), "{daemon}");
    assert_eq!(daemon["child"]["status"], "stopped");
    let events = status["snapshot"]["recentEvents"]["events"].as_array().unwrap();
    let has = |event_type: &str| events.iter().any(|event| event["type"] == event_type);
    assert!(has("app-server.connected") && has("daemon.stopped"), "{events:?}");

    let once = codexd_says(home.path(), &[fake_flags().as_slice(), &["--run-once"]].concat()).await;
    assert_eq!((once.code, once.stdout.lines().count()), (Some(0), 1), "{once:?}");
    assert!(once.stdout.contains("started=false"), "{}", once.stdout);
}

#[tokio::test]
async fn run_once_without_app_server_fails_with_sentence() {
    let home = home();
    let flags =
        ["--run-once", "--local-api-base", "http://127.0.0.1:0", "--server-command", "codex-that-is-nowhere"];
    let once = codexd_says(home.path(), &flags).await;
    assert_eq!(once.code, Some(1), "{once:?}");
    assert!(once.stderr.lines().any(|line| line.contains("codex-that-is-nowhere")), "{}", once.stderr);
    assert!(once.stderr.contains("npm install"), "{}", once.stderr);
}
