//! Limits the number of open connections.
//!
//! [`ConnectionLimiter`] owns the permits and the list of connections that wait for their client. `server` acquires a
//! [`Slot`] per connection, and the connection (`socket`, `request_body`) marks it as waiting or busy.
//!
//! Invariants: at most `limit` slots exist, and only a connection that waits for a request, or for the rest of one, or
//! whose client sends no more, is ever evicted.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How often [`ConnectionLimiter::acquire`] tries, and its pause between two attempts: 0.5 s together.
const ATTEMPTS: u32 = 20;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(25);
/// How often the log reports that connections were rejected or closed.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The permits of all connections.
///
/// A semaphore alone would let a client that opens connections and sends nothing lock out all others, because the user of
/// a connection is known on Linux only. So when no permit is left, the connection that has waited longest for its client
/// is closed for the new one.
pub(super) struct ConnectionLimiter {
    limit: usize,
    permits: Arc<Semaphore>,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    last_position: AtomicU64,
    rejected: AtomicU64,
    evicted: AtomicU64,
    /// When the log last reported connections that were rejected or closed, and how many there were until then.
    reported: Mutex<Option<(Instant, u64)>>,
}

/// A connection that waits for its client; its key in the list is its position in the order of waiting.
struct Waiting {
    since: Instant,
    eviction: CancellationToken,
}

/// The permit of one connection, and what its socket and its requests tell each other. Dropping it releases the permit.
pub(super) struct Slot {
    limiter: Arc<ConnectionLimiter>,
    _permit: OwnedSemaphorePermit,
    /// The key in the list of waiting connections; 0 while a request is being processed.
    position: AtomicU64,
    /// Cancelled when the connection was chosen to close; see [`Slot::evicted`].
    eviction: CancellationToken,
    /// Whether the connection has become a WebSocket.
    pub(super) is_upgraded: AtomicBool,
    /// Whether the response is an event stream, which has no end.
    pub(super) is_streaming: AtomicBool,
    /// Whether a request was answered before its body was read to the end.
    pub(super) has_unread_input: AtomicBool,
}

