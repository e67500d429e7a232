//! The daemon's own events, as the contract words them.

use serde_json::{Value, json};

use crate::app_server::{Closed, Exit, Setback, redact};
use crate::config::{ChildStrategy, Config};
use crate::journal::{Damage, Recovered};
use crate::state::{Draft, Level, Session, State, event_type};

/// How many characters of somebody's output a message quotes.
const PREVIEW: usize = 160;

pub(crate) fn daemon_started(config: &Config, daemon_id: &str) -> Draft {
    let server = &config.server;
    Draft::change(
        Level::Info,
        event_type::DAEMON_STARTED,
        format!("codexd started in {} mode.", server.mode.as_str()),
        json!({
            "endpoint": server.endpoint.to_string(),
            "localApiBase": config.service.local_api_base.as_str(),
            "strategy": server.strategy.as_str(),
            "pid": std::process::id(),
            "daemonId": daemon_id,
        }),
    )
}

pub(crate) fn daemon_stopped() -> Draft {
    Draft::change(Level::Info, event_type::DAEMON_STOPPED, "codexd stopped.", Value::Null)
}

pub(crate) fn child_external(config: &Config) -> Option<Draft> {
    let endpoint = &config.server.endpoint;
    (config.server.strategy == ChildStrategy::External).then(|| {
        Draft::change(
            Level::Info,
            event_type::CHILD_EXTERNAL,
            format!("codexd is pointing at external endpoint {endpoint}."),
            Value::Null,
        )
    })
}

