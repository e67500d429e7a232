//! Submitting turns: start, steer or queue.
//!
//! The caller of a start holds the thread's lock, so the turns of a thread start in order.
//! A turn whose outcome is unknown is searched for in its thread and never started twice.

pub(in crate::daemon) mod activity;
pub(in crate::daemon) mod descendants;
pub(in crate::daemon) mod interrupt;
mod read;
pub(in crate::daemon) mod sandboxes;
pub(in crate::daemon) mod settlement;
pub(in crate::daemon) mod submission;
pub(in crate::daemon) mod watch;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::codex::protocol::responses::{ListedTurn, SteeredTurn, TurnPage};
use crate::codex::protocol::{errors, items, methods, values, versions};
use crate::codex::{Client, Wait};
use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::idempotency::RequestKey;
use crate::daemon::turns::submission::{Submission, UnderWay};
use crate::state::{Session, SessionStatus, State, StoredResponse, TurnEvent};
use crate::time::rfc3339_now;

/// How often a turn is sent at most to an app-server that answers "overloaded", which then has not accepted it.
const MAX_OVERLOAD_ATTEMPTS: u32 = 4;
/// How many turns each page has when a thread is searched for a turn of unknown outcome.
const SEARCH_PAGE_SIZE: u32 = 20;
/// By how many seconds the clock may have been set back between the submission of a turn and its start.
const MAX_CLOCK_STEP_SECONDS: i64 = 3600;

/// How long `turn/start` may go without a response before the thread is searched for the turn, because the response may
/// be lost; normally it takes a few ms (measured).
const SEARCH_DELAY: Duration = Duration::from_secs(1);
/// The pause between two searches of the thread.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);

/// What happens to a new turn while another one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenBusy {
    /// It is rejected.
    #[default]
    Refuse,
    /// Its input steers the running turn.
    Steer,
    /// It waits in the queue.
    Queue,
}

/// The input and settings of a new turn; the app-server has defaults for absent settings.
#[derive(Debug, Clone)]
pub struct SubmitTurn {
    /// The session.
    pub session_id: String,
    /// The items of the user's input; never empty.
    pub input: Vec<Value>,
    /// The running turn to steer; `None` starts a new one.
    pub expected_turn_id: Option<String>,
    /// What happens when a turn runs and `expected_turn_id` is `None`.
    pub when_busy: WhenBusy,
    /// The parameters of `turn/start`, by the app-server's names; values that only it can validate are passed through.
    pub settings: Map<String, Value>,
    /// Set when the caller may repeat the request.
    pub key: Option<RequestKey>,
}

/// The result of an accepted submission.
#[derive(Debug, Clone)]
pub struct TurnAccepted {
    /// The session, as it was after the acceptance.
    pub session: Arc<Session>,
    /// The turn, when the app-server accepted it.
    pub turn_id: Option<String>,
    /// Its queue ID, when it waits.
    pub queue_id: Option<String>,
    /// Whether the input was added to a running turn, to which no settings apply.
    pub steered: bool,
}

/// A turn that is being started.
pub(super) struct TurnStart<'a> {
    pub(super) session: &'a Session,
    pub(super) input: &'a [Value],
    pub(super) settings: &'a Map<String, Value>,
    pub(super) under_way: UnderWay,
    /// Whether its outcome must be found if the response is lost, also after a restart.
    pub(super) is_tracked: bool,
    /// Since when the app-server may have it under its message ID, RFC 3339; `None` when it was not submitted before.
    pub(super) submitted_since: Option<String>,
}

impl Daemon {
    /// Starts, steers or queues a turn; its acceptance is on disk when this returns.
    pub async fn submit_turn(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        // The app-server uses the login that it read at its start; the login may have changed since.
        self.renew_login().await;
        let daemon = self.clone();
        self.run(async move { daemon.submit(input).await }).await
    }

