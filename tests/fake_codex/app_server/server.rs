//! The dispatcher: reads the lines of the client, responds to requests and starts turns.

use std::collections::HashSet;
use std::io::BufRead;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::control::Response;
use super::items;
use super::params::{Refusal, present, required, string, unknown_variant};
use super::shared::{Ending, Shared};
use super::wire;

/// The version of Codex that the server reports by default.
const VERSION: &str = "0.169.0";
/// The known methods, in the order of the error text for an unknown one.
const METHODS: &[&str] = &[
    "initialize",
    "thread/start",
    "thread/resume",
    "thread/fork",
    "thread/unsubscribe",
    "thread/backgroundTerminals/clean",
    "thread/loaded/list",
    "thread/read",
    "config/read",
    "thread/turns/list",
    "model/list",
    "turn/start",
    "turn/steer",
    "turn/interrupt",
    "account/rateLimits/read",
    "account/read",
];

/// Why the dispatcher stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stopped {
    /// The input ended or failed.
    EndOfInput,
    /// A script asked to stop reading.
    StopReading,
}

/// The connection; a process has one.
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) experimental: bool,
    pub(super) stop_reading: bool,
    initialized: bool,
    /// The queue of delayed responses, if startup directives ask for a delay.
    late: Option<Sender<(Instant, Value)>>,
}

