//! `codexd status`: asks the running daemon; if none answers, reads its state files.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{APP_SERVER_PATH, REQUESTS_PATH, pending_requests};
use super::failure::{EXIT_NO_DAEMON, Failure};
use super::format::{self, account_text};
use super::output::{self, Fact};
use super::runtime::runtime;
use super::terminal::{BAD, OutputTarget, WAITING};
use crate::client::{ClientError, DaemonClient};
use crate::config::Config;
use crate::storage;

pub(crate) fn run(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let base = &config.service.local_api_base;
    let client =
        DaemonClient::new(&config.service, output::print_warning).with_state_dir(&config.paths.state_dir);
    match runtime()?.block_on(client.status()) {
        Ok(mut status) => {
            if json {
                status["running"] = true.into();
                output::print_json(&status)?;
            } else {
                // A daemon that does not know its account or its requests still has a status.
                let runtime = runtime()?;
                let read = |path| runtime.block_on(client.get(path)).unwrap_or_default();
                let waiting = pending_requests(&read(REQUESTS_PATH)).count();
                let facts = running(&status, &read(APP_SERVER_PATH)["appServer"]["account"], waiting);
                output::print(&output::facts(&OutputTarget::stdout(), &facts))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (ClientError::Refused { .. } | ClientError::Token(_))) => {
            Err(Failure::new(format!("codexd at {base} did not report its status: {error}")))
        }
        Err(error) => {
            // If the locks cannot be read, the state files still can.
            let holder = holder(config).unwrap_or_default();
            let message = match &holder {
                Some(holder) => format!(
                    "The directories are in use by {holder}, which does not answer at {base}; check whether it was \
                     started with another --local-api-base."
                ),
                None => format!("No codexd answers: {error}."),
            };
            let snapshot = snapshot(config);
            if json {
                let service = json!({
                    // Only a running daemon knows it.
                    "codex": null,
                    "configuredBaseUrl": config.service.local_api_base.as_str(),
                    "eventStreamPath": config.service.event_stream_path,
                    "eventStreamUrl": null,
                    "keepAwake": null,
                    "listening": false,
                    "notReadyReason": message,
                    "ready": false,
                    "resolvedBaseUrl": null,
                    "websocketClients": 0,
                });
                output::print_json(&json!({
                    "service": service,
                    "snapshot": snapshot,
                    "running": false,
                    "message": message,
                }))?;
            } else {
                output::print_error(&format!("codexd: {message}"));
                output::print(&output::table(&stopped(config, &snapshot, holder)))?;
            }
            Ok(ExitCode::from(EXIT_NO_DAEMON))
        }
    }
}

/// The snapshot in the shape of the daemon's response, from the settings and the state files. A file that is missing or
/// unreadable is `null`.
fn snapshot(config: &Config) -> Value {
    let read = |path: &Path| {
        let text = std::fs::read(path).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    };
    let paths = &config.paths;
    let mut daemon = read(&paths.daemon_state);
    if let Some(child) = daemon.as_mut().and_then(|daemon| daemon.get_mut("child")?.as_object_mut()) {
        // The file has only what changes; the rest comes from the settings.
        let server = config.view().server;
        for (name, value) in [
            ("strategy", json!(server.child_strategy)),
            ("mode", json!(server.mode)),
            ("endpoint", json!(server.endpoint)),
            ("command", json!(server.child_command)),
            ("args", json!(server.child_args)),
            ("cwd", json!(server.child_cwd)),
        ] {
            child.entry(name).or_insert(value);
        }
    }
    json!({
        "config": config.view(),
        "identity": read(&paths.identity),
        "daemon": daemon,
        "sessionRegistry": read(&paths.session_registry),
        "recentEvents": read(&paths.recent_events),
    })
}

fn running(status: &Value, account: &Value, waiting: usize) -> Vec<Fact<'static>> {
    let (service, snapshot) = (&status["service"], &status["snapshot"]);
    let daemon = &snapshot["daemon"];
    let paths = &snapshot["config"]["paths"];
    let codex = &service["codex"];
    let is_well = matches!(codex["state"].as_str(), None | Some("ready"));
    let (turns, turns_style) = match service["ready"].as_bool() {
        Some(true) if is_well => ("accepted".to_owned(), Style::new()),
        Some(true) => ("fail in the current state of Codex".to_owned(), BAD),
        _ => (format!("rejected: {}", text(&service["notReadyReason"])), BAD),
    };
    let started: Option<Timestamp> = daemon["startedAt"].as_str().and_then(|time| time.parse().ok());
    let seconds = started.map_or(0, |time| Timestamp::now().as_second().saturating_sub(time.as_second()));
    let up = format::uptime(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let mut rows = vec![
        ("codexd", format!("up {up}, PID {}", text(&daemon["pid"]))),
        ("version", text(&snapshot["config"]["version"])),
        ("address", text(&service["resolvedBaseUrl"])),
        (
            "events",
            format!("{}, {} clients", text(&service["eventStreamUrl"]), text(&service["websocketClients"])),
        ),
        ("app-server", child(&daemon["child"], codex["demo"] == true)),
        ("codex", codex_status_text(codex)),
        ("account", account_text(account)),
        ("turns", turns),
        ("sessions", sessions(&snapshot["sessionRegistry"])),
    ];
    let requests = match waiting {
        0 => None,
        1 => Some("1 request of Codex; see it with: codexd requests".to_owned()),
        count => Some(format!("{count} requests of Codex; see them with: codexd requests")),
    };
    rows.extend(requests.map(|requests| ("waiting", requests)));
    rows.extend([("logs", text(&paths["logsDir"])), ("state", text(&paths["stateDir"]))]);
    let events = text(&paths["structuredEventLogPath"]);
    if Path::new(&events).parent() != Some(Path::new(&text(&paths["logsDir"]))) {
        rows.push(("event log", events));
    }
    let notes = codex["notes"].as_array().into_iter().flatten();
    rows.extend(notes.map(|note| ("note", text(note))));
    let mut facts: Vec<_> = rows.into_iter().map(|(name, value)| Fact::plain(name, value)).collect();
    for fact in &mut facts {
        fact.style = match fact.name {
            "turns" => turns_style,
            "codex" if !is_well => BAD,
            "waiting" | "note" => WAITING,
            _ => Style::new(),
        };
    }
    facts
}

/// Describes the state of Codex with the daemon's message and the command that fixes it.
pub(super) fn codex_status_text(codex: &Value) -> String {
    let message = text(&codex["message"]);
    match codex["command"].as_str() {
        Some(command) => format!("{message} Type: {command}"),
        None => message,
    }
}

/// The process that holds the lock of the state or the logs directory; `None` if none does.
pub(super) fn holder(config: &Config) -> std::io::Result<Option<String>> {
    let (state, logs) = (storage::holder(&config.paths.state_dir)?, storage::holder(&config.paths.logs_dir)?);
    Ok(state.or(logs))
}

fn stopped(config: &Config, snapshot: &Value, holder: Option<String>) -> Vec<(&'static str, String)> {
    let daemon = &snapshot["daemon"];
    let last = match (holder, daemon["started"].as_bool(), &daemon["stoppedAt"]) {
        (Some(holder), ..) => format!("does not answer; the directories are in use by {holder}"),
        (None, Some(true), _) => {
            format!("did not shut down cleanly; last updated at {}", text(&daemon["updatedAt"]))
        }
        (None, Some(false), at) => format!("stopped at {}", text(at)),
        (None, None, _) => "has never run with these directories".to_owned(),
    };
    vec![
        ("codexd", last),
        ("app-server", child(&daemon["child"], false)),
        ("sessions", sessions(&snapshot["sessionRegistry"])),
        ("logs", config.paths.logs_dir.display().to_string()),
        ("state", config.paths.state_dir.display().to_string()),
    ]
}

fn child(child: &Value, is_demo: bool) -> String {
    let mut parts = vec![text(&child["status"])];
    if let Some(pid) = child["pid"].as_u64() {
        parts.push(format!("PID {pid}"));
    }
    if is_demo {
        parts.push("the demo, not Codex".to_owned());
    } else if let Some(version) = child["version"].as_str() {
        parts.push(format!("Codex {version}"));
    }
    if let Some(error) = child["lastError"].as_str() {
        parts.push(error.to_owned());
    }
    parts.join(", ")
}

fn sessions(registry: &Value) -> String {
    let sessions = registry["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |matches: fn(&Value) -> bool| sessions.iter().filter(|session| matches(session)).count();
    let active = count(|session| session["status"] == "active");
    let busy = count(|session| session["status"] == "active" && !session["currentTurnId"].is_null());
    format!("{}, {active} active, {busy} busy", sessions.len())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
