//! Follows one turn through the event stream until it ends.
//!
//! [`TurnFollower`] owns the stream, the printer, the open requests and the interrupt of the turn. `ask` creates it
//! after the turn was accepted. The turn ends exactly once; a lost connection or a gap in the events is bridged by
//! reading the turn.

mod interrupts;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::activity::Activity;
use super::approvals::Approvals;
use super::json_lines::{JsonLines, turn_started};
use super::network::NetworkMonitor;
use super::outcome::{TurnOutcome, TurnState};
use super::printer::{AnswerFormat, AnswerPrinter};
use super::protected::ProtectedDirectory;
use super::terminal_input::TerminalInput;
use crate::client::{ClientError, EventFilter, EventStream, StreamItem};
use crate::codex::protocol::notifications::{ITEM_COMPLETED, ITEM_STARTED, TOKEN_USAGE_UPDATED};
use crate::codex::protocol::{errors::is_offline, items};
use crate::commands::api::{session_path, turn_path};
use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::{format, requests};

/// How many characters of an MCP server's error are printed.
const MAX_ERROR_CHARS: usize = 300;
/// How long to reconnect to a daemon that is gone.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How often the line of progress is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

pub(in crate::commands) struct TurnFollower<'a> {
    context: &'a CommandContext,
    session_id: String,
    turn: TurnState,
    events: EventStream,
    printer: AnswerPrinter<'a>,
    approvals: Approvals<'a>,
    /// The last error of the turn.
    error: Option<String>,
    /// The interrupt request in progress.
    pending_interrupt: Option<JoinHandle<Result<Value, ClientError>>>,
    /// Whether the turn is to be interrupted.
    interrupt_requested: bool,
    network: NetworkMonitor,
    /// The MCP servers whose failure was printed.
    mcp_servers: HashSet<String>,
    /// The reason why the queue is held, as printed last.
    held: Option<String>,
    protected: ProtectedDirectory,
    activity: Activity,
    /// With [`AnswerFormat::JsonLines`].
    json_lines: Option<JsonLines>,
    /// The text of the newest message.
    answer: String,
}

impl<'a> TurnFollower<'a> {
    /// Follows a turn of `session` whose events come after `cursor`; `input` is the terminal input if it is open already.
    pub(in crate::commands) fn new(
        context: &'a CommandContext,
        format: AnswerFormat,
        session: &Value,
        turn: TurnState,
        cursor: String,
        input: Option<TerminalInput>,
    ) -> Self {
        let session_id = session["sessionId"].as_str().unwrap_or_default();
        let cwd = session["cwd"].as_str().map(str::to_owned);
        let filter = EventFilter { session_id: Some(session_id.to_owned()), types: Vec::new() };
        Self {
            context,
            session_id: session_id.to_owned(),
            turn,
            // From here on a lost daemon is waited for, because it runs the turn.
            events: EventStream::new(&context.client, filter, cursor, Some(RECONNECT_LIMIT)),
            printer: AnswerPrinter::new(context, format),
            approvals: Approvals::new(context, cwd.clone(), input),
            error: None,
            pending_interrupt: None,
            interrupt_requested: false,
            network: NetworkMonitor::default(),
            mcp_servers: HashSet::new(),
            held: None,
            protected: ProtectedDirectory::new(cwd.as_deref()),
            activity: Activity::new(cwd),
            json_lines: (format == AnswerFormat::JsonLines).then(JsonLines::default),
            answer: String::new(),
        }
    }

    /// The text of the newest message of the agent, which is the answer in the end.
    pub(in crate::commands) fn answer(&self) -> &str {
        &self.answer
    }

    /// Prints how the turn ended: a line about it for a person, or the last JSON line.
    pub(in crate::commands) fn print_end(&mut self, outcome: &TurnOutcome) -> Result<(), Failure> {
        if let Some(lines) = &self.json_lines {
            return self.printer.print_json_line(&lines.end(outcome));
        }
        let how = match outcome {
            TurnOutcome::Completed => "completed in",
            TurnOutcome::Interrupted => "interrupted after",
            TurnOutcome::Failed(_) => "failed after",
            TurnOutcome::Withdrawn => return Ok(()),
        };
        if self.printer.is_watched() { self.printer.print_note(&self.activity.summary(how)) } else { Ok(()) }
    }

    /// The ID of the turn, once it has started.
    pub(in crate::commands) fn turn_id(&self) -> Option<&str> {
        match &self.turn {
            TurnState::Started(turn_id) => Some(turn_id),
            TurnState::Queued(_) => None,
        }
    }

