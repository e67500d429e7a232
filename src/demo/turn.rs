//! A turn: the items that the prompt selects, and how it is interrupted and steered.
//!
//! Each turn runs on a separate OS thread, which ends with the turn. The reader of requests sends it [`Signal`]s.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::objects;
use super::shared::Shared;
use super::threads::{SharedThread, Signal, Thread, lock, now_ms};

const DELTA_PAUSE: Duration = Duration::from_millis(20);
/// The pause of the long answer, which leaves time to interrupt it.
const LONG_DELTA_PAUSE: Duration = Duration::from_millis(100);
const STEP_PAUSE: Duration = Duration::from_millis(300);
/// The answer to `hello`: ten deltas.
const HELLO: &str = "Hello! This is the demo of codexd, not Codex itself.";
const LONG_LINES: usize = 30;
/// The answer to everything else.
const TOUR: &str = include_str!("tour.md");
const COMMAND: &str = "make test";
const INPUT_TOKENS: u64 = 100;

/// The client interrupted the turn.
struct Interrupted;

/// A running turn.
pub(super) struct TurnRun {
    shared: Arc<Shared>,
    thread: SharedThread,
    /// The IDs of the thread and of the turn.
    ids: [Value; 2],
    pub(super) sender: Sender<Signal>,
    signals: Receiver<Signal>,
    /// Items of input that have not been reported.
    input: Vec<Value>,
    /// The ID of the open request to the client.
    request: Option<usize>,
    started_at_ms: u64,
    output_tokens: u64,
}

impl TurnRun {
    pub(super) fn new(shared: &Arc<Shared>, thread: &SharedThread, ids: [Value; 2], item: Value) -> Self {
        let (shared, thread, (sender, signals)) = (Arc::clone(shared), Arc::clone(thread), channel());
        let (input, request, started_at_ms, output_tokens) = (vec![item], None, now_ms(), 0);
        Self { shared, thread, ids, sender, signals, input, request, started_at_ms, output_tokens }
    }

    /// Runs the turn to its end.
    pub(super) fn run(mut self) {
        self.set_active(&[]);
        let turn = lock(&self.thread).turns.last().cloned();
        self.shared.notify("turn/started", &json!({ "threadId": self.ids[0], "turn": turn }));
        let prompt = self.report_input();
        let mut outcome = self.answer(&prompt);
        while !self.finish(outcome) {
            let addition = self.report_input();
            outcome = self.message(&format!("You added:\n\n> {addition}\n"), DELTA_PAUSE);
        }
    }

    /// Reports the input of the user; returns the text of the last one.
    fn report_input(&mut self) -> String {
        let mut prompt = String::new();
        for item in std::mem::take(&mut self.input) {
            let content = item["content"].as_array().into_iter().flatten();
            prompt = content.filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n");
            self.complete(self.begin(item));
        }
        prompt
    }

    fn answer(&mut self, prompt: &str) -> Result<Value, Interrupted> {
        match prompt.trim().to_lowercase().as_str() {
            "hello" => return self.message(HELLO, DELTA_PAUSE),
            "long" => {
                let line = |n| format!("{n}. This is line {n} of a long answer.\n");
                return self.message(&(1..=LONG_LINES).map(line).collect::<String>(), LONG_DELTA_PAUSE);
            }
            _ => {}
        }
        self.reasoning("**Planning the tour** of what a turn can contain")?;
        self.plan(0)?;
        let decision = self.command()?;
        self.plan(1)?;
        self.file_change()?;
        self.plan(2)?;
        let quoted = prompt.trim().replace('\n', "\n> ");
        let text = TOUR.replace("{decision}", decision).replace("{prompt}", &quoted);
        let message = self.message(&text, DELTA_PAUSE)?;
        if self.input.is_empty() {
            self.plan(3)?;
        }
        Ok(message)
    }

    /// Streams a message of the agent; a steer completes it with the text sent so far.
    fn message(&mut self, text: &str, pause: Duration) -> Result<Value, Interrupted> {
        let mut item = self.begin(objects::message());
        let mut sent = String::new();
        let mut deltas = text.split_inclusive(char::is_whitespace);
        while let (true, Some(delta)) = (self.input.is_empty(), deltas.next()) {
            self.notify("item/agentMessage/delta", json!({ "itemId": item["id"], "delta": delta }));
            sent.push_str(delta);
            self.output_tokens += 1;
            self.pause(pause)?;
        }
        item["text"] = json!(sent);
        Ok(self.complete(item))
    }

