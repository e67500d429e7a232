//! `codexd smoke`: runs the daemon in a temporary directory with the demo app-server, sends one turn over its HTTP listener
//! and event stream, and checks the result. On success the directory is removed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::failure::Failure;
use super::output::Fact;
use super::runtime::runtime;
use super::start::Running;
use super::terminal::{BAD, GOOD, OutputTarget};
use super::{demo, output};
use crate::client::DaemonClient;
use crate::codex::protocol::values::TURN_COMPLETED;
use crate::config::{Config, LocalApiBase, Settings};
use crate::daemon::SnapshotView;
use crate::ids::SessionId;

/// The number of deltas in the answer of the demo to `hello`.
const EXPECTED_DELTAS: usize = 10;
/// The limit of the turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of one check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: &'static str,
    detail: String,
}

impl Check {
    fn new(name: &'static str, outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(detail) => Self { name, status: "ok", detail },
            Err(detail) => Self { name, status: "failed", detail },
        }
    }
}

pub(crate) fn run(settings: Settings, json: bool) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let directory = create_directory()?;
    let config = config(settings, &directory)?;
    let (checks, snapshot) = runtime()?.block_on(run_daemon(config))?;
    let ok = checks.iter().all(|check| check.status == "ok");
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if json {
        output::print_json(&json!({
            "ok": ok,
            "milliseconds": milliseconds,
            "checks": checks,
            "snapshot": snapshot,
        }))?;
    } else {
        let fact = |check: &Check| {
            let mark = if check.status == "ok" { ("ok    ", GOOD) } else { ("failed", BAD) };
            Fact { mark: Some(mark), ..Fact::plain(check.name, check.detail.clone()) }
        };
        let facts: Vec<_> = checks.iter().map(fact).collect();
        output::print(&output::facts(&OutputTarget::stdout(), &facts))?;
        let result = if ok { "smoke passed" } else { "smoke failed" };
        output::print(&format!("{result} in {milliseconds} ms"))?;
    }
    if ok {
        // After a failure the files stay for inspection.
        let _ = std::fs::remove_dir_all(&directory);
        Ok(ExitCode::SUCCESS)
    } else {
        output::print_error(&format!("codexd: The files remain in {}.", directory.display()));
        Ok(ExitCode::FAILURE)
    }
}

fn create_directory() -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let directory = std::env::temp_dir().join(format!("codexd-smoke-{}", uuid::Uuid::new_v4()));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(|error| Failure::new(format!("Failed to create {}: {error}.", directory.display())))?;
    Ok(directory)
}

/// The given settings, changed to use this directory and the demo app-server.
fn config(mut settings: Settings, directory: &Path) -> Result<Config, Failure> {
    settings.paths.repo_root = Some(directory.to_owned());
    settings.paths.logs_dir = Some(directory.join("logs"));
    settings.paths.state_dir = Some(directory.join("state"));
    settings.server.server_cwd = Some(directory.to_owned());
    settings.service.local_api_base = LocalApiBase::parse("http://127.0.0.1:0").map_err(Failure::usage)?;
    // The client below sends no token.
    settings.service.auth.auth_token_file = None;
    demo::resolve(settings)
}

/// Runs the daemon with one turn; returns the checks, and the snapshot after the stop.
async fn run_daemon(config: Config) -> Result<(Vec<Check>, SnapshotView), Failure> {
    let paths = config.paths.clone();
    let client = DaemonClient::new(&config.service, output::print_warning);
    let running = Running::start(config).await?;
    let (turn, stream) = run_turn(&running, client).await;
    let status = running.stop().await;

    let file = |path: &Path| match std::fs::metadata(path) {
        Ok(_) => Ok(path.display().to_string()),
        Err(error) => Err(format!("missing: {}: {error}", path.display())),
    };
    let recent = status.snapshot.recent_events.events.0.len();
    let checks = vec![
        Check::new("structured_event_log", file(&paths.structured_event_log)),
        Check::new("stdout_log", file(&paths.stdout_log)),
        Check::new("stderr_log", file(&paths.stderr_log)),
        Check::new("daemon_state", file(&paths.daemon_state)),
        Check::new(
            "recent_event_cache",
            file(&paths.recent_events).and_then(|_| match recent {
                0 => Err("no cached events".to_owned()),
                _ => Ok(format!("{recent} cached events")),
            }),
        ),
        Check::new("session_registry", closed_session(&paths.session_registry)),
        Check::new("turn_completed", turn),
        Check::new("event_stream", stream),
    ];
    Ok((checks, status.snapshot))
}

