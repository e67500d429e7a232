//! Limits the number of open connections.
//!
//! [`ConnectionLimiter`] owns one [`Slot`] per connection. The listener (`server`) acquires slots; the framer of each
//! connection (`framing::framer`) marks its slot idle or busy.
//!
//! Invariants: at most `limit` slots are in use, and only a connection that waits for (the rest of) a request is ever
//! evicted. A connection whose request is being processed keeps its slot.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// The slots of all open connections.
///
/// When all slots are taken, a new connection evicts the one that has been idle longest. So a client that opens
/// connections and sends nothing cannot lock out other clients.
pub(crate) struct ConnectionLimiter {
    limit: usize,
    created_at: Instant,
    next: AtomicU64,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    /// Notified when a slot is released or a connection becomes idle.
    changed: Notify,
    rejected: AtomicU64,
}

/// The state of one connection, shared by the limiter and the connection.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// When the connection became idle, in ms since `created_at` plus 1; 0 while a request is being processed.
    idle_since: AtomicU64,
    /// Whether the task of the connection has polled the socket yet. Data that arrived with the connection is read
    /// before the connection may be evicted.
    polled: AtomicBool,
    evicted: AtomicBool,
    upgraded: AtomicBool,
    streaming: AtomicBool,
    waker: AtomicWaker,
}

/// Holds a slot and releases it on drop.
pub(crate) struct SlotGuard {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    slot: Arc<Slot>,
}

impl ConnectionLimiter {
    /// Returns a limiter of `limit` connections.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (next, rejected) = (AtomicU64::new(0), AtomicU64::new(0));
        let (created_at, slots, changed) = (Instant::now(), Mutex::default(), Notify::new());
        Arc::new(Self { limit, created_at, next, slots, changed, rejected })
    }

    /// Acquires a slot, evicting an idle connection if needed; `None` when all connections are busy.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<SlotGuard> {
        let mut slots = self.lock();
        if slots.len() >= self.limit && !evict_longest_idle(&mut slots, u64::MAX) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::<Slot>::default();
        slots.insert(number, Arc::clone(&slot));
        Some(SlotGuard { limiter: Arc::clone(self), number, slot })
    }

    /// Waits until a slot can be acquired.
    pub(crate) async fn wait_for_slot(self: &Arc<Self>) -> SlotGuard {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the attempt, so that no change in between is missed.
            changed.as_mut().enable();
            if let Some(slot_guard) = self.try_acquire() {
                return slot_guard;
            }
            changed.await;
        }
    }

    /// Whether some connection has not polled its socket yet.
    pub(crate) fn has_unpolled(&self) -> bool {
        self.lock().values().any(|slot| !slot.polled.load(Ordering::Relaxed))
    }

    /// Evicts the connection that has been idle longest, if it has been idle for at least `min_idle`, a time in which a
    /// well-behaved client sends its request. Returns whether one was evicted.
    pub(crate) fn evict_idle(&self, min_idle: Duration) -> bool {
        let min_idle = u64::try_from(min_idle.as_millis()).unwrap_or(u64::MAX);
        evict_longest_idle(&mut self.lock(), self.now().saturating_sub(min_idle))
    }

    /// The number of slots in use.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The number of slots.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts a connection that was rejected because no slot was free.
    pub(crate) fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of rejected connections.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.created_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the connection that has been idle longest, if it became idle no later than `latest`.
///
/// Its slot is free at once, although the connection closes a moment later.
fn evict_longest_idle(slots: &mut HashMap<u64, Arc<Slot>>, latest: u64) -> bool {
    let idle = slots.iter().filter_map(|(number, slot)| {
        let since = slot.idle_since.load(Ordering::Acquire);
        (since > 0 && since <= latest).then_some((since, *number))
    });
    let Some((_, number)) = idle.min() else { return false };
    if let Some(slot) = slots.remove(&number) {
        slot.evicted.store(true, Ordering::Release);
        slot.waker.wake();
    }
    true
}

impl SlotGuard {
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }

    /// Marks the connection as idle: it only waits for more of a request.
    pub(crate) fn mark_idle(&self) {
        self.slot.idle_since.store(self.limiter.now(), Ordering::Release);
        self.limiter.changed.notify_waiters();
    }

    /// Records that the socket was polled and had nothing more to read; the first call also marks the connection as
    /// idle.
    pub(crate) fn mark_polled(&self) {
        if !self.slot.polled.swap(true, Ordering::Relaxed) {
            self.mark_idle();
        }
    }

    /// Marks the connection as busy: a request is being processed.
    pub(crate) fn mark_busy(&self) {
        self.slot.polled.store(true, Ordering::Relaxed);
        self.slot.idle_since.store(0, Ordering::Release);
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.limiter.lock().remove(&self.number);
        self.limiter.changed.notify_waiters();
    }
}

impl Slot {
    /// Whether the connection was evicted; registers the task of `context` to be woken on eviction.
    pub(crate) fn is_evicted(&self, context: &mut std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.evicted.load(Ordering::Acquire)
    }

    /// Records that the connection no longer carries HTTP.
    pub(crate) fn set_upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// Records whether the response is an event stream, which has no end.
    pub(crate) fn set_streaming(&self, is_streaming: bool) {
        self.streaming.store(is_streaming, Ordering::Release);
    }

    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::Acquire)
    }

    pub(crate) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn connection_limiter_evicts_longest_idle_and_keeps_busy() {
        let limiter = ConnectionLimiter::new(2);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let (first, second) = (limiter.try_acquire().unwrap(), limiter.try_acquire().unwrap());
        second.mark_idle();
        first.mark_busy();
        let third = limiter.try_acquire().unwrap();
        assert!(second.slot().is_evicted(context) && !first.slot().is_evicted(context));
        third.mark_busy();
        assert!(limiter.try_acquire().is_none());
        drop(second);
        assert!(limiter.try_acquire().is_none(), "the third connection has the slot of the evicted one");
        assert_eq!((limiter.len(), limiter.limit()), (2, 2));
        drop(first);
        assert!(limiter.try_acquire().is_some());
        third.mark_idle();
        assert!(!limiter.evict_idle(Duration::from_secs(60)), "it has not been idle long enough");
        assert!(limiter.evict_idle(Duration::ZERO) && third.slot().is_evicted(context));
        assert!(!limiter.evict_idle(Duration::ZERO));
    }

    #[test]
    fn connection_limiter_keeps_unpolled_connections() {
        let limiter = ConnectionLimiter::new(1);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let first = limiter.try_acquire().unwrap();
        assert!(limiter.try_acquire().is_none() && limiter.has_unpolled());
        first.mark_polled();
        assert!(!limiter.has_unpolled() && limiter.try_acquire().is_some());
        assert!(first.slot().is_evicted(context));
    }

    #[tokio::test]
    async fn connection_limiter_wait_ends_when_slot_is_released_or_idle() {
        let limiter = ConnectionLimiter::new(1);
        let first = limiter.try_acquire().unwrap();
        first.mark_busy();
        let mut second = Box::pin(limiter.wait_for_slot());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await;
        second.mark_busy();
        let mut third = Box::pin(limiter.wait_for_slot());
        assert!(third.as_mut().now_or_never().is_none());
        second.mark_idle();
        third.await;
    }
}