    fn reasoning(&mut self, text: &str) -> Result<(), Interrupted> {
        let mut item = self.begin(objects::reasoning());
        self.notify("item/reasoning/summaryPartAdded", json!({ "itemId": item["id"], "summaryIndex": 0 }));
        for delta in text.split_inclusive(' ') {
            let params = json!({ "itemId": item["id"], "delta": delta, "summaryIndex": 0 });
            self.notify("item/reasoning/summaryTextDelta", params);
            self.pause(DELTA_PAUSE)?;
        }
        item["summary"] = json!([text]);
        self.complete(item);
        Ok(())
    }

    /// Reports the plan with the first `done` steps completed.
    fn plan(&mut self, done: usize) -> Result<(), Interrupted> {
        let steps = ["Ask whether a command may run", "Change a file", "Explain what happened"];
        let status = |n: usize| ["pending", "inProgress", "completed"][(done + 1).saturating_sub(n).min(2)];
        let step = |(index, step)| json!({ "step": step, "status": status(index) });
        let plan: Vec<Value> = steps.iter().enumerate().map(step).collect();
        self.notify("turn/plan/updated", json!({ "explanation": "The tour of the demo", "plan": plan }));
        self.pause(STEP_PAUSE)?;
        Ok(())
    }

    /// Reports a command that never runs, after its approval unless the policy is `never`. Returns how it was decided.
    fn command(&mut self) -> Result<&'static str, Interrupted> {
        let start = lock(&self.thread).start.clone();
        let mut item = self.begin(objects::command(COMMAND, &start["cwd"]));
        let needs_approval = start["approvalPolicy"] != "never";
        let decision = if needs_approval { self.request_approval(&item)? } else { json!("accept") };
        let (status, outcome) = match &decision {
            Value::Null => ("failed", "not decided"),
            Value::String(name) if !name.starts_with("accept") => ("declined", "declined"),
            _ => ("completed", "approved"),
        };
        item["status"] = json!(status);
        if status == "completed" {
            let output = "42 tests passed; this output is invented.\n";
            let params = json!({ "itemId": item["id"], "delta": output });
            self.notify("item/commandExecution/outputDelta", params);
            item["aggregatedOutput"] = json!(output);
            (item["exitCode"], item["durationMs"]) = (json!(0), json!(0));
        }
        self.complete(item);
        if decision == "cancel" { Err(Interrupted) } else { Ok(outcome) }
    }

    /// Requests the approval of a command and waits for the decision; null means an error response.
    fn request_approval(&mut self, item: &Value) -> Result<Value, Interrupted> {
        self.set_active(&["waitingOnApproval"]);
        let arguments: Vec<&str> = COMMAND.split(' ').collect();
        let amended = json!({ "acceptWithExecpolicyAmendment": { "execpolicy_amendment": arguments } });
        let params = json!({
            "kind": "command", "threadId": self.ids[0], "turnId": self.ids[1], "itemId": item["id"],
            "startedAtMs": item["startedAtMs"], "environmentId": "local", "reason": "The demo never runs it.",
            "command": item["command"], "cwd": item["cwd"], "commandActions": item["commandActions"],
            "proposedExecpolicyAmendment": arguments, "availableDecisions": ["accept", amended, "cancel"],
        });
        let method = "item/commandExecution/requestApproval";
        self.request = Some(self.shared.request(method, &params, &self.sender));
        loop {
            if let Some(mut result) = self.pause(Duration::MAX)? {
                self.resolve_request();
                self.set_active(&[]);
                return Ok(result["decision"].take());
            }
        }
    }

    /// Reports a new file and the diff of the turn; no file is written.
    fn file_change(&mut self) -> Result<(), Interrupted> {
        let (name, line) = ("demo.txt", "This file was never written.\n");
        let path = format!("{}/{name}", lock(&self.thread).start["cwd"].as_str().unwrap_or_default());
        let mut item = self.begin(objects::file_change(&path, line));
        self.pause(STEP_PAUSE)?;
        item["status"] = json!("completed");
        self.complete(item);
        let head =
            format!("diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n");
        self.notify("turn/diff/updated", json!({ "diff": format!("{head}@@ -0,0 +1 @@\n+{line}") }));
        Ok(())
    }

    /// Waits for a signal, at most this long; queues input and returns the response of the client.
    fn pause(&mut self, pause: Duration) -> Result<Option<Value>, Interrupted> {
        match self.signals.recv_timeout(pause) {
            Ok(Signal::Interrupt) => return Err(Interrupted),
            Ok(Signal::Steer(item)) => self.input.push(item),
            Ok(Signal::Response(result)) => return Ok(Some(result)),
            Err(_) => {}
        }
        Ok(None)
    }

    fn begin(&self, mut item: Value) -> Value {
        item["startedAtMs"] = json!(now_ms());
        item["completedAtMs"] = Value::Null;
        self.notify("item/started", json!({ "item": item, "startedAtMs": item["startedAtMs"] }));
        item
    }

    /// Reports and stores a completed item.
    fn complete(&self, mut item: Value) -> Value {
        item["completedAtMs"] = json!(now_ms());
        let now = &item["completedAtMs"];
        self.notify(
            "item/completed",
            json!({ "item": item, "contentTokenCount": null, "completedAtMs": now }),
        );
        let mut thread = lock(&self.thread);
        let preview = &mut thread.start["thread"]["preview"];
        if *preview == "" {
            *preview = json!(item["content"][0]["text"].as_str().unwrap_or_default());
        }
        if let Some(items) = thread.turns.last_mut().and_then(|turn| turn["items"].as_array_mut()) {
            items.push(item.clone());
        }
        thread.save();
        item
    }

    /// Ends the turn and returns true; returns false if there is unanswered input.
    ///
    /// The thread is locked until the last notification is sent, so the next `turn/start` is handled after it.
    fn finish(&mut self, outcome: Result<Value, Interrupted>) -> bool {
        let thread = Arc::clone(&self.thread);
        let mut thread = lock(&thread);
        let (status, items) = match (self.pause(Duration::ZERO).and(outcome), self.input.is_empty()) {
            (Err(Interrupted), _) => ("interrupted", json!([])),
            (Ok(message), true) => ("completed", json!([message])),
            (Ok(_), false) => return false,
        };
        thread.running = None;
        thread.tokens = [thread.tokens[0] + INPUT_TOKENS, thread.tokens[1] + self.output_tokens];
        let now = json!(now_ms() / 1000);
        thread.start["thread"]["updatedAt"] = now.clone();
        let usage = objects::token_usage(thread.tokens, [INPUT_TOKENS, self.output_tokens]);
        self.notify("thread/tokenUsage/updated", json!({ "tokenUsage": usage }));
        let Some(turn) = thread.turns.last_mut() else { return true };
        turn["status"] = json!(status);
        turn["completedAt"] = now;
        turn["durationMs"] = json!(now_ms().saturating_sub(self.started_at_ms));
        let mut shown = objects::turn_view(turn, if status == "completed" { "summary" } else { "notLoaded" });
        shown["items"] = items;
        self.set_status(&mut thread, json!({ "type": "idle" }));
        thread.save();
        self.shared.notify("turn/completed", &json!({ "threadId": self.ids[0], "turn": shown }));
        self.resolve_request();
        true
    }

    /// Sends `serverRequest/resolved` for the open request to the client, if there is one.
    fn resolve_request(&mut self) {
        if let Some(id) = self.request.take() {
            let params = json!({ "threadId": self.ids[0], "requestId": id });
            self.shared.notify("serverRequest/resolved", &params);
        }
    }

    fn set_active(&self, flags: &[&str]) {
        self.set_status(&mut lock(&self.thread), json!({ "type": "active", "activeFlags": flags }));
    }

    fn set_status(&self, thread: &mut Thread, status: Value) {
        let params = json!({ "threadId": self.ids[0], "status": status });
        thread.start["thread"]["status"] = status;
        self.shared.notify("thread/status/changed", &params);
    }

    /// Sends a notification about this turn.
    fn notify(&self, method: &str, mut params: Value) {
        params["threadId"] = self.ids[0].clone();
        params["turnId"] = self.ids[1].clone();
        self.shared.notify(method, &params);
    }
}