    async fn submit(&self, input: SubmitTurn) -> Result<TurnAccepted, DaemonError> {
        if input.input.is_empty() {
            let reason = "turn input must be a non-empty string or a non-empty array of items.";
            return Err(DaemonError::Invalid(reason.to_owned()));
        }
        self.session(&input.session_id)?;
        let _key_lock = self.lock_key(input.key.as_ref()).await;
        let remembered = match &input.key {
            Some(key) => self.remembered_answer(key)?,
            None => None,
        };
        if let Some(StoredResponse { session: Some(session), turn_id, queue_id, steered, .. }) = remembered {
            return Ok(TurnAccepted { session, turn_id, queue_id, steered });
        }
        let key = input.key.clone().map(RequestKey::into_stored);
        let unknown = remembered.and_then(|answer| Some((answer.client_message_id?, answer.key.since())));
        let may_wait = input.when_busy == WhenBusy::Queue && input.expected_turn_id.is_none();
        let is_unknown = unknown.is_some();
        let submitted_since = unknown.as_ref().map(|(_, since)| since.clone());
        let message_id = unknown.map_or_else(new_message_id, |(message_id, _)| message_id);
        let (_thread_lock, under_way, client, session, thread_id) = loop {
            let (thread_lock, session) = self.lock_session_thread(&input.session_id).await?;
            let session = require_active(session)?;
            let no_thread = || DaemonError::NoThread(input.session_id.clone());
            let thread_id = session.thread_id.clone().ok_or_else(no_thread)?;
            // A queued turn may be about to start; this one must not start before it.
            let is_busy = {
                let state = self.state();
                state.turns.running(&thread_id).is_some() || state.queue_of(&thread_id).next().is_some()
            };
            if is_busy && may_wait && !is_unknown {
                return self.enqueue(&session, input, key).await;
            }
            // From here on an interrupt finds the submission; starting the app-server or the thread may take long.
            let submissions = &self.shared.submissions;
            let under_way =
                submissions.begin(&session.session_id, &thread_id, &message_id, None, key.as_ref());
            let client = self.wait_for_client().await?;
            let session = self.attach(&client, session).await?;
            if under_way.submission.is_withdrawn() {
                return Err(DaemonError::TurnWithdrawn(input.session_id));
            }
            // A recreated thread has another lock.
            if session.thread_id.as_ref() == Some(&thread_id) {
                break (thread_lock, under_way, client, session, thread_id);
            }
        };
        let mut start = TurnStart {
            session: &session,
            input: &input.input,
            settings: &input.settings,
            under_way,
            is_tracked: key.is_some(),
            submitted_since,
        };
        // Search before checking which turn runs now: it may be this very turn.
        if let Some(turn_id) = self.find_submitted(&client, &start).await? {
            return self.accepted(&session.session_id, input.key.as_ref(), Some(turn_id), None);
        }
        start.submitted_since = None;
        let current = self.state().turns.running(&thread_id).map(|turn| turn.turn_id.clone());
        let running = match (&input.expected_turn_id, &current, input.when_busy) {
            (Some(expected), _, _) => Some(expected.clone()),
            (None, Some(current), WhenBusy::Steer) => Some(current.clone()),
            (None, Some(_), WhenBusy::Queue) => return self.enqueue(&session, input, key).await,
            // The app-server would add the input to the running turn (measured); the client asked for a new one.
            (None, Some(current), WhenBusy::Refuse) => {
                let (session_id, turn_id) = (input.session_id, current.clone());
                return Err(DaemonError::TurnInProgress { session_id, turn_id });
            }
            (None, None, _) => None,
        };
        let (turn_id, steered) = match running {
            Some(turn_id) => match self.steer(&client, &start, &turn_id).await {
                // "whenBusy" names no particular turn, and the one that ran has ended in the meantime.
                Err(DaemonError::Rejected { ref message, .. })
                    if input.expected_turn_id.is_none() && errors::is_nothing_to_steer(message) =>
                {
                    (self.start_or_find(&client, start).await?, false)
                }
                steered => (steered?, true),
            },
            None => (self.start_or_find(&client, start).await?, false),
        };
        let accepted = self.accepted(&session.session_id, input.key.as_ref(), Some(turn_id), None)?;
        Ok(TurnAccepted { steered, ..accepted })
    }

    /// The response to an accepted turn: the same one that a repeated request gets.
    pub(super) fn accepted(
        &self,
        session_id: &str,
        key: Option<&RequestKey>,
        turn_id: Option<String>,
        queue_id: Option<String>,
    ) -> Result<TurnAccepted, DaemonError> {
        let session = self.first_answer(key, session_id)?;
        Ok(TurnAccepted { session, turn_id, queue_id, steered: false })
    }

