//! Calling the app-server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::call_error::CallError;
use super::pending::Pending;
use super::wire::{self, RpcError};
use crate::codex::protocol::{responses, versions};

/// How many calls may wait for an answer at once.
///
/// The app-server queues 128 messages and silently drops what is over; of 100 at once all were answered, of 500
/// were not (measured on 0.169.0).
const IN_FLIGHT: usize = 64;

/// Longer than any connection.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is told the outcome of each call that was answered: its method, and the error where it was refused.
type Observer = dyn Fn(&'static str, Option<&RpcError>) + Send + Sync;

/// One generation's connection, as its callers see it; cheap to clone.
#[derive(Clone)]
pub struct Client {
    generation: u64,
    pending: Arc<Pending>,
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    in_flight: Arc<Semaphore>,
    call_timeout: Duration,
    /// The version of the app-server as its user agent has it, once `initialize` was answered.
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
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
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

    /// Has `observer` told the outcome of each call of this connection, whoever makes it; the first observer stays.
    ///
    /// It runs where the answer stands in the stream, before the caller gets it, and must not wait.
    pub fn observe(&self, observer: impl Fn(&'static str, Option<&RpcError>) + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// Keeps what the answer to `initialize` says of the version.
    pub(crate) fn note_initialized(&self, info: &RawValue) {
        let info: serde_json::Value = serde_json::from_str(info.get()).unwrap_or_default();
        if let Some(version) = versions::in_user_agent(responses::user_agent(&info)) {
            // `initialize` is answered once.
            let _ = self.version.set(version.to_owned());
        }
    }

    /// The app-server's version when it is older than the `(major, minor)` that brought something; `None` when it is not
    /// older, or did not say its version.
    pub fn older_than(&self, first: (u64, u64)) -> Option<&str> {
        self.version.get().map(String::as_str).filter(|version| versions::is_older(version, first))
    }

    /// Which connection this is, counted from 1 in a daemon's life.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How long the app-server may take to answer a call, as it is set.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// Calls `method` and waits for its result, `timeout` at most.
    pub async fn call(
        &self,
        method: &'static str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        let (sender, receiver) = oneshot::channel();
        let settle = move |outcome: Result<&RawValue, CallError>| {
            // Whoever called may have gone; then nobody wants the answer.
            let _ = sender.send(outcome.map(ToOwned::to_owned));
        };
        self.call_in_order(method, params, timeout, settle).await;
        receiver.await.unwrap_or_else(|_| Err(CallError::Closed { cause: "it was dropped".to_owned() }))
    }

    /// Calls `method`; `settle` runs exactly once, where the answer stands in the stream: after everything that
    /// came before the answer was heard, and before anything that came after it.
    ///
    /// Returns when it has run.
    /// It must not wait; without an answer in `timeout` it gets [`CallError::Timeout`].
    pub async fn call_in_order(
        &self,
        method: &'static str,
        params: &impl Serialize,
        timeout: Duration,
        settle: impl FnOnce(Result<&RawValue, CallError>) + Send + 'static,
    ) {
        let deadline = Instant::now() + timeout;
        let permit = tokio::time::timeout_at(deadline, self.in_flight.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return settle(Err(timed_out(method, timeout))) };
        self.exchange(method, params, timeout, deadline, settle).await;
    }

    /// [`Client::call_in_order`] for a call that must not be given up, because what it makes would be left behind: `settle`
    /// runs when the answer comes, however late, or when the connection ends.
    ///
    /// It counts as a call in flight for the usual time only: what has waited longer was read by the app-server long ago.
    pub async fn call_for_good(
        &self,
        method: &'static str,
        params: &impl Serialize,
        settle: impl FnOnce(Result<&RawValue, CallError>) + Send + 'static,
    ) {
        let timeout = self.call_timeout;
        let permit = tokio::time::timeout(timeout, self.in_flight.acquire()).await;
        let Ok(Ok(permit)) = permit else { return settle(Err(timed_out(method, timeout))) };
        let exchange = self.exchange(method, params, timeout, Instant::now() + NEVER, settle);
        tokio::pin!(exchange);
        if tokio::time::timeout(timeout, &mut exchange).await.is_err() {
            drop(permit);
            exchange.await;
        }
    }

    /// [`Client::call`] that waits for no place among the calls in flight: when none of them is answered, this is how
    /// to find out whether anything is.
    pub(crate) async fn call_ahead(
        &self,
        method: &'static str,
        params: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let (sender, receiver) = oneshot::channel();
        let settle = move |outcome: Result<&RawValue, CallError>| drop(sender.send(outcome.map(drop)));
        self.exchange(method, params, timeout, Instant::now() + timeout, settle).await;
        receiver.await.unwrap_or_else(|_| Err(CallError::Closed { cause: "it was dropped".to_owned() }))
    }

    async fn exchange(
        &self,
        method: &'static str,
        params: &impl Serialize,
        timeout: Duration,
        deadline: Instant,
        settle: impl FnOnce(Result<&RawValue, CallError>) + Send + 'static,
    ) {
        let (done, settled) = oneshot::channel::<()>();
        let observer = Arc::clone(&self.observer);
        let settle = Box::new(move |outcome: Result<&RawValue, CallError>| {
            match (observer.get(), &outcome) {
                (Some(observer), Ok(_)) => observer(method, None),
                (Some(observer), Err(CallError::Refused { error, .. })) => observer(method, Some(error)),
                _ => {}
            }
            settle(outcome.map_err(|error| match error {
                CallError::Refused { error, .. } => CallError::Refused { method: method.to_owned(), error },
                CallError::Malformed { reason, .. } => {
                    CallError::Malformed { method: method.to_owned(), reason }
                }
                other => other,
            }));
            drop(done);
        });
        let id = match self.pending.register(settle) {
            Ok(id) => id,
            Err((error, settle)) => return settle(Err(error)),
        };
        match wire::call(id, method, params) {
            // When the writer is gone the reader is about to close the table, with a better cause than this.
            Ok(line) => drop(self.outgoing.send(line)),
            Err(error) => {
                if let Some(settle) = self.pending.take(id) {
                    settle(Err(CallError::Malformed {
                        method: method.to_owned(),
                        reason: error.to_string(),
                    }));
                }
                return;
            }
        }
        if tokio::time::timeout_at(deadline, settled).await.is_err()
            && let Some(settle) = self.pending.take(id)
        {
            settle(Err(timed_out(method, timeout)));
        }
    }

    /// Tells the app-server something that needs no answer.
    pub fn notify(&self, method: &str) {
        let _ = self.outgoing.send(wire::notification(method));
    }

    /// Answers a request of the app-server.
    pub fn answer(&self, id: &RawValue, result: &impl Serialize) {
        if let Ok(line) = wire::answer(id, result) {
            let _ = self.outgoing.send(line);
        }
    }

    /// Answers a request of the app-server with an error, which it takes well: the item fails, the turn goes on
    /// (measured).
    pub fn refuse(&self, id: &RawValue, error: &RpcError) {
        if let Ok(line) = wire::refusal(id, error) {
            let _ = self.outgoing.send(line);
        }
    }
}

fn timed_out(method: &str, after: Duration) -> CallError {
    CallError::Timeout { method: method.to_owned(), after }
}
