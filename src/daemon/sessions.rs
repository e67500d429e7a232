//! Sessions: create, resume, list, read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::recorder::now;
use super::{CALL, Daemon, DaemonError, drafts};
use crate::app_server::Client;
use crate::state::{Purpose, Session, SessionStatus};

/// What a session is created from; absent values are left to the app-server.
#[derive(Debug, Clone, Default)]
pub struct CreateSession {
    /// What it is for.
    pub purpose: Purpose,
    /// The caller's own labels.
    pub metadata: BTreeMap<String, String>,
    /// The thread to resume; none starts a new one.
    pub thread_id: Option<String>,
    /// What the app-server is told, by its own names; values that only it can judge are passed on untouched.
    pub settings: Map<String, Value>,
}

/// What `thread/start` and `thread/resume` answer, as far as it is needed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ThreadSession {
    thread: Thread,
    cwd: Option<String>,
    model: Option<String>,
    model_provider: Option<String>,
    service_tier: Option<String>,
    reasoning_effort: Option<String>,
}

#[derive(Deserialize)]
struct Thread {
    id: String,
}

#[derive(Deserialize)]
struct Turns {
    data: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    id: String,
    status: String,
}

impl Daemon {
    /// Creates a session on a new thread, or on an old one that is resumed; it is on disk when this returns.
    pub async fn create_session(&self, input: CreateSession) -> Result<Arc<Session>, DaemonError> {
        let daemon = self.clone();
        self.run(async move {
            let client = daemon.client().await?;
            let session_id = match input.thread_id.clone() {
                None => daemon.start_thread(&client, input).await?,
                Some(thread_id) => daemon.resume_thread(&client, input, &thread_id).await?,
            };
            daemon.session(&session_id)
        })
        .await
    }

    /// One session.
    pub fn session(&self, session_id: &str) -> Result<Arc<Session>, DaemonError> {
        let known = self.state().sessions.get(session_id).cloned();
        known.ok_or_else(|| DaemonError::UnknownSession(session_id.to_owned()))
    }

    /// All sessions, oldest first.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.state().sessions.iter().cloned().collect()
    }

    /// Ends a session; what it was stays readable.
    pub async fn close_session(&self, session_id: &str) -> Result<Arc<Session>, DaemonError> {
        self.session(session_id)?;
        let closed = drafts::session_closed(session_id);
        self.shared.recorder.promise(move |_| vec![closed]).await.map_err(DaemonError::Storage)?;
        self.session(session_id)
    }

    async fn start_thread(&self, client: &Client, input: CreateSession) -> Result<String, DaemonError> {
        let params = Value::Object(input.settings.clone());
        let endpoint = self.config().server.endpoint.to_string();
        self.call_and_record(client, "thread/start", &params, move |answer| {
            let thread: ThreadSession = read(answer.get())?;
            let session = session_of(input, thread, endpoint, None);
            let session_id = session.session_id.clone();
            Ok((session_id, open(session, false)))
        })
        .await
    }

    /// Resumes without the history, then asks for the last turn only: a whole history can be huge, and asking for it
    /// with the thread is deprecated (measured on 0.169.0).
    async fn resume_thread(
        &self,
        client: &Client,
        input: CreateSession,
        thread_id: &str,
    ) -> Result<String, DaemonError> {
        let mut params = input.settings.clone();
        params.insert("threadId".to_owned(), thread_id.into());
        params.insert("excludeTurns".to_owned(), true.into());
        let answer = client.call("thread/resume", &params, CALL).await?;
        let thread: ThreadSession = read(answer.get()).map_err(|message| DaemonError::AppServer {
            method: "thread/resume".to_owned(),
            code: None,
            message,
        })?;
        let last_turn = json!({ "threadId": thread.thread.id, "limit": 1 });
        let endpoint = self.config().server.endpoint.to_string();
        self.call_and_record(client, "thread/turns/list", &last_turn, move |answer| {
            let turns: Turns = read(answer.get())?;
            let session = session_of(input, thread, endpoint, turns.data.into_iter().next());
            let session_id = session.session_id.clone();
            Ok((session_id, open(session, true)))
        })
        .await
    }
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn session_of(
    input: CreateSession,
    thread: ThreadSession,
    endpoint: String,
    last_turn: Option<Turn>,
) -> Session {
    let now = now();
    let running = last_turn.as_ref().filter(|turn| turn.status == "inProgress");
    Session {
        session_id: new_session_id(),
        purpose: input.purpose,
        thread_id: Some(thread.thread.id),
        status: SessionStatus::Active,
        endpoint,
        child_pid: None,
        created_at: now.clone(),
        updated_at: now,
        cwd: thread.cwd,
        model: thread.model,
        model_provider: thread.model_provider,
        service_tier: thread.service_tier,
        reasoning_effort: thread.reasoning_effort,
        current_turn_id: running.map(|turn| turn.id.clone()),
        last_turn_id: last_turn.as_ref().map(|turn| turn.id.clone()),
        last_turn_status: last_turn.map(|turn| turn.status),
        metadata: input.metadata,
    }
}

fn open(session: Session, resumed: bool) -> super::recorder::Build {
    Box::new(move |state| {
        let session = Session { child_pid: state.daemon.child.pid, ..session };
        vec![drafts::session_opened(&session, resumed)]
    })
}

/// A name that is unique for ever and sorts by time.
fn new_session_id() -> String {
    let millis = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let random = (uuid::Uuid::new_v4().as_u128() & 0xffff_ffff) as u64;
    format!("session-{}-{}", base36(millis), base36(random))
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap_or('0'));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
