//! The work of the clients: turns of all kinds, approvals, interrupts, queues, and sessions that come and go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::{Answer, Method, NoAnswer, call};
use crate::followers::until_first_delta;
use crate::instance::{AppServer, Instance};
use crate::random::SeededRandom;
use crate::record::Latency;

const SESSIONS: &str = "/v1/codexd/sessions";
const TURN: &str = "/v1/codexd/turn";
/// How many operations a session is used for.
const OPERATIONS_PER_SESSION: u64 = 12;
/// How many keyed requests are kept, to be repeated.
const KEPT_KEYS: usize = 8;
/// How long a turn or a queue may take, restarts included.
const END_TIMEOUT: Duration = Duration::from_secs(240);
/// The statuses that a request may get while an app-server or a daemon is killed.
const UNAVAILABLE: [u16; 4] = [409, 502, 503, 504];

/// What a client does next, and how often of 100 times.
const OPERATIONS: [(Operation, u64); 12] = [
    (Operation::Answer, 28),
    (Operation::Command, 10),
    (Operation::LongOutput, 6),
    (Operation::Approve, 8),
    (Operation::LetApprovalExpire, 3),
    (Operation::Interrupt, 7),
    (Operation::Queue, 8),
    (Operation::Keyed, 8),
    (Operation::RepeatKey, 8),
    (Operation::Fault, 4),
    (Operation::Fork, 3),
    (Operation::Read, 7),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Answer,
    Command,
    LongOutput,
    Approve,
    LetApprovalExpire,
    Interrupt,
    Queue,
    Keyed,
    RepeatKey,
    Fault,
    Fork,
    Read,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Answer => "turn: answer",
            Self::Command => "turn: command",
            Self::LongOutput => "turn: long output",
            Self::Approve => "turn: approval answered",
            Self::LetApprovalExpire => "turn: approval expires",
            Self::Interrupt => "turn: interrupted",
            Self::Queue => "turns: queued",
            Self::Keyed => "turn: keyed",
            Self::RepeatKey => "keyed turn repeated",
            Self::Fault => "turn: fault of the app-server",
            Self::Fork => "session forked",
            Self::Read => "reads",
        }
    }

    fn random(random: &mut SeededRandom) -> Self {
        let mut number = random.below(OPERATIONS.iter().map(|(_, weight)| weight).sum());
        for (operation, weight) in OPERATIONS {
            match number.checked_sub(weight) {
                Some(rest) => number = rest,
                None => return operation,
            }
        }
        Self::Answer
    }

    /// The prompt that makes the app-server do it.
    fn prompt(self, app_server: AppServer, random: &mut SeededRandom) -> String {
        let faults =
            ["fail", "garbage", "long-line=200000", "lose-completion", "stderr=noise", "crash", "retry"];
        match (self, app_server) {
            (Self::Command, AppServer::Codex) => "mock:shell=[seq 1 300] mock:deltas=4",
            (Self::Command, AppServer::Fake) => "command=done reasoning plan diff spawn=1",
            (Self::LongOutput, AppServer::Codex) => "mock:deltas=150 mock:chars=400",
            (Self::LongOutput, AppServer::Fake) => "deltas=150 chars=400",
            (Self::Approve | Self::LetApprovalExpire, AppServer::Codex) => {
                "mock:shell=[echo approved] mock:deltas=2"
            }
            (Self::Approve | Self::LetApprovalExpire, AppServer::Fake) => "ask=command text=approved",
            (Self::Interrupt, AppServer::Codex) => "mock:hang",
            (Self::Interrupt, AppServer::Fake) => "hang",
            (Self::Queue, AppServer::Codex) => "mock:deltas=10 mock:delay=100",
            (Self::Queue, AppServer::Fake) => "deltas=10 delay=100",
            (Self::Fault, AppServer::Codex) => {
                ["mock:failed", "mock:cut", "mock:fail"][random.below(3) as usize]
            }
            (Self::Fault, AppServer::Fake) => faults[random.below(faults.len() as u64) as usize],
            (_, AppServer::Codex) => "mock:deltas=10 mock:delay=20",
            (_, AppServer::Fake) => "deltas=10 delay=20",
        }
        .to_owned()
    }
}