    /// Starts a turn; a turn that was submitted before is searched for, so that it is not started twice.
    pub(super) async fn start_or_find(
        &self,
        client: &Client,
        start: TurnStart<'_>,
    ) -> Result<String, DaemonError> {
        let submission = &start.under_way.submission;
        let (queue_id, key) = (submission.queue_id.as_deref(), submission.key.as_ref());
        let mut params = start.settings.clone();
        params.insert("threadId".to_owned(), submission.thread_id.as_str().into());
        params.insert("input".to_owned(), start.input.into());
        params.insert("clientUserMessageId".to_owned(), submission.message_id.as_str().into());
        if let Some(turn_id) = self.find_submitted(client, &start).await? {
            return Ok(turn_id);
        }
        let session_id = &submission.session_id;
        if start.is_tracked {
            let submitted = TurnEvent::Submitted {
                session_id: session_id.clone(),
                thread_id: submission.thread_id.clone(),
                client_message_id: submission.message_id.clone(),
                queue_id: submission.queue_id.clone(),
                idempotency: key.cloned(),
            };
            self.record_durably(move |_| vec![submitted.into()]).await?;
        }
        let mut started = self.start_turn(client, submission, params.clone()).await;
        if let Err(DaemonError::Rejected { message, .. }) = &started
            && errors::is_thread_unloaded(message)
        {
            // Codex unloads archived threads, and threads that were not used for half an hour.
            self.note_detached(client, &submission.thread_id);
            let session = self.attach(client, self.session(session_id)?).await?;
            let thread_id = session.thread_id.as_deref().unwrap_or(&submission.thread_id);
            params.insert("threadId".to_owned(), thread_id.into());
            let again =
                self.shared.submissions.begin(session_id, thread_id, &submission.message_id, queue_id, key);
            started = self.start_turn(client, &again.submission, params).await;
        }
        match &started {
            Err(DaemonError::TurnWithdrawn(_)) if start.is_tracked => {
                self.record_withdrawal(session_id, queue_id, key, false).await?;
            }
            // A queued turn stays in its queue; only one that was to start now is rejected.
            Err(error) if start.is_tracked && queue_id.is_none() && error.is_refusal() => {
                let rejected = events::turn_rejected(session_id, None, key, &error.to_string());
                self.record_durably(move |_| vec![rejected]).await?;
            }
            _ => {}
        }
        started
    }

