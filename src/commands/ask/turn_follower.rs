//! A turn as its events tell it, what its requester answers, and its end.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::approvals::Approvals;
use super::keyboard::Keyboard;
use super::network::Network;
use crate::commands::ask::printer::Page;
use crate::commands::client::{Client, ClientError, EventStream, Filter, Heard, escaped};
use crate::commands::context::Caller;
use crate::commands::sessions::path;
use crate::commands::{Failure, format, requests};
use crate::daemon::is_offline;

/// How many characters of an error are shown.
const QUOTED: usize = 300;
/// How long a daemon that is gone is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much later than the end of the reader an interrupt may come that ended the reader.
const RACE: Duration = Duration::from_millis(100);

/// How far a turn has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum Turn {
    /// It waits under this name.
    Queued(String),
    /// It has this name.
    Begun(String),
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum Fate {
    Completed,
    Interrupted,
    /// It waited, and was taken back before it began.
    Withdrawn,
    /// For this reason, as far as it is known.
    Failed(Option<String>),
}

impl Fate {
    /// From the word of the app-server; `None` while the turn goes on.
    fn of(status: &str, error: Option<String>) -> Option<Self> {
        Some(match status {
            "inProgress" => return None,
            "completed" => Self::Completed,
            "interrupted" => Self::Interrupted,
            "failed" => Self::Failed(error),
            other => Self::Failed(error.or_else(|| Some(format!("its status is {other}.")))),
        })
    }
}

pub(in crate::commands) struct Conversation<'a> {
    caller: &'a Caller,
    session_id: String,
    turn: Turn,
    events: EventStream,
    page: Page<'a>,
    approvals: Approvals<'a>,
    /// What went wrong last.
    error: Option<String>,
    /// The interrupt that is under way.
    interrupting: Option<JoinHandle<Result<Value, ClientError>>>,
    /// Whether the turn is to be interrupted.
    is_unwanted: bool,
    network: Network,
    /// The MCP servers of which it was said that they did not start.
    mcp_servers: HashSet<String>,
    /// Why the queue is held in which the turn waits, as it was told last.
    held: Option<String>,
}

impl<'a> Conversation<'a> {
    /// A turn of which something may have been said after this cursor; `keyboard` is the one that is open already.
    pub(in crate::commands) fn new(
        caller: &'a Caller,
        session_id: &str,
        turn: Turn,
        cursor: String,
        keyboard: Option<Keyboard>,
    ) -> Self {
        let filter = Filter { session_id: Some(session_id.to_owned()), types: Vec::new() };
        Self {
            caller,
            session_id: session_id.to_owned(),
            turn,
            // From here on a daemon that goes away is waited for, because the turn is its own.
            events: EventStream::new(&caller.client, filter, cursor, Some(PATIENCE)),
            page: Page::new(caller),
            approvals: Approvals::new(caller, keyboard),
            error: None,
            interrupting: None,
            is_unwanted: false,
            network: Network::default(),
            mcp_servers: HashSet::new(),
            held: None,
        }
    }

    /// The name of the turn, once it has one.
    pub(in crate::commands) fn turn_id(&self) -> Option<&str> {
        match &self.turn {
            Turn::Begun(turn_id) => Some(turn_id),
            Turn::Queued(_) => None,
        }
    }

    /// Gives the turn up when it reaches no network for so many seconds; 0 for never.
    pub(in crate::commands) fn give_up_after(&mut self, seconds: u64) {
        self.network.limit = (seconds > 0).then(|| Duration::from_secs(seconds));
    }

    /// Tells of the MCP servers that did not start before anything was heard.
    pub(in crate::commands) async fn look_for_mcp_servers(&mut self) -> Result<(), Failure> {
        // A daemon that is gone by now is waited for by what comes next.
        let session = self.caller.client.get(&path(&self.session_id)).await.unwrap_or_default();
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
        let error: String = text("error").chars().take(QUOTED).collect();
        self.page.make_room()?;
        self.caller.note(&format!("MCP server \"{}\" did not start: {error}", text("name")));
        Ok(())
    }

    /// The network has been missing for too long.
    fn give_up(&mut self) -> Result<(), Failure> {
        self.page.make_room()?;
        self.network.give_up();
        self.is_unwanted = true;
        self.interrupt();
        Ok(())
    }

