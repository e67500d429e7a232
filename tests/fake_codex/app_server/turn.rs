//! The play of one turn: every notification between the answer to `turn/start` and `turn/completed`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::{Value, json};

use super::control::{Call, Input, Turn};
use super::items;
use super::params::text_of;
use super::script::{End, Script, Tool};
use super::shared::Shared;
use super::threads::{Thread, ThreadState, TurnRecord};
use super::wire::{locked, now_ms};

/// A turn being played, on a thread of its own.
pub(super) struct Play {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Arc<Thread>,
    pub(super) turn: Arc<Turn>,
    started: Instant,
    /// Deltas so far, which are what the turn is said to have cost.
    tokens: u64,
}

/// Why a play leaves its script before the end.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    Call(Call),
    /// Interrupted while the request with this id was open.
    InterruptedRequest(i64),
    /// The process, or the pipe, has been asked to end.
    Gone,
}

const FAILURE: &str = "We’re currently experiencing high demand, which may cause temporary errors.";

impl Play {
    /// Begins a turn on an idle thread, whose state the caller has locked: from here on the thread is busy,
    /// and stored as such.
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
        let play = Self {
            shared: Arc::clone(shared),
            thread: Arc::clone(thread),
            turn,
            started: Instant::now(),
            tokens: 0,
        };
        play.save(state);
        play
    }

    /// Plays the turn to its end.
    pub(super) fn run(mut self, input: Input) {
        self.status_changed();
        let turn = items::open_turn(&self.turn.id, Some(now_ms() / 1000));
        self.notify("turn/started", json!({ "threadId": self.thread.id, "turn": turn }));
        let mut script = self.hear(vec![input]);
        loop {
            let stop = match self.perform(&script) {
                Ok(message) => match self.turn.close() {
                    None => return self.finish("completed", message.as_ref(), script.end),
                    Some(call) => Stop::Call(call),
                },
                Err(stop) => stop,
            };
            match stop {
                Stop::Call(Call::Steer) => script = self.hear(self.turn.take_steers()),
                Stop::Call(Call::Interrupt) => return self.finish("interrupted", None, End::Completed),
                Stop::InterruptedRequest(id) => {
                    let (shared, thread) = (Arc::clone(&self.shared), self.thread.id.clone());
                    self.finish("interrupted", None, End::Completed);
                    let params = json!({ "threadId": thread, "requestId": id });
                    return shared.wire.notify("serverRequest/resolved", params);
                }
                Stop::Gone => return,
            }
        }
    }

    /// The user's items, and the script of the newest: as with a model, it is the last word that counts.
    fn hear(&mut self, inputs: Vec<Input>) -> Script {
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

    /// Plays the script up to the end of the model's message, which comes back if there was one.
    fn perform(&mut self, script: &Script) -> Result<Option<Value>, Stop> {
        for word in &script.stderr {
            self.shared.log(word);
        }
        self.flood_stderr(script.stderr_flood);
        if script.retry {
            let more = json!({ "responseStreamDisconnected": { "httpStatusCode": null } });
            let error = turn_error("Reconnecting... 1/1", &more, &json!(FAILURE));
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
            // The connection to the model broke before the message was whole.
            End::Fail => return Ok(None),
            End::LoseEverything => {
                item["text"] = json!(text);
                item["completedAtMs"] = json!(now_ms());
                self.remember(item);
                return Ok(None);
            }
            _ => {}
        }
        item["text"] = json!(text);
        Ok(Some(self.complete_item(item)))
    }

    /// Stops for an interrupt or a steer that has come in.
    pub(super) fn check(&self) -> Result<(), Stop> {
        self.turn.called().map_or(Ok(()), |call| Err(Stop::Call(call)))
    }

    fn hang(&self) -> Result<Option<Value>, Stop> {
        Err(self.turn.wait_for_call().map_or(Stop::Gone, Stop::Call))
    }

    /// Sends `item/started` and notes the time in the item.
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

    /// Sends `item/completed`; the item becomes part of the history and comes back.
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
        self.remember(item.clone());
        item
    }

    fn remember(&self, item: Value) {
        let mut state = locked(&self.thread.state);
        let record = &mut state.record;
        if record.preview.is_empty() && item["type"] == "userMessage" {
            record.preview = item["content"].as_array().map(|content| text_of(content)).unwrap_or_default();
        }
        let is_message = item["type"] == "agentMessage";
        if let Some(turn) = record.turns.iter_mut().find(|turn| turn.id == self.turn.id) {
            turn.items.push(item);
        }
        // The model's message is followed by the end of the turn, which is stored in any case.
        if !is_message {
            self.save(&mut state);
        }
    }

    /// Says what the turn waits for.
    pub(super) fn set_flags(&self, flags: &[&'static str]) {
        locked(&self.thread.state).flags = flags.to_vec();
        self.status_changed();
    }

    fn status_changed(&self) {
        let status = locked(&self.thread.state).status();
        self.shared
            .wire
            .notify("thread/status/changed", json!({ "threadId": self.thread.id, "status": status }));
    }

    /// Says that a request of ours is over.
    pub(super) fn request_resolved(&self, id: i64) {
        self.notify("serverRequest/resolved", json!({ "threadId": self.thread.id, "requestId": id }));
    }

    /// The working directory of the thread.
    pub(super) fn cwd(&self) -> String {
        locked(&self.thread.state).record.settings.cwd.clone()
    }

    /// Whether the client still follows the thread.
    pub(super) fn is_heard(&self) -> bool {
        self.thread.subscribed.load(Ordering::Acquire)
    }

    /// Sends a notification of this thread, if its client still follows it.
    pub(super) fn notify(&self, method: &str, params: Value) {
        if self.is_heard() {
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

    /// Notes the end and says it. The thread stays locked meanwhile: a `turn/start` that comes now begins
    /// after the last message of this turn.
    fn finish(self, status: &str, message: Option<&Value>, end: End) {
        self.turn.close_now();
        let (status, error) = if end == End::Fail {
            ("failed", turn_error(FAILURE, &json!("internalServerError"), &Value::Null))
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