    /// Interrupts the turn if it reaches no network for this many seconds; 0 for no limit.
    pub(in crate::commands) fn set_network_timeout(&mut self, seconds: u64) {
        self.network.limit = (seconds > 0).then(|| Duration::from_secs(seconds));
    }

    /// Prints the MCP servers that failed to start before the first event, from the view of the session.
    pub(in crate::commands) fn report_failed_mcp_servers(&mut self, view: &Value) -> Result<(), Failure> {
        for server in view["mcpServers"].as_array().into_iter().flatten() {
            self.mcp_server_failed(server)?;
        }
        Ok(())
    }

    fn mcp_server_failed(&mut self, server: &Value) -> Result<(), Failure> {
        let text = |name: &str| server[name].as_str().unwrap_or_default();
        if !self.mcp_servers.insert(text("name").to_owned()) {
            return Ok(());
        }
        let error: String = text("error").chars().take(MAX_ERROR_CHARS).collect();
        self.printer.start_stderr_line()?;
        self.context.print_note(&format!("MCP server \"{}\" failed to start: {error}", text("name")));
        Ok(())
    }

    /// Synchronizes the open requests with the daemon: adds those whose events were missed, removes those that are
    /// resolved.
    pub(in crate::commands) async fn sync_requests(&mut self) -> Result<(), Failure> {
        let pending = requests::pending_in_session(self.context, &self.session_id).await?;
        for id in self.approvals.no_longer_pending(&pending) {
            if let Some(note) = self.approvals.remove_request(&json!({ "requestId": id })) {
                self.printer.print_note(&note)?;
            }
        }
        for request in pending {
            if [&request["turnId"], &request["rootTurnId"]].iter().any(|id| id.as_str() == self.turn_id()) {
                self.approvals.add_request(&request);
            }
        }
        Ok(())
    }

    /// Prints why the queue is held, if it is; it may have been held before the turn was submitted.
    pub(in crate::commands) async fn report_queue(&mut self) -> Result<(), Failure> {
        if self.turn_id().is_some() {
            return Ok(());
        }
        let session = self.context.client.get(&session_path(&self.session_id)).await?["session"].take();
        self.report_held(&session["held"])
    }

    /// Prints why the queue is held, once per reason.
    fn report_held(&mut self, held: &Value) -> Result<(), Failure> {
        let reason = held["reason"].as_str().map(str::to_owned);
        if let Some(reason) = reason.as_ref().filter(|_| self.held != reason) {
            let until = held["until"].as_str().map(|until| format!(" (until {until})")).unwrap_or_default();
            let resume = self.context.command_line(&format!("resume-queue {}", self.session_id));
            let next = match held["automatic"].as_bool() {
                Some(true) => format!("it resumes by itself when that is over, or with \"{resume}\""),
                _ => format!("resume it with \"{resume}\""),
            };
            self.printer.print_note(&format!("the queue is held{until}: {reason} — {next}"))?;
        }
        self.held = reason;
        Ok(())
    }

    /// Prints events and asks questions until the turn has ended.
    pub(in crate::commands) async fn run(
        &mut self,
        mut interrupts: watch::Receiver<bool>,
    ) -> Result<TurnOutcome, Failure> {
        let mut progress = tokio::time::interval(PROGRESS_INTERVAL);
        // The first tick is now.
        progress.tick().await;
        if let Some(turn_id) = self.turn_id().map(str::to_owned) {
            self.report_start(&turn_id)?;
        }
        loop {
            self.ask()?;
            let ended = tokio::select! {
                item = self.events.next() => self.handle_item(item?).await?,
                Ok(_) = interrupts.wait_for(|is_wanted| *is_wanted), if !self.interrupt_requested => {
                    self.request_interrupt()?;
                    None
                }
                () = self.network.wait_for_timeout() => {
                    self.give_up()?;
                    None
                }
                _ = progress.tick() => {
                    self.show_progress();
                    None
                }
                outcome = interrupt_result(&mut self.pending_interrupt) => {
                    self.report_interrupt(outcome)?;
                    None
                }
                line = self.approvals.next_line() => {
                    self.approvals.handle_line(line).await?;
                    self.printer.set_prompt(self.approvals.is_asking());
                    None
                }
            };
            if let Some(mut outcome) = ended {
                if let (TurnOutcome::Interrupted, Some(why)) = (&outcome, self.network.given_up.take()) {
                    outcome = TurnOutcome::Failed(Some(why));
                }
                self.printer.finish()?;
                return Ok(outcome);
            }
            if !self.printer.has_reader() && !self.interrupt_requested {
                self.handle_closed_stdout(&mut interrupts).await?;
            }
        }
    }

