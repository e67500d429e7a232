//! The execution of one turn: every notification between the response to `turn/start` and `turn/completed`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use super::control::{Control, Input, Turn};
use super::items;
use super::params::text_of;
use super::script::{End, Script, Tool};
use super::shared::Shared;
use super::threads::{Thread, ThreadState, TurnRecord};
use super::wire::{locked, now_ms};

/// A running turn. Each runs on a separate OS thread.
pub(super) struct TurnRunner {
    pub(super) thread: Arc<Thread>,
    pub(super) turn: Arc<Turn>,
    /// Dropped after `thread`, see [`Shared::threads`].
    pub(super) shared: Arc<Shared>,
    started: Instant,
    /// The output tokens to report: the number of deltas.
    tokens: u64,
}

/// Why a turn stops before the end of its script.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    Control(Control),
    /// Interrupted while the request with this id was open.
    InterruptedRequest(i64),
    /// The process is about to end, or the pipe is about to be closed.
    Closed,
}

const FAILURE_MESSAGE: &str = "We’re currently experiencing high demand, which may cause temporary errors.";

impl TurnRunner {
    /// Begins a turn on an idle thread, whose state the caller has locked. The thread is then busy, and is stored as
    /// busy.
    pub(super) fn begin(shared: &Arc<Shared>, thread: &Arc<Thread>, state: &mut ThreadState) -> Self {
        let turn = Arc::new(Turn::new(items::new_id()));
        state.active = Some(Arc::clone(&turn));
        state.failed = false;
        state.record.turns.push(TurnRecord {
            id: turn.id.clone(),
            status: "inProgress".to_owned(),
            items: Vec::new(),
            error: Value::Null,
            started_at: now_ms() / 1000,
            completed_at: None,
            duration_ms: None,
        });
        let runner = Self {
            shared: Arc::clone(shared),
            thread: Arc::clone(thread),
            turn,
            started: Instant::now(),
            tokens: 0,
        };
        runner.save(state);
        runner
    }

    /// Runs the turn to its end.
    pub(super) fn run(mut self, input: Input) {
        self.send_status();
        let turn = items::open_turn(&self.turn.id, Some(now_ms() / 1000));
        self.notify("turn/started", json!({ "threadId": self.thread.id, "turn": turn }));
        let mut script = self.send_user_items(vec![input]);
        loop {
            let stop = match self.run_script(&script) {
                Ok(message) => match self.turn.close() {
                    None => return self.finish("completed", message.as_ref(), script.end),
                    Some(control) => Stop::Control(control),
                },
                Err(stop) => stop,
            };
            match stop {
                Stop::Control(Control::Steer) => script = self.send_user_items(self.turn.take_steers()),
                Stop::Control(Control::Interrupt) => return self.finish("interrupted", None, End::Completed),
                Stop::InterruptedRequest(id) => {
                    let (shared, thread) = (Arc::clone(&self.shared), self.thread.id.clone());
                    self.finish("interrupted", None, End::Completed);
                    let params = json!({ "threadId": thread, "requestId": id });
                    return shared.wire.notify("serverRequest/resolved", params);
                }
                Stop::Closed => return,
            }
        }
    }

    /// Sends the items of the user and returns the script of the newest input.
    fn send_user_items(&mut self, inputs: Vec<Input>) -> Script {
        let mut script = Script::default();
        for input in inputs {
            script = Script::parse(&text_of(&input.content));
            if input.content.is_empty() {
                continue;
            }
            let mut item = items::user_message(&input.client_id, &input.content);
            self.begin_item(&mut item);
            self.complete_item(item);
        }
        script
    }

    /// Runs the script up to the end of the model's message, and returns the message if there was one.
    fn run_script(&mut self, script: &Script) -> Result<Option<Value>, Stop> {
        for line in &script.stderr {
            self.shared.log(line);
        }
        self.flood_stderr(script.stderr_flood);
        if script.retry {
            let more = json!({ "responseStreamDisconnected": { "httpStatusCode": null } });
            let error = turn_error("Reconnecting... 1/1", &more, &json!(FAILURE_MESSAGE));
            self.error(&error, true);
        }
        if script.reasoning {
            self.reason();
        }
        if script.plan {
            self.plan();
        }
        if script.diff {
            self.diff();
        }
        for tool in &script.tools {
            match tool {
                Tool::Command(text) => self.command(text),
                Tool::Spawn { seconds, how } => self.spawn(seconds, *how)?,
                Tool::Ask(ask) => self.ask(*ask)?,
            }
        }
        self.check()?;
        if script.end == End::Hang {
            return self.hang();
        }
        if script.end == End::Fail && script.delta_count() == 0 {
            return Ok(None);
        }
        let id = self.shared.item_id("msg");
        let mut item = items::agent_message(&id, "");
        self.begin_item(&mut item);
        let text = self.deltas(script, &id)?;
        self.tokens += script.delta_count();
        match script.end {
            End::HangDeltas => return self.hang(),
            End::CloseStdout | End::CloseStdin => return Err(self.close_pipe(script.end)),
            // The connection to the model failed before the message was complete.
            End::Fail => return Ok(None),
            End::LoseEverything => {
                item["text"] = json!(text);
                item["completedAtMs"] = json!(now_ms());
                self.add_to_history(item);
                return Ok(None);
            }
            _ => {}
        }
        item["text"] = json!(text);
        Ok(Some(self.complete_item(item)))
    }

    /// Returns an error if an interrupt or a steer has arrived.
    pub(super) fn check(&self) -> Result<(), Stop> {
        self.turn.pending_control().map_or(Ok(()), |control| Err(Stop::Control(control)))
    }

