//! Sessions across restarts of the daemon and the app-server, the turn queue, and repeated requests.
//!
//! The tests start the fake app-server behind a shell pipe ([`RecordingAppServer`]). The pipe records each message from
//! the daemon and can drop or delay messages; the threads of the app-server are kept across restarts.

mod attachments;
mod busy;
mod drain;
mod held;
mod late;
mod not_before;
mod queue;
mod repeat;
mod restart;
mod settle;

use std::fs;
use std::path::PathBuf;

use hyper::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{SESSIONS, TURN, text};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{ApiResponse, get, post, request};
use crate::support::scratch;

/// The fake app-server behind a pipe that records all messages from the daemon, across restarts.
pub(crate) struct RecordingAppServer {
    directory: TempDir,
}

impl RecordingAppServer {
    pub(crate) fn new() -> Self {
        Self { directory: scratch::directory("recording") }
    }

    /// A daemon with this app-server.
    pub(crate) fn builder(&self) -> DaemonBuilder {
        self.builder_with_script(
            "\"$1\" record \"$0\" | { \"$1\" app-server --store \"$2\" || kill -KILL 0; }",
        )
    }

    /// A daemon that receives responses, but no notification about turns and no user message.
    fn builder_without_turn_events(&self) -> DaemonBuilder {
        self.builder_with_script(
            "\"$1\" record \"$0\" | \"$1\" app-server --store \"$2\" | grep --line-buffered -v -e emittedAtMs -e \
             '\"userMessage\"'",
        )
    }

    /// A daemon that cannot identify user messages, in notifications or in threads.
    ///
    /// Only the response to `turn/start` identifies the turn of a submission.
    pub(crate) fn builder_without_user_messages(&self) -> DaemonBuilder {
        self.builder_with_script(
            "\"$1\" record \"$0\" | \"$1\" app-server --store \"$2\" | sed -u \
             -e 's/\"userMessage\"/\"hidden\"/g' -e 's/\"clientId\":\"[^\"]*\"/\"clientId\":null/g'",
        )
    }

    /// A daemon that receives no notification of user messages; a thread that it reads contains them.
    pub(crate) fn builder_without_user_notifications(&self) -> DaemonBuilder {
        self.builder_with_script(
            "\"$1\" record \"$0\" | \"$1\" app-server --store \"$2\" | grep --line-buffered -v \
             '\"userMessage\".*emittedAtMs'",
        )
    }

    /// A daemon whose app-server receives each message 1.5 seconds after it was recorded.
    pub(crate) fn builder_with_delayed_input(&self) -> DaemonBuilder {
        self.builder_with_script(
            "\"$1\" record \"$0\" | while IFS= read -r line; do sleep 1.5; printf '%s\\n' \"$line\"; done | \"$1\" \
             app-server --store \"$2\"",
        )
    }

    fn builder_with_script(&self, script: &str) -> DaemonBuilder {
        let (recording, store) = (self.recording(), self.store());
        let program = fake_codex();
        Daemon::builder()
            .server("sh", &["-c", script, recording.to_str().unwrap(), program, store.to_str().unwrap()])
    }

    /// The file with all messages from the daemon.
    pub(crate) fn recording(&self) -> PathBuf {
        self.directory.path().join("recording")
    }

    /// The directory in which the app-server keeps its threads.
    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// The file of a thread with this extension.
    fn file(&self, thread_id: &Value, extension: &str) -> PathBuf {
        self.store().join(format!("{}.{extension}", text(thread_id)))
    }

    /// Returns the text of all threads that the app-server keeps.
    fn stored_threads(&self) -> String {
        let files = fs::read_dir(self.store()).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// Returns the params of all recorded calls of this method.
    pub(crate) fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.messages().into_iter().filter(|call| call["method"] == method);
        calls.map(|mut call| call["params"].take()).collect()
    }

    /// Returns the methods of all recorded messages, in order.
    fn methods(&self) -> Vec<String> {
        let messages = self.messages();
        messages.iter().filter_map(|message| message["method"].as_str()).map(str::to_owned).collect()
    }

    fn messages(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.recording()).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        // A killed process may have left an incomplete line before the first line of the next process.
        whole.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Starts a daemon with the state of `daemon`, which has ended, and the same app-server.
pub(crate) async fn restart(app_server: &RecordingAppServer, daemon: &Daemon) -> Daemon {
    app_server.builder().state_from(daemon).start().await
}

/// Requests a turn with additional fields; returns the response of any status.
pub(crate) async fn ask_with(daemon: &Daemon, session_id: &str, prompt: &str, fields: Value) -> ApiResponse {
    let mut body = json!({ "sessionId": session_id, "input": prompt });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(daemon, TURN, &body).await
}

/// Queues a turn; returns its queue ID.
pub(crate) async fn queue(daemon: &Daemon, session_id: &str, prompt: &str) -> String {
    let answer = ask_with(daemon, session_id, prompt, json!({ "whenBusy": "queue" })).await;
    let data = answer.data(202);
    assert_eq!((&data["accepted"], &data["turnId"]), (&json!(true), &Value::Null), "{}", answer.text);
    text(&data["queueId"])
}

/// Returns the queue IDs of the queued turns of a session.
async fn queued(daemon: &Daemon, session_id: &str) -> Vec<String> {
    let read = get(daemon, &format!("{SESSIONS}/{session_id}")).await;
    read.data(200)["queuedTurns"].as_array().unwrap().iter().map(|turn| text(&turn["queueId"])).collect()
}

/// Sends a POST with an `Idempotency-Key`.
async fn post_keyed(daemon: &Daemon, path: &str, key: &str, body: &Value) -> ApiResponse {
    request(daemon, Method::POST, path, &[("idempotency-key", key)], body.to_string()).await
}

/// Returns the events of this type in the log.
pub(crate) fn events_of(daemon: &Daemon, event_type: &str) -> Vec<Value> {
    let mut events = daemon.events_on_disk();
    events.retain(|event| event["type"] == event_type);
    events
}

/// Returns the IDs of the started turns, in order.
fn started_turns(daemon: &Daemon) -> Vec<String> {
    events_of(daemon, "app-server.turn.started")
        .iter()
        .map(|event| text(&event["detail"]["turnId"]))
        .collect()
}