    fn report_start(&mut self, turn_id: &str) -> Result<(), Failure> {
        match self.json_lines {
            Some(_) => self.printer.print_json_line(&turn_started(turn_id)),
            None => Ok(()),
        }
    }

    fn show_progress(&mut self) {
        match self.turn {
            TurnState::Started(_) => self.printer.show_progress(&self.activity.progress()),
            TurnState::Queued(_) => self.printer.show_progress("waiting in the queue"),
        }
    }

    /// Asks the next question, or repeats the current one if other output came after it.
    fn ask(&mut self) -> Result<(), Failure> {
        if self.approvals.has_unasked() {
            self.printer.start_stderr_line()?;
            self.approvals.ask_next();
            self.printer.set_prompt(self.approvals.is_asking());
        } else if self.approvals.is_asking() && !self.printer.has_prompt() && !self.interrupt_requested {
            self.printer.start_stderr_line()?;
            self.approvals.show_prompt();
            self.printer.set_prompt(true);
        }
        Ok(())
    }

    async fn handle_item(&mut self, item: StreamItem) -> Result<Option<TurnOutcome>, Failure> {
        match item {
            StreamItem::Event(text) => {
                let event: Value = serde_json::from_str(&text).unwrap_or_default();
                self.handle_event(&event)
            }
            StreamItem::Gap(reason) => {
                self.printer.start_stderr_line()?;
                self.context.print_note(&format!("Some events are missing: {reason}."));
                let outcome = self.read_turn().await?;
                if outcome.is_none() {
                    self.sync_requests().await?;
                }
                Ok(outcome)
            }
            StreamItem::Disconnected => {
                self.printer.start_stderr_line()?;
                self.context.print_note("Connection lost; waiting for codexd.");
                Ok(None)
            }
            StreamItem::Reconnected => {
                self.printer.start_stderr_line()?;
                self.context.print_note("Reconnected to codexd.");
                self.approvals.on_reconnect();
                if self.interrupt_requested {
                    // An earlier request may not have reached the daemon.
                    self.interrupt();
                }
                Ok(None)
            }
        }
    }

    /// Reads the turn after a gap in its events.
    async fn read_turn(&mut self) -> Result<Option<TurnOutcome>, Failure> {
        let Some(turn_id) = self.turn_id() else {
            return Err(Failure::new(format!(
                "The outcome of the turn is unknown; \"{}\" shows its session.",
                self.context.command_line("sessions")
            )));
        };
        let path = turn_path(&self.session_id, turn_id);
        let turn = self.context.client.get(&path).await?["turn"].take();
        let outcome =
            TurnOutcome::of(turn["status"].as_str().unwrap_or_default(), format::error(&turn["error"]));
        if let (Some(_), Some(text)) = (&outcome, turn["text"].as_str()) {
            let last = turn["items"].as_array().into_iter().flatten().rev();
            let message = last.clone().find(|item| items::is_agent_message(item));
            let id = message.and_then(|item| item["id"].as_str()).unwrap_or_default();
            self.printer.print_rest(id, text)?;
        }
        Ok(outcome)
    }

