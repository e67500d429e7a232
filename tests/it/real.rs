//! codexd with the real Codex app-server and an offline model.
//!
//! [`Stage`] holds everything that a test needs. The tests run the newest tested version of Codex; with the long tests,
//! those about differences between releases also run the previous one. Codex is installed with npm on first use.

mod account;
mod app_server;
mod attachments;
mod calls;
mod cli;
mod duplex;
mod external;
#[cfg(target_os = "linux")]
mod faults;
mod health;
mod held;
mod lifecycle;
mod long_lines;
mod mcp;
#[cfg(target_os = "linux")]
mod other_client;
#[cfg(target_os = "linux")]
mod outlive;
mod parameters;
#[cfg(target_os = "linux")]
mod restart;
#[cfg(target_os = "linux")]
mod sandbox;
mod sessions;
#[cfg(target_os = "linux")]
mod shared;
mod sub_agents;
mod supervision;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(target_os = "linux")]
mod terminal;
mod titles;
mod tools;
pub(crate) mod trust;
mod turns;
#[cfg(target_os = "linux")]
mod unheard;

use serde_json::{Value, json};

use crate::support::codex::CodexHome;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{ApiResponse, get, post};
use crate::support::model::MockModel;
use crate::support::websocket::EventStream;

/// A turn that waits in a command until [`Stage::end_waiting_command`]; what steers it is the next that the model gets.
///
/// Codex before 0.169 sends a steer only with the next request to the model, so it cannot end a model that hangs.
const WAITING_PROMPT: &str = "mock:shell=[until test -e released; do sleep 0.05; done]";

/// A daemon with its event stream, Codex home and model; the fields are dropped in this order.
struct Stage {
    events: EventStream,
    daemon: Daemon,
    home: CodexHome,
    model: MockModel,
}

impl Stage {
    /// Starts a daemon with the real Codex as its child.
    async fn start() -> Self {
        Self::start_with(|home| Daemon::builder().real(home)).await
    }

    /// Starts a daemon with this version of Codex as its child.
    async fn start_version(version: &str) -> Self {
        Self::start_with(|home| Daemon::builder().real_version(home, version)).await
    }

    /// Starts the daemon that `builder` configures for a new Codex home.
    async fn start_with(builder: impl FnOnce(&CodexHome) -> DaemonBuilder) -> Self {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let daemon = builder(&home).start().await;
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        Self { events, daemon, home, model }
    }

    /// Replaces the daemon, which has ended, with a new one on the same directories.
    async fn restart(self) -> Self {
        let Self { daemon, home, model, .. } = self;
        let daemon = Daemon::builder().real(&home).state_from(&daemon).start().await;
        let mut events = EventStream::connect(&daemon).await;
        events.hello().await;
        Self { events, daemon, home, model }
    }

    /// Creates a session in the workspace; returns its record.
    async fn session(&self, settings: &Value) -> Value {
        create_session(&self.daemon, &self.home, settings).await
    }

    /// Starts a turn; returns its ID.
    async fn start_turn(&self, session: &Value, prompt: &str) -> String {
        let body = json!({ "sessionId": session["sessionId"], "input": prompt });
        let answer = submit(&self.daemon, &body).await;
        let data = answer.data(202);
        assert_eq!(data["accepted"], true);
        data["turnId"].as_str().unwrap().to_owned()
    }

    /// Ends the command of [`WAITING_PROMPT`].
    fn end_waiting_command(&self) {
        std::fs::write(self.home.workspace().join("released"), "").unwrap();
    }

    /// Collects all events up to the end of this turn.
    async fn rest_of(&mut self, turn_id: &str) -> Turn {
        rest_of(&mut self.events, turn_id).await
    }

    /// Runs one turn to its end; returns its events.
    async fn turn(&mut self, session: &Value, prompt: &str) -> Turn {
        let turn_id = self.start_turn(session, prompt).await;
        self.rest_of(&turn_id).await
    }

    /// Returns the current record of a session.
    async fn record(&self, session: &Value) -> Value {
        record(&self.daemon, session).await
    }

    /// Stops the daemon and asserts that no process of it is left.
    async fn stop(&mut self) {
        let stopped = self.daemon.stop().await;
        assert!(stopped.status.success(), "{stopped:?}");
        #[cfg(target_os = "linux")]
        assert_eq!(self.daemon.survivors(), []);
    }
}

async fn create_session(daemon: &Daemon, home: &CodexHome, settings: &Value) -> Value {
    let mut body = json!({ "cwd": home.workspace() });
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let answer = post(daemon, "/v1/codexd/sessions", &body).await;
    answer.data(201)["session"].clone()
}

async fn submit(daemon: &Daemon, body: &Value) -> ApiResponse {
    post(daemon, "/v1/codexd/turn", body).await
}

async fn record(daemon: &Daemon, session: &Value) -> Value {
    let path = format!("/v1/codexd/sessions/{}", session["sessionId"].as_str().unwrap());
    get(daemon, &path).await.data(200)["session"].clone()
}

async fn rest_of(events: &mut EventStream, turn_id: &str) -> Turn {
    let ended =
        |event: &Value| event["type"] == "app-server.turn.completed" && event["detail"]["turnId"] == turn_id;
    Turn { events: events.collect_until("the end of the turn", ended).await }
}

/// The events of a turn that has ended.
struct Turn {
    events: Vec<Value>,
}

impl Turn {
    /// The final status of the turn.
    fn status(&self) -> &str {
        self.events.last().unwrap()["detail"]["status"].as_str().unwrap()
    }

    /// The events of this type.
    fn of(&self, event_type: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["type"] == event_type).collect()
    }

    /// The parameters of the notifications of this method that are recorded as `app-server.notification`.
    fn notifications(&self, method: &str) -> Vec<&Value> {
        let all = self.of("app-server.notification").into_iter().map(|event| &event["detail"]);
        all.filter(|detail| detail["notificationMethod"] == method).map(|detail| &detail["params"]).collect()
    }

    /// The items of this type in the notifications of this method.
    fn items(&self, method: &str, item_type: &str) -> Vec<&Value> {
        let all = self.notifications(method).into_iter().map(|params| &params["item"]);
        all.filter(|item| item["type"] == item_type).collect()
    }

    /// The concatenated message deltas.
    fn text(&self) -> String {
        let deltas = self.of("app-server.turn.message.delta");
        deltas.iter().map(|event| event["detail"]["delta"].as_str().unwrap()).collect()
    }

    /// The index of the first event of this type.
    fn position(&self, event_type: &str) -> usize {
        let position = self.events.iter().position(|event| event["type"] == event_type);
        position.unwrap_or_else(|| panic!("no {event_type} in {:?}", self.events))
    }
}
