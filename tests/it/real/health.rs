//! The state of Codex in responses, commands and metrics: login, network, configuration and MCP servers.

use serde_json::{Value, json};

use super::{Stage, create_session, record, rest_of, submit};
use crate::api::{run_command, wait_for_event_type, wait_until_not_ready};
use crate::cli::CliUser;
use crate::support::codex::{CodexHome, codex, versions};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get, get_text, post};
use crate::support::model::MockModel;
use crate::support::skip::runs_long;
use crate::support::terminal::Terminal;
use crate::support::wait::{wait_until, wait_until_async};
use crate::support::websocket::EventStream;

const OLD: &str = "sk-old-key-0123456789";
const NEW: &str = "sk-new-key-0123456789";

/// Starts a daemon with a Codex whose model requires an account; `key` is the login on disk.
async fn with_account(version: &str, key: Option<&str>) -> Stage {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).needs_account().build();
    if let Some(key) = key {
        home.log_in(key);
    }
    let daemon = Daemon::builder().real_version(&home, version).start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    Stage { events, daemon, home, model }
}

/// Waits until Codex is in this state; returns the `codex` object of `/healthz`.
async fn codex_state(daemon: &Daemon, state: &str) -> Value {
    wait_until_async(&format!("the state {state}"), async || {
        let codex = get(daemon, "/healthz").await.json["service"]["codex"].clone();
        (codex["state"] == state).then_some(codex)
    })
    .await
}

/// Returns the number of events of this type in the log.
fn count(daemon: &Daemon, event_type: &str) -> usize {
    daemon.events_on_disk().iter().filter(|event| event["type"] == event_type).count()
}

/// Runs `codexd doctor` for the daemon; returns its exit code and its output.
async fn doctor(stage: &Stage) -> (Option<i32>, String) {
    let mut command = codexd(&stage.home.user_home());
    let flag = |name: &str, path: std::path::PathBuf| format!("--{name}={}", path.display());
    command
        .args(["doctor", "--server-command", fake_codex(), "--server-arg=app-server"])
        .arg(format!("--local-api-base={}", stage.daemon.base_url()))
        .arg(flag("state-dir", stage.daemon.state_dir()))
        .arg(flag("logs-dir", stage.daemon.logs_dir()))
        .current_dir(stage.home.user_home());
    let ended = run_command(command).await;
    (ended.code, ended.stdout)
}

#[tokio::test]
async fn turn_uses_login_on_disk() {
    for version in versions() {
        let mut stage = with_account(version, Some(OLD)).await;
        stage.model.require_key(NEW);
        codex_state(&stage.daemon, "ready").await;
        let session = stage.session(&json!({})).await;
        let turn = stage.turn(&session, "mock:text=[one]").await;
        assert_eq!(turn.status(), "failed");

        let codex = codex_state(&stage.daemon, "loginRefused").await;
        assert!(codex["message"].as_str().unwrap().contains("401"), "{codex}");
        assert_eq!(codex["command"], "codex login");
        let event = wait_for_event_type(&stage.daemon, "app-server.state.changed").await;
        assert_eq!((&event["level"], &event["detail"]["state"]), (&json!("warn"), &json!("loginRefused")));
        // The second rejection restarts the app-server once, with the same login.
        wait_until_async("the next app-server", async || {
            let status = get(&stage.daemon, "/v1/codexd/status").await.data(200).clone();
            let is_next = status["snapshot"]["daemon"]["child"]["generation"].as_u64() >= Some(2);
            (is_next && status["service"]["codex"]["state"] == "loginRefused").then_some(())
        })
        .await;
        let status = CliUser::of(&stage.daemon).run(&["status"]).await.stdout;
        assert!(status.contains("codex login") && !status.contains("accepted"), "{status}");
        let (code, output) = doctor(&stage).await;
        assert!(code == Some(1) && output.contains("The login of Codex is refused"), "{output}");

        stage.home.log_in(NEW);
        let turn = stage.turn(&session, "mock:text=[two]").await;
        assert_eq!((turn.status(), turn.text().as_str()), ("completed", "two"), "{version}");
        codex_state(&stage.daemon, "ready").await;
        assert_eq!((count(&stage.daemon, "child.backoff"), count(&stage.daemon, "session.closed")), (0, 0));
        let exited = wait_for_event_type(&stage.daemon, "child.exited").await;
        assert_eq!((&exited["level"], &exited["detail"]["expected"]), (&json!("info"), &json!(true)));
        let child =
            get(&stage.daemon, "/v1/codexd/status").await.data(200)["snapshot"]["daemon"]["child"].clone();
        assert_eq!(child["deaths"], 0);
        stage.stop().await;
    }
}

