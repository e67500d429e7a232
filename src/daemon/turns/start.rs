//! Starting a turn, and finding one that may have been started before; adding input to a running turn.
//!
//! The caller holds the thread's lock, so the turns of a thread start in order.
//! A turn whose outcome is unknown is searched for in its thread and never started twice.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::codex::protocol::responses::{ListedTurn, SteeredTurn};
use crate::codex::protocol::{errors, items, methods, versions};
use crate::codex::{Client, Wait};
use crate::daemon::app_server::calls::{call_and_record, search_turns};
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::threads::Threads;
use crate::daemon::turns::submission::{Submission, Submissions, UnderWay};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{IdempotencyKey, Session, State, TurnEvent};
use crate::time::rfc3339_now;
use crate::timestamp::Timestamp;

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

/// Starts turns; clones share the submissions.
#[derive(Clone)]
pub(in crate::daemon) struct TurnStarter {
    pub(in crate::daemon) core: Arc<Core>,
    pub(in crate::daemon) threads: Threads,
    pub(in crate::daemon) submissions: Arc<Submissions>,
}

/// A turn that is being started.
pub(in crate::daemon) struct TurnStart<'a> {
    pub(in crate::daemon) session: &'a Session,
    pub(in crate::daemon) input: &'a [Value],
    pub(in crate::daemon) settings: &'a Map<String, Value>,
    pub(in crate::daemon) under_way: UnderWay,
    /// Whether its outcome must be found if the response is lost, also after a restart.
    pub(in crate::daemon) is_tracked: bool,
    /// Since when the app-server may have it under its message ID, RFC 3339; `None` when it was not submitted before.
    pub(in crate::daemon) submitted_since: Option<Timestamp>,
}

impl TurnStarter {
    /// Starts a turn; a turn that was submitted before is searched for, so that it is not started twice.
    pub(in crate::daemon) async fn start_or_find(
        &self,
        client: &Client,
        start: TurnStart<'_>,
    ) -> Result<TurnId, DaemonError> {
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
        if start.is_tracked
            && let Some(version) = client.older_than(versions::REPEATS_MESSAGE_ID)
        {
            return Err(DaemonError::CodexTooOld { version: version.to_owned() });
        }
        if start.is_tracked {
            let submitted = TurnEvent::Submitted {
                session_id: session_id.clone(),
                thread_id: submission.thread_id.clone(),
                client_message_id: submission.message_id.clone(),
                queue_id: submission.queue_id.clone(),
                idempotency: key.cloned(),
            };
            self.core.record_durably(move |_| vec![submitted.into()]).await?;
        }
        let mut started = self.start_turn(client, submission, params.clone()).await;
        if let Err(DaemonError::Rejected { message, .. }) = &started
            && errors::is_thread_unloaded(message)
        {
            // Codex unloads archived threads, and threads that were not used for half an hour.
            self.threads.note_detached(client, &submission.thread_id);
            let session = self.threads.attach(client, self.core.session(session_id)?).await?;
            let thread_id = session.thread_id.as_ref().unwrap_or(&submission.thread_id);
            params.insert("threadId".to_owned(), thread_id.as_str().into());
            let (message_id, on_usage_limit) = (&submission.message_id, submission.on_usage_limit);
            let again =
                self.submissions.begin(session_id, thread_id, message_id, queue_id, key, on_usage_limit);
            started = self.start_turn(client, &again.submission, params).await;
        }
        match &started {
            Err(DaemonError::TurnWithdrawn(_)) if start.is_tracked => {
                self.record_withdrawal(session_id, queue_id, key, false).await?;
            }
            // A queued turn stays in its queue; only one that was to start now is rejected.
            Err(error) if start.is_tracked && queue_id.is_none() && error.is_refusal() => {
                let rejected = events::turn_rejected(session_id, None, key, &error.to_string());
                self.core.record_durably(move |_| vec![rejected]).await?;
            }
            _ => {}
        }
        started
    }

    /// Records a turn that was submitted before, if the app-server has it.
    pub(in crate::daemon) async fn find_submitted(
        &self,
        client: &Client,
        start: &TurnStart<'_>,
    ) -> Result<Option<TurnId>, DaemonError> {
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
    ) -> Result<TurnId, DaemonError> {
        let params = Arc::new(params);
        repeat_while_overloaded(|| self.send_turn(client, submission, Arc::clone(&params))).await
    }

