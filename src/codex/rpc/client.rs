//! Calls to the app-server over one connection.
//!
//! A [`Client`] belongs to one generation and is cheap to clone. `daemon` gets it from the supervisor's availability. A call
//! ends with its response, its timeout or the end of the connection, whichever is first.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::call_error::CallError;
use super::pending::{Observer, OnReply, Pending, PendingCall};
use super::wire::{self, RpcError};
use crate::codex::protocol::{responses, versions};

/// How many calls may await a response at once.
///
/// The app-server queues 128 messages and silently drops further ones: of 100 calls at once all were answered, of 500
/// not (measured on 0.169.0).
const MAX_CALLS_IN_FLIGHT: usize = 64;

/// Longer than any connection.
const NO_DEADLINE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a call waits for its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At most this long; then it fails with [`CallError::Timeout`].
    Limited(Duration),
    /// Until it arrives or the connection ends, because what the call creates must not be left behind. The call counts as
    /// in flight only for the configured timeout: by then the app-server has long read it.
    Unlimited,
}

/// The connection of one generation, for its callers; cheap to clone.
#[derive(Clone)]
pub struct Client {
    generation: u64,
    pending: Arc<Pending>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    in_flight: Arc<Semaphore>,
    call_timeout: Duration,
    /// The app-server's version from its user agent, once `initialize` was answered.
    version: Arc<OnceLock<String>>,
    observer: Arc<OnceLock<Box<Observer>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Client {
    /// A client whose lines (without newline) leave through the returned channel.
    pub(crate) fn new(
        generation: u64,
        call_timeout: Duration,
    ) -> (Self, Arc<Pending>, mpsc::UnboundedReceiver<Vec<u8>>) {
        let pending = Arc::new(Pending::default());
        let (outgoing, lines) = mpsc::unbounded_channel();
        let in_flight = Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT));
        let (version, observer) = (Arc::default(), Arc::default());
        let client = Self {
            generation,
            pending: Arc::clone(&pending),
            outgoing,
            in_flight,
            call_timeout,
            version,
            observer,
        };
        (client, pending, lines)
    }

    /// Calls `observer` with the outcome of each call of this connection; only the first observer is kept.
    ///
    /// It runs at the response's position in the stream, before the caller gets the response, and must not block.
    pub fn observe(&self, observer: impl Fn(&str, Option<&RpcError>) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// Stores the version from the response to `initialize`.
    pub(crate) fn record_version(&self, info: &RawValue) {
        let info: serde_json::Value = serde_json::from_str(info.get()).unwrap_or_default();
        if let Some(version) = versions::in_user_agent(responses::user_agent(&info)) {
            // `initialize` is answered once.
            let _ = self.version.set(version.to_owned());
        }
    }

    /// The app-server's version if it is older than `first` (`(major, minor)`); `None` when it is not older or unknown.
    pub fn older_than(&self, first: (u64, u64)) -> Option<&str> {
        self.version.get().map(String::as_str).filter(|version| versions::is_older(version, first))
    }

    /// The generation of this connection, counted from 1 since the daemon started.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The configured limit for a response.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Calls `method` and waits at most `timeout` for its result.
    pub async fn call(
        &self,
        method: impl Into<Cow<'static, str>>,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        let (sender, receiver) = oneshot::channel();
        self.call_in_order(method, params, Wait::Limited(timeout), sender).await;
        receiver.await.unwrap_or_else(|_| Err(dropped()))
    }

    /// Calls `method` and passes the outcome to `on_reply` at the response's position in the stream; returns after that.
    pub async fn call_in_order(
        &self,
        method: impl Into<Cow<'static, str>>,
        params: &impl Serialize,
        wait: Wait,
        on_reply: impl OnReply,
    ) {
        let method = method.into();
        let start = Instant::now();
        let (timeout, deadline) = match wait {
            Wait::Limited(timeout) => (timeout, start + timeout),
            Wait::Unlimited => (self.call_timeout, start + NO_DEADLINE),
        };
        let permit = tokio::time::timeout(timeout, self.in_flight.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            return Box::new(on_reply).on_reply(Err(timed_out(&method, timeout)));
        };
        let mut exchange = std::pin::pin!(self.exchange(method, params, timeout, deadline, on_reply));
        if tokio::time::timeout(timeout, &mut exchange).await.is_err() {
            drop(permit);
            exchange.await;
        }
    }

    /// [`Client::call`] without the limit of calls in flight: a probe for whether the app-server answers at all when none of
    /// those is answered.
    pub(crate) async fn call_unqueued(
        &self,
        method: &'static str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let (sender, receiver) = oneshot::channel();
        self.exchange(method.into(), params, timeout, Instant::now() + timeout, sender).await;
        receiver.await.unwrap_or_else(|_| Err(dropped())).map(drop)
    }

    async fn exchange(
        &self,
        method: Cow<'static, str>,
        params: &impl Serialize,
        timeout: Duration,
        deadline: Instant,
        on_reply: impl OnReply,
    ) {
        let (call, taken) = PendingCall::new(method.clone(), Arc::clone(&self.observer), on_reply);
        let id = match self.pending.register(call) {
            Ok(id) => id,
            Err((error, call)) => return call.fail(error),
        };
        match wire::call(id, &method, params) {
            // When the writer is gone, the reader is about to close the table with a better cause than this.
            Ok(line) => drop(self.outgoing.send(line)),
            Err(error) => {
                if let Some(call) = self.pending.take(id) {
                    call.fail_malformed(error.to_string());
                }
                return;
            }
        }
        if tokio::time::timeout_at(deadline, taken).await.is_err()
            && let Some(call) = self.pending.take(id)
        {
            call.fail(timed_out(&method, timeout));
        }
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str) {
        let _ = self.outgoing.send(wire::notification(method));
    }

    /// Responds to a request of the app-server.
    pub fn respond(&self, id: &RawValue, result: &impl Serialize) {
        if let Ok(line) = wire::response(id, result) {
            let _ = self.outgoing.send(line);
        }
    }

    /// Responds to a request of the app-server with an error, which it handles well: the item fails, the turn continues
    /// (measured).
    pub fn respond_error(&self, id: &RawValue, error: &RpcError) {
        if let Ok(line) = wire::error_response(id, error) {
            let _ = self.outgoing.send(line);
        }
    }
}

fn timed_out(method: &str, after: Duration) -> CallError {
    CallError::Timeout { method: method.to_owned(), after }
}

fn dropped() -> CallError {
    CallError::Closed { cause: "it was dropped".to_owned() }
}
