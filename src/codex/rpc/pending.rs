//! The calls that await a response.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::call_error::CallError;
use super::wire::RpcError;
use crate::codex::protocol::errors;

/// Receives the outcome of each call that was answered: its method, and the error if there was one.
pub(crate) type Observer = dyn Fn(&str, Option<&RpcError>) + Send + Sync;

/// What becomes of the response to a call.
pub trait OnReply: Send + 'static {
    /// Takes the outcome of the call; called exactly once, at the response's position in the stream: after everything
    /// that arrived before the response, and before anything that arrived after it. Must not block.
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>);
}

/// Passes the outcome on, whenever the receiver takes it.
impl OnReply for oneshot::Sender<Result<Box<RawValue>, CallError>> {
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>) {
        // The caller may be gone; then the response is dropped.
        let _ = self.send(outcome.map(ToOwned::to_owned));
    }
}

/// A call that awaits its response.
pub(crate) struct PendingCall {
    method: Cow<'static, str>,
    observer: Arc<OnceLock<Box<Observer>>>,
    on_reply: Box<dyn OnReply>,
    /// Dropped once the outcome was taken.
    _taken: oneshot::Sender<()>,
}

impl PendingCall {
    /// The call, and what closes once its outcome was taken.
    pub(crate) fn new(
        method: Cow<'static, str>,
        observer: Arc<OnceLock<Box<Observer>>>,
        on_reply: impl OnReply,
    ) -> (Self, oneshot::Receiver<()>) {
        let (_taken, taken) = oneshot::channel();
        (Self { method, observer, on_reply: Box::new(on_reply), _taken }, taken)
    }

    /// The app-server responded.
    pub(crate) fn answer(self, outcome: Result<&RawValue, RpcError>) {
        if let Some(observer) = self.observer.get() {
            observer(&self.method, outcome.as_ref().err());
        }
        let refused = |error: RpcError| {
            let method = self.method.into_owned();
            match errors::is_unknown_method(&method, error.code, &error.message) {
                true => CallError::UnknownMethod {
                    explanation: errors::unknown_method(&method, &error.message),
                    method,
                    code: error.code,
                },
                false => CallError::Refused { method, error },
            }
        };
        self.on_reply.on_reply(outcome.map_err(refused));
    }

    /// The call or its response does not match the protocol.
    pub(crate) fn fail_malformed(self, reason: String) {
        let method = self.method.clone().into_owned();
        self.fail(CallError::Malformed { method, reason });
    }

    /// The call has no response.
    pub(crate) fn fail(self, error: CallError) {
        self.on_reply.on_reply(Err(error));
    }
}

/// The pending calls of one generation.
///
/// Once closed, it accepts no call, so no call can wait for a response that cannot arrive.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    calls: HashMap<u64, PendingCall>,
    closed: Option<String>,
}

impl Pending {
    /// Registers a call and returns its ID; when the connection is closed, returns the error and the call.
    pub(crate) fn register(&self, call: PendingCall) -> Result<u64, (CallError, PendingCall)> {
        let mut table = self.lock();
        if let Some(cause) = &table.closed {
            return Err((CallError::Closed { cause: cause.clone() }, call));
        }
        table.last_id += 1;
        let id = table.last_id;
        table.calls.insert(id, call);
        Ok(id)
    }

    /// Removes a call: its response arrived, or its caller gave up.
    pub(crate) fn take(&self, id: u64) -> Option<PendingCall> {
        self.lock().calls.remove(&id)
    }

    /// Whether a call is pending.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.lock().calls.contains_key(&id)
    }

    /// The number of pending calls.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().calls.len()
    }

    /// Fails every pending call and all later ones with `cause`; only the first cause is kept.
    pub(crate) fn close(&self, cause: &str) {
        let calls = {
            let mut table = self.lock();
            if table.closed.is_none() {
                table.closed = Some(cause.to_owned());
            }
            std::mem::take(&mut table.calls)
        };
        // In the order in which they were made, and outside the lock: what takes the outcome may use the table.
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_unstable_by_key(|&(id, _)| id);
        for (_, call) in calls {
            call.fail(CallError::Closed { cause: cause.to_owned() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is one step, so it is consistent even after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