#[tokio::test]
async fn changed_login_is_used_before_it_is_refused() {
    let mut stage = with_account("0.171.0", Some(OLD)).await;
    stage.model.require_key(OLD);
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:text=[one]").await.status(), "completed");
    stage.home.log_in(NEW);
    stage.model.require_key(NEW);
    let turn = stage.turn(&session, "mock:text=[two]").await;
    assert_eq!((turn.status(), turn.of("app-server.turn.error").len()), ("completed", 0));
    assert_eq!(count(&stage.daemon, "app-server.restarting"), 1);
    // The login has not changed since then, so the app-server is not restarted again.
    assert_eq!(stage.turn(&session, "mock:text=[three]").await.status(), "completed");
    assert_eq!(count(&stage.daemon, "app-server.restarting"), 1);
}

#[tokio::test]
async fn changed_login_does_not_interrupt_running_turn() {
    let mut stage = with_account("0.171.0", Some(OLD)).await;
    stage.model.require_key(OLD);
    let (first, second) = (stage.session(&json!({})).await, stage.session(&json!({})).await);
    let running = stage.start_turn(&first, "mock:deltas=40 mock:delay=50").await;
    stage.events.wait_for("the first delta", |event| event["type"] == "app-server.turn.message.delta").await;
    stage.home.log_in(NEW);
    let other = stage.start_turn(&second, "mock:text=[two]").await;
    let turn = rest_of(&mut stage.events, &other).await;
    assert_eq!(turn.status(), "completed", "the turn uses the previous login, which still works");
    // It may have ended before the other one.
    let path =
        format!("/v1/codexd/sessions/{}/turns/{running}?wait=30", first["sessionId"].as_str().unwrap());
    assert_eq!(get(&stage.daemon, &path).await.data(200)["turn"]["status"], "completed");
    stage.model.require_key(NEW);
    assert_eq!(stage.turn(&second, "mock:text=[three]").await.status(), "completed");
    assert_eq!(count(&stage.daemon, "app-server.restarting"), 1);
}

#[tokio::test]
async fn invalid_login_restarts_app_server_once() {
    let mut stage = with_account("0.171.0", Some(OLD)).await;
    stage.model.require_key(NEW);
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:text=[one]").await.status(), "failed");
    wait_for_event_type(&stage.daemon, "app-server.restarting").await;
    assert_eq!(stage.turn(&session, "mock:text=[two]").await.status(), "failed");
    assert_eq!(stage.turn(&session, "mock:text=[three]").await.status(), "failed");
    assert_eq!(count(&stage.daemon, "app-server.restarting"), 1);
    codex_state(&stage.daemon, "loginRefused").await;
}

/// The account is known a moment after the app-server is ready.
#[tokio::test]
async fn welcome_on_a_terminal_says_that_there_is_no_account() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).needs_account().build();
    let user = CliUser::at("http://127.0.0.1:0");
    let mut command = user.command(&["start", "--repo-root", ".", "--server-command"]);
    command.arg(&codex().native).env("CODEX_HOME", home.path()).env("NO_COLOR", "1");
    let terminal = Terminal::start(command, 200);
    terminal.shows("Ctrl-C stops codexd.").await;
    let shown = terminal.text();
    let first = shown.lines().find(|line| line.starts_with("codexd 0.")).unwrap();
    assert!(first.contains("Codex has no account") && first.contains("codex login"), "{shown}");
    terminal.interrupt();
    assert_eq!(terminal.ended().await.0, Some(0));
}

