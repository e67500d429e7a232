//! A turn: the items that the prompt selects, and how it is interrupted and steered.
//!
//! Each turn runs on a thread of its own, which ends with the turn. [`Signal`]s reach it from the reader of requests.

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::objects;
use super::shared::Shared;
use super::signal::{Input, Signal};
use super::threads::{Thread, lock, now_ms};

const DELTA_PAUSE: Duration = Duration::from_millis(20);
/// The pause of the long answer, which leaves time to interrupt it.
const LONG_DELTA_PAUSE: Duration = Duration::from_millis(100);
const STEP_PAUSE: Duration = Duration::from_millis(300);
/// The answer to `hello`: ten words, and so ten deltas.
const HELLO: &str = "Hello! This is the demo of codexd, not Codex itself.";
const LONG_LINES: usize = 30;
/// The answer to everything else.
const TOUR: &str = include_str!("tour.md");
const COMMAND: &str = "make test";
const INPUT_TOKENS: u64 = 100;

/// Why an answer ends early.
enum Stop {
    Interrupted,
    Steered,
}

/// A running turn.
pub(super) struct TurnRun {
    pub(super) shared: Arc<Shared>,
    pub(super) thread: Arc<Mutex<Thread>>,
    /// Of the thread and of the turn.
    pub(super) ids: [Value; 2],
    pub(super) sender: Sender<Signal>,
    pub(super) signals: Receiver<Signal>,
    /// Input that has not been reported.
    pub(super) input: Vec<Input>,
    /// The request that waits for an answer.
    pub(super) request: Option<i64>,
    pub(super) started: Instant,
    pub(super) output_tokens: u64,
}

impl TurnRun {
    /// Runs the turn to its end.
    pub(super) fn run(mut self) {
        self.set_status(&json!({ "type": "active", "activeFlags": [] }));
        let turn = lock(&self.thread).turns.last().cloned();
        self.shared.notify("turn/started", &json!({ "threadId": self.ids[0], "turn": turn }));
        let prompt = self.report_input();
        let mut outcome = self.answer(&prompt);
        while !self.finish(outcome) {
            let addition = self.report_input();
            outcome = self.message(&format!("You added:\n\n> {addition}\n"), DELTA_PAUSE);
        }
    }

    /// Reports what the user sent; returns the text of the last input.
    fn report_input(&mut self) -> String {
        let mut prompt = String::new();
        for Input { content, client_id } in std::mem::take(&mut self.input) {
            let texts = content.as_array().into_iter().flatten().filter_map(|item| item["text"].as_str());
            prompt = texts.collect::<Vec<_>>().join("\n");
            let item = self.begin(objects::user_message(&client_id, &content));
            self.complete(item);
        }
        prompt
    }

    fn answer(&mut self, prompt: &str) -> Result<Value, Stop> {
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
        self.plan(3)?;
        Ok(message)
    }

    /// Streams a message of the agent; a steer completes it with what was sent so far.
    fn message(&mut self, text: &str, pause: Duration) -> Result<Value, Stop> {
        let mut item = self.begin(objects::message());
        let mut sent = String::new();
        for delta in text.split_inclusive(char::is_whitespace) {
            self.notify("item/agentMessage/delta", json!({ "itemId": item["id"], "delta": delta }));
            sent.push_str(delta);
            self.output_tokens += 1;
            self.pause(pause)?;
            if !self.input.is_empty() {
                break;
            }
        }
        item["text"] = json!(sent);
        let item = self.complete(item);
        if self.input.is_empty() { Ok(item) } else { Err(Stop::Steered) }
    }

    fn reasoning(&mut self, text: &str) -> Result<(), Stop> {
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
    fn plan(&mut self, done: usize) -> Result<(), Stop> {
        let steps = ["Ask whether a command may run", "Change a file", "Explain what happened"];
        let status =
            |index: usize| ["pending", "inProgress", "completed"][(done + 1).saturating_sub(index).min(2)];
        let step = |(index, step)| json!({ "step": step, "status": status(index) });
        let plan: Vec<Value> = steps.iter().enumerate().map(step).collect();
        self.notify("turn/plan/updated", json!({ "explanation": "The tour of the demo", "plan": plan }));
        self.pause(STEP_PAUSE)
    }

    /// Reports a command that never runs, after its approval unless the policy is `never`; returns the decision in words.
    fn command(&mut self) -> Result<&'static str, Stop> {
        let (cwd, asks) = {
            let start = &lock(&self.thread).start;
            (start["cwd"].clone(), start["approvalPolicy"] != "never")
        };
        if asks {
            self.set_status(&json!({ "type": "active", "activeFlags": ["waitingOnApproval"] }));
        }
        let mut item = self.begin(objects::command(COMMAND, &cwd));
        let decision = if asks { self.ask(&item)? } else { json!("accept") };
        self.set_status(&json!({ "type": "active", "activeFlags": [] }));
        let (status, words) = match decision.as_str() {
            Some("accept" | "acceptForSession") => ("completed", "approved"),
            Some(_) => ("declined", "declined"),
            None if decision.is_object() => ("completed", "approved"),
            None => ("failed", "not decided"),
        };
        item["status"] = json!(status);
        if status == "completed" {
            let output = "42 tests passed; this output is invented.\n";
            self.notify(
                "item/commandExecution/outputDelta",
                json!({ "itemId": item["id"], "delta": output }),
            );
            item["aggregatedOutput"] = json!(output);
            (item["exitCode"], item["durationMs"]) = (json!(0), json!(0));
        }
        self.complete(item);
        if decision == "cancel" { Err(Stop::Interrupted) } else { Ok(words) }
    }

