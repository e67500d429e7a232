//! Requests of the app-server: recorded when they arrive, resolved once, and declined at their time limit.
//!
//! The table in [`open`] has what is needed to answer; its entry is claimed before a request is resolved, by a client,
//! the time limit, the policy of the session, or the app-server itself.

pub(in crate::daemon) mod open;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::codex::protocol::decisions::{self, DECLINE};
use crate::codex::protocol::errors;
use crate::codex::protocol::server_requests::is_answerable;
use crate::codex::rpc::wire::{RpcError, RpcId};
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::{Input, StorageError};
use crate::daemon::server_requests::open::{Claim, ClaimResult, OpenRequest, OpenRequests};
use crate::daemon::skipped_items::SkippedItemReader;
use crate::daemon::turns::reconnect::Reconnect;
use crate::ids::{RequestId, SessionId, ThreadId, TurnId};
use crate::state::server_requests::offered_decisions;
use crate::state::{
    ChildEvent, RequestEvent, Resolution, ResolvedBy, ServerRequest, ServerRequestStatus, State,
};
use crate::time::{self, rfc3339_after, rfc3339_now};

/// What is to be done after a message was recorded.
#[derive(Debug)]
pub(super) enum FollowUp {
    /// A request that a client can answer: it is declined when it is due.
    WatchRequest {
        /// Its id.
        request_id: RequestId,
    },
    /// A request that no client can answer: it is refused at once.
    RefuseRequest { generation: u64, id: RpcId, error: RpcError },
    /// An item of a turn was skipped, and is read from the thread.
    ReadSkippedItems { thread_id: ThreadId, turn_id: TurnId },
    /// A client of an app-server with several has begun to use a thread.
    FollowThread { generation: u64, thread_id: ThreadId },
    /// The app-server has unloaded a thread.
    ForgetThread { generation: u64, thread_id: ThreadId },
}

/// The defaults for a request whose session has no settings for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestDefaults {
    /// How long it waits for an answer.
    pub(super) timeout: Duration,
    /// Whether the app-server has other clients; they answer requests about turns that no session started.
    pub(super) has_other_clients: bool,
}

/// The answer of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestAnswer {
    /// One of the available decisions.
    Decision(Value),
    /// The whole result, in the form of the app-server.
    Result(Value),
}

impl OpenRequests {
    /// Opens a request; its event is recorded at its position in the stream. `None` when it is left to other clients.
    pub(super) fn open(
        &self,
        generation: u64,
        id: RpcId,
        method: &str,
        params: Value,
        defaults: RequestDefaults,
    ) -> Option<FollowUp> {
        if !is_answerable(method) {
            if defaults.has_other_clients {
                // The first answer counts, and the client that can give the right one may need time for it.
                return None;
            }
            self.recorder.record(ChildEvent::RequestRefused {
                request_method: method.to_owned(),
                thread_id: params.get("threadId").cloned(),
                turn_id: params.get("turnId").cloned(),
                item_id: params.get("itemId").cloned(),
            });
            let message = format!("codexd cannot answer {method}");
            return Some(FollowUp::RefuseRequest {
                generation,
                id,
                error: RpcError { code: errors::METHOD_NOT_FOUND, message, data: None },
            });
        }
        let text = |key: &str| params[key].as_str().map(str::to_owned);
        let request_id = RequestId::new(format!("request-{}", uuid::Uuid::new_v4()));
        let mut request = ServerRequest {
            request_id: request_id.clone(),
            method: method.to_owned(),
            status: ServerRequestStatus::Pending,
            session_id: None,
            thread_id: text("threadId").or_else(|| text("conversationId")).map(ThreadId::new),
            turn_id: text("turnId").map(TurnId::new),
            root_thread_id: None,
            root_turn_id: None,
            item_id: text("itemId").or_else(|| text("callId")),
            decisions: offered_decisions(method, &params),
            params,
            created_at: rfc3339_now(),
            expires_at: None,
            resolved_at: None,
            resolved_by: None,
            decision: None,
            reason: None,
        };
        let open = OpenRequest { generation, id, turn_id: request.turn_id.clone() };
        if defaults.has_other_clients
            && let Some(request_id) = self.find_repeated(&self.recorder.view().state(), &request)
        {
            self.insert(request_id.clone(), open);
            return Some(FollowUp::WatchRequest { request_id });
        }
        self.insert(request_id.clone(), open);
        self.recorder.send(Input::Build(Box::new(move |state| {
            let deciding_session = assign_session(state, &mut request);
            let own = deciding_session.and_then(|session_id| state.private.sessions.get(session_id));
            let own = own.and_then(|memory| memory.requests.timeout_seconds).map(Duration::from_secs);
            let is_left_to_others = defaults.has_other_clients && deciding_session.is_none();
            request.expires_at = (!is_left_to_others).then(|| rfc3339_after(own.unwrap_or(defaults.timeout)));
            let opened = RequestEvent::Opened {
                request_id: request.request_id.clone(),
                session_id: request.session_id.clone(),
                thread_id: request.thread_id.clone(),
                turn_id: request.turn_id.clone(),
                root_turn_id: request.root_turn_id.clone(),
                request: Box::new(request),
            };
            vec![opened.into()]
        })));
        Some(FollowUp::WatchRequest { request_id })
    }

