//! What follows when a part ends, measured: the table in `docs/faults.md`.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::app_server::AppServer;
use super::other_client::client::Client;
use super::outlive::ends_on_disk;
use super::terminal::Background;
use super::{create_session, submit};
use crate::duplex::pending_request;
use crate::support::codex::CodexHome;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{get, post};
use crate::support::model::MockModel;
use crate::support::skip::{is_required, skip};
use crate::support::wait::{wait_until, wait_until_async};

/// The environment variable that enables the test, which needs a machine that is not busy with other tests.
const ENABLED: &str = "CODEXD_TEST_FAULTS";

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    CodexdStopped,
    CodexdKilled,
    ServerStopped,
    ServerKilled,
    Terminal,
    Model,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    Idle,
    Answering,
    Approving,
}

/// How codexd uses the app-server, and whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    Spawn,
    Shared,
    SharedTheirs,
    External,
}

const PARTS: [(Part, &str); 6] = [
    (Part::CodexdStopped, "codexd, SIGTERM"),
    (Part::CodexdKilled, "codexd, SIGKILL"),
    (Part::ServerStopped, "app-server, SIGTERM"),
    (Part::ServerKilled, "app-server, SIGKILL"),
    (Part::Terminal, "terminal, SIGKILL"),
    (Part::Model, "model, connections closed"),
];
const MOMENTS: [(Moment, &str); 3] = [
    (Moment::Idle, "no turn runs"),
    (Moment::Answering, "the model answers"),
    (Moment::Approving, "an approval waits"),
];
const USES: [(Use, &str); 4] = [
    (Use::Spawn, "`spawn`"),
    (Use::Shared, "`shared`"),
    (Use::SharedTheirs, "`shared`, turn of the terminal"),
    (Use::External, "`external`"),
];

const INTRODUCTION: &str = "\
# Faults

What follows for a turn when a part ends.
A test measures this table with Codex 0.171.0 and writes it; it is not edited by hand.

- What nothing else starts again is started again: codexd by its service manager, an external app-server by its owner; the model is back after codexd has reported that Codex is offline, or that the turn has ended.
- *turn* is how the turn of that moment ends, as codexd and the files of Codex record it in the end (under `spawn`, a turn that was cut off is `failed` until codexd has read its thread); *request* is what becomes of the approval that waits; *next* is how the next turn of the session ends.
- A *kept* request has the same `requestId` afterwards, and the answer given then counts.
- A *terminal* is another client of the app-server.
- codexd has `--drain-timeout 0`; by default its own turns have 5 seconds to end at SIGTERM.

";

/// What exists in one measurement; the fields are dropped in this order.
struct Stage {
    daemon: Option<Daemon>,
    /// The daemons that have ended; the end of one would end the app-server that it started.
    ended: Vec<Daemon>,
    other: Option<Client>,
    server: Option<AppServer>,
    session: Value,
    _background: Background,
    home: CodexHome,
    model: Option<MockModel>,
    model_address: SocketAddr,
    using: Use,
}

fn builder(using: Use, home: &CodexHome) -> DaemonBuilder {
    match using {
        Use::Spawn => Daemon::builder().real(home),
        Use::Shared | Use::SharedTheirs => {
            Daemon::builder().real(home).arg("--server-strategy").arg("shared")
        }
        Use::External => Daemon::builder().external("unix://").env("CODEX_HOME", home.path()),
    }
}

async fn ready(daemon: &Daemon) {
    wait_until_async("a daemon that is ready", async || {
        (get(daemon, "/healthz").await.json["service"]["ready"] == true).then_some(())
    })
    .await;
}

