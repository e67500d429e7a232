//! Starts turns, follows them, and answers what Codex asks, through the HTTP interface of the daemon.
//!
//! [`Jobs`] has the client and no state of a turn; `server` calls it for each tool. [`Caller`] is the MCP client that
//! waits for the result: it can be shown progress, and asked if it supports that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::questions;
use super::tools::{self, Answer, JobReport, JobStatus, NewThread, OpenRequest, WhenBusy};
use crate::client::{
    ClientError, DaemonClient, EventFilter, EventStream, StreamItem, find_event, newest_cursor,
    percent_encode,
};
use crate::codex::protocol::notifications::{ITEM_COMPLETED, ITEM_STARTED};
use crate::codex::protocol::{items, values::TurnStatus};

/// How long to wait for a daemon that is gone, for example because it is restarted.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How many characters of a text a progress message has.
const MAX_PROGRESS_CHARS: usize = 200;
/// The configuration key of `compact-prompt`.
const COMPACT_PROMPT: &str = "compact_prompt";

/// A tool fails with a sentence for the model that called it.
pub(super) type Outcome<T> = Result<T, String>;

/// The MCP client that waits for the result of a call.
pub(super) trait Caller: Send + Sync {
    /// Shows what happens.
    fn show_progress(&self, message: &str) -> impl Future<Output = ()> + Send;
    /// Whether its user can fill in forms.
    fn has_forms(&self) -> bool;
    /// Has its user fill in a form. The form is withdrawn when the future is dropped.
    fn fill_in(&self, message: String, form: Value) -> impl Future<Output = Filled> + Send;
    /// Completes when the client cancels the call.
    fn cancelled(&self) -> impl Future<Output = ()> + Send;
}

/// What became of a form.
#[derive(Debug, PartialEq)]
pub(super) enum Filled {
    In(Value),
    /// The user declined or dismissed it.
    Declined,
    /// The client did not show it, for this reason.
    Failed(String),
}

/// When a wait ends before the turn does.
#[derive(Debug, Clone, Copy)]
pub(super) struct WaitLimit {
    /// At this time; `None` for never.
    pub(super) until: Option<Instant>,
    /// What happens to the turn when the client cancels the call.
    pub(super) interrupts: bool,
}

/// A turn that is being followed.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) thread_id: String,
    pub(super) session_id: String,
    /// The turn; `None` while it is queued.
    turn_id: Option<String>,
    /// The ID in the queue, for a turn that was queued.
    queue_id: Option<String>,
    /// Before the first event of the turn.
    cursor: String,
}

#[derive(Debug, Clone)]
pub(super) struct Jobs {
    client: DaemonClient,
    /// What a relative `cwd` is relative to, and the default; `None` if the client's directory is not known.
    directory: Option<PathBuf>,
    /// Locked while a session of an existing thread is searched for and opened.
    opening: Arc<Mutex<()>>,
}

impl Jobs {
    pub(super) fn new(client: DaemonClient, directory: Option<PathBuf>) -> Self {
        Self { client, directory, opening: Arc::default() }
    }