pub(crate) fn child_started(config: &Config, pid: Option<u32>, generation: u64) -> Draft {
    let shown = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
    Draft::change(
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

pub(crate) fn child_spawn_failed(message: &str) -> Draft {
    Draft::change(Level::Error, event_type::CHILD_SPAWN_FAILED, message, Value::Null)
}

pub(crate) fn child_error(message: &str) -> Draft {
    Draft::change(Level::Error, event_type::CHILD_ERROR, message, Value::Null)
}

pub(crate) fn child_exited(exit: &Exit) -> Draft {
    let message = match (exit.code, &exit.signal) {
        (Some(code), _) if !exit.expected => format!("Codex child exited with code {code}."),
        (_, Some(signal)) => format!("Codex child exited after {signal}."),
        _ => "Codex child exited.".to_owned(),
    };
    let level = if exit.expected { Level::Info } else { Level::Error };
    let detail = json!({ "code": exit.code, "signal": exit.signal, "expected": exit.expected });
    Draft::change(level, event_type::CHILD_EXITED, message, detail)
}

pub(crate) fn child_stderr(text: &str, bytes: usize) -> Draft {
    let message = format!("stderr: {}", preview(&redact(text)));
    Draft::note(Level::Warn, "child.stderr", message, json!({ "bytes": bytes, "stream": "stderr" }))
}

/// The pause before the app-server is started again, from now on.
pub(crate) fn child_setback(setback: &Setback) -> Draft {
    let Setback { delay, deaths, cause, .. } = setback;
    let (level, event_type, message) = match setback.crash_loop {
        false => {
            let seconds = delay.as_secs_f32();
            let message = format!("{cause} The next try is in {seconds:.1} s.");
            (Level::Warn, event_type::CHILD_BACKOFF, message)
        }
        true => {
            let message = format!("{cause} It died {deaths} times in a row, so it is tried once a minute.");
            (Level::Error, event_type::CHILD_CRASH_LOOP, message)
        }
    };
    let exit = setback.exit.as_ref();
    let detail = json!({
        "delayMs": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        "until": format!("{:.3}", jiff::Timestamp::now() + *delay),
        "deaths": deaths,
        "cause": cause,
        "exitCode": exit.and_then(|exit| exit.code),
        "signal": exit.and_then(|exit| exit.signal.as_deref()),
        "stderrTail": setback.last_words,
    });
    Draft::change(level, event_type, message, detail)
}

pub(crate) fn connected(endpoint: &str, info: &Value, generation: u64) -> Draft {
    Draft::change(
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

pub(crate) fn connect_failed(endpoint: &str, message: &str) -> Draft {
    Draft::change(Level::Error, event_type::CONNECT_FAILED, message, json!({ "endpoint": endpoint }))
}

pub(crate) fn garbage(reason: &str, bytes: usize) -> Draft {
    let message = format!("The app-server sent {bytes} bytes that are no message: {reason}.");
    Draft::note(
        Level::Warn,
        "app-server.message.invalid",
        message,
        json!({ "bytes": bytes, "reason": reason }),
    )
}

pub(crate) fn request_refused(method: &str, params: &Value) -> Draft {
    Draft::note(
        Level::Warn,
        "app-server.request.refused",
        format!("Refused the app-server's request {method}: codexd has nobody to ask."),
        json!({
            "requestMethod": method,
            "threadId": params.get("threadId"),
            "turnId": params.get("turnId"),
            "itemId": params.get("itemId"),
        }),
    )
}

/// The end of a connection, and of every turn that it carried.
///
/// An end that was wanted and cut nothing off is no news.
pub(crate) fn closed(state: &State, closed: &Closed) -> Vec<Draft> {
    let missing: Vec<Draft> =
        state.sessions.busy().filter_map(|session| turn_missing(state, session, closed)).collect();
    if closed.expected && missing.is_empty() {
        return missing;
    }
    let exit = closed.exit.as_ref();
    let transport_closed = Draft::change(
        Level::Warn,
        event_type::TRANSPORT_CLOSED,
        format!("App-server transport closed via {}: {}", closed.source, closed.message),
        json!({
            "exitCode": exit.and_then(|exit| exit.code),
            "flushedTrailingMessage": closed.flushed_trailing_message,
            "signal": exit.and_then(|exit| exit.signal.as_deref()),
            "source": closed.source,
            "trailingMessageLength": closed.trailing_message_length,
        }),
    );
    std::iter::once(transport_closed).chain(missing).collect()
}

/// How the connection of an earlier life of the daemon ended, as far as anybody can know.
pub(crate) fn earlier_life() -> Closed {
    Closed {
        source: "daemon.restart",
        message: "codexd was started again".to_owned(),
        flushed_trailing_message: false,
        trailing_message_length: 0,
        exit: None,
        expected: true,
    }
}

fn turn_missing(state: &State, session: &Session, closed: &Closed) -> Option<Draft> {
    let turn_id = session.current_turn_id.as_ref()?;
    let child = &state.daemon.child;
    let exit = closed.exit.as_ref();
    Some(Draft::change(
        Level::Error,
        event_type::TURN_MISSING,
        format!("App-server transport closed before turn {turn_id} completed."),
        json!({
            "childExitCode": exit.and_then(|exit| exit.code).or(child.exit_code),
            "childPid": child.pid,
            "childSignal": exit.and_then(|exit| exit.signal.as_ref()).or(child.signal.as_ref()),
            "childStatus": child.status,
            "failureClass": "transport_closed_before_turn_completed",
            "flushedTrailingMessage": closed.flushed_trailing_message,
            "sessionId": session.session_id,
            "threadId": session.thread_id,
            "trailingMessageLength": closed.trailing_message_length,
            "transportCloseMessage": closed.message,
            "transportCloseSource": closed.source,
            "turnId": turn_id,
            "turnStatusAtClose": session.last_turn_status,
        }),
    ))
}

pub(crate) fn session_opened(session: &Session, resumed: bool) -> Draft {
    let (event_type, verb) = match resumed {
        true => (event_type::SESSION_RESUMED, "Resumed"),
        false => (event_type::SESSION_CREATED, "Created"),
    };
    let thread_id = session.thread_id.as_deref().unwrap_or_default();
    Draft::change(
        Level::Info,
        event_type,
        format!("{verb} session {} for thread {thread_id}.", session.session_id),
        json!({
            "purpose": session.purpose,
            "sessionId": session.session_id,
            "threadId": session.thread_id,
            "session": session,
        }),
    )
}

pub(crate) fn session_closed(session_id: &str) -> Draft {
    Draft::change(
        Level::Info,
        event_type::SESSION_CLOSED,
        format!("Closed session {session_id}."),
        json!({ "sessionId": session_id }),
    )
}

pub(crate) fn session_forgotten(session: &Session) -> Draft {
    let session_id = &session.session_id;
    Draft::change(
        Level::Info,
        event_type::SESSION_FORGOTTEN,
        format!("Forgot session {session_id}, which was closed at {}.", session.updated_at),
        json!({ "sessionId": session_id, "threadId": session.thread_id }),
    )
}

pub(crate) fn turn_accepted(session_id: &str, thread_id: &str, turn_id: &str) -> Draft {
    Draft::change(
        Level::Info,
        event_type::TURN_ACCEPTED,
        format!("Accepted turn {turn_id} for session {session_id}."),
        json!({ "sessionId": session_id, "threadId": thread_id, "turnId": turn_id }),
    )
}

/// Something about the files that the owner should know.
pub(crate) fn state_notice(message: String) -> Draft {
    Draft::note(Level::Warn, "state.recovered", message, Value::Null)
}

/// The log cannot be written.
pub(crate) fn storage_failed(reason: &str) -> Draft {
    let message =
        format!("The event log cannot be written ({reason}); nothing new is promised until it can.");
    Draft::note(Level::Error, "storage.failed", message, json!({ "reason": reason }))
}

/// The log can be written again.
pub(crate) fn storage_recovered(recovered: &Recovered) -> Draft {
    let (message, level) = match recovered.lost {
        None => ("The event log is written again; nothing is missing.".to_owned(), Level::Info),
        Some((first, last)) => {
            (format!("The event log is written again; the events {first} to {last} are lost."), Level::Error)
        }
    };
    let (first, last) = recovered.lost.unzip();
    Draft::note(level, "storage.recovered", message, json!({ "lostFrom": first, "lostThrough": last }))
}

/// Lines in the middle of the log cannot be read.
pub(crate) fn log_damaged(damage: &[Damage]) -> Draft {
    let parts: Vec<Value> = damage
        .iter()
        .map(|damage| {
            json!({
                "file": damage.path.to_string_lossy(),
                "afterSeq": damage.after,
                "beforeSeq": damage.before,
                "bytes": damage.bytes,
            })
        })
        .collect();
    let between = |damage: &Damage| match damage.before {
        Some(before) => format!("between event {} and event {before}", damage.after),
        None => format!("after event {}", damage.after),
    };
    let places: Vec<_> = damage.iter().take(5).map(between).collect();
    let more = if damage.len() > places.len() { " and in more places" } else { "" };
    let message = format!("The event log is damaged {}{more}; what stood there is lost.", places.join(", "));
    Draft::note(Level::Error, "log.damaged", message, json!({ "damage": parts }))
}

/// The beginning of a text on one line, 160 characters at most.
pub(crate) fn preview(text: &str) -> String {
    let mut flat = String::with_capacity(text.len().min(4 * PREVIEW));
    for word in text.split_whitespace() {
        if !flat.is_empty() {
            flat.push(' ');
        }
        flat.push_str(word);
        if flat.len() > 4 * PREVIEW {
            break;
        }
    }
    if flat.chars().nth(PREVIEW).is_some() {
        flat = flat.chars().take(PREVIEW - 3).collect();
        flat.push_str("...");
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_is_one_line_of_160_characters_at_most() {
        assert_eq!(preview("  a\n\tb  c "), "a b c");
        assert_eq!(preview(""), "");
        assert_eq!(preview(&"é".repeat(160)), "é".repeat(160));
        let long = preview(&"é".repeat(100_000));
        assert_eq!(long, format!("{}...", "é".repeat(157)));
    }
}