impl ConnectionLimiter {
    /// Returns a limiter of `limit` connections.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limit));
        Arc::new(Self {
            limit,
            permits,
            waiting: Mutex::default(),
            last_position: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            reported: Mutex::default(),
        })
    }

    /// Acquires a slot, evicting a waiting connection if needed; `None` if every connection stays busy for 0.5 s.
    pub(super) async fn acquire(self: &Arc<Self>) -> Option<Slot> {
        for _ in 0..ATTEMPTS {
            let permits = Arc::clone(&self.permits);
            if permits.available_permits() == 0 {
                self.evict_longest_waiting(Duration::ZERO);
            }
            if let Ok(Ok(permit)) = tokio::time::timeout(ATTEMPT_INTERVAL, permits.acquire_owned()).await {
                return Some(Slot {
                    limiter: Arc::clone(self),
                    _permit: permit,
                    position: AtomicU64::new(0),
                    eviction: CancellationToken::new(),
                    is_upgraded: AtomicBool::new(false),
                    is_streaming: AtomicBool::new(false),
                    has_unread_input: AtomicBool::new(false),
                });
            }
        }
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.report();
        None
    }

    /// Closes the connection that has waited longest for its client, if it has waited for at least `min_wait`. Returns
    /// whether there was one.
    pub(super) fn evict_longest_waiting(&self, min_wait: Duration) -> bool {
        let mut waiting = self.lock();
        let Some(first) = waiting.first_entry() else { return false };
        if first.get().since.elapsed() < min_wait {
            return false;
        }
        first.remove().eviction.cancel();
        drop(waiting);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        self.report();
        true
    }

    /// The number of slots in use.
    pub(super) fn len(&self) -> usize {
        self.limit - self.permits.available_permits()
    }

    /// The number of slots.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The number of connections that were rejected because no slot was free.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// The number of connections that waited for their client and were closed for a new one.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Logs that connections were rejected or closed, at most once per [`REPORT_INTERVAL`].
    fn report(&self) {
        let (rejected, evicted) = (self.rejected(), self.evicted());
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match *reported {
            Some((at, _)) if at.elapsed() < REPORT_INTERVAL => return,
            Some((_, before)) => before,
            None => 0,
        };
        *reported = Some((Instant::now(), rejected + evicted));
        tracing::warn!(
            limit = self.limit,
            rejected,
            evicted,
            since_last_report = rejected + evicted - before,
            "all connections are in use: new ones are rejected, or replace those that wait for their client; \
             --connection-limit sets how many there may be"
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Marks the connection as waiting for its client, unless it is so already: bytes that arrive one by one do not make
    /// it younger.
    pub(super) fn mark_waiting(&self) {
        if self.position.load(Ordering::Relaxed) > 0 {
            return;
        }
        let position = self.limiter.last_position.fetch_add(1, Ordering::Relaxed) + 1;
        self.position.store(position, Ordering::Relaxed);
        let waiting = Waiting { since: Instant::now(), eviction: self.eviction.clone() };
        self.limiter.lock().insert(position, waiting);
    }

    /// Completes when the connection must close to make room: it was chosen, and it waits for its client now. A request that
    /// arrived meanwhile is answered first.
    ///
    /// Only the task of the connection changes whether it waits; it must poll this after the connection itself.
    pub(super) async fn evicted(&self) {
        self.eviction.cancelled().await;
        poll_fn(|_| if self.position.load(Ordering::Relaxed) > 0 { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }

    /// Marks the connection as busy: a request is being processed.
    pub(super) fn mark_busy(&self) {
        let position = self.position.swap(0, Ordering::Relaxed);
        if position > 0 {
            self.limiter.lock().remove(&position);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.mark_busy();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn limiter_evicts_longest_waiting_and_keeps_busy() {
        let limiter = ConnectionLimiter::new(3);
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(limiter.acquire().await.unwrap());
        }
        assert_eq!((limiter.len(), limiter.limit()), (3, 3));
        slots[1].mark_waiting();
        slots[0].mark_waiting();
        // More bytes of the same request do not change the order.
        slots[1].mark_waiting();
        assert!(!limiter.evict_longest_waiting(Duration::from_secs(60)), "they have not waited long enough");
        assert!(limiter.evict_longest_waiting(Duration::ZERO));
        assert_eq!((limiter.evicted(), limiter.rejected()), (1, 0));
        assert!(slots[1].eviction.is_cancelled() && !slots[0].eviction.is_cancelled());
        slots[0].mark_busy();
        assert!(!limiter.evict_longest_waiting(Duration::ZERO), "all others are busy");
        slots[2].mark_waiting();
        drop(slots.pop());
        assert!(!limiter.evict_longest_waiting(Duration::ZERO), "it was closed");
        assert_eq!(limiter.len(), 2);
    }

    #[tokio::test]
    async fn chosen_connection_answers_request_that_arrived_before_it_closes() {
        let limiter = ConnectionLimiter::new(1);
        let slot = limiter.acquire().await.unwrap();
        slot.mark_waiting();
        assert!(limiter.evict_longest_waiting(Duration::ZERO));
        slot.mark_busy();
        let mut evicted = std::pin::pin!(slot.evicted());
        assert!(evicted.as_mut().now_or_never().is_none());
        slot.mark_waiting();
        assert!(evicted.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn limiter_rejects_while_all_are_busy_and_evicts_for_new_connection() {
        let limiter = ConnectionLimiter::new(1);
        let first = limiter.acquire().await.unwrap();
        assert!(limiter.acquire().await.is_none());
        assert_eq!(limiter.rejected(), 1);
        let second = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move { limiter.acquire().await }
        });
        tokio::task::yield_now().await;
        first.mark_waiting();
        first.evicted().await;
        drop(first);
        assert!(second.await.unwrap().is_some());
        assert_eq!((limiter.rejected(), limiter.len()), (1, 0));
    }
}