    /// Takes up the requests that wait, of which the events did not tell, and drops those that do not wait any more.
    pub(in crate::commands) async fn look_for_requests(&mut self) -> Result<(), Failure> {
        let pending = requests::waiting(self.caller, &self.session_id).await?;
        for id in self.approvals.besides(&pending) {
            if let Some(word) = self.approvals.resolved(&json!({ "requestId": id })) {
                self.page.aside(&word)?;
            }
        }
        for request in pending {
            if [&request["turnId"], &request["rootTurnId"]].iter().any(|id| id.as_str() == self.turn_id()) {
                self.approvals.opened(&request);
            }
        }
        Ok(())
    }

    /// Tells why the queue is held in which the turn waits, if it is: that may have been so before.
    pub(in crate::commands) async fn look_at_queue(&mut self) -> Result<(), Failure> {
        if self.turn_id().is_some() {
            return Ok(());
        }
        let session = self.caller.client.get(&path(&self.session_id)).await?["session"].take();
        self.held(&session["held"])
    }

    /// Tells why the queue is held, once.
    fn held(&mut self, held: &Value) -> Result<(), Failure> {
        let reason = held["reason"].as_str().map(str::to_owned);
        if let Some(reason) = reason.as_ref().filter(|_| self.held != reason) {
            let until = held["until"].as_str().map(|until| format!(" (until {until})")).unwrap_or_default();
            let resume = self.caller.command(&format!("resume-queue {}", self.session_id));
            let next = match held["automatic"].as_bool() {
                Some(true) => format!("it goes on by itself when that is over, or with \"{resume}\""),
                _ => format!("go on with \"{resume}\""),
            };
            self.page.aside(&format!("the queue is held{until}: {reason} — {next}"))?;
        }
        self.held = reason;
        Ok(())
    }

    /// Shows what happens until the turn has ended.
    pub(in crate::commands) async fn until_its_end(
        &mut self,
        mut interrupts: watch::Receiver<bool>,
    ) -> Result<Fate, Failure> {
        loop {
            self.ask()?;
            let ended = tokio::select! {
                heard = self.events.next() => self.heard(heard?).await?,
                Ok(_) = interrupts.wait_for(|is_wanted| *is_wanted), if !self.is_unwanted => {
                    self.unwanted()?;
                    None
                }
                () = self.network.is_given_up() => {
                    self.give_up()?;
                    None
                }
                outcome = ended(&mut self.interrupting) => {
                    self.interrupted(outcome)?;
                    None
                }
                line = self.approvals.line() => {
                    self.approvals.typed(line).await?;
                    self.page.set_prompt(self.approvals.is_asking());
                    None
                }
            };
            if let Some(mut fate) = ended {
                if let (Fate::Interrupted, Some(why)) = (&fate, self.network.given_up.take()) {
                    fate = Fate::Failed(Some(why));
                }
                self.page.make_room()?;
                self.page.end_line()?;
                return Ok(fate);
            }
            if !self.page.has_reader() && !self.is_unwanted {
                self.reader_left(&mut interrupts).await?;
            }
        }
    }

    /// Asks what is to be asked now, or once more what something else was written below.
    fn ask(&mut self) -> Result<(), Failure> {
        if self.approvals.has_news() {
            self.page.make_room()?;
            self.approvals.ask();
            self.page.set_prompt(self.approvals.is_asking());
        } else if self.approvals.is_asking() && !self.page.has_prompt() && !self.is_unwanted {
            self.page.make_room()?;
            self.approvals.show();
            self.page.set_prompt(true);
        }
        Ok(())
    }

    /// Nobody reads the answer any more: a reader that has seen enough is no failure and its turn goes on, but one that
    /// Ctrl-C ended along with this process takes the turn with it.
    async fn reader_left(&mut self, interrupts: &mut watch::Receiver<bool>) -> Result<(), Failure> {
        let interrupt = interrupts.wait_for(|is_wanted| *is_wanted);
        match tokio::time::timeout(RACE, interrupt).await {
            Ok(Ok(_)) => {}
            _ => {
                let message = "Nobody reads the answer any more; the turn goes on in codexd.".to_owned();
                return Err(Failure { code: 0, message });
            }
        }
        self.unwanted()
    }