    /// The request of an earlier connection that the app-server repeats: it asks the same for the same item.
    fn find_repeated(&self, state: &State, request: &ServerRequest) -> Option<RequestId> {
        let subject = |request: &ServerRequest| {
            let ids = (request.thread_id.clone(), request.turn_id.clone(), request.item_id.clone());
            (request.method.clone(), ids, request.params["approvalId"].clone())
        };
        let is_it = |pending: &&Arc<ServerRequest>| {
            subject(pending) == subject(request)
                && (request.item_id.is_some() || pending.params == request.params)
                && !self.is_open(&pending.request_id)
        };
        state.requests.pending().find(is_it).map(|pending| pending.request_id.clone())
    }

    /// Claims a request; `None` when its end is recorded.
    ///
    /// While another caller ends it, this waits for the record, so that the later caller can get the decision.
    async fn claim_or_wait(self: &Arc<Self>, request_id: &RequestId) -> Option<Claim> {
        loop {
            match self.claim(request_id) {
                ClaimResult::Claimed(claim) => return Some(claim),
                // Nothing is ever sent; the error means that the other caller is done.
                ClaimResult::ClaimedByOther(mut over) => drop(over.changed().await),
                ClaimResult::Resolved => {
                    self.recorder.caught_up().await;
                    return None;
                }
            }
        }
    }
}

fn resolution(
    request_id: RequestId,
    resolved_by: ResolvedBy,
    decision: Option<Value>,
    reason: Option<&str>,
) -> Resolution {
    Resolution { request_id, resolved_by, decision, reason: reason.map(str::to_owned) }
}

/// Assigns a request to the session that started the turn at the root, which is returned; `None` when no session did.
fn assign_session<'a>(state: &'a State, request: &mut ServerRequest) -> Option<&'a SessionId> {
    let (thread_id, turn_id) = (request.thread_id.as_ref()?, request.turn_id.as_ref());
    let root = state.descendants.root(thread_id, turn_id);
    let deciding_session = state.deciding_session(thread_id, turn_id);
    request.session_id = deciding_session.cloned();
    request.root_thread_id = Some(root.thread_id);
    request.root_turn_id = root.turn_id;
    deciding_session
}

/// Waits until the `expiresAt` of a request; forever for one that is left to other clients.
async fn wait_for_expiry(request: &ServerRequest, clock: impl Fn() -> jiff::Timestamp) {
    let Some(expires_at) = &request.expires_at else { return std::future::pending().await };
    match expires_at.time() {
        Some(expires_at) => time::reached(expires_at, clock).await,
        None => {
            tracing::warn!(request_id = %request.request_id, "failed to parse expiresAt")
        }
    }
}

