//! Requests of the app-server: announced, answered once, never left waiting.
//!
//! What must be known to answer is in one table ([`open`]), and whoever claims an entry of it is the one who ends the
//! request: a client, the clock, the policy of the session, or the app-server itself.

mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;

use super::recorder::{Input, Recorder, in_time, now};
use super::syncer::StorageError;
use super::{Daemon, DaemonError, drafts};
use crate::app_server::deadline;
use crate::app_server::wire::{RequestId, RpcError};
use crate::state::request::{answer, decisions, is_answerable};
use crate::state::{Request, RequestStatus, Resolution, ResolvedBy};

pub(super) use self::open::OpenRequests;
use self::open::{Claim, Claimed, Open};

/// A request as it was heard.
#[derive(Debug)]
pub(super) enum Asked {
    /// Somebody may answer it.
    Answerable {
        /// Its name.
        request_id: String,
    },
    /// Nobody can, so it is refused at once.
    Refused { generation: u64, id: RequestId, error: RpcError },
    /// It is no request: an item of a turn was not heard, and is to be read.
    Missed { thread_id: String, turn_id: String },
}

/// What a client answers.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestAnswer {
    /// One of the decisions that may be taken.
    Decision(Value),
    /// The whole answer, in the words of the app-server.
    Result(Value),
}

impl OpenRequests {
    /// Takes a request in as it is heard; the event that announces it stands where it was heard.
    pub(super) fn hear(
        &self,
        recorder: &Recorder,
        generation: u64,
        id: RequestId,
        method: &str,
        params: Value,
        timeout: Duration,
    ) -> Asked {
        if !is_answerable(method) {
            recorder.note(drafts::request_refused(method, &params));
            let message = format!("codexd cannot answer {method}");
            return Asked::Refused { generation, id, error: RpcError { code: -32601, message } };
        }
        let text = |key: &str| params[key].as_str().map(str::to_owned);
        let request_id = format!("request-{}", uuid::Uuid::new_v4());
        let mut request = Request {
            request_id: request_id.clone(),
            method: method.to_owned(),
            status: RequestStatus::Pending,
            session_id: None,
            thread_id: text("threadId").or_else(|| text("conversationId")),
            turn_id: text("turnId"),
            item_id: text("itemId").or_else(|| text("callId")),
            decisions: decisions(method, &params),
            params,
            created_at: now(),
            expires_at: String::new(),
            resolved_at: None,
            resolved_by: None,
            decision: None,
            reason: None,
        };
        let open = Open { generation, id, turn_id: request.turn_id.clone() };
        self.insert(request_id.clone(), open);
        recorder.send(Input::Build(Box::new(move |state| {
            // It belongs to the session that started the turn; what no session started belongs to none.
            let owner = request.thread_id.as_ref().and_then(|thread_id| match &request.turn_id {
                Some(turn_id) => state.owner_of(thread_id, turn_id),
                None => state.turns.running(thread_id)?.started_by.as_deref(),
            });
            let session = owner.and_then(|session_id| state.sessions.get(session_id));
            request.session_id = session.map(|session| session.session_id.clone());
            let memory = session.and_then(|session| state.memory.sessions.get(&session.session_id));
            let own = memory.and_then(|memory| memory.requests.timeout_seconds);
            request.expires_at = in_time(own.map_or(timeout, Duration::from_secs));
            vec![drafts::request_opened(&request)]
        })));
        Asked::Answerable { request_id }
    }
}

fn resolution(
    request_id: String,
    resolved_by: ResolvedBy,
    decision: Option<Value>,
    reason: Option<&str>,
) -> Resolution {
    Resolution { request_id, resolved_by, decision, reason: reason.map(str::to_owned) }
}

/// The right to end a request; `None` when its end is recorded.
///
/// While another caller ends it, this waits for the record, so that whoever comes second can be told what was decided.
async fn won(open_requests: &Arc<OpenRequests>, recorder: &Recorder, request_id: &str) -> Option<Claim> {
    loop {
        match open_requests.claim(request_id) {
            Claimed::Won(claim) => return Some(claim),
            // Nothing is ever sent; an error says that the other caller is done.
            Claimed::Lost(mut over) => drop(over.changed().await),
            Claimed::Over => {
                recorder.caught_up().await;
                return None;
            }
        }
    }
}

/// Waits until the time has come at which the record says that a request is declined.
async fn expired(request: &Request, clock: impl Fn() -> Timestamp) {
    match request.expires_at.parse() {
        Ok(expires_at) => deadline::reached(expires_at, clock).await,
        Err(error) => {
            tracing::warn!(%error, request_id = request.request_id, "the time of its end cannot be read")
        }
    }
}

/// Records the end of a request that was answered; an error says that it is not on disk.
async fn record(recorder: &Recorder, claim: Claim, resolution: Resolution) -> Result<(), StorageError> {
    let promised = recorder.promise(move |state| match state.requests.get(&resolution.request_id) {
        // The connection ended between the claim and this; the record says so, and is not ended twice.
        Some(request) if request.status == RequestStatus::Resolved => Vec::new(),
        request => vec![drafts::request_resolved(request.map(|request| &**request), &resolution)],
    });
    let promised = promised.await;
    claim.recorded();
    promised
}

