//! The events of the app-server's process, of the connection to it, and of the health of Codex.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::preview;
use crate::ids::{RequestId, SessionId, ThreadId, TurnId};
use crate::state::Level::{self, Error, Info, Warn};
use crate::timestamp::Timestamp;

event_types! {
    /// The events of the app-server's process and of the connection to it.
    enum ChildEvent {
        /// The app-server is a process that codexd did not start.
        "child.external" => External {
            /// Its endpoint.
            endpoint: String = skip,
        } => Info, format!("codexd is pointing at external endpoint {endpoint}.");
        /// codexd is connected to the app-server that all programs of the user share.
        "child.joined" => Joined {
            /// The endpoint of its socket.
            endpoint: String,
            /// Its generation, counted from 1 since the daemon started.
            #[schemars(with = "u64")]
            generation: Option<u64> = default,
            /// The PID of the app-server; `null` where the system does not report it.
            pid: Option<u32> = default,
            /// Whether it is the app-server of the connection before.
            is_known: bool = default,
            /// Whether codexd started it, in this run or an earlier one.
            is_ours: bool = default,
        } => Info, {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            format!("codexd joined the shared app-server at {endpoint}, process {pid}.")
        };
        /// The process was started; it has not responded yet.
        "child.started" => Started {
            /// Its arguments.
            args: Vec<String> = default,
            /// The program.
            command: String = default,
            /// Its generation, counted from 1 since the daemon started.
            #[schemars(with = "u64")]
            generation: Option<u64> = default,
            /// Its PID.
            pid: Option<u32> = default,
        } => Info, {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            format!("Started Codex child process {pid}.")
        };
        /// The process could not be started.
        "child.spawn.failed" => SpawnFailed(text: FreeText) => Error, text.message.clone();
        /// The process failed while it ran.
        "child.error" => Error(text: FreeText) => Error, text.message.clone();
        /// A signal could not be sent to the process.
        "child.kill.failed" => KillFailed(text: FreeText) => Warn, text.message.clone();
        /// The connection could not be closed in order.
        "app-server.close.failed" => CloseFailed(text: FreeText) => Warn, text.message.clone();
        /// The process ended.
        "child.exited" => Exited {
            /// Its exit code; `null` when a signal ended it.
            code: Option<i32> = default,
            /// The name of the signal that ended it, such as `SIGKILL`.
            signal: Option<String> = default,
            /// Whether codexd ended it.
            expected: bool = default,
        } => if *expected { Info } else { Error }, exited(*code, signal.as_deref(), *expected);
        /// The process wrote to its stderr.
        "child.stderr" => Stderr {
            /// The text, without secrets.
            text: String = skip,
            /// The length of the output.
            bytes: usize,
            /// `stderr`.
            stream: String,
        } => Warn, format!("stderr: {}", preview(text));
        /// The process failed and is started again after a delay.
        "child.backoff" => Backoff(schedule: Box<RestartSchedule>) => Warn, {
            format!("{} The next try is in {:.1} s.", schedule.cause(), schedule.delay_seconds)
        };
        /// The process fails so often that it is tried once a minute.
        "child.crash_loop" => CrashLoop(schedule: Box<RestartSchedule>) => Error, {
            let (cause, failures) = (schedule.cause(), schedule.deaths);
            format!("{cause} It failed {failures} times in a row, so it is tried once a minute.")
        };
        /// The health of Codex changed.
        "app-server.state.changed" => CodexStateChanged {
            /// The name of the state.
            state: String,
            /// The state as a sentence.
            message: String = default,
            /// The command that fixes it, if there is one.
            command: Option<String> = default,
        } => if state == "ready" { Info } else { Warn }, match command {
            Some(command) => format!("{message} Type: {command}"),
            None => message.clone(),
        };
        /// The installed Codex is another than the one that runs.
        "app-server.installed.changed" => InstalledChanged {
            /// The file of the server command.
            path: String = default,
            /// The version that runs.
            version: Option<String> = default,
            /// The version of the file; `null` where it does not report one.
            installed_version: Option<String> = default,
        } => Info, {
            let running = version.as_deref().unwrap_or("another version");
            match installed_version {
                Some(installed) => format!("Codex {installed} is installed as {path}, but {running} runs."),
                None => format!("The program {path} has changed since Codex {running} was started."),
            }
        };
        /// codexd restarts the app-server deliberately.
        "app-server.restarting" => Restarting {
            /// The generation that ends.
            generation: u64,
            /// The reason, as the beginning of a sentence.
            reason: String,
        } => Info, format!("{reason}: restarting the app-server; sessions continue.");
        /// A restart that a client requested waits for the work of the app-server.
        "app-server.restart.waiting" => RestartWaiting {
            /// The generation that is to end.
            generation: u64,
            /// The turns that have not ended.
            turns: Vec<WaitedTurn> = default,
            /// The IDs of the requests that wait for an answer.
            requests: Vec<RequestId> = default,
            /// Whether the app-server was asked to end, and takes no new work.
            is_ending: bool = default,
        } => Info, match is_ending {
            true => "The app-server takes no new work, and exits when what other clients run has ended.".to_owned(),
            false => {
                let (turns, requests) = (counted(turns.len(), "turn"), counted(requests.len(), "request"));
                format!("The restart of the app-server waits for {turns} and {requests}.")
            }
        };
        /// An MCP server of a thread did not start.
        "app-server.mcp_server.failed" => McpServerFailed {
            /// The session of the thread, if it is known.
            session_id: Option<SessionId>,
            /// The thread.
            thread_id: ThreadId,
            /// The MCP server.
            name: String,
            /// The error.
            error: String,
        } => Warn, format!("MCP server \"{name}\" did not start: {}", preview(error));
        /// The app-server responded to `initialize`.
        "app-server.connected" => Connected {
            /// The endpoint, without secrets.
            endpoint: String = default,
            /// The generation of the connection, counted from 1 since the daemon started.
            #[schemars(with = "u64")]
            generation: Option<u64> = default,
            /// The app-server's `platformFamily`.
            platform_family: Option<Value> = default,
            /// The app-server's `platformOs`.
            platform_os: Option<Value> = default,
            /// The app-server's `userAgent`.
            user_agent: Option<Value> = default,
        } => Info, format!("Connected codexd to app-server {endpoint}.");
        /// The connection could not be made.
        "app-server.connect.failed" => ConnectFailed {
            /// The error.
            message: String = skip,
            /// The endpoint, without secrets.
            endpoint: String = default,
        } => Error, message.clone();
        /// The connection ended.
        "app-server.transport.closed" => TransportClosed {
            /// What happened, without its full stop.
            message: String = skip,
            /// The exit code of the process, if it is known.
            exit_code: Option<i32> = default,
            /// Whether the last bytes, which had no newline, were a complete message.
            flushed_trailing_message: bool = default,
            /// The signal that ended the process, if it is known.
            signal: Option<String> = default,
            /// Which part ended it, such as `stdout.end`.
            source: String = default,
            /// The number of bytes after the last newline.
            trailing_message_length: usize = default,
        } => Warn, format!("App-server transport closed via {source}: {message}");
        /// The app-server sent something that is not a valid message, or is too long.
        "app-server.message.invalid" => MessageInvalid {
            /// What it sent.
            message: String = skip,
            /// The length of what it sent.
            bytes: usize,
            /// Why it is not valid.
            reason: String,
            /// The method; only for a message that is too long, like the rest.
            method: Option<Option<String>> = default skip_serializing_if,
            /// Whether it is a request.
            is_request: Option<bool> = default skip_serializing_if,
            /// The thread that it names.
            thread_id: Option<Option<ThreadId>> = default skip_serializing_if,
            /// The turn that it names.
            turn_id: Option<Option<TurnId>> = default skip_serializing_if,
            /// The item that it names.
            item_id: Option<Option<String>> = default skip_serializing_if,
        } => Warn, format!("The app-server sent {bytes} bytes{message}.");
        /// A client called a method of the app-server through codexd; parameters and result are not recorded.
        "app-server.called" => Called {
            /// The method.
            method: String,
            /// The session whose thread the call was about.
            session_id: Option<SessionId> = default skip_serializing_if,
            /// Whether the app-server answered with a result.
            succeeded: bool,
            /// How long it took, in milliseconds.
            duration_ms: u64,
            /// Why it failed.
            error: Option<String> = default skip_serializing_if,
        } => if *succeeded { Info } else { Warn }, match error {
            None => format!("A client called {method}, which took {duration_ms} ms."),
            Some(error) => format!("A client called {method}, which failed after {duration_ms} ms: {}", preview(error)),
        };
        /// The app-server sent a request that no client can answer.
        "app-server.request.refused" => RequestRefused {
            /// The method of the request.
            request_method: String,
            /// Its `threadId`.
            thread_id: Option<Value>,
            /// Its `turnId`.
            turn_id: Option<Value>,
            /// Its `itemId`.
            item_id: Option<Value>,
        } => Warn, format!("Refused the app-server's request {request_method}: no client can answer it.");
    }
}