    /// Calls `turn/start` once.
    async fn send_turn(
        &self,
        client: &Client,
        submission: &Arc<Submission>,
        params: Arc<Map<String, Value>>,
    ) -> Result<TurnId, DaemonError> {
        let Some(outcome) = submission.send() else {
            return Err(DaemonError::TurnWithdrawn(submission.session_id.clone()));
        };
        // The task is not awaited: the outcome is, and the turn may be known earlier.
        let call = {
            let (client, on_reply) = (client.clone(), Arc::clone(submission));
            let wait = Wait::Limited(client.call_timeout());
            async move { client.call_in_order(methods::TURN_START, &*params, wait, on_reply).await }
        };
        tokio::spawn(call);
        let since = rfc3339_now();
        let search = async {
            tokio::time::sleep(SEARCH_DELAY).await;
            loop {
                let found = find_turn(client, &submission.thread_id, &submission.message_id, &since).await;
                if let Ok(Some(Found { turn, is_newest })) = found {
                    let found = Some((turn.status.as_str(), is_newest));
                    submission.accept(&turn.id, found);
                    return;
                }
                tokio::time::sleep(SEARCH_INTERVAL).await;
            }
        };
        let mut accepted = std::pin::pin!(outcome.committed());
        tokio::select! {
            taken = &mut accepted => taken,
            () = search => accepted.await,
        }
    }

    /// Adds input to a running turn.
    pub(in crate::daemon) async fn steer(
        &self,
        client: &Client,
        start: &TurnStart<'_>,
        turn_id: &TurnId,
    ) -> Result<TurnId, DaemonError> {
        let mut params = Map::new();
        let submission = &start.under_way.submission;
        params.insert("threadId".to_owned(), submission.thread_id.as_str().into());
        params.insert("expectedTurnId".to_owned(), turn_id.as_str().into());
        params.insert("input".to_owned(), start.input.into());
        repeat_while_overloaded(|| {
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
                    on_usage_limit: None,
                    idempotency: submission.key.clone(),
                };
                (turn_id, events::accepted_with_release(state, accepted))
            };
            let wait = Wait::Limited(client.call_timeout());
            call_and_record(&self.core.recorder, client, methods::TURN_STEER, &params, wait, steered)
        })
        .await
    }

    /// Records that a turn was withdrawn; whether it started may be unknown.
    pub(in crate::daemon) async fn record_withdrawal(
        &self,
        session_id: &SessionId,
        queue_id: Option<&str>,
        key: Option<&IdempotencyKey>,
        is_outcome_unknown: bool,
    ) -> Result<(), DaemonError> {
        let reason = match is_outcome_unknown {
            false => "It was withdrawn before it started.",
            true => "It was withdrawn; whether it started is unknown.",
        };
        let withdrawn = events::turn_rejected(session_id, queue_id, key, reason);
        let (session_id, queue_id) = (session_id.clone(), queue_id.map(str::to_owned));
        self.core
            .record_durably(move |state| {
                let queue_id = queue_id.as_deref();
                let released =
                    queue_id.map(|queue_id| events::releases_after_removal(state, &session_id, &[queue_id]));
                std::iter::once(withdrawn).chain(released.into_iter().flatten()).collect()
            })
            .await
    }
}

/// Makes a call again while the app-server answers "overloaded".
async fn repeat_while_overloaded<T, F: Future<Output = Result<T, DaemonError>>>(
    call: impl Fn() -> F,
) -> Result<T, DaemonError> {
    for attempt in 1..MAX_OVERLOAD_ATTEMPTS {
        match call().await {
            Err(DaemonError::Overloaded) => tokio::time::sleep(pause(attempt)).await,
            taken => return taken,
        }
    }
    call().await
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
    thread_id: &ThreadId,
    client_message_id: &str,
    since: &Timestamp,
) -> Result<Option<Found>, DaemonError> {
    let oldest = since.time().map(|since| since.as_second() - MAX_CLOCK_STEP_SECONDS);
    let is_it = |item: &Value| items::is_user_message_of(item, client_message_id);
    let is_older = |turn: &ListedTurn| turn.started_at.zip(oldest).is_some_and(|(at, oldest)| at < oldest);
    let mut is_newest = true;
    let found = search_turns(client, thread_id, SEARCH_PAGE_SIZE, usize::MAX, |turn| {
        if turn.items.iter().any(is_it) {
            return ControlFlow::Break(Some(Found { turn, is_newest }));
        }
        is_newest = false;
        if is_older(&turn) { ControlFlow::Break(None) } else { ControlFlow::Continue(()) }
    });
    Ok(found.await?.flatten())
}

/// A pause that doubles, with jitter, so that callers do not retry all at once.
fn pause(attempt: u32) -> Duration {
    let base = 50u64 << attempt;
    let jitter = (uuid::Uuid::new_v4().as_u128() % u128::from(base)) as u64;
    Duration::from_millis(base / 2 + jitter)
}