impl Server {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let late = (!shared.startup.response_late.is_zero()).then(|| {
            let (sender, responses) = channel::<(Instant, Value)>();
            let shared = Arc::clone(shared);
            std::thread::spawn(move || {
                for (due, response) in responses {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    shared.wire.message(&response);
                }
            });
            sender
        });
        Self {
            shared: Arc::clone(shared),
            experimental: false,
            stop_reading: false,
            initialized: false,
            late,
        }
    }

    /// Serves until the input ends.
    pub(super) fn serve(&mut self, mut input: impl BufRead) -> Stopped {
        let mut line = Vec::new();
        while !self.stop_reading {
            line.clear();
            match input.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return Stopped::EndOfInput,
                Ok(_) => self.handle_line(&line),
            }
        }
        Stopped::StopReading
    }

    /// Responds to a request, at once or after the delay of the startup directives.
    pub(super) fn respond(&self, id: &Value, result: &Value) {
        self.send(wire::response(id, result));
    }

    /// Writes a response after `delay`, without blocking.
    pub(super) fn respond_after(&self, delay: Duration, id: &Value, result: &Value) {
        let (shared, response) = (Arc::clone(&self.shared), wire::response(id, result));
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            shared.wire.message(&response);
        });
    }

    fn send(&self, response: Value) {
        match &self.late {
            None => self.shared.wire.message(&response),
            Some(late) => {
                // The receiver exists as long as the process.
                let _ = late.send((Instant::now() + self.shared.startup.response_late, response));
            }
        }
    }

    /// Handles one line; a line that is not a message gets no response, like from Codex.
    fn handle_line(&mut self, line: &[u8]) {
        let message = serde_json::from_slice::<Value>(line).ok().filter(Value::is_object);
        let Some(message) = message else {
            if !line.trim_ascii().is_empty() {
                self.shared.log("ignored a line that is not a message");
            }
            return;
        };
        let id = message.get("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64());
        let method = message.get("method").and_then(Value::as_str);
        match (id, method) {
            (Some(id), Some(method)) => {
                if let Err(refusal) = self.request(id, method, message.get("params")) {
                    self.send(wire::error_response(id, refusal.code, &refusal.message));
                }
            }
            (None, Some("initialized")) if !message_has_id(&message) => self.after_initialized(),
            (Some(id), None) => self.take_response(id, &message),
            _ => {}
        }
    }

    fn take_response(&self, id: &Value, message: &Value) {
        let response = match (message.get("result"), message.get("error")) {
            (Some(result), _) => Response::Result(result.clone()),
            (None, Some(error)) => Response::Error(error.clone()),
            (None, None) => return,
        };
        if let Some(id) = id.as_i64() {
            self.shared.requests.deliver(id, response);
        }
    }

    fn request(&mut self, id: &Value, method: &str, params: Option<&Value>) -> Result<(), Refusal> {
        if method == "initialize" {
            return self.initialize(id, params);
        }
        if !self.initialized {
            return Err(Refusal::invalid("Not initialized"));
        }
        if self.shared.startup.without.iter().any(|missing| missing == method) {
            return Err(unknown_variant(method, METHODS));
        }
        match method {
            "thread/start" => self.thread_start(id, required(params)?),
            "thread/resume" => self.thread_resume(id, required(params)?),
            "thread/fork" => self.thread_fork(id, required(params)?),
            "thread/unsubscribe" => self.thread_unsubscribe(id, required(params)?),
            "thread/backgroundTerminals/clean" => self.clean_terminals(id, required(params)?),
            "thread/loaded/list" => {
                let result = json!({ "data": self.shared.threads.ids(), "nextCursor": null });
                self.respond(id, &result);
                Ok(())
            }
            "thread/read" => self.thread_read(id, required(params)?),
            "thread/turns/list" => self.turns_list(id, required(params)?),
            "turn/start" => self.turn_start(id, required(params)?),
            "turn/steer" => self.turn_steer(id, required(params)?),
            "turn/interrupt" => self.turn_interrupt(id, required(params)?),
            "model/list" => {
                let models =
                    [items::model("embedded-model", true), items::model("embedded-model-mini", false)];
                self.respond(id, &json!({ "data": models, "nextCursor": null }));
                Ok(())
            }
            // No directory is trusted or untrusted, and none has settings.
            "config/read" => {
                let config = json!({ "approval_policy": null, "sandbox_mode": null, "projects": null });
                self.respond(id, &json!({ "config": config, "origins": {}, "layers": [] }));
                Ok(())
            }
            "account/read" => {
                self.respond(id, &json!({ "account": null, "requiresOpenaiAuth": false }));
                Ok(())
            }
            "account/rateLimits/read" => {
                let limits = items::rate_limits();
                let result = json!({ "rateLimits": limits, "rateLimitsByLimitId": { "codex": limits } });
                self.respond(id, &result);
                Ok(())
            }
            other => Err(unknown_variant(other, METHODS)),
        }
    }

    fn initialize(&mut self, id: &Value, params: Option<&Value>) -> Result<(), Refusal> {
        let startup = self.shared.startup.clone();
        if startup.hang_initialize {
            return Ok(());
        }
        if startup.refuse_initialize {
            return Err(Refusal::invalid("initialize refused by a startup directive"));
        }
        if self.initialized {
            return Err(Refusal::invalid("Already initialized"));
        }
        let params = required(params)?;
        let Some(client) = params.get("clientInfo") else {
            return Err(Refusal::invalid("Invalid request: missing field `clientInfo`"));
        };
        let (name, version) = (string(client, "name")?, string(client, "version")?);
        if let Some(capabilities) = present(params, "capabilities") {
            self.experimental = capabilities.get("experimentalApi") == Some(&Value::Bool(true));
            let opted_out = capabilities.get("optOutNotificationMethods").and_then(Value::as_array);
            let opted_out: HashSet<String> = opted_out
                .into_iter()
                .flatten()
                .filter_map(|method| method.as_str().map(str::to_owned))
                .collect();
            self.shared.wire.opt_out(opted_out);
        }
        self.initialized = true;
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        let version_reported = startup.version.as_deref().unwrap_or(VERSION);
        let result = json!({
            "userAgent": format!("{name}/{version_reported} ({os}; {arch}) embedded ({name}; {version})"),
            "codexHome": self.shared.threads.home(),
            "platformFamily": std::env::consts::FAMILY,
            "platformOs": os,
        });
        self.respond(id, &result);
        if let Some(code) = startup.exit_after_initialize {
            self.shared.end(Ending::Exit(code));
        }
        if startup.flood {
            super::startup::flood(&self.shared);
        }
        self.stop_reading = startup.stop_reading;
        Ok(())
    }

    fn after_initialized(&self) {
        let params = json!({
            "status": "disabled",
            "serverName": "embedded",
            "installationId": items::new_id(),
            "environmentId": null,
        });
        self.shared.wire.notify("remoteControl/status/changed", params);
        if self.shared.startup.foreign_thread {
            super::startup::foreign_thread(&self.shared);
        }
    }
}

/// With an ID that is null or a fraction, a line is neither a request nor a notification.
fn message_has_id(message: &Value) -> bool {
    message.get("id").is_some()
}
