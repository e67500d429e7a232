//! Follows one turn through the event stream until it ends.
//!
//! [`TurnFollower`] owns the stream, the printer, the open requests and the interrupt of the turn. `ask` creates it
//! after the turn was accepted. The turn ends exactly once; a lost connection or a gap in the events is bridged by
//! reading the turn.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::approvals::Approvals;
use super::network::NetworkMonitor;
use super::terminal_input::TerminalInput;
use crate::client::{ClientError, DaemonClient, EventFilter, EventStream, StreamItem, percent_encode};
use crate::codex::protocol::notifications::{ITEM_COMPLETED, ITEM_STARTED};
use crate::codex::protocol::{errors::is_offline, items, values::TurnStatus};
use crate::commands::api::{session_path, turn_path};
use crate::commands::ask::printer::AnswerPrinter;
use crate::commands::context::CommandContext;
use crate::commands::failure::Failure;
use crate::commands::{format, requests};

/// How many characters of an MCP server's error are printed.
const MAX_ERROR_CHARS: usize = 300;
/// How long to reconnect to a daemon that is gone.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait for a SIGINT after stdout was closed: Ctrl-C may have ended the reader of the pipe first.
const SIGINT_AFTER_CLOSED_STDOUT: Duration = Duration::from_millis(100);

/// The progress of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum TurnState {
    /// In the queue, with this queue ID.
    Queued(String),
    /// Started, with this turn ID.
    Started(String),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum TurnOutcome {
    Completed,
    Interrupted,
    /// Removed from the queue before it started.
    Withdrawn,
    /// With the reason, if it is known.
    Failed(Option<String>),
}

impl TurnOutcome {
    /// Converts the turn status of Codex; `None` while the turn is in progress.
    fn of(status: &str, error: Option<String>) -> Option<Self> {
        Some(match TurnStatus::of(status) {
            TurnStatus::InProgress => return None,
            TurnStatus::Completed => Self::Completed,
            TurnStatus::Interrupted => Self::Interrupted,
            TurnStatus::Failed => Self::Failed(error),
            TurnStatus::Other(_) => Self::Failed(error.or_else(|| Some(format!("its status is {status}.")))),
        })
    }
}

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
}