    /// Handles an event; returns the outcome if the event ends the turn.
    fn handle_event(&mut self, event: &Value) -> Result<Option<TurnOutcome>, Failure> {
        let detail = &event["detail"];
        let kind = event["type"].as_str().unwrap_or_default();
        // A turn that is queued has no event of its own yet.
        if matches!(self.turn, TurnState::Queued(_)) {
            match kind {
                "session.held" => self.report_held(&detail["held"])?,
                "session.released" => self.held = None,
                _ => {}
            }
            let TurnState::Queued(queue_id) = &self.turn else { return Ok(None) };
            if detail["queueId"].as_str() == Some(queue_id) {
                return self.handle_queue_event(kind, detail);
            }
            return Ok(None);
        }
        if kind == "app-server.mcp_server.failed" {
            self.mcp_server_failed(detail)?;
            return Ok(None);
        }
        let theirs = detail["turnId"].as_str().or(detail["params"]["turnId"].as_str());
        // A request may be about the session and no turn.
        let is_request = kind.starts_with("request.");
        let is_of_sub_agent = detail["rootTurnId"].as_str().is_some_and(|id| Some(id) == self.turn_id());
        if theirs != self.turn_id() && !(is_request && (theirs.is_none() || is_of_sub_agent)) {
            return Ok(None);
        }
        self.network.update(kind == "app-server.turn.error" && is_offline(&detail["error"]));
        if let Some(line) = self.json_lines.as_mut().and_then(|lines| lines.line(event)) {
            self.printer.print_json_line(&line)?;
        }
        match kind {
            "app-server.turn.message.delta" => {
                let text = |name: &str| detail[name].as_str().unwrap_or_default();
                self.activity.write();
                self.printer.print_delta(text("itemId"), text("delta"))?;
            }
            "app-server.turn.diff.updated" => {
                self.activity.set_diff(detail["diff"].as_str().unwrap_or_default());
            }
            "app-server.notification" => self.handle_notification(detail)?,
            "app-server.turn.error" => {
                self.error = format::error(&detail["error"]);
                if detail["willRetry"] == true {
                    let error = self.error.as_deref().unwrap_or("something failed");
                    self.printer.print_note(&format!("{error}; Codex is retrying"))?;
                }
            }
            "request.opened" => self.approvals.add_request(&detail["request"]),
            "request.resolved" => {
                if let Some(note) = self.approvals.remove_request(detail) {
                    self.printer.print_note(&note)?;
                }
            }
            "turn.stalled" => self.printer.print_note(event["message"].as_str().unwrap_or_default())?,
            "app-server.turn.completed" | "turn.settled" => {
                let error = format::error(&detail["error"]).or(self.error.take());
                let outcome = TurnOutcome::of(detail["status"].as_str().unwrap_or_default(), error);
                return Ok(outcome.map(|outcome| self.protected.explain(outcome)));
            }
            "app-server.turn.completed.missing" => {
                let reason = detail["transportCloseMessage"].as_str().unwrap_or("the connection ended");
                return Ok(Some(TurnOutcome::Failed(Some(format!(
                    "the connection to the app-server was lost: {reason}."
                )))));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Handles an event of a queued turn.
    fn handle_queue_event(&mut self, kind: &str, detail: &Value) -> Result<Option<TurnOutcome>, Failure> {
        match (kind, detail["turnId"].as_str()) {
            ("turn.queued", _) => {
                let position = detail["position"].as_u64().unwrap_or(1);
                self.printer.print_note(&format!("the turn is queued at position {position}"))?;
            }
            ("turn.rejected", _) if self.interrupt_requested => return Ok(Some(TurnOutcome::Withdrawn)),
            ("turn.rejected", _) => {
                let reason = detail["reason"].as_str().map(str::to_owned);
                return Ok(Some(TurnOutcome::Failed(reason)));
            }
            (_, Some(turn_id)) => {
                self.turn = TurnState::Started(turn_id.to_owned());
                self.activity = Activity::new(self.activity.cwd().map(str::to_owned));
                self.report_start(turn_id)?;
                if self.interrupt_requested {
                    self.interrupt();
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn handle_notification(&mut self, detail: &Value) -> Result<(), Failure> {
        let item = &detail["params"]["item"];
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        let is_patch = item["type"] == items::FILE_CHANGE;
        match detail["notificationMethod"].as_str() {
            Some(TOKEN_USAGE_UPDATED) => self.activity.set_tokens(&detail["params"]["tokenUsage"]),
            Some(ITEM_STARTED) => {
                if is_patch {
                    self.approvals.add_patch(item);
                }
                self.activity.start_item(item);
                // A person sees it in the line of progress, and a program in a JSON line.
                let has_note = !self.printer.is_watched() && self.json_lines.is_none();
                if let Some(line) = format::item(item).filter(|_| has_note) {
                    self.printer.print_note(&line)?;
                }
            }
            Some(ITEM_COMPLETED) if items::is_agent_message(item) => {
                self.answer = text("text").to_owned();
                self.printer.print_rest(text("id"), text("text"))?;
            }
            Some(ITEM_COMPLETED) => {
                if is_patch {
                    self.approvals.remove_patch(item);
                }
                if let Some(hint) = self.protected.hint_for_item(item) {
                    self.printer.start_stderr_line()?;
                    self.context.print_note(&hint);
                }
                let lines = self.activity.end_item(item, &self.context.stderr);
                if self.printer.is_watched() {
                    for line in lines {
                        self.printer.print_painted_note(&line)?;
                    }
                } else if let (Some(outcome), None) = (format::item_outcome(item), &self.json_lines) {
                    let line = format::item(item).unwrap_or_default();
                    self.printer.print_note(&format!("{outcome}: {line}"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The result of the interrupt request in progress. Never returns if there is none.
async fn interrupt_result(
    task: &mut Option<JoinHandle<Result<Value, ClientError>>>,
) -> Result<Value, ClientError> {
    if let Some(handle) = task {
        let outcome = handle.await;
        *task = None;
        if let Ok(outcome) = outcome {
            return outcome;
        }
    }
    std::future::pending().await
}