    /// Creates a session with a new thread, and starts a turn in it.
    pub(super) async fn start_thread(&self, new: NewThread) -> Outcome<Job> {
        let mut body = Map::new();
        let mut config = new.config.unwrap_or_default();
        if let Some(prompt) = new.compact_prompt {
            config.insert(COMPACT_PROMPT.to_owned(), prompt.into());
        }
        if !config.is_empty() {
            body.insert("config".to_owned(), config.into());
        }
        for (name, value) in [
            ("approvalPolicy", new.approval_policy),
            ("baseInstructions", new.base_instructions),
            ("developerInstructions", new.developer_instructions),
            ("cwd", self.directory(new.cwd)?),
            ("model", new.model),
            ("sandbox", new.sandbox),
        ] {
            body.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        let session = self.post("/v1/codexd/sessions", &body.into()).await?["session"].take();
        self.submit(&session, new.prompt, Map::new()).await
    }

    /// Starts a turn in a thread; opens a session of the thread if there is none.
    pub(super) async fn continue_thread(
        &self,
        thread_id: &str,
        turn: NewThread,
        when_busy: WhenBusy,
    ) -> Outcome<Job> {
        for (name, is_given) in [
            ("base-instructions", turn.base_instructions.is_some()),
            ("compact-prompt", turn.compact_prompt.is_some()),
            ("config", turn.config.is_some()),
            ("developer-instructions", turn.developer_instructions.is_some()),
            ("sandbox", turn.sandbox.is_some()),
        ] {
            if is_given {
                return Err(format!("{name} is for a new thread; the thread {thread_id} keeps its own."));
            }
        }
        // Two calls at once must not open two sessions of one thread.
        let opening = self.opening.lock().await;
        let session = match self.session_of(thread_id).await? {
            Some(session) => session,
            None => {
                let body = json!({ "threadId": thread_id });
                self.post("/v1/codexd/sessions", &body).await?["session"].take()
            }
        };
        drop(opening);
        let mut settings = Map::new();
        let cwd = turn.cwd.map(|cwd| self.directory(Some(cwd))).transpose()?.flatten();
        for (name, value) in [("approvalPolicy", turn.approval_policy), ("cwd", cwd), ("model", turn.model)] {
            settings.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        if when_busy != WhenBusy::Refuse {
            settings.insert("whenBusy".to_owned(), json!(when_busy));
        }
        self.submit(&session, turn.prompt, settings).await
    }

    async fn submit(&self, session: &Value, prompt: String, mut body: Map<String, Value>) -> Outcome<Job> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let session_id = text(&session["sessionId"]).ok_or("codexd returned no session ID.")?;
        let cursor = newest_cursor(&self.client).await.map_err(sentence)?;
        body.insert("sessionId".to_owned(), session_id.as_str().into());
        body.insert("input".to_owned(), prompt.into());
        let accepted = self.post("/v1/codexd/turn", &body.into()).await?;
        // The thread of a session can change with its first turn.
        let thread_id = text(&accepted["session"]["threadId"]).ok_or("codexd returned no thread ID.")?;
        let (turn_id, queue_id) = (text(&accepted["turnId"]), text(&accepted["queueId"]));
        Ok(Job { thread_id, session_id, turn_id, queue_id, cursor })
    }

    /// The turn that the arguments of a tool name; without an ID the one in progress, or else the newest.
    pub(super) async fn find(&self, turn: tools::Turn) -> Outcome<Job> {
        let tools::Turn { thread_id, turn_id, queue_id } = turn;
        match (turn_id, queue_id) {
            (Some(_), Some(_)) => Err("Give turnId or queueId, not both.".to_owned()),
            (None, Some(queue_id)) => self.find_queued(&thread_id, queue_id).await,
            (turn_id, None) => self.find_turn(&thread_id, turn_id).await,
        }
    }

    /// The turn that was queued with this ID: it waits, or has started since.
    async fn find_queued(&self, thread_id: &str, queue_id: String) -> Outcome<Job> {
        let job =
            Job { turn_id: None, queue_id: Some(queue_id.clone()), ..self.find_turn(thread_id, None).await? };
        let view = self.get(&session_path(&job.session_id)).await?;
        let mut waiting = view["queuedTurns"].as_array().into_iter().flatten();
        if waiting.any(|turn| turn["queueId"] == *queue_id) {
            return Ok(job);
        }
        let is_it = |detail: &Value| detail["queueId"] == *queue_id;
        let end = find_event(&self.client, &["turn.accepted", "turn.rejected"], is_it).await;
        let end = end.map_err(sentence)?;
        let end = end.ok_or_else(|| format!("The thread {thread_id} has no queued turn {queue_id:?}."))?;
        let turn_id = end["turnId"].as_str().map(str::to_owned);
        match turn_id {
            Some(_) => Ok(Job { turn_id, ..job }),
            None => Err(not_started(&end)),
        }
    }

    async fn find_turn(&self, thread_id: &str, turn_id: Option<String>) -> Outcome<Job> {
        let cursor = newest_cursor(&self.client).await.map_err(sentence)?;
        let session = self.session_of(thread_id).await?;
        let session = session.ok_or_else(|| {
            format!("codexd has no session of the thread {thread_id}; codex-reply or codex-start opens one.")
        })?;
        let text = |name: &str| session[name].as_str().map(str::to_owned);
        Ok(Job {
            thread_id: thread_id.to_owned(),
            session_id: text("sessionId").unwrap_or_default(),
            turn_id: turn_id.or(text("currentTurnId")).or(text("lastTurnId")),
            queue_id: None,
            cursor,
        })
    }

    /// Waits until the turn has ended, Codex asks for something that the caller cannot be asked, or the limit is reached.
    pub(super) async fn wait(
        &self,
        mut job: Job,
        caller: &impl Caller,
        limit: WaitLimit,
    ) -> Outcome<JobReport> {
        let filter = EventFilter { session_id: Some(job.session_id.clone()), types: Vec::new() };
        let mut events = EventStream::new(&self.client, filter, job.cursor.clone(), Some(RECONNECT_LIMIT));
        let mut report = self.report(&job).await?;
        loop {
            let request = match report.status {
                JobStatus::NeedsAnswer if caller.has_forms() => next_form(&report),
                JobStatus::Queued | JobStatus::Running => None,
                _ => return Ok(report),
            };
            if report.status == JobStatus::NeedsAnswer && request.is_none() {
                return Ok(report);
            }
            let filled = async {
                match &request {
                    Some((request, form)) => caller.fill_in(request.message.clone(), form.clone()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(filled);
            loop {
                let deadline = async {
                    match limit.until {
                        Some(until) => sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    item = events.next() => {
                        let changes = self.handle(item.map_err(sentence)?, &mut job, caller).await?;
                        if changes {
                            break;
                        }
                    }
                    filled = &mut filled => {
                        let Some((request, _)) = &request else { break };
                        if !self.answer_with(request, filled).await? {
                            return self.report(&job).await;
                        }
                        break;
                    }
                    () = deadline => return self.report(&job).await,
                    () = caller.cancelled() => {
                        if limit.interrupts {
                            self.interrupt(&job).await?;
                        }
                        return self.report(&job).await;
                    }
                }
            }
            report = self.report(&job).await?;
        }
    }

    /// Handles one item of the event stream; returns whether the report may have changed.
    async fn handle(&self, item: StreamItem, job: &mut Job, caller: &impl Caller) -> Outcome<bool> {
        let event: Value = match item {
            StreamItem::Event(text) => serde_json::from_str(&text).unwrap_or_default(),
            StreamItem::Gap(_) | StreamItem::Reconnected => return Ok(true),
            StreamItem::Disconnected => {
                caller.show_progress("The connection to codexd was lost; waiting for it.").await;
                return Ok(false);
            }
        };
        let (kind, detail) = (event["type"].as_str().unwrap_or_default(), &event["detail"]);
        if let (None, Some(queue_id)) = (&job.turn_id, &job.queue_id) {
            if detail["queueId"].as_str() == Some(queue_id) {
                if kind == "turn.rejected" {
                    return Err(not_started(detail));
                }
                job.turn_id = detail["turnId"].as_str().map(str::to_owned);
                return Ok(job.turn_id.is_some());
            }
            return Ok(false);
        }
        if kind.starts_with("request.") || kind == "session.closed" {
            return Ok(true);
        }
        let turn_id = detail["turnId"].as_str().or(detail["params"]["turnId"].as_str());
        if turn_id.is_none() || turn_id != job.turn_id.as_deref() {
            return Ok(false);
        }
        if let Some(message) = progress(detail) {
            caller.show_progress(&message).await;
        }
        Ok(matches!(kind, "app-server.turn.completed" | "turn.settled" | "app-server.turn.completed.missing"))
    }

    /// Answers a request with a form; returns whether the request is answered.
    async fn answer_with(&self, request: &OpenRequest, filled: Filled) -> Outcome<bool> {
        let body = match filled {
            Filled::In(form) => questions::answer_of_form(request, &form),
            Filled::Declined => questions::decline(request),
            Filled::Failed(reason) => {
                tracing::warn!(reason, "the MCP client did not show a request of Codex");
                None
            }
        };
        let Some(body) = body else { return Ok(false) };
        match self.post_answer(&request.request_id, &body).await {
            // Another client was faster.
            Err(error) if error.code() == "already_resolved" => Ok(true),
            answered => answered.map(|_| true).map_err(sentence),
        }
    }

    /// Answers a request of Codex, and reports the turn that it belongs to.
    pub(super) async fn answer(&self, answer: Answer) -> Outcome<JobReport> {
        let body = match (answer.decision, answer.answers, answer.result) {
            (Some(decision), None, None) => json!({ "decision": decision }),
            (None, Some(answers), None) => questions::answer_of(&answers),
            (None, None, Some(result)) => json!({ "result": result }),
            _ => return Err("Give exactly one of decision, answers and result.".to_owned()),
        };
        let answered = self.post_answer(&answer.request_id, &body).await.map_err(sentence)?;
        let request = &answered["request"];
        // For a sub-agent, those of the session.
        let text = |name: &str| request[name].as_str().map(str::to_owned);
        let thread_id = text("rootThreadId").or(text("threadId")).ok_or("The request has no thread.")?;
        let job = self.find_turn(&thread_id, text("rootTurnId").or(text("turnId"))).await?;
        self.report(&job).await
    }

    async fn post_answer(&self, request_id: &str, body: &Value) -> Result<Value, ClientError> {
        self.client.post(&format!("/v1/codexd/requests/{}", percent_encode(request_id)), body).await
    }

    /// Interrupts the turn, or removes it from the queue.
    pub(super) async fn interrupt(&self, job: &Job) -> Outcome<()> {
        let outcome = match (&job.turn_id, &job.queue_id) {
            (Some(turn_id), _) => {
                let body = json!({ "sessionId": job.session_id, "turnId": turn_id });
                self.client.post("/v1/codexd/turn/interrupt", &body).await
            }
            (None, Some(queue_id)) => {
                let path = format!("{}/queue/{}", session_path(&job.session_id), percent_encode(queue_id));
                self.client.delete(&path).await
            }
            (None, None) => return Ok(()),
        };
        match outcome {
            // It has ended by itself.
            Err(error) if error.code() == "no_turn" => Ok(()),
            outcome => outcome.map(|_| ()).map_err(sentence),
        }
    }

    /// Reads the state of a turn.
    pub(super) async fn report(&self, job: &Job) -> Outcome<JobReport> {
        let view = self.get(&session_path(&job.session_id)).await?;
        let mut report = JobReport {
            thread_id: job.thread_id.clone(),
            content: String::new(),
            status: if job.queue_id.is_some() { JobStatus::Queued } else { JobStatus::Idle },
            session_id: job.session_id.clone(),
            turn_id: job.turn_id.clone(),
            queue_id: job.queue_id.clone(),
            error: None,
            requests: Vec::new(),
        };
        let Some(turn_id) = &job.turn_id else { return Ok(report) };
        let path = format!("{}/turns/{}", session_path(&job.session_id), percent_encode(turn_id));
        let turn = self.get(&path).await?["turn"].take();
        report.content = turn["text"].as_str().unwrap_or_default().to_owned();
        report.status = match TurnStatus::of(turn["status"].as_str().unwrap_or_default()) {
            TurnStatus::InProgress => JobStatus::Running,
            TurnStatus::Completed => JobStatus::Completed,
            TurnStatus::Interrupted => JobStatus::Interrupted,
            TurnStatus::Failed | TurnStatus::Other(_) => JobStatus::Failed,
        };
        if report.status == JobStatus::Failed {
            let unknown = "Codex reported no reason; the connection to it ended before the turn did.";
            report.error = Some(turn["error"]["message"].as_str().unwrap_or(unknown).to_owned());
        }
        if report.status == JobStatus::Running {
            let requests = view["requests"].as_array().into_iter().flatten();
            report.requests = requests
                .filter(|request| [&request["rootTurnId"], &request["turnId"]].contains(&&json!(turn_id)))
                .map(questions::of_record)
                .collect();
            if !report.requests.is_empty() {
                report.status = JobStatus::NeedsAnswer;
            }
        }
        Ok(report)
    }

    /// The newest active session of a thread.
    async fn session_of(&self, thread_id: &str) -> Outcome<Option<Value>> {
        // An empty parameter of a query counts as absent, and would find the newest session of any thread.
        if thread_id.trim().is_empty() {
            return Err("threadId must not be empty; the report of an earlier call has it.".to_owned());
        }
        // Codex accepts an ID in any case, and reports it in lower case.
        let thread_id = uuid::Uuid::parse_str(thread_id.trim())
            .map_or_else(|_| thread_id.to_owned(), |id| id.to_string());
        let path = format!(
            "/v1/codexd/sessions?status=active&order=newest&limit=1&threadId={}",
            percent_encode(&thread_id)
        );
        let found = self.get(&path).await?;
        Ok(found["sessions"].get(0).cloned())
    }

    /// The directory that an argument means, absolute.
    fn directory(&self, cwd: Option<String>) -> Outcome<Option<String>> {
        let path = match (&self.directory, &cwd) {
            (Some(directory), Some(cwd)) => directory.join(cwd),
            (Some(directory), None) => directory.clone(),
            // The daemon says what is wrong with a relative one.
            (None, _) => return Ok(cwd),
        };
        let path = path.into_os_string().into_string();
        path.map(Some).map_err(|path| format!("The directory {} is not UTF-8.", path.display()))
    }

    async fn get(&self, path: &str) -> Outcome<Value> {
        self.client.get(path).await.map_err(sentence)
    }

    async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.client.post(path, body).await.map_err(sentence)
    }
}

/// Why a queued turn did not start, from the event that says so.
fn not_started(detail: &Value) -> String {
    let reason = detail["reason"].as_str().unwrap_or("it was removed from the queue.");
    format!("The queued turn did not start: {reason}")
}

/// The first request that a form can answer, and the form.
fn next_form(report: &JobReport) -> Option<(OpenRequest, Value)> {
    report.requests.iter().find_map(|request| Some((request.clone(), questions::form(request)?)))
}

fn session_path(session_id: &str) -> String {
    format!("/v1/codexd/sessions/{}", percent_encode(session_id))
}

/// An error as a sentence for the model.
fn sentence(error: ClientError) -> String {
    match error {
        ClientError::Refused { message, .. } => message,
        ClientError::Unreachable { address, source } => {
            format!("codexd does not run at {address} ({source}); start it with \"codexd start\".")
        }
        error => format!("codexd could not be asked: {error}."),
    }
}

/// What an event of a turn says about its progress: a command that starts, or a message of the agent.
fn progress(detail: &Value) -> Option<String> {
    let item = &detail["params"]["item"];
    let text = match detail["notificationMethod"].as_str()? {
        ITEM_COMPLETED => items::agent_message(item)?.to_owned(),
        ITEM_STARTED => match item["type"].as_str()? {
            items::COMMAND_EXECUTION => format!("Runs: {}", item["command"].as_str()?),
            items::FILE_CHANGE => "Changes files".to_owned(),
            items::MCP_TOOL_CALL => format!("Calls the tool {}", item["tool"].as_str()?),
            items::WEB_SEARCH => "Searches the web".to_owned(),
            _ => return None,
        },
        _ => return None,
    };
    Some(text.chars().take(MAX_PROGRESS_CHARS).collect())
}