    /// Requests the approval of a command and waits for the decision; null stands for an error.
    fn ask(&mut self, item: &Value) -> Result<Value, Stop> {
        let words: Vec<&str> = COMMAND.split(' ').collect();
        let params = json!({
            "kind": "command", "threadId": self.ids[0], "turnId": self.ids[1], "itemId": item["id"],
            "startedAtMs": item["startedAtMs"], "environmentId": "local", "reason": "The demo never runs it.",
            "command": item["command"], "cwd": item["cwd"], "commandActions": item["commandActions"],
            "proposedExecpolicyAmendment": words, "availableDecisions":
                ["accept", { "acceptWithExecpolicyAmendment": { "execpolicy_amendment": words } }, "cancel"],
        });
        let id = self.shared.request("item/commandExecution/requestApproval", &params, &self.sender);
        self.request = Some(id);
        loop {
            match self.signals.recv() {
                Ok(Signal::Answer(mut result)) => {
                    self.resolve_request();
                    return Ok(result["decision"].take());
                }
                Ok(Signal::Steer(input)) => self.input.push(input),
                Ok(Signal::Interrupt) | Err(_) => return Err(Stop::Interrupted),
            }
        }
    }

    /// Reports a new file and the diff of the turn; no file is written.
    fn file_change(&mut self) -> Result<(), Stop> {
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

    /// Waits, and keeps the input that comes meanwhile.
    fn pause(&mut self, pause: Duration) -> Result<(), Stop> {
        match self.signals.recv_timeout(pause) {
            Ok(Signal::Interrupt) => return Err(Stop::Interrupted),
            Ok(Signal::Steer(input)) => self.input.push(input),
            Ok(Signal::Answer(_)) | Err(_) => {}
        }
        Ok(())
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
        let params =
            json!({ "item": item, "contentTokenCount": null, "completedAtMs": item["completedAtMs"] });
        self.notify("item/completed", params);
        let mut thread = lock(&self.thread);
        if thread.start["thread"]["preview"] == "" {
            thread.start["thread"]["preview"] =
                json!(item["content"][0]["text"].as_str().unwrap_or_default());
        }
        if let Some(items) = thread.turns.last_mut().and_then(|turn| turn["items"].as_array_mut()) {
            items.push(item.clone());
        }
        save(&thread);
        item
    }

    /// Ends the turn and returns true; returns false while there is input that it has not answered.
    ///
    /// The thread is locked until the last notification is out, so the next `turn/start` is answered after it.
    fn finish(&mut self, outcome: Result<Value, Stop>) -> bool {
        let thread = Arc::clone(&self.thread);
        let mut thread = lock(&thread);
        let (status, items) = match (self.pause(Duration::ZERO).and(outcome), self.input.is_empty()) {
            (Err(Stop::Interrupted), _) => ("interrupted", json!([])),
            (Ok(message), true) => ("completed", json!([message])),
            (Err(Stop::Steered), _) | (_, false) => return false,
        };
        thread.running = None;
        thread.tokens = [thread.tokens[0] + INPUT_TOKENS, thread.tokens[1] + self.output_tokens];
        let now = json!(now_ms() / 1000);
        thread.start["thread"]["updatedAt"] = now.clone();
        let usage = objects::token_usage(thread.tokens, [INPUT_TOKENS, self.output_tokens]);
        self.notify("thread/tokenUsage/updated", json!({ "tokenUsage": usage }));
        let mut shown = Value::Null;
        if let Some(turn) = thread.turns.last_mut() {
            turn["status"] = json!(status);
            turn["completedAt"] = now;
            turn["durationMs"] = json!(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            shown = objects::turn_view(turn, if status == "completed" { "summary" } else { "notLoaded" });
            shown["items"] = items;
        }
        thread.start["thread"]["status"] = json!({ "type": "idle" });
        save(&thread);
        let status = json!({ "threadId": self.ids[0], "status": { "type": "idle" } });
        self.shared.notify("thread/status/changed", &status);
        self.shared.notify("turn/completed", &json!({ "threadId": self.ids[0], "turn": shown }));
        self.resolve_request();
        true
    }

    /// Reports that the request to the client is over, if there is one.
    fn resolve_request(&mut self) {
        if let Some(id) = self.request.take() {
            let params = json!({ "threadId": self.ids[0], "requestId": id });
            self.shared.notify("serverRequest/resolved", &params);
        }
    }

    fn set_status(&self, status: &Value) {
        lock(&self.thread).start["thread"]["status"] = status.clone();
        let params = json!({ "threadId": self.ids[0], "status": status });
        self.shared.notify("thread/status/changed", &params);
    }

    /// Sends a notification about this turn.
    fn notify(&self, method: &str, mut params: Value) {
        params["threadId"] = self.ids[0].clone();
        params["turnId"] = self.ids[1].clone();
        self.shared.notify(method, &params);
    }
}

fn save(thread: &Thread) {
    if let Err(error) = thread.save() {
        let _ = writeln!(std::io::stderr(), "failed to write {}: {error}", thread.start["thread"]["path"]);
    }
}