/// Creates a session and runs a turn as a client; returns the results of the turn and of the event stream.
async fn run_turn(
    running: &Running,
    client: DaemonClient,
) -> (Result<String, String>, Result<String, String>) {
    let status = running.app.status();
    let base = status.service.resolved_base_url.unwrap_or_default();
    let url = status.service.event_stream_url.unwrap_or_default();
    let conversation = async {
        let base = LocalApiBase::parse(&base).map_err(|error| error.to_string())?;
        let (mut events, _) =
            tokio_tungstenite::connect_async(&url).await.map_err(|error| error.to_string())?;
        let client = client.at(base);
        let post =
            async |path: &str, body: Value| client.post(path, &body).await.map_err(|error| error.to_string());
        let input = json!({ "purpose": "smoke", "metadata": { "source": "smoke" } });
        let created = post("/v1/codexd/sessions", input).await?;
        let session_id = created["session"]["sessionId"].as_str().unwrap_or_default().to_owned();
        let turn = json!({ "sessionId": session_id, "input": "hello" });
        let accepted = post("/v1/codexd/turn", turn).await?;
        let turn_id = accepted["turnId"].as_str().unwrap_or_default().to_owned();
        let stream = tokio::time::timeout(TURN_TIMEOUT, watch_turn(&mut events, &turn_id)).await;
        let stream = stream.unwrap_or_else(|_| Err("the turn did not end".to_owned()));
        let read = client.get(&format!("/v1/codexd/sessions/{session_id}")).await;
        let read = read.map_err(|error| error.to_string())?;
        let turn = match read["session"]["lastTurnStatus"].as_str() {
            Some(TURN_COMPLETED) => Ok(format!("turn {turn_id}")),
            other => Err(format!("turn {turn_id} is {}", other.unwrap_or("unknown"))),
        };
        running
            .daemon
            .sessions
            .close(&SessionId::new(session_id), false)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((turn, stream))
    };
    conversation.await.unwrap_or_else(|error| (Err(error.clone()), Err(error)))
}

/// Reads events until the turn ends.
async fn watch_turn<E: std::fmt::Display>(
    events: &mut (impl StreamExt<Item = Result<Message, E>> + Unpin),
    turn_id: &str,
) -> Result<String, String> {
    let (mut hello, mut count, mut deltas, mut last) = (false, 0, 0, 0);
    while let Some(message) = events.next().await {
        let Message::Text(text) = message.map_err(|error| error.to_string())? else { continue };
        let frame: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if frame["type"] == "hello" {
            hello = true;
            continue;
        }
        let event = &frame["event"];
        let seq = event["seq"].as_u64().unwrap_or(0);
        if !hello || seq <= last {
            return Err(format!("event {seq} was received after {last}"));
        }
        last = seq;
        count += 1;
        if event["detail"]["turnId"] == turn_id {
            match event["type"].as_str() {
                Some("app-server.turn.message.delta") => deltas += 1,
                Some("app-server.turn.completed") if deltas == EXPECTED_DELTAS => {
                    return Ok(format!("{count} events, {deltas} deltas"));
                }
                Some("app-server.turn.completed") => {
                    return Err(format!("{deltas} of {EXPECTED_DELTAS} deltas were received"));
                }
                _ => {}
            }
        }
    }
    Err("the stream ended before the turn".to_owned())
}

fn closed_session(path: &Path) -> Result<String, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let registry: Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let sessions = registry["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if sessions.iter().any(|session| session["purpose"] == "smoke" && session["status"] == "closed") {
        Ok(format!("{} recorded sessions", sessions.len()))
    } else {
        Err("the closed session is missing".to_owned())
    }
}