    /// Records a turn that was submitted before, if the app-server has it.
    pub(super) async fn find_submitted(
        &self,
        client: &Client,
        start: &TurnStart<'_>,
    ) -> Result<Option<String>, DaemonError> {
        let Some(since) = &start.submitted_since else { return Ok(None) };
        let submission = &start.under_way.submission;
        let unknown = |reason: String| DaemonError::OutcomeUnknown {
            session_id: start.session.session_id.clone(),
            submitted_at: since.clone(),
            reason,
        };
        let found = match find_turn(client, &submission.thread_id, &submission.message_id, since).await {
            Ok(found) => found,
            Err(error) if error.is_refusal() && !matches!(error, DaemonError::Overloaded) => {
                return Err(unknown(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let Some(Found { turn, is_newest }) = found else {
            // A failed search proves nothing where the listed turns carry no message ID.
            return match client.older_than(versions::REPEATS_MESSAGE_ID) {
                Some(version) => Err(unknown(format!("codex {version} does not report which turn it was"))),
                None => Ok(None),
            };
        };
        submission.accept(&turn.id, Some((&turn.status, is_newest)));
        submission.outcome().committed().await.map(Some)
    }

    /// Calls `turn/start`, again while the app-server answers "overloaded"; returns when the turn is known, by the response
    /// or in another way, and its acceptance is on disk.
    async fn start_turn(
        &self,
        client: &Client,
        submission: &Arc<Submission>,
        params: Map<String, Value>,
    ) -> Result<String, DaemonError> {
        let params = Arc::new(params);
        let mut attempt = 1;
        loop {
            let Some(outcome) = submission.send() else {
                return Err(DaemonError::TurnWithdrawn(submission.session_id.clone()));
            };
            // The task is not awaited: the outcome is, and the turn may be known earlier.
            let call = {
                let (client, params, on_reply) =
                    (client.clone(), Arc::clone(&params), Arc::clone(submission));
                let wait = Wait::Limited(client.call_timeout());
                async move { client.call_in_order(methods::TURN_START, &*params, wait, on_reply).await }
            };
            tokio::spawn(call);
            let since = rfc3339_now();
            let search = async {
                tokio::time::sleep(SEARCH_DELAY).await;
                loop {
                    let found =
                        find_turn(client, &submission.thread_id, &submission.message_id, &since).await;
                    if let Ok(Some(Found { turn, is_newest })) = found {
                        let found = Some((turn.status.as_str(), is_newest));
                        submission.accept(&turn.id, found);
                        return;
                    }
                    tokio::time::sleep(SEARCH_INTERVAL).await;
                }
            };
            let mut accepted = std::pin::pin!(outcome.committed());
            let taken = tokio::select! {
                taken = &mut accepted => taken,
                () = search => accepted.await,
            };
            match taken {
                Err(DaemonError::Overloaded) if attempt < MAX_OVERLOAD_ATTEMPTS => {
                    tokio::time::sleep(pause(attempt)).await
                }
                taken => return taken,
            }
            attempt += 1;
        }
    }

    /// Adds input to a running turn.
    async fn steer(
        &self,
        client: &Client,
        start: &TurnStart<'_>,
        turn_id: &str,
    ) -> Result<String, DaemonError> {
        let mut params = Map::new();
        let submission = &start.under_way.submission;
        params.insert("threadId".to_owned(), submission.thread_id.as_str().into());
        params.insert("expectedTurnId".to_owned(), turn_id.into());
        params.insert("input".to_owned(), start.input.into());
        let mut attempt = 1;
        loop {
            let submission = Arc::clone(submission);
            let steered = move |SteeredTurn { turn_id }, state: &State| {
                let accepted = TurnEvent::Accepted {
                    session_id: submission.session_id.clone(),
                    thread_id: Some(submission.thread_id.clone()),
                    turn_id: turn_id.clone(),
                    status: None,
                    is_newest: None,
                    steered: true,
                    queue_id: None,
                    idempotency: submission.key.clone(),
                };
                (turn_id, events::accepted_with_release(state, accepted))
            };
            let wait = Wait::Limited(client.call_timeout());
            match self.call_and_record(client, methods::TURN_STEER, &params, wait, steered).await {
                Err(DaemonError::Overloaded) if attempt < MAX_OVERLOAD_ATTEMPTS => {
                    tokio::time::sleep(pause(attempt)).await
                }
                taken => return taken,
            }
            attempt += 1;
        }
    }
}

/// A new message ID, by which the app-server's records name a submission.
fn new_message_id() -> String {
    format!("codexd-{}", uuid::Uuid::new_v4())
}

/// Returns the session if it is active, else an error.
pub(super) fn require_active(session: Arc<Session>) -> Result<Arc<Session>, DaemonError> {
    match session.status {
        SessionStatus::Active => Ok(session),
        SessionStatus::Closed => {
            let reason = session.closed_reason.clone().unwrap_or_else(|| "It was closed.".to_owned());
            Err(DaemonError::SessionNotActive { session_id: session.session_id.clone(), reason })
        }
    }
}

/// A turn that was found in its thread.
struct Found {
    turn: ListedTurn,
    is_newest: bool,
}

/// Searches a thread for the turn that begins with this message.
///
/// It reads the turns from the newest back, until one is older than `since`, RFC 3339.
async fn find_turn(
    client: &Client,
    thread_id: &str,
    client_message_id: &str,
    since: &str,
) -> Result<Option<Found>, DaemonError> {
    let since: Option<jiff::Timestamp> = since.parse().ok();
    let oldest = since.map(|since| since.as_second() - MAX_CLOCK_STEP_SECONDS);
    let is_it = |item: &Value| items::is_user_message_of(item, client_message_id);
    let is_older = |turn: &ListedTurn| turn.started_at.zip(oldest).is_some_and(|(at, oldest)| at < oldest);
    let mut params =
        json!({ "threadId": thread_id, "limit": SEARCH_PAGE_SIZE, "itemsView": values::ITEMS_FULL });
    let mut is_newest = true;
    loop {
        let page: TurnPage = Daemon::call(client, methods::THREAD_TURNS_LIST, &params).await?;
        for turn in page.data {
            if turn.items.iter().any(is_it) {
                return Ok(Some(Found { turn, is_newest }));
            }
            if is_older(&turn) {
                return Ok(None);
            }
            is_newest = false;
        }
        match page.next_cursor {
            Some(cursor) => params["cursor"] = cursor.into(),
            None => return Ok(None),
        }
    }
}

/// A pause that doubles, with jitter, so that callers do not retry all at once.
fn pause(attempt: u32) -> Duration {
    let base = 50u64 << attempt;
    let jitter = (uuid::Uuid::new_v4().as_u128() % u128::from(base)) as u64;
    Duration::from_millis(base / 2 + jitter)
}