#[tokio::test]
async fn missing_account_is_reported_until_login() {
    for version in versions() {
        let mut stage = with_account(version, None).await;
        stage.model.require_key(NEW);
        let codex = codex_state(&stage.daemon, "noAccount").await;
        assert_eq!(codex["message"], "Codex has no account, so turns fail.");
        let event = wait_for_event_type(&stage.daemon, "app-server.state.changed").await;
        assert_eq!(event["message"], "Codex has no account, so turns fail. Type: codex login");
        // The log line follows the event.
        wait_until("the hint in the log", || {
            stage.daemon.stderr().contains("Type: codex login").then_some(())
        })
        .await;
        let user = CliUser::of(&stage.daemon);
        let answer = user.run(&["ask", "hello"]).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:?}");
        assert!(
            answer.stderr.contains("Codex has no account") && answer.stderr.contains("codex login"),
            "{answer:?}"
        );
        assert_eq!(count(&stage.daemon, "session.created"), 0);
        let status = user.run(&["status"]).await.stdout;
        assert!(status.contains("Type: codex login") && !status.contains("accepted"), "{status}");
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        let metrics = get_text(&stage.daemon, "/metrics", &[], kind).await;
        assert!(metrics.contains("codexd_codex_state{state=\"noAccount\"} 1"), "{}", metrics);
        let (code, output) = doctor(&stage).await;
        assert!(code == Some(1) && output.contains("Codex has no account"), "{output}");

        stage.home.log_in(NEW);
        codex_state(&stage.daemon, "ready").await;
        let session = stage.session(&json!({})).await;
        assert_eq!(stage.turn(&session, "mock:text=[hello]").await.status(), "completed");
    }
}

#[tokio::test]
async fn provider_without_account_requirement_is_ready() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    assert_eq!(stage.turn(&session, "mock:text=[hello]").await.status(), "completed");
    assert_eq!(codex_state(&stage.daemon, "ready").await["command"], Value::Null);
    assert_eq!(count(&stage.daemon, "app-server.state.changed"), 0);
}

#[tokio::test]
async fn ask_without_network_fails_after_network_timeout() {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).base_url("http://127.0.0.1:9/v1").build();
    let daemon = Daemon::builder().real_version(&home, "0.171.0").start().await;
    let user = CliUser::of(&daemon);
    let workspace = home.workspace();
    let arguments = ["ask", "hello", "--network-timeout=2", "--cwd", workspace.to_str().unwrap()];
    let answer = user.run(&arguments).await;
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:?}");
    assert!(answer.stderr.contains("Codex reached no network for 2 s"), "{answer:?}");
    let codex = codex_state(&daemon, "offline").await;
    assert!(codex["message"].as_str().unwrap().contains("does not reach its model"), "{codex}");
    let event = wait_for_event_type(&daemon, "app-server.state.changed").await;
    assert_eq!((&event["level"], &event["detail"]["state"]), (&json!("warn"), &json!("offline")));
}

#[tokio::test]
async fn refused_configuration_is_quoted_and_retried_on_change() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    // Codex 0.171.0 rejects this value and exits.
    home.configure(|config| config.replace("\"never\"", "\"untrusted\""));
    let daemon = Daemon::builder().real_version(&home, "0.171.0").start().await;
    let line = "no longer supported";
    wait_until_not_ready(&daemon, line).await;
    let codex = codex_state(&daemon, "configBroken").await;
    assert!(codex["message"].as_str().unwrap().contains("config.toml"), "{codex}");
    let answer = post(&daemon, "/v1/codexd/sessions", &json!({ "cwd": home.workspace() })).await;
    assert_eq!((answer.status, &answer.json["error"]), (503, &json!("app_server_unavailable")));
    assert!(answer.json["message"].as_str().unwrap().contains(line), "{}", answer.json);
    let answer = CliUser::of(&daemon).run(&["ask", "hello"]).await;
    assert!(answer.code == Some(1) && answer.stderr.contains(line), "{answer:?}");
    // Wait until the backoff is longer than the limit of the assertion below.
    wait_until_async("a long backoff", async || {
        let status = get(&daemon, "/v1/codexd/status").await.data(200)["snapshot"]["daemon"]["child"].clone();
        (status["deaths"].as_u64() >= Some(5) && status["state"] != "starting").then_some(())
    })
    .await;
    let corrected = std::time::Instant::now();
    home.configure(|config| config.replace("\"untrusted\"", "\"never\""));
    codex_state(&daemon, "ready").await;
    assert!(corrected.elapsed().as_secs() < 6, "it took {:?}", corrected.elapsed());
    create_session(&daemon, &home, &json!({})).await;
}