    /// Ctrl-C was typed.
    fn unwanted(&mut self) -> Result<(), Failure> {
        self.is_unwanted = true;
        self.page.make_room()?;
        self.caller.note(match self.turn {
            Turn::Begun(_) => "Interrupting the turn; another Ctrl-C leaves at once, and the turn goes on.",
            Turn::Queued(_) => {
                "Taking the waiting turn back; another Ctrl-C leaves at once, and the turn may stay in the queue."
            }
        });
        self.interrupt();
        Ok(())
    }

    async fn heard(&mut self, heard: Heard) -> Result<Option<Fate>, Failure> {
        match heard {
            Heard::Event(text) => {
                let event: Value = serde_json::from_str(&text).unwrap_or_default();
                self.event(&event)
            }
            Heard::Gap(reason) => {
                self.page.make_room()?;
                self.caller.note(&format!("A part of what happened is missing: {reason}."));
                let fate = self.look().await?;
                if fate.is_none() {
                    self.look_for_requests().await?;
                }
                Ok(fate)
            }
            Heard::Lost => {
                self.page.make_room()?;
                self.caller.note("The connection is gone; waiting for codexd.");
                Ok(None)
            }
            Heard::Back => {
                self.page.make_room()?;
                self.caller.note("codexd is back.");
                self.approvals.back();
                if self.is_unwanted {
                    // It may not have heard so before.
                    self.interrupt();
                }
                Ok(None)
            }
        }
    }

    /// Reads the turn where the events cannot tell.
    async fn look(&mut self) -> Result<Option<Fate>, Failure> {
        let Some(turn_id) = self.turn_id() else {
            return Err(Failure::new(format!(
                "What became of the turn is not known; \"{}\" shows its session.",
                self.caller.command("sessions")
            )));
        };
        let path = format!("{}/turns/{}", path(&self.session_id), escaped(turn_id));
        let turn = self.caller.client.get(&path).await?["turn"].take();
        let fate = Fate::of(turn["status"].as_str().unwrap_or_default(), format::error(&turn["error"]));
        if let (Some(_), Some(text)) = (&fate, turn["text"].as_str()) {
            let last = turn["items"].as_array().into_iter().flatten().rev();
            let message = last.clone().find(|item| item["type"] == "agentMessage");
            let id = message.and_then(|item| item["id"].as_str()).unwrap_or_default();
            self.page.whole(id, text)?;
        }
        Ok(fate)
    }