/// A request with an `Idempotency-Key` that was accepted.
struct KeyedTurn {
    key: String,
    body: String,
    turn_id: Value,
}

/// A client that works in one session at a time.
pub(crate) struct Client {
    instance: Arc<Instance>,
    random: SeededRandom,
    session_id: Option<String>,
    keyed: Vec<KeyedTurn>,
    /// Makes keys unique among the clients.
    number: u64,
    keys: u64,
}

impl Client {
    pub(crate) fn new(instance: Arc<Instance>, random: SeededRandom, number: u64) -> Self {
        Self { instance, random, session_id: None, keyed: Vec::new(), number, keys: 0 }
    }

    /// Creates a session and does one turn in it, so that everything that a first turn needs is there.
    pub(crate) async fn prepare(&mut self) {
        self.open(json!({})).await;
        self.perform(Operation::Answer).await;
    }

    /// Works until `stop` is true, with pauses of about this length between operations.
    pub(crate) async fn work(mut self, pause: Duration, mut stop: watch::Receiver<bool>) {
        let pause = pause.as_millis() as u64;
        loop {
            let waiting = self.random.milliseconds(pause / 2, pause * 3 / 2);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(waiting) => {}
            }
            let operation = Operation::random(&mut self.random);
            self.perform(operation).await;
            if self.random.below(OPERATIONS_PER_SESSION) == 0 {
                self.close().await;
            }
        }
    }

    async fn perform(&mut self, operation: Operation) {
        if self.session_id.is_none() {
            self.open(json!({})).await;
        }
        let Some(session_id) = self.session_id.clone() else { return };
        self.instance.record.count(operation.name());
        let prompt = operation.prompt(self.instance.plan.app_server, &mut self.random);
        let instance = Arc::clone(&self.instance);
        let policy = match operation {
            Operation::Approve | Operation::LetApprovalExpire => "untrusted",
            _ => "never",
        };
        let body = json!({ "sessionId": session_id, "input": prompt, "approvalPolicy": policy });
        match operation {
            Operation::Answer => {
                let submitted = submit(&instance, &body, None);
                if let Some(turn_id) = until_first_delta(&instance, &session_id, submitted).await {
                    wait_for_end(&instance, &session_id, &turn_id).await;
                }
            }
            Operation::Approve | Operation::LetApprovalExpire => {
                let Some(turn_id) = submit(&instance, &body, None).await else { return };
                if operation == Operation::Approve {
                    self.approve(&session_id).await;
                }
                wait_for_end(&instance, &session_id, &turn_id).await;
            }
            Operation::Interrupt => {
                let Some(turn_id) = submit(&instance, &body, None).await else { return };
                tokio::time::sleep(self.random.milliseconds(10, 800)).await;
                let interrupt = json!({ "sessionId": session_id });
                request(&instance, Method::POST, "/v1/codexd/turn/interrupt", Some(&interrupt)).await;
                // The turn of a restarted app-server may have ended before; a turn that hangs needs another try.
                if !ended_within(&instance, &session_id, &turn_id, Duration::from_secs(20)).await {
                    request(&instance, Method::POST, "/v1/codexd/turn/interrupt", Some(&interrupt)).await;
                }
                wait_for_end(&instance, &session_id, &turn_id).await;
            }
            Operation::Queue => self.queue(&session_id, body).await,
            Operation::Keyed => self.keyed(&session_id, &body).await,
            Operation::RepeatKey => self.repeat_key().await,
            Operation::Fork => {
                self.close().await;
                self.open(json!({ "forkFrom": session_id })).await;
            }
            Operation::Read => self.read(&session_id).await,
            Operation::Command | Operation::LongOutput | Operation::Fault => {
                if let Some(turn_id) = submit(&instance, &body, None).await {
                    wait_for_end(&instance, &session_id, &turn_id).await;
                }
            }
        }
    }

    async fn open(&mut self, mut body: Value) {
        self.session_id = None;
        if let Some(workspace) = &self.instance.workspace {
            body["cwd"] = json!(workspace);
        }
        body["sandbox"] = "danger-full-access".into();
        let answer = request(&self.instance, Method::POST, SESSIONS, Some(&body)).await;
        if let Some(Answer { status: 201, json }) = answer {
            self.session_id = json["data"]["session"]["sessionId"].as_str().map(str::to_owned);
            self.instance.record.count("session opened");
        }
    }

    async fn close(&mut self) {
        let Some(session_id) = self.session_id.take() else { return };
        let path = format!("{SESSIONS}/{session_id}?interrupt=true");
        request(&self.instance, Method::DELETE, &path, None).await;
        // Turns of a session that is not kept any longer cannot be repeated.
        self.keyed.clear();
        self.instance.record.count("session closed");
    }

    /// Accepts or declines the requests of the session that appear within a while.
    async fn approve(&mut self, session_id: &str) {
        let decision = if self.random.chance(70) { "accept" } else { "decline" };
        for _ in 0..20 {
            let path = format!("/v1/codexd/requests?sessionId={session_id}");
            let answer = request(&self.instance, Method::GET, &path, None).await;
            let requests = answer.map(|answer| answer.json["data"]["requests"].clone()).unwrap_or_default();
            let pending =
                requests.as_array().and_then(|all| all.iter().find(|one| one["status"] == "pending"));
            if let Some(id) = pending.and_then(|request| request["requestId"].as_str()) {
                let path = format!("/v1/codexd/requests/{id}");
                request(&self.instance, Method::POST, &path, Some(&json!({ "decision": decision }))).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Starts a turn, queues two more, and waits until all have ended.
    async fn queue(&mut self, session_id: &str, mut body: Value) {
        submit(&self.instance, &body, None).await;
        body["whenBusy"] = "queue".into();
        for _ in 0..2 {
            submit(&self.instance, &body, None).await;
        }
        let began = Instant::now();
        let path = format!("{SESSIONS}/{session_id}");
        while began.elapsed() < END_TIMEOUT {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let answer = request(&self.instance, Method::GET, &path, None).await;
            let Some(Answer { status: 200, json }) = answer else { continue };
            let data = &json["data"];
            if data["queuedTurns"] == json!([]) && data["session"]["currentTurnId"].is_null() {
                return;
            }
            if !data["session"]["held"].is_null() {
                request(&self.instance, Method::POST, &format!("{path}/queue/resume"), None).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        self.instance
            .record
            .fault(format!("the queue of session {session_id} is not empty after {END_TIMEOUT:?}"));
    }

    async fn keyed(&mut self, session_id: &str, body: &Value) {
        self.keys += 1;
        let key = format!("soak-{}-{}", self.number, self.keys);
        let Some(turn_id) = submit(&self.instance, body, Some(&key)).await else { return };
        wait_for_end(&self.instance, session_id, &turn_id).await;
        if self.keyed.len() == KEPT_KEYS {
            self.keyed.remove(0);
        }
        self.keyed.push(KeyedTurn { key, body: body.to_string(), turn_id: json!(turn_id) });
        self.repeat_key().await;
    }

    /// Repeats an accepted request with its key, which must give the same turn.
    async fn repeat_key(&mut self) {
        let count = self.keyed.len() as u64;
        if count == 0 {
            return;
        }
        let turn = &self.keyed[self.random.below(count) as usize];
        let base = self.instance.base().await;
        let Ok(answer) = call(&base, Method::POST, TURN, Some(&turn.key), &turn.body).await else { return };
        let again = &answer.json["data"]["turnId"];
        if !(answer.status == 202 && *again == turn.turn_id || UNAVAILABLE.contains(&answer.status)) {
            let text = format!(
                "the key {} gave turn {} and then {}: {}",
                turn.key, turn.turn_id, answer.status, answer.json
            );
            self.instance.record.fault(text);
        }
    }

    /// Reads what a page or a monitor reads.
    async fn read(&self, session_id: &str) {
        for path in [
            "/v1/codexd/status",
            "/describe",
            "/metrics",
            "/v1/codexd/events?limit=200",
            "/v1/codexd/requests",
            SESSIONS,
            &format!("{SESSIONS}/{session_id}"),
            "/v1/codexd/app-server",
            "/v1/codexd/hooks",
        ] {
            request(&self.instance, Method::GET, path, None).await;
        }
    }
}

/// Sends a request and records a fault for any status that neither success nor a kill explains.
async fn request(instance: &Instance, method: Method, path: &str, body: Option<&Value>) -> Option<Answer> {
    let base = instance.base().await;
    let body = body.map(Value::to_string).unwrap_or_default();
    let answer = match call(&base, method.clone(), path, None, &body).await {
        Ok(answer) => answer,
        Err(NoAnswer::Disconnected) => {
            // The daemon is being restarted; a daemon that is not is a fault.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let is_same = instance.running.borrow().as_ref().is_some_and(|running| running.base == base);
            if is_same && !instance.plan.restarts {
                instance.record.fault(format!("no response to {method} {path}"));
            }
            return None;
        }
        Err(NoAnswer::TimedOut) => {
            instance.record.fault(format!("no response to {method} {path} in time"));
            return None;
        }
    };
    // Codex forks a thread only when it has written its history, which a kill in the first turn prevents.
    let is_empty_fork =
        answer.json["message"].as_str().is_some_and(|message| message.contains("no rollout found"));
    if !(200..300).contains(&answer.status) && !UNAVAILABLE.contains(&answer.status) && !is_empty_fork {
        instance.record.fault(format!("{method} {path}: {} {}", answer.status, answer.json));
    }
    Some(answer)
}

/// Submits a turn and records the acknowledgement; returns the ID of the turn, `None` if none was started.
async fn submit(instance: &Instance, body: &Value, key: Option<&str>) -> Option<String> {
    let base = instance.base().await;
    let began = Instant::now();
    let answer = call(&base, Method::POST, TURN, key, &body.to_string()).await.ok()?;
    if answer.status != 202 {
        if !UNAVAILABLE.contains(&answer.status) {
            instance.record.fault(format!("POST {TURN}: {} {}", answer.status, answer.json));
        }
        return None;
    }
    instance.record.measured(Latency::Accept, began.elapsed());
    let id = |name: &str| answer.json["data"][name].as_str().map(str::to_owned);
    if let Some(queue_id) = id("queueId") {
        instance.record.entries().accepted_queued_turns.push(queue_id);
    }
    let turn_id = id("turnId")?;
    instance.record.entries().accepted_turns.push(turn_id.clone());
    Some(turn_id)
}

/// Waits until a turn has ended; one that does not is found by the verdict.
async fn wait_for_end(instance: &Instance, session_id: &str, turn_id: &str) {
    if !ended_within(instance, session_id, turn_id, END_TIMEOUT).await {
        instance.record.fault(format!("turn {turn_id} has not ended after {END_TIMEOUT:?}"));
    }
}

async fn ended_within(instance: &Instance, session_id: &str, turn_id: &str, limit: Duration) -> bool {
    let path = format!("{SESSIONS}/{session_id}/turns/{turn_id}?wait=20");
    let began = Instant::now();
    while began.elapsed() < limit {
        match request(instance, Method::GET, &path, None).await {
            Some(Answer { status: 200, json }) if json["data"]["turn"]["status"] != "inProgress" => {
                return true;
            }
            Some(Answer { status: 200, .. }) => {}
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
    false
}

/// Measures `GET /healthz` once a second until `stop` is true.
pub(crate) async fn check_health(instance: Arc<Instance>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let base = instance.base().await;
        let began = Instant::now();
        if call(&base, Method::GET, "/healthz", None, "").await.is_ok() {
            instance.record.measured(Latency::Healthz, began.elapsed());
        }
    }
}