impl<'a> TurnFollower<'a> {
    /// Follows a turn whose events come after `cursor`; `input` is the terminal input if it is open already.
    pub(in crate::commands) fn new(
        context: &'a CommandContext,
        session_id: &str,
        turn: TurnState,
        cursor: String,
        input: Option<TerminalInput>,
    ) -> Self {
        let filter = EventFilter { session_id: Some(session_id.to_owned()), types: Vec::new() };
        Self {
            context,
            session_id: session_id.to_owned(),
            turn,
            // From here on a lost daemon is waited for, because it runs the turn.
            events: EventStream::new(&context.client, filter, cursor, Some(RECONNECT_LIMIT)),
            printer: AnswerPrinter::new(context),
            approvals: Approvals::new(context, input),
            error: None,
            pending_interrupt: None,
            interrupt_requested: false,
            network: NetworkMonitor::default(),
            mcp_servers: HashSet::new(),
            held: None,
        }
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

    /// Prints the MCP servers that failed to start before the first event.
    pub(in crate::commands) async fn report_failed_mcp_servers(&mut self) -> Result<(), Failure> {
        // If the daemon is gone, the next step waits for it.
        let session = self.context.client.get(&session_path(&self.session_id)).await.unwrap_or_default();
        for server in session["mcpServers"].as_array().into_iter().flatten() {
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

    /// Interrupts the turn because the network was unreachable for too long.
    fn give_up(&mut self) -> Result<(), Failure> {
        self.printer.start_stderr_line()?;
        self.network.give_up();
        self.interrupt_requested = true;
        self.interrupt();
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
                self.printer.start_stderr_line()?;
                self.printer.end_line()?;
                return Ok(outcome);
            }
            if !self.printer.has_reader() && !self.interrupt_requested {
                self.handle_closed_stdout(&mut interrupts).await?;
            }
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

    /// Handles a closed stdout. If the reader of the pipe has read enough, the turn continues without this command; if
    /// Ctrl-C ended the reader together with this process, the turn is interrupted.
    async fn handle_closed_stdout(&mut self, interrupts: &mut watch::Receiver<bool>) -> Result<(), Failure> {
        let interrupt = interrupts.wait_for(|is_wanted| *is_wanted);
        match tokio::time::timeout(SIGINT_AFTER_CLOSED_STDOUT, interrupt).await {
            Ok(Ok(_)) => {}
            _ => {
                let message = "stdout was closed; the turn continues in codexd.".to_owned();
                return Err(Failure { code: 0, message });
            }
        }
        self.request_interrupt()
    }

    /// Interrupts the turn after Ctrl-C.
    fn request_interrupt(&mut self) -> Result<(), Failure> {
        self.interrupt_requested = true;
        self.printer.start_stderr_line()?;
        self.context.print_note(match self.turn {
            TurnState::Started(_) => "Interrupting the turn; another Ctrl-C exits at once, and the turn continues.",
            TurnState::Queued(_) => {
                "Withdrawing the queued turn; another Ctrl-C exits at once, and the turn may stay in the queue."
            }
        });
        self.interrupt();
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
        match kind {
            "app-server.turn.message.delta" => {
                let text = |name: &str| detail[name].as_str().unwrap_or_default();
                self.printer.print_delta(text("itemId"), text("delta"))?;
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
                return Ok(TurnOutcome::of(detail["status"].as_str().unwrap_or_default(), error));
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
        match (detail["notificationMethod"].as_str(), item["type"].as_str()) {
            (Some(ITEM_STARTED), Some(items::FILE_CHANGE)) => self.approvals.add_patch(item),
            (Some(ITEM_COMPLETED), Some(items::FILE_CHANGE)) => self.approvals.remove_patch(item),
            _ => {}
        }
        match detail["notificationMethod"].as_str() {
            Some(ITEM_STARTED) => match format::item(item) {
                Some(line) => self.printer.print_note(&line),
                None => Ok(()),
            },
            Some(ITEM_COMPLETED) if items::is_agent_message(item) => {
                let text = |name: &str| item[name].as_str().unwrap_or_default();
                self.printer.print_rest(text("id"), text("text"))
            }
            Some(ITEM_COMPLETED) => match format::item_outcome(item) {
                Some(outcome) => {
                    let line = format::item(item).unwrap_or_default();
                    self.printer.print_note(&format!("{outcome}: {line}"))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Interrupts the turn. A queued turn is removed from the queue; if it starts first, it is interrupted.
    fn interrupt(&mut self) {
        let client: DaemonClient = self.context.client.clone();
        self.pending_interrupt = Some(match &self.turn {
            TurnState::Started(turn_id) => {
                let body = json!({ "sessionId": self.session_id, "turnId": turn_id });
                tokio::spawn(async move { client.post("/v1/codexd/turn/interrupt", &body).await })
            }
            TurnState::Queued(queue_id) => {
                let path = format!("{}/queue/{}", session_path(&self.session_id), percent_encode(queue_id));
                tokio::spawn(async move { client.delete(&path).await })
            }
        });
    }

    /// Reports the result of the interrupt, unless the events of the turn do.
    fn report_interrupt(&mut self, outcome: Result<Value, ClientError>) -> Result<(), Failure> {
        let sentence = match outcome {
            // The turn ends later, and its events report that.
            Ok(answer) if answer["pending"] == true => return Ok(()),
            Ok(answer) => match answer["commandsReason"].as_str() {
                Some(reason) => format!("Commands that the turn left in the background continue: {reason}"),
                None => return Ok(()),
            },
            // The turn ended first.
            Err(error) if error.code() == "no_turn" => return Ok(()),
            // The turn is starting, and is interrupted when it has started.
            Err(error)
                if self.turn_id().is_none() && ["not_found", "turn_in_progress"].contains(&error.code()) =>
            {
                return Ok(());
            }
            Err(error) => format!("Failed to interrupt the turn: {error}"),
        };
        self.printer.start_stderr_line()?;
        self.context.print_note(&sentence);
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