/// The time limit of a request, from its record.
fn time_limit(request: &ServerRequest) -> Option<Duration> {
    Some(time::time_left(request.expires_at.as_ref()?.time()?, request.created_at.time()?))
}

/// Records the end of a request that was answered; an error means that it is not on disk.
async fn record_resolution(
    recorder: &Recorder,
    claim: Claim,
    resolution: Resolution,
) -> Result<(), StorageError> {
    let committed = recorder.record_durably(move |state| match state.requests.get(&resolution.request_id) {
        // The connection ended between the claim and this: the record is resolved already and is not resolved twice.
        Some(request) if request.status == ServerRequestStatus::Resolved => Vec::new(),
        request => vec![events::request_resolved(request.map(|request| &**request), &resolution)],
    });
    let committed = committed.await;
    claim.recorded();
    committed
}

/// The requests of the app-server, as clients read and answer them; clones share the table.
#[derive(Clone)]
pub struct ServerRequests {
    pub(super) core: Arc<Core>,
    pub(super) open: Arc<OpenRequests>,
}

impl ServerRequests {
    /// One request.
    pub fn get(&self, request_id: &RequestId) -> Result<Arc<ServerRequest>, DaemonError> {
        let known = self.core.state().requests.get(request_id).cloned();
        known.ok_or_else(|| DaemonError::UnknownRequest(request_id.clone()))
    }

    /// The requests of a session, or all: those that wait first, oldest first, then the others, newest first.
    pub fn list(&self, session_id: Option<&SessionId>) -> Vec<Arc<ServerRequest>> {
        let state = self.core.state();
        let matches = |request: &&Arc<ServerRequest>| {
            session_id.is_none_or(|session_id| state.lists_request(session_id, request))
        };
        let waiting = state.requests.pending().filter(matches);
        let over =
            state.requests.iter().rev().filter(|request| request.status == ServerRequestStatus::Resolved);
        waiting.chain(over.filter(matches)).cloned().collect()
    }

    /// Answers a request; the first answer counts, and it is on disk when this returns.
    pub async fn answer(
        &self,
        request_id: &RequestId,
        given: RequestAnswer,
    ) -> Result<Arc<ServerRequest>, DaemonError> {
        let request = self.get(request_id)?;
        if request.status == ServerRequestStatus::Resolved {
            return Err(DaemonError::AlreadyResolved(request));
        }
        let (decision, result) = match given {
            RequestAnswer::Decision(decision) if request.decisions.contains(&decision) => {
                (Some(decision.clone()), decisions::reply(&request.method, &request.params, &decision))
            }
            RequestAnswer::Decision(decision) => {
                let offered: Vec<_> = request.decisions.iter().map(Value::to_string).collect();
                return Err(DaemonError::Invalid(format!(
                    "decision {decision} is not available for this request; it is one of {}.",
                    offered.join(", ")
                )));
            }
            RequestAnswer::Result(result) => (result.get("decision").cloned(), result),
        };
        self.core.require_storage()?;
        let requests = self.clone();
        let request_id = request_id.clone();
        self.core
            .run(async move {
                let resolution = resolution(request_id.clone(), ResolvedBy::Client, decision, None);
                requests.resolve(resolution, &result).await?;
                requests.get(&request_id)
            })
            .await
    }