    fn hang(&self) -> Result<Option<Value>, Stop> {
        Err(self.turn.wait_for_control().map_or(Stop::Closed, Stop::Control))
    }

    /// Sends `item/started` and stores the time in the item.
    pub(super) fn begin_item(&self, item: &mut Value) {
        let now = json!(now_ms());
        item["startedAtMs"] = now.clone();
        item["completedAtMs"] = Value::Null;
        let params = json!({
            "item": item,
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "startedAtMs": now,
        });
        self.notify("item/started", params);
    }

    /// Sends `item/completed`, adds the item to the history and returns it.
    pub(super) fn complete_item(&mut self, mut item: Value) -> Value {
        let now = json!(now_ms());
        item["completedAtMs"] = now.clone();
        let params = json!({
            "item": item,
            "threadId": self.thread.id,
            "turnId": self.turn.id,
            "contentTokenCount": null,
            "completedAtMs": now,
        });
        self.notify("item/completed", params);
        self.add_to_history(item.clone());
        item
    }

    fn add_to_history(&self, item: Value) {
        let mut state = locked(&self.thread.state);
        let record = &mut state.record;
        if record.preview.is_empty() && item["type"] == "userMessage" {
            record.preview = item["content"].as_array().map(|content| text_of(content)).unwrap_or_default();
        }
        let is_message = item["type"] == "agentMessage";
        if let Some(turn) = record.turns.iter_mut().find(|turn| turn.id == self.turn.id) {
            turn.items.push(item);
        }
        // After the model's message comes the end of the turn, which is stored in any case.
        if !is_message {
            self.save(&mut state);
        }
    }

    /// Sets what the turn waits for, and sends the status.
    pub(super) fn set_flags(&self, flags: &[&'static str]) {
        locked(&self.thread.state).flags = flags.to_vec();
        self.send_status();
    }

    fn send_status(&self) {
        let status = locked(&self.thread.state).status();
        self.shared
            .wire
            .notify("thread/status/changed", json!({ "threadId": self.thread.id, "status": status }));
    }

    /// Sends `serverRequest/resolved`.
    pub(super) fn send_request_resolved(&self, id: i64) {
        self.notify("serverRequest/resolved", json!({ "threadId": self.thread.id, "requestId": id }));
    }

    /// The working directory of the thread.
    pub(super) fn cwd(&self) -> String {
        locked(&self.thread.state).record.settings.cwd.clone()
    }

    /// Whether the client is subscribed to the thread.
    pub(super) fn is_subscribed(&self) -> bool {
        self.thread.subscribed.load(Ordering::Acquire)
    }

    /// Sends a notification of this thread, if the client is subscribed.
    pub(super) fn notify(&self, method: &str, params: Value) {
        if self.is_subscribed() {
            self.shared.wire.notify(method, params);
        }
    }

    fn error(&self, error: &Value, will_retry: bool) {
        let params = json!({
            "error": error,
            "willRetry": will_retry,
            "threadId": self.thread.id,
            "turnId": self.turn.id,
        });
        self.notify("error", params);
    }

    fn save(&self, state: &mut ThreadState) {
        if let Err(error) = self.shared.threads.save(state) {
            self.shared.log(&format!("thread {} is not stored: {error}", self.thread.id));
        }
    }

    /// Stores the end of the turn and sends its last messages. The thread stays locked meanwhile, so that a concurrent
    /// `turn/start` begins after the last message of this turn.
    fn finish(self, status: &str, message: Option<&Value>, end: End) {
        self.turn.close_now();
        let (status, error) = if end == End::Fail {
            ("failed", turn_error(FAILURE_MESSAGE, &json!("internalServerError"), &Value::Null))
        } else {
            (status, Value::Null)
        };
        let mut state = locked(&self.thread.state);
        state.active = None;
        state.flags.clear();
        state.failed = status == "failed";
        let now = now_ms();
        state.record.updated_at = now / 1000;
        if status == "completed" {
            state.record.input_tokens += super::threads::Record::INPUT_TOKENS_PER_TURN;
            state.record.output_tokens += self.tokens;
        }
        let mut completed = Value::Null;
        if let Some(turn) = state.record.turns.iter_mut().find(|turn| turn.id == self.turn.id) {
            turn.status = status.to_owned();
            turn.error = error.clone();
            turn.completed_at = Some(now / 1000);
            turn.duration_ms = Some(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            completed = items::completed_turn(turn, message);
        }
        self.save(&mut state);
        if end != End::LoseEverything {
            let thread_id = &self.thread.id;
            if status == "completed" {
                let usage = items::token_usage(&state.record, self.tokens);
                let params = json!({ "threadId": thread_id, "turnId": self.turn.id, "tokenUsage": usage });
                self.notify("thread/tokenUsage/updated", params);
                self.notify("account/rateLimits/updated", json!({ "rateLimits": items::rate_limits() }));
            }
            let params = json!({ "threadId": thread_id, "status": state.status() });
            self.shared.wire.notify("thread/status/changed", params);
            if status == "failed" {
                self.error(&error, false);
            }
            if end != End::LoseCompletion {
                self.notify("turn/completed", json!({ "threadId": thread_id, "turn": completed }));
            }
        }
        drop(state);
        self.turn.finish();
    }
}

fn turn_error(message: &str, info: &Value, details: &Value) -> Value {
    json!({
        "message": message,
        "codexErrorInfo": info,
        "additionalDetails": details,
        "misalignment": null,
    })
}
