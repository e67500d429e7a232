//! Sessions that outlive what is behind them, turns that wait, and requests that are repeated.

mod busy;
mod drain;
mod held;
mod late;
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
use crate::support::http::{Answer, get, post, request};
use crate::support::scratch;

/// The fake app-server behind a pipe that writes down what it is told, over all its lives.
pub(crate) struct RecordingAppServer {
    folder: TempDir,
}

impl RecordingAppServer {
    pub(crate) fn new() -> Self {
        Self { folder: scratch::directory("wiretap") }
    }

    /// A daemon with this app-server.
    pub(crate) fn builder(&self) -> DaemonBuilder {
        self.builder_with_script("tee -a \"$0\" | { \"$1\" app-server --store \"$2\" || kill -KILL 0; }")
    }

    /// A daemon that hears nothing of turns but the answers to its calls.
    fn builder_without_turn_events(&self) -> DaemonBuilder {
        self.builder_with_script(
            "tee -a \"$0\" | \"$1\" app-server --store \"$2\" | grep --line-buffered -v -e emittedAtMs -e \
             '\"userMessage\"'",
        )
    }

    /// A daemon that cannot tell what the user said from its items, so that the answer to `turn/start` alone tells which
    /// turn a submission became.
    pub(crate) fn builder_without_user_messages(&self) -> DaemonBuilder {
        self.builder_with_script(
            "tee -a \"$0\" | \"$1\" app-server --store \"$2\" | sed -u \
             -e 's/\"userMessage\"/\"hidden\"/g' -e 's/\"clientId\":\"[^\"]*\"/\"clientId\":null/g'",
        )
    }

    /// A daemon that is not told of the items that the user said; a turn that is asked for has them.
    pub(crate) fn builder_without_user_notifications(&self) -> DaemonBuilder {
        self.builder_with_script(
            "tee -a \"$0\" | \"$1\" app-server --store \"$2\" | grep --line-buffered -v \
             '\"userMessage\".*emittedAtMs'",
        )
    }

    /// A daemon whose app-server hears each message half a second after it was written down.
    pub(crate) fn builder_with_delayed_input(&self) -> DaemonBuilder {
        self.builder_with_script(
            "tee -a \"$0\" | while IFS= read -r line; do sleep 0.5; printf '%s\\n' \"$line\"; done | \"$1\" \
             app-server --store \"$2\"",
        )
    }

    fn builder_with_script(&self, script: &str) -> DaemonBuilder {
        let (heard, store) = (self.recording(), self.store());
        let program = fake_codex();
        Daemon::builder()
            .server("sh", &["-c", script, heard.to_str().unwrap(), program, store.to_str().unwrap()])
    }

    pub(crate) fn recording(&self) -> PathBuf {
        self.folder.path().join("heard")
    }

    /// Where the app-server keeps its threads.
    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The file of a thread, with this extension.
    fn file(&self, thread_id: &Value, extension: &str) -> PathBuf {
        self.store().join(format!("{}.{extension}", text(thread_id)))
    }

    /// The params of all calls of this method so far.
    pub(crate) fn calls(&self, method: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.recording()).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        // A process that was killed may have left half a line before the first one of the next.
        let calls = whole.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        calls.filter(|call| call["method"] == method).map(|mut call| call["params"].take()).collect()
    }
}

/// The daemon that comes after `daemon`, which has ended, with the same app-server.
pub(crate) async fn restart(app_server: &RecordingAppServer, daemon: &Daemon) -> Daemon {
    app_server.builder().state_from(daemon).start().await
}

/// Asks for a turn with more fields than the prompt.
pub(crate) async fn ask_with(daemon: &Daemon, session_id: &str, prompt: &str, fields: Value) -> Answer {
    let mut body = json!({ "sessionId": session_id, "input": prompt });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(daemon, TURN, &body).await
}

/// Queues a turn; its name in the queue.
pub(crate) async fn queue(daemon: &Daemon, session_id: &str, prompt: &str) -> String {
    let answer = ask_with(daemon, session_id, prompt, json!({ "whenBusy": "queue" })).await;
    let data = answer.data(202);
    assert_eq!((&data["accepted"], &data["turnId"]), (&json!(true), &Value::Null), "{}", answer.text);
    text(&data["queueId"])
}

/// The names of the turns that wait in a session.
async fn queued(daemon: &Daemon, session_id: &str) -> Vec<String> {
    let read = get(daemon, &format!("{SESSIONS}/{session_id}")).await;
    read.data(200)["queuedTurns"].as_array().unwrap().iter().map(|turn| text(&turn["queueId"])).collect()
}

/// POST with an `Idempotency-Key`.
async fn post_keyed(daemon: &Daemon, path: &str, key: &str, body: &Value) -> Answer {
    request(daemon, Method::POST, path, &[("idempotency-key", key)], body.to_string()).await
}

/// The events of this type in the log.
pub(crate) fn events_of(daemon: &Daemon, event_type: &str) -> Vec<Value> {
    let mut events = daemon.events_on_disk();
    events.retain(|event| event["type"] == event_type);
    events
}

/// The names of the turns that began, in their order.
fn started_turns(daemon: &Daemon) -> Vec<String> {
    events_of(daemon, "app-server.turn.started")
        .iter()
        .map(|event| text(&event["detail"]["turnId"]))
        .collect()
}