event_detail! {
    /// A turn that a restart of the app-server waits for.
    struct WaitedTurn {
        /// Its session, if it is known.
        session_id: Option<SessionId> = default,
        /// Its thread.
        thread_id: ThreadId,
        /// Its ID.
        turn_id: TurnId,
    }
}

/// A detail without members; the message is all that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct FreeText {
    /// The message.
    #[serde(skip)]
    pub message: String,
}

event_detail! {
    /// Why the process failed, and when it is started again.
    struct RestartSchedule {
        /// The delay before the next start, exactly.
        delay_seconds: f32 = skip,
        /// The delay before the next start, in milliseconds.
        delay_ms: u64 = default,
        /// The time of the next start, RFC 3339, UTC, milliseconds.
        #[schemars(with = "String")]
        until: Option<Timestamp> = default,
        /// The number of unexpected exits in a row.
        deaths: u64 = default,
        /// Why it failed, as a sentence.
        #[schemars(with = "String")]
        cause: Option<String> = default,
        /// Its exit code, if it has one.
        exit_code: Option<i32> = default,
        /// The name of the signal that ended it, if one did.
        signal: Option<String> = default,
        /// The last lines of its stderr, without secrets.
        stderr_tail: Vec<String> = default,
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn exited(code: Option<i32>, signal: Option<&str>, expected: bool) -> String {
    match (code, signal) {
        (Some(code), _) if !expected => format!("Codex child exited with code {code}."),
        (_, Some(signal)) => format!("Codex child exited after {signal}."),
        _ => "Codex child exited.".to_owned(),
    }
}

impl RestartSchedule {
    fn cause(&self) -> &str {
        self.cause.as_deref().unwrap_or_default()
    }
}