    /// Resolves a request with an answer, unless it is resolved already: then its record states how.
    async fn resolve(&self, resolution: Resolution, result: &Value) -> Result<(), DaemonError> {
        let recorder = &self.core.recorder;
        let claim = self.open.claim_or_wait(&resolution.request_id).await;
        let client = claim.as_ref().and_then(|claim| self.core.client_of_generation(claim.open().generation));
        let (Some(claim), Some(client)) = (claim, client) else {
            recorder.caught_up().await;
            let request = self.get(&resolution.request_id)?;
            if request.status == ServerRequestStatus::Resolved {
                return Err(DaemonError::AlreadyResolved(request));
            }
            let reason = "The connection on which the request arrived has closed; it can be answered when the app-server \
                          repeats it.";
            return Err(DaemonError::Unavailable { reason: reason.to_owned(), retry_after: None });
        };
        client.respond(&claim.open().id, result);
        let (request_id, by) = (resolution.request_id.clone(), resolution.resolved_by);
        let committed = record_resolution(recorder, claim, resolution).await;
        committed.map_err(DaemonError::Storage)?;
        let request = self.get(&request_id)?;
        if request.resolved_by == Some(by) { Ok(()) } else { Err(DaemonError::AlreadyResolved(request)) }
    }

    /// Refuses requests that no client can answer, declines those that are due, reads skipped items, and follows threads.
    pub(super) async fn run_follow_ups(
        self,
        skipped_items: SkippedItemReader,
        reconnect: Reconnect,
        mut follow_ups: mpsc::UnboundedReceiver<FollowUp>,
    ) {
        while let Some(follow_up) = follow_ups.recv().await {
            match follow_up {
                FollowUp::RefuseRequest { generation, id, error } => {
                    if let Some(client) = self.core.client_of_generation(generation) {
                        client.respond_error(&id, &error);
                    }
                }
                FollowUp::ReadSkippedItems { thread_id, turn_id } => {
                    tokio::spawn(skipped_items.clone().read_skipped_items(thread_id, turn_id));
                }
                FollowUp::FollowThread { generation, thread_id } => {
                    tokio::spawn(reconnect.clone().follow(generation, thread_id));
                }
                FollowUp::ForgetThread { generation, thread_id } => {
                    reconnect.forget(generation, &thread_id);
                }
                FollowUp::WatchRequest { request_id } => {
                    tokio::spawn(self.clone().decline_when_due(request_id));
                }
            }
        }
    }

    async fn decline_when_due(self, request_id: RequestId) {
        let Some((by, reason)) = self.reason_to_decline(&request_id).await else { return };
        let Ok(request) = self.get(&request_id) else { return };
        let decision = Value::from(DECLINE);
        let result = decisions::reply(&request.method, &request.params, &decision);
        match self.resolve(resolution(request_id, by, Some(decision), Some(&reason)), &result).await {
            Ok(()) | Err(DaemonError::AlreadyResolved(_) | DaemonError::Unavailable { .. }) => {}
            Err(error) => tracing::warn!(%error, "failed to decline a request"),
        }
    }

    /// Waits until a request is to be declined without an answer, and why; `None` when it never is.
    ///
    /// The policy is that of the session that started the turn at the root, which may become known only later.
    async fn reason_to_decline(&self, request_id: &RequestId) -> Option<(ResolvedBy, String)> {
        self.core.recorder.caught_up().await;
        let request = self.get(request_id).ok()?;
        let is_declined = |state: &State| {
            // `Some(None)` ends the wait: there is nothing to decline.
            let known = state.requests.get(request_id);
            if known.is_none_or(|known| known.status == ServerRequestStatus::Resolved) {
                return Some(None);
            }
            let session_id = state.deciding_session(request.thread_id.as_ref()?, request.turn_id.as_ref())?;
            let is_declined = state.private.sessions.get(session_id)?.requests.decline;
            is_declined.then(|| Some((ResolvedBy::Policy, "The session declines every request.".to_owned())))
        };
        tokio::select! {
            () = wait_for_expiry(&request, jiff::Timestamp::now) => {
                let seconds = time_limit(&request).unwrap_or_default().as_secs();
                Some((ResolvedBy::Timeout, format!("No client answered within {seconds} s.")))
            }
            declined = self.core.when(is_declined) => declined?,
        }
    }
}