impl Daemon {
    /// One request.
    pub fn request(&self, request_id: &str) -> Result<Arc<Request>, DaemonError> {
        let known = self.state().requests.get(request_id).cloned();
        known.ok_or_else(|| DaemonError::UnknownRequest(request_id.to_owned()))
    }

    /// The requests of a session, or all: those that wait first, oldest first, then the others, newest first.
    pub fn requests(&self, session_id: Option<&str>) -> Vec<Arc<Request>> {
        let state = self.state();
        let wanted =
            |request: &&Arc<Request>| session_id.is_none() || request.session_id.as_deref() == session_id;
        let waiting = state.requests.pending().filter(wanted);
        let over = state.requests.iter().rev().filter(|request| request.status == RequestStatus::Resolved);
        waiting.chain(over.filter(wanted)).cloned().collect()
    }

    /// Answers a request; the first answer counts, and it is on disk when this returns.
    pub async fn answer_request(
        &self,
        request_id: &str,
        given: RequestAnswer,
    ) -> Result<Arc<Request>, DaemonError> {
        let request = self.request(request_id)?;
        if request.status == RequestStatus::Resolved {
            return Err(DaemonError::AlreadyResolved(request));
        }
        let (decision, result) = match given {
            RequestAnswer::Decision(decision) if request.decisions.contains(&decision) => {
                (Some(decision.clone()), answer(&request.method, &request.params, &decision))
            }
            RequestAnswer::Decision(decision) => {
                let offered: Vec<_> = request.decisions.iter().map(Value::to_string).collect();
                return Err(DaemonError::Invalid(format!(
                    "decision {decision} cannot be taken for this request; it is one of {}.",
                    offered.join(", ")
                )));
            }
            RequestAnswer::Result(result) => (result.get("decision").cloned(), result),
        };
        if let Some(error) = self.shared.recorder.view().storage() {
            return Err(DaemonError::Storage(error));
        }
        let daemon = self.clone();
        let request_id = request_id.to_owned();
        self.run(async move {
            let resolution = resolution(request_id.clone(), ResolvedBy::Client, decision, None);
            daemon.resolve(resolution, &result).await?;
            daemon.request(&request_id)
        })
        .await
    }

    /// Ends a request with an answer, unless it is ended already: then the record says how.
    async fn resolve(&self, resolution: Resolution, result: &Value) -> Result<(), DaemonError> {
        let (recorder, open_requests) = (&self.shared.recorder, &self.shared.open_requests);
        let claim = won(open_requests, recorder, &resolution.request_id).await;
        let Some(claim) = claim else {
            return Err(DaemonError::AlreadyResolved(self.request(&resolution.request_id)?));
        };
        let Some(client) = self.client_of(claim.open().generation) else {
            drop(claim);
            recorder.caught_up().await;
            let request = self.request(&resolution.request_id)?;
            if request.status == RequestStatus::Resolved {
                return Err(DaemonError::AlreadyResolved(request));
            }
            let reason = "The connection over which it came is gone.".to_owned();
            return Err(DaemonError::Unavailable { reason, retry_after: None });
        };
        client.answer(&claim.open().id, result);
        let (request_id, by) = (resolution.request_id.clone(), resolution.resolved_by);
        let promised = record(recorder, claim, resolution).await;
        promised.map_err(DaemonError::Storage)?;
        let request = self.request(&request_id)?;
        if request.resolved_by == Some(by) { Ok(()) } else { Err(DaemonError::AlreadyResolved(request)) }
    }

    /// Refuses what nobody can answer, and declines what nobody does.
    pub(super) async fn attend_requests(self, mut questions: mpsc::UnboundedReceiver<Asked>) {
        while let Some(asked) = questions.recv().await {
            match asked {
                Asked::Refused { generation, id, error } => {
                    if let Some(client) = self.client_of(generation) {
                        client.refuse(&id, &error);
                    }
                }
                Asked::Missed { thread_id, turn_id } => {
                    tokio::spawn(self.clone().read_missed(thread_id, turn_id));
                }
                Asked::Answerable { request_id } => {
                    tokio::spawn(self.clone().decline_in_time(request_id));
                }
            }
        }
    }

    async fn decline_in_time(self, request_id: String) {
        self.shared.recorder.caught_up().await;
        let Ok(request) = self.request(&request_id) else { return };
        let policy = {
            let state = self.state();
            let memory =
                request.session_id.as_ref().and_then(|session_id| state.memory.sessions.get(session_id));
            memory.map(|memory| memory.requests).unwrap_or_default()
        };
        let (by, reason) = if policy.decline {
            (ResolvedBy::Policy, "The session declines every request.".to_owned())
        } else {
            let own = policy.timeout_seconds.map(Duration::from_secs);
            let timeout = own.unwrap_or(self.config().limits.request_timeout);
            tokio::select! {
                () = expired(&request, Timestamp::now) => {}
                () = self.shared.stopping.cancelled() => return,
            }
            (ResolvedBy::Timeout, format!("Nobody answered within {} s.", timeout.as_secs()))
        };
        let decision = Value::from("decline");
        let result = answer(&request.method, &request.params, &decision);
        match self.resolve(resolution(request_id, by, Some(decision), Some(&reason)), &result).await {
            Ok(()) | Err(DaemonError::AlreadyResolved(_) | DaemonError::Unavailable { .. }) => {}
            Err(error) => tracing::warn!(%error, "a request could not be declined"),
        }
    }
}