impl Stage {
    async fn start(using: Use) -> Self {
        let model = MockModel::start();
        let home = CodexHome::builder(&model)
            .approval_policy("on-request")
            .sandbox_mode("read-only")
            .retries(0)
            .build();
        let background = Background::of(&home);
        let server = match using {
            Use::External => Some(AppServer::on_control_socket(&home).await),
            _ => None,
        };
        let daemon = builder(using, &home).start().await;
        ready(&daemon).await;
        let other = match using {
            Use::Spawn => None,
            _ => Some(Client::connect(&home).await),
        };
        let session = create_session(&daemon, &home, &json!({})).await;
        let stage = Self {
            daemon: Some(daemon),
            ended: Vec::new(),
            other,
            server,
            session,
            _background: background,
            home,
            model_address: model.address(),
            model: Some(model),
            using,
        };
        assert_eq!(stage.next_turn().await, "completed");
        if let Some(other) = &stage.other {
            let params = json!({ "threadId": stage.session["threadId"], "excludeTurns": true });
            other.call("thread/resume", params).await.unwrap();
        }
        stage
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    fn session_id(&self) -> &str {
        self.session["sessionId"].as_str().unwrap()
    }

    async fn start_turn(&self, prompt: &str) -> String {
        match &self.other {
            Some(other) if self.using == Use::SharedTheirs => {
                other.start_turn(&self.session["threadId"], prompt).await
            }
            _ => {
                let body = json!({ "sessionId": self.session_id(), "input": prompt });
                submit(self.daemon(), &body).await.data(202)["turnId"].as_str().unwrap().to_owned()
            }
        }
    }

    async fn status(&self, turn_id: &str) -> String {
        wait_until_async("the end of the turn", async || {
            let path = format!("/v1/codexd/sessions/{}/turns/{turn_id}?wait=1", self.session_id());
            let answer = get(self.daemon(), &path).await;
            let status = answer.json["data"]["turn"]["status"].as_str()?.to_owned();
            (status != "inProgress").then_some(status)
        })
        .await
    }

    async fn next_turn(&self) -> String {
        let body = json!({ "sessionId": self.session_id(), "input": "mock:deltas=1" });
        let accepted = wait_until_async("a turn that is accepted", async || {
            let answer = submit(self.daemon(), &body).await;
            (answer.status != 503).then(|| answer.data(202)["turnId"].as_str().unwrap().to_owned())
        })
        .await;
        self.status(&accepted).await
    }

    /// Brings the turn to the moment; returns its ID.
    async fn bring_to(&self, moment: Moment) -> Option<String> {
        match moment {
            Moment::Idle => None,
            Moment::Answering => {
                let turn_id = self.start_turn("mock:deltas=30 mock:delay=100").await;
                wait_until_async("the beginning of the answer", async || {
                    let events = self.daemon().events_on_disk();
                    let is_delta = |event: &Value| {
                        event["type"] == "app-server.turn.message.delta"
                            && event["detail"]["turnId"] == turn_id
                    };
                    events.iter().any(is_delta).then_some(())
                })
                .await;
                Some(turn_id)
            }
            Moment::Approving => {
                let turn_id = self.start_turn("mock:escalate=[true]").await;
                pending_request(self.daemon(), self.session_id()).await;
                Some(turn_id)
            }
        }
    }

    async fn end(&mut self, part: Part) {
        match part {
            Part::CodexdStopped => assert!(self.daemon.as_mut().unwrap().stop().await.status.success()),
            Part::CodexdKilled => drop(self.daemon.as_mut().unwrap().kill().await),
            Part::ServerStopped | Part::ServerKilled => {
                let signal = if part == Part::ServerStopped { Signal::TERM } else { Signal::KILL };
                match &mut self.server {
                    Some(server) => {
                        server.signal(signal);
                        if part == Part::ServerKilled {
                            self.start_server_again().await;
                        }
                    }
                    None => {
                        let status = get(self.daemon(), "/v1/codexd/status").await;
                        let pid = &status.data(200)["snapshot"]["daemon"]["child"]["pid"];
                        let pid = i32::try_from(pid.as_i64().unwrap()).unwrap();
                        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
                    }
                }
            }
            Part::Terminal => drop(self.other.take()),
            Part::Model => drop(self.model.take()),
        }
        if matches!(part, Part::CodexdStopped | Part::CodexdKilled) {
            let next = builder(self.using, &self.home).state_from(self.daemon()).start().await;
            self.ended.extend(self.daemon.replace(next));
        }
    }

    /// Waits until codexd has noticed that the model is gone: the turn waits for it, or has ended.
    async fn model_is_missed(&self, turn_id: &str) {
        wait_until("a model that is missed", || {
            let events = self.daemon().events_on_disk();
            let is_missed = |event: &Value| match event["type"].as_str().unwrap() {
                "app-server.state.changed" => event["detail"]["state"] == "offline",
                "app-server.turn.completed" => event["detail"]["turnId"] == turn_id,
                _ => false,
            };
            events.iter().any(is_missed).then_some(())
        })
        .await;
    }

    /// Waits until codexd has noticed that the app-server is gone.
    async fn connection_is_lost(&self) {
        wait_until("the end of the connection", || {
            let events = self.daemon().events_on_disk();
            events.iter().any(|event| event["type"] == "app-server.transport.closed").then_some(())
        })
        .await;
    }

    /// Starts an external app-server again once it has ended.
    async fn start_server_again(&mut self) {
        if let Some(server) = &mut self.server {
            server.wait_for_end().await;
            *server = AppServer::on_control_socket(&self.home).await;
        }
    }

    /// Answers the request of the turn if it still can be, and says what became of it.
    async fn answer(&self, turn_id: &str) -> String {
        let (answered, request) = wait_until_async("an answer", async || {
            let requests = get(self.daemon(), "/v1/codexd/requests").await;
            let requests = requests.data(200)["requests"].as_array().unwrap().clone();
            let request = requests.into_iter().find(|request| request["turnId"] == turn_id).unwrap();
            let path = format!("/v1/codexd/requests/{}", request["requestId"].as_str().unwrap());
            let answered = post(self.daemon(), &path, &json!({ "decision": "accept" })).await;
            // While nothing is known of it, it cannot be answered.
            (answered.status != 503).then_some((answered, path))
        })
        .await;
        if answered.status == 200 {
            return "kept".to_owned();
        }
        let resolved = get(self.daemon(), &request).await;
        format!("`{}`", resolved.data(200)["request"]["resolvedBy"].as_str().unwrap())
    }
}

/// Measures one cell.
async fn measure(part: Part, moment: Moment, using: Use) -> String {
    let theirs = using == Use::SharedTheirs;
    if part == Part::Terminal && using == Use::Spawn || theirs && moment == Moment::Idle {
        return "–".to_owned();
    }
    let mut stage = Stage::start(using).await;
    let turn_id = stage.bring_to(moment).await;
    stage.end(part).await;
    // SIGTERM ends an app-server on a pipe at once, a shared one when its turns have ended.
    if part == Part::ServerKilled || part == Part::ServerStopped && using == Use::Spawn {
        stage.connection_is_lost().await;
    }
    let mut cell = Vec::new();
    if let Some(turn_id) = turn_id.as_ref().filter(|_| moment == Moment::Approving) {
        cell.push(format!("request {}", stage.answer(turn_id).await));
    }
    if part == Part::ServerStopped {
        // It ends when its turns have ended, and those when their approvals are answered.
        stage.start_server_again().await;
    }
    if part == Part::ServerStopped {
        stage.connection_is_lost().await;
    }
    if part == Part::Model {
        if let Some(turn_id) = &turn_id {
            stage.model_is_missed(turn_id).await;
        }
        stage.model = Some(MockModel::start_at(stage.model_address));
    }
    if let Some(turn_id) = &turn_id {
        stage.status(turn_id).await;
    }
    let next = stage.next_turn().await;
    if let Some(turn_id) = &turn_id {
        // As the thread has it: a turn that was cut off is `failed` until the thread is read.
        let status = stage.status(turn_id).await;
        // Codex writes the same end for a turn that failed as for one that is complete.
        if let Some(on_disk) = ends_on_disk(&stage.home).get(turn_id).filter(|_| status != "failed") {
            assert_eq!(*on_disk, status, "{part:?} {moment:?} {using:?}");
        }
        cell.push(format!("turn `{status}`"));
    }
    cell.push(format!("next `{next}`"));
    cell.join("; ")
}

#[tokio::test]
async fn faults_have_the_documented_effects() {
    if !is_required(ENABLED) {
        return skip(ENABLED, "the table of faults", &format!("{ENABLED} is not set; .ci/full sets it"));
    }
    let rows = PARTS.iter().flat_map(|part| MOMENTS.iter().map(move |moment| (part, moment)));
    let cells =
        rows.clone().flat_map(|(part, moment)| USES.iter().map(move |using| (part.0, moment.0, using.0)));
    let cells = cells.map(|(part, moment, using)| measure(part, moment, using));
    let cells: Vec<String> = futures_util::stream::iter(cells).buffered(4).collect().await;
    let names: Vec<_> = USES.iter().map(|(_, name)| *name).collect();
    let mut document = format!("{INTRODUCTION}| what ends | while | {} |\n", names.join(" | "));
    let _ = writeln!(document, "|{}", " --- |".repeat(2 + USES.len()));
    for ((part, moment), cells) in rows.zip(cells.chunks(USES.len())) {
        let _ = writeln!(document, "| {} | {} | {} |", part.1, moment.1, cells.join(" | "));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    if std::env::var_os("CODEXD_UPDATE_DOCS").is_some() {
        fs::write(&path, &document).unwrap();
    }
    assert_eq!(document, fs::read_to_string(&path).unwrap_or_default(), "CODEXD_UPDATE_DOCS=1 writes it");
}