    /// Shows an event; the fate of the turn when it tells that.
    fn event(&mut self, event: &Value) -> Result<Option<Fate>, Failure> {
        let detail = &event["detail"];
        let kind = event["type"].as_str().unwrap_or_default();
        if matches!(self.turn, Turn::Queued(_)) {
            match kind {
                "session.held" => self.held(&detail["held"])?,
                "session.released" => self.held = None,
                _ => {}
            }
            let Turn::Queued(queue_id) = &self.turn else { return Ok(None) };
            if detail["queueId"].as_str() == Some(queue_id) {
                return self.queued(kind, detail);
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
        self.network.heard(kind == "app-server.turn.error" && is_offline(&detail["error"]));
        match kind {
            "app-server.turn.message.delta" => {
                let text = |name: &str| detail[name].as_str().unwrap_or_default();
                self.page.piece(text("itemId"), text("delta"))?;
            }
            "app-server.notification" => self.notification(detail)?,
            "app-server.turn.error" => {
                self.error = format::error(&detail["error"]);
                if detail["willRetry"] == true {
                    let error = self.error.as_deref().unwrap_or("something failed");
                    self.page.aside(&format!("{error}; Codex tries again"))?;
                }
            }
            "request.opened" => self.approvals.opened(&detail["request"]),
            "request.resolved" => {
                if let Some(word) = self.approvals.resolved(detail) {
                    self.page.aside(&word)?;
                }
            }
            "turn.stalled" => self.page.aside(event["message"].as_str().unwrap_or_default())?,
            "app-server.turn.completed" | "turn.settled" => {
                let error = format::error(&detail["error"]).or(self.error.take());
                return Ok(Fate::of(detail["status"].as_str().unwrap_or_default(), error));
            }
            "app-server.turn.completed.missing" => {
                let reason = detail["transportCloseMessage"].as_str().unwrap_or("the connection ended");
                return Ok(Some(Fate::Failed(Some(format!("the app-server was lost: {reason}.")))));
            }
            _ => {}
        }
        Ok(None)
    }

    /// What becomes of a turn that waits.
    fn queued(&mut self, kind: &str, detail: &Value) -> Result<Option<Fate>, Failure> {
        match (kind, detail["turnId"].as_str()) {
            ("turn.queued", _) => {
                let position = detail["position"].as_u64().unwrap_or(1);
                self.page.aside(&format!("the turn waits, at place {position}"))?;
            }
            ("turn.rejected", _) if self.is_unwanted => return Ok(Some(Fate::Withdrawn)),
            ("turn.rejected", _) => {
                let reason = detail["reason"].as_str().map(str::to_owned);
                return Ok(Some(Fate::Failed(reason)));
            }
            (_, Some(turn_id)) => {
                self.turn = Turn::Begun(turn_id.to_owned());
                if self.is_unwanted {
                    self.interrupt();
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn notification(&mut self, detail: &Value) -> Result<(), Failure> {
        let item = &detail["params"]["item"];
        match (detail["notificationMethod"].as_str(), item["type"].as_str()) {
            (Some("item/started"), Some("fileChange")) => self.approvals.patch_began(item),
            (Some("item/completed"), Some("fileChange")) => self.approvals.patch_ended(item),
            _ => {}
        }
        match detail["notificationMethod"].as_str() {
            Some("item/started") => match format::item(item) {
                Some(line) => self.page.aside(&line),
                None => Ok(()),
            },
            Some("item/completed") if item["type"] == "agentMessage" => {
                let text = |name: &str| item[name].as_str().unwrap_or_default();
                self.page.whole(text("id"), text("text"))
            }
            Some("item/completed") => match format::item_outcome(item) {
                Some(outcome) => {
                    let line = format::item(item).unwrap_or_default();
                    self.page.aside(&format!("{outcome}: {line}"))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Interrupts the turn; one that waits is withdrawn, and interrupted where it begins all the same.
    fn interrupt(&mut self) {
        let client: Client = self.caller.client.clone();
        self.interrupting = Some(match &self.turn {
            Turn::Begun(turn_id) => {
                let body = json!({ "sessionId": self.session_id, "turnId": turn_id });
                tokio::spawn(async move { client.post("/v1/codexd/turn/interrupt", &body).await })
            }
            Turn::Queued(queue_id) => {
                let path = format!("{}/queue/{}", path(&self.session_id), escaped(queue_id));
                tokio::spawn(async move { client.delete(&path).await })
            }
        });
    }

    /// What became of the interrupt; the events tell of the turn.
    fn interrupted(&mut self, outcome: Result<Value, ClientError>) -> Result<(), Failure> {
        let sentence = match outcome {
            // Its end follows, and the events tell of it.
            Ok(answer) if answer["pending"] == true => return Ok(()),
            Ok(answer) => match answer["commandsReason"].as_str() {
                Some(reason) => format!("What the turn left in the background goes on: {reason}"),
                None => return Ok(()),
            },
            // It came to its end by itself.
            Err(error) if error.code() == "no_turn" => return Ok(()),
            // It begins, and is interrupted then.
            Err(error)
                if self.turn_id().is_none() && ["not_found", "turn_in_progress"].contains(&error.code()) =>
            {
                return Ok(());
            }
            Err(error) => format!("The turn could not be interrupted: {error}"),
        };
        self.page.make_room()?;
        self.caller.note(&sentence);
        Ok(())
    }
}

/// The answer to the interrupt that is under way; never when there is none.
async fn ended(task: &mut Option<JoinHandle<Result<Value, ClientError>>>) -> Result<Value, ClientError> {
    if let Some(handle) = task {
        let outcome = handle.await;
        *task = None;
        if let Ok(outcome) = outcome {
            return outcome;
        }
    }
    std::future::pending().await
}
