//! The events of the app-server process and of the connection to it.

use serde_json::{Value, json};

use crate::codex::{Exit, Outline, RestartScheduled, redact};
use crate::config::{ChildStrategy, Config};
use crate::daemon::codex_health::{CodexHealth, CodexState};
use crate::daemon::events::detail::preview;
use crate::daemon::mcp_servers::FailedMcpServer;
use crate::state::{Level, NewEvent, event_type};

pub(crate) fn child_external(config: &Config) -> Option<NewEvent> {
    let endpoint = &config.server.endpoint;
    (config.server.strategy == ChildStrategy::External).then(|| {
        NewEvent::with_state_change(
            Level::Info,
            event_type::CHILD_EXTERNAL,
            format!("codexd is pointing at external endpoint {endpoint}."),
            Value::Null,
        )
    })
}

pub(crate) fn child_started(config: &Config, pid: Option<u32>, generation: u64) -> NewEvent {
    let shown = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    NewEvent::with_state_change(
        Level::Info,
        event_type::CHILD_STARTED,
        format!("Started Codex child process {shown}."),
        json!({
            "args": config.server.args,
            "command": config.server.command,
            "generation": generation,
            "pid": pid,
        }),
    )
}

pub(crate) fn child_spawn_failed(message: &str) -> NewEvent {
    NewEvent::with_state_change(Level::Error, event_type::CHILD_SPAWN_FAILED, message, Value::Null)
}

pub(crate) fn child_error(message: &str) -> NewEvent {
    NewEvent::with_state_change(Level::Error, event_type::CHILD_ERROR, message, Value::Null)
}

pub(crate) fn child_kill_failed(message: &str) -> NewEvent {
    NewEvent::with_state_change(Level::Warn, event_type::CHILD_KILL_FAILED, message, Value::Null)
}

pub(crate) fn close_failed(message: &str) -> NewEvent {
    NewEvent::without_state_change(Level::Warn, "app-server.close.failed", message, Value::Null)
}

pub(crate) fn child_exited(exit: &Exit) -> NewEvent {
    let message = match (exit.code, &exit.signal) {
        (Some(code), _) if !exit.expected => format!("Codex child exited with code {code}."),
        (_, Some(signal)) => format!("Codex child exited after {signal}."),
        _ => "Codex child exited.".to_owned(),
    };
    let level = if exit.expected { Level::Info } else { Level::Error };
    let detail = json!({ "code": exit.code, "signal": exit.signal, "expected": exit.expected });
    NewEvent::with_state_change(level, event_type::CHILD_EXITED, message, detail)
}

pub(crate) fn child_stderr(text: &str, bytes: usize) -> NewEvent {
    let message = format!("stderr: {}", preview(&redact(text)));
    NewEvent::without_state_change(
        Level::Warn,
        "child.stderr",
        message,
        json!({ "bytes": bytes, "stream": "stderr" }),
    )
}

/// The health of Codex has changed.
pub(crate) fn codex_state(health: &CodexHealth) -> NewEvent {
    let level = if health.state == CodexState::Ready { Level::Info } else { Level::Warn };
    let CodexHealth { state, message, command, .. } = health;
    let detail = json!({ "state": state.name(), "message": message, "command": command });
    NewEvent::with_state_change(level, event_type::CODEX_STATE_CHANGED, health.sentence(), detail)
}

/// codexd restarts the app-server deliberately.
pub(crate) fn app_server_restarting(generation: u64, reason: &str) -> NewEvent {
    let message = format!("{reason}: restarting the app-server; sessions continue.");
    let detail = json!({ "generation": generation, "reason": reason });
    NewEvent::with_state_change(Level::Info, event_type::APP_SERVER_RESTARTING, message, detail)
}

/// An MCP server of a thread did not start.
pub(crate) fn mcp_server_failed(
    session_id: Option<&str>,
    thread_id: &str,
    server: &FailedMcpServer,
) -> NewEvent {
    let FailedMcpServer { name, error } = server;
    let message = format!("MCP server \"{name}\" did not start: {}", preview(error));
    let detail = json!({ "sessionId": session_id, "threadId": thread_id, "name": name, "error": error });
    NewEvent::with_state_change(Level::Warn, event_type::MCP_SERVER_FAILED, message, detail)
}

/// The app-server is started again after a delay.
pub(crate) fn restart_scheduled(scheduled: &RestartScheduled) -> NewEvent {
    let RestartScheduled { delay, until, failures, reason, .. } = scheduled;
    let (level, event_type, message) = match scheduled.crash_loop {
        false => {
            let seconds = delay.as_secs_f32();
            let message = format!("{reason} The next try is in {seconds:.1} s.");
            (Level::Warn, event_type::CHILD_BACKOFF, message)
        }
        true => {
            let message =
                format!("{reason} It failed {failures} times in a row, so it is tried once a minute.");
            (Level::Error, event_type::CHILD_CRASH_LOOP, message)
        }
    };
    let exit = scheduled.exit.as_ref();
    let detail = json!({
        "delayMs": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        "until": format!("{until:.3}"),
        "deaths": failures,
        "cause": reason,
        "exitCode": exit.and_then(|exit| exit.code),
        "signal": exit.and_then(|exit| exit.signal.as_deref()),
        "stderrTail": scheduled.stderr_tail,
    });
    NewEvent::with_state_change(level, event_type, message, detail)
}

pub(crate) fn connected(endpoint: &str, info: &Value, generation: u64) -> NewEvent {
    NewEvent::with_state_change(
        Level::Info,
        event_type::CONNECTED,
        format!("Connected codexd to app-server {endpoint}."),
        json!({
            "endpoint": endpoint,
            "generation": generation,
            "platformFamily": info.get("platformFamily"),
            "platformOs": info.get("platformOs"),
            "userAgent": info.get("userAgent"),
        }),
    )
}

pub(crate) fn connect_failed(endpoint: &str, message: &str) -> NewEvent {
    NewEvent::with_state_change(
        Level::Error,
        event_type::CONNECT_FAILED,
        message,
        json!({ "endpoint": endpoint }),
    )
}

/// A message exceeded the size limit and was skipped.
pub(crate) fn message_skipped(bytes: usize, cap: usize, outline: &Outline, is_refused: bool) -> NewEvent {
    let reason = format!("it is longer than {cap} bytes (--line-cap) and was skipped");
    let what = match (outline.method.as_deref(), &outline.id) {
        (Some(method), Some(_)) => format!("request {method}"),
        (Some(method), None) => format!("notification {method}"),
        (None, Some(_)) => "response".to_owned(),
        (None, None) => "message".to_owned(),
    };
    let then = if is_refused { "; the request is refused" } else { "" };
    NewEvent::without_state_change(
        Level::Warn,
        "app-server.message.invalid",
        format!("The app-server sent {bytes} bytes, {what}: {reason}{then}."),
        json!({
            "bytes": bytes,
            "reason": reason,
            "method": outline.method,
            "isRequest": outline.method.is_some() && outline.id.is_some(),
            "threadId": outline.thread_id,
            "turnId": outline.turn_id,
            "itemId": outline.item_id,
        }),
    )
}

pub(crate) fn invalid_message(reason: &str, bytes: usize) -> NewEvent {
    let message = format!("The app-server sent {bytes} bytes that are not a valid message: {reason}.");
    NewEvent::without_state_change(
        Level::Warn,
        "app-server.message.invalid",
        message,
        json!({ "bytes": bytes, "reason": reason }),
    )
}