#[tokio::test]
async fn ignored_configuration_is_reported_and_reloaded_on_change() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        home.configure(|config| config.replace("\"never\"", "\"bogus\""));
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        let codex = codex_state(&daemon, "configBroken").await;
        assert!(codex["message"].as_str().unwrap().contains("unknown variant `bogus`"), "{codex}");
        let event = wait_for_event_type(&daemon, "app-server.state.changed").await;
        assert_eq!(event["detail"]["state"], "configBroken");
        home.configure(|config| config.replace("\"bogus\"", "\"never\""));
        codex_state(&daemon, "ready").await;
        let session = create_session(&daemon, &home, &json!({})).await;
        let answer =
            submit(&daemon, &json!({ "sessionId": session["sessionId"], "input": "mock:text=[hi]" })).await;
        assert_eq!(answer.status, 202);
        assert_eq!(count(&daemon, "child.backoff"), 0);
    }
}

#[tokio::test]
async fn broken_configuration_is_reported_until_corrected() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = Daemon::builder().real_version(&home, "0.171.0").start().await;
    codex_state(&daemon, "ready").await;
    create_session(&daemon, &home, &json!({})).await;
    let config = std::cell::RefCell::new(String::new());
    home.configure(|text| {
        config.replace(text.clone());
        format!("this is no toml\n{text}")
    });
    let body = json!({ "cwd": home.workspace() });
    let refused = post(&daemon, "/v1/codexd/sessions", &body).await;
    assert!(
        refused.status >= 400 && refused.json.to_string().contains("config.toml:1:6"),
        "{}",
        refused.json
    );
    let codex = codex_state(&daemon, "configBroken").await;
    let message = codex["message"].as_str().unwrap();
    assert!(message.contains("config.toml:1:6: key with no value"), "{codex}");
    let event = wait_for_event_type(&daemon, "app-server.state.changed").await;
    assert_eq!((&event["level"], &event["detail"]["state"]), (&json!("warn"), &json!("configBroken")));
    let status = CliUser::of(&daemon).run(&["status"]).await.stdout;
    assert!(status.contains("config.toml:1:6") && !status.contains("accepted"), "{status}");
    // codexd detects the change of the file, without a call and without a restart of the app-server.
    home.configure(|_| config.borrow().clone());
    codex_state(&daemon, "ready").await;
    create_session(&daemon, &home, &json!({})).await;
    assert_eq!((count(&daemon, "app-server.restarting"), count(&daemon, "child.exited")), (0, 0));
}

#[tokio::test]
async fn project_or_session_configuration_error_is_not_global() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let daemon = Daemon::builder().real_version(&home, "0.171.0").start().await;
    codex_state(&daemon, "ready").await;
    let body = json!({ "cwd": home.workspace(), "modelProvider": "nope" });
    let refused = post(&daemon, "/v1/codexd/sessions", &body).await;
    assert!(
        refused.status >= 400 && refused.json.to_string().contains("`nope` not found"),
        "{}",
        refused.json
    );
    create_session(&daemon, &home, &json!({})).await;
    assert_eq!(count(&daemon, "app-server.state.changed"), 0);
    codex_state(&daemon, "ready").await;
}

#[tokio::test]
async fn failed_mcp_server_start_is_reported() {
    for version in versions() {
        let model = MockModel::start();
        let tables = "[mcp_servers.broken]\ncommand = \"/nonexistent/server\"";
        let home = CodexHome::builder(&model).more_tables(tables).build();
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        let session = create_session(&daemon, &home, &json!({})).await;
        let event = wait_for_event_type(&daemon, "app-server.mcp_server.failed").await;
        assert_eq!((&event["level"], &event["detail"]["name"]), (&json!("warn"), &json!("broken")));
        assert_eq!(event["detail"]["threadId"], session["threadId"]);
        assert!(event["message"].as_str().unwrap().contains("No such file"), "{event}");
        let path = format!("/v1/codexd/sessions/{}", session["sessionId"].as_str().unwrap());
        let servers = get(&daemon, &path).await.data(200)["mcpServers"].clone();
        assert_eq!(servers[0]["name"], "broken", "{servers}");
        assert_eq!(record(&daemon, &session).await["status"], "active");
        let workspace = home.workspace();
        let arguments = ["ask", "mock:text=[Hello!]", "--cwd", workspace.to_str().unwrap()];
        let answer = CliUser::of(&daemon).run(&arguments).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), "Hello!\n"), "{answer:?}");
        assert_eq!(answer.stderr.matches("MCP server \"broken\" failed to start").count(), 1, "{answer:?}");
    }
}
