//! Calls of clients: the methods of the app-server for which codexd has no operation of its own.
//!
//! [`Calls`] owns nothing. `http` calls it. A call with a session holds the lock of the session's thread, so it is in one
//! order with the turns of the thread, and a turn that it begins is the session's.
//!
//! Invariant: a method is called only if the table in `codex/protocol/calls.rs` and the setting `--app-server-calls` allow it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::codex::protocol::calls::{Access, begins_turn, group};
use crate::codex::{Client, Wait};
use crate::config::AllowedCalls;
use crate::daemon::app_server::calls::call_and_record;
use crate::daemon::core::{Core, require_active};
use crate::daemon::error::DaemonError;
use crate::daemon::threads::Threads;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{ChildEvent, State, TurnEvent};

/// How long a turn may take to be reported after the call that began it was answered; Codex takes about 10 ms (measured).
const TURN_WAIT: Duration = Duration::from_secs(5);

/// Calls of clients.
#[derive(Clone)]
pub struct Calls {
    pub(super) core: Arc<Core>,
    pub(super) threads: Threads,
}

/// A call that a client asks for.
#[derive(Debug)]
pub struct CallRequest {
    /// The method.
    pub method: String,
    /// Its parameters, in the app-server's form.
    pub params: Map<String, Value>,
    /// The session whose thread it is about.
    pub session_id: Option<SessionId>,
}

/// The result of a call.
#[derive(Debug)]
pub struct CallResult {
    /// The result, in the app-server's form.
    pub result: Value,
    /// The turn that it began, which is the session's.
    pub turn_id: Option<TurnId>,
}

impl Calls {
    /// Calls a method; with a session its thread is attached first, and named by the parameters.
    ///
    /// Waits at most `--call-timeout` for the response. The call is recorded as `app-server.called`, whatever its outcome.
    pub async fn call(&self, request: CallRequest) -> Result<CallResult, DaemonError> {
        self.require_allowed(&request.method)?;
        let calls = self.clone();
        self.core
            .run(async move {
                let client = calls.core.wait_for_client().await?;
                match request.session_id.clone() {
                    None => calls.send(&client, request, None).await,
                    Some(session_id) => calls.call_for_session(&client, request, &session_id).await,
                }
            })
            .await
    }

    fn require_allowed(&self, method: &str) -> Result<(), DaemonError> {
        let allowed = self.core.config.server.allowed_calls;
        let known = group(method);
        let needed = match known.map(|group| group.access) {
            Some(Access::Owned { instead }) => {
                return Err(DaemonError::OwnedMethod { method: method.to_owned(), instead });
            }
            Some(Access::Safe) => AllowedCalls::Safe,
            Some(Access::Restricted) | None => AllowedCalls::All,
        };
        if allowed >= needed {
            return Ok(());
        }
        Err(DaemonError::CallNotAllowed {
            method: method.to_owned(),
            allowed: allowed.as_str(),
            needed: needed.as_str(),
            reason: known.map_or("is not known to this codexd", |group| group.reason),
        })
    }

    async fn call_for_session(
        &self,
        client: &Client,
        mut request: CallRequest,
        session_id: &SessionId,
    ) -> Result<CallResult, DaemonError> {
        let (_thread_lock, session) = self.threads.lock_of_session(session_id).await?;
        let session = self.threads.attach(client, require_active(session)?).await?;
        let thread_id = session.thread_id.clone().ok_or_else(|| DaemonError::NoThread(session_id.clone()))?;
        let named = request.params.insert("threadId".to_owned(), thread_id.as_str().into());
        if named.is_some_and(|named| named != thread_id.as_str()) {
            return Err(DaemonError::Invalid(format!(
                "params.threadId is not the thread of session \"{session_id}\", which is {thread_id}; leave it out."
            )));
        }
        if !begins_turn(&request.method) {
            return self.send(client, request, None).await;
        }
        let newest = {
            let state = self.core.state();
            if let Some(running) = state.turns.running(&thread_id) {
                let (session_id, turn_id) = (session_id.clone(), running.turn_id.clone());
                return Err(DaemonError::TurnInProgress { session_id, turn_id });
            }
            newest_turn(&state, &thread_id)
        };
        let mut done = self.send(client, request, Some((session_id, &thread_id))).await?;
        if done.turn_id.is_none() {
            // The response does not name the turn; it is the next one of the thread, whose lock is held.
            let begun =
                |state: &State| newest_turn(state, &thread_id).filter(|turn| Some(turn) != newest.as_ref());
            let begun = tokio::time::timeout(TURN_WAIT, self.core.when(begun)).await;
            if let Ok(Some(turn_id)) = begun {
                let accepted = accepted(session_id, &thread_id, &turn_id);
                self.core.record_durably(move |_| vec![accepted.into()]).await?;
                done.turn_id = Some(turn_id);
            }
        }
        Ok(done)
    }

    /// Calls the method and records the call; `owner` is the session and the thread of the turn that the response names.
    async fn send(
        &self,
        client: &Client,
        request: CallRequest,
        owner: Option<(&SessionId, &ThreadId)>,
    ) -> Result<CallResult, DaemonError> {
        let CallRequest { method, params, session_id } = request;
        let sent = Instant::now();
        let called = {
            let method = method.clone();
            move |error: Option<String>| {
                let duration_ms = u64::try_from(sent.elapsed().as_millis()).unwrap_or(u64::MAX);
                ChildEvent::Called { method, session_id, succeeded: error.is_none(), duration_ms, error }
            }
        };
        let owner = owner.map(|(session_id, thread_id)| (session_id.clone(), thread_id.clone()));
        let answered = {
            let called = called.clone();
            move |result: Value, _: &State| {
                let turn_id = result["turn"]["id"].as_str().map(TurnId::new);
                // A review in a thread of its own has a turn that is not the session's.
                let turn_id = turn_id.filter(|_| {
                    let thread = owner.as_ref().map(|(_, thread_id)| thread_id.as_str());
                    result["reviewThreadId"].as_str().is_none_or(|review| Some(review) == thread)
                });
                let turn = owner.zip(turn_id);
                let mut new_events = vec![called(None).into()];
                let turn_id = turn.map(|((session_id, thread_id), turn_id)| {
                    new_events.push(accepted(&session_id, &thread_id, &turn_id).into());
                    turn_id
                });
                (CallResult { result, turn_id }, new_events)
            }
        };
        let wait = Wait::Limited(client.call_timeout());
        let done = call_and_record(&self.core.recorder, client, method, &params, wait, answered).await;
        if let Err(error) = &done
            && !matches!(error, DaemonError::Storage(_))
        {
            let called = called(Some(error.to_string()));
            self.core.record_durably(move |_| vec![called.into()]).await?;
        }
        done
    }
}

fn newest_turn(state: &State, thread_id: &ThreadId) -> Option<TurnId> {
    state.turns.of(thread_id).next().map(|turn| turn.turn_id.clone())
}

fn accepted(session_id: &SessionId, thread_id: &ThreadId, turn_id: &TurnId) -> TurnEvent {
    TurnEvent::Accepted {
        session_id: session_id.clone(),
        thread_id: Some(thread_id.clone()),
        turn_id: turn_id.clone(),
        status: None,
        is_newest: None,
        steered: false,
        queue_id: None,
        on_usage_limit: None,
        idempotency: None,
    }
}
