//! How many may be here at once, and who has to leave when there are too many.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// Everybody who is connected.
///
/// When all slots are taken, the one who has been waiting longest for the rest of a request makes room: whoever opens
/// connections and says nothing takes nobody else's slot, while those who are being answered stay.
pub(crate) struct ConnectionLimiter {
    limit: usize,
    created_at: Instant,
    next: AtomicU64,
    slots: Mutex<HashMap<u64, Arc<Slot>>>,
    /// Told when somebody has left, or may be sent away.
    changed: Notify,
    rejected: AtomicU64,
}

/// The slot of one connection, shared by the limiter and the connection itself.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Since when nothing but more of a request is awaited, in ms since the limiter created_at, and one more; 0 when something
    /// is being done.
    idle_since: AtomicU64,
    /// Whether its own task has looked at it yet; what it says at once is heard before it may be sent away.
    polled: AtomicBool,
    evicted: AtomicBool,
    upgraded: AtomicBool,
    streaming: AtomicBool,
    waker: AtomicWaker,
}

/// Keeps a slot for as long as it lives.
pub(crate) struct SlotGuard {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    slot: Arc<Slot>,
}

impl ConnectionLimiter {
    /// A limiter of so many at most.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (next, rejected) = (AtomicU64::new(0), AtomicU64::new(0));
        let (created_at, slots, changed) = (Instant::now(), Mutex::default(), Notify::new());
        Arc::new(Self { limit, created_at, next, slots, changed, rejected })
    }

    /// A slot for one more; `None` when all are taken by those who are being answered.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<SlotGuard> {
        let mut slots = self.lock();
        if slots.len() >= self.limit && !evict_longest_idle(&mut slots, u64::MAX) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::<Slot>::default();
        slots.insert(number, Arc::clone(&slot));
        Some(SlotGuard { limiter: Arc::clone(self), number, slot })
    }

    /// A slot for one more, as soon as there is one.
    pub(crate) async fn wait_for_slot(self: &Arc<Self>) -> SlotGuard {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look, so that nothing that changes in between is missed.
            changed.as_mut().enable();
            if let Some(slot_guard) = self.admit() {
                return slot_guard;
            }
            changed.await;
        }
    }

    /// Whether some who came were not even looked at.
    pub(crate) fn has_unpolled(&self) -> bool {
        self.lock().values().any(|slot| !slot.polled.load(Ordering::Relaxed))
    }

    /// Sends away the one who has been waiting longest, and for this long at least, in which an honest client says what it
    /// wants; returns whether there was one.
    pub(crate) fn evict_idle(&self, least: Duration) -> bool {
        let least = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
        evict_longest_idle(&mut self.lock(), self.now().saturating_sub(least))
    }

    /// How many are here now.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many may be here at once.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts one for whom there was no slot.
    pub(crate) fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// For how many there was no slot.
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

/// Sends away the one who has been waiting longest, if it began no later than `latest`.
///
/// The slot is free at once, although its connection closes a moment later.
fn evict_longest_idle(slots: &mut HashMap<u64, Arc<Slot>>, latest: u64) -> bool {
    let waiting = slots.iter().filter_map(|(number, slot)| {
        let since = slot.idle_since.load(Ordering::Acquire);
        (since > 0 && since <= latest).then_some((since, *number))
    });
    let Some((_, number)) = waiting.min() else { return false };
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

    /// From now on nothing but more of a request is awaited.
    pub(crate) fn mark_idle(&self) {
        self.slot.idle_since.store(self.limiter.now(), Ordering::Release);
        self.limiter.changed.notify_waiters();
    }

    /// There is nothing more to read now, and that is what is waited for, unless it is already.
    pub(crate) fn mark_polled(&self) {
        if !self.slot.polled.swap(true, Ordering::Relaxed) {
            self.mark_idle();
        }
    }

    /// From now on something is being done.
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
    /// Whether it has to be left; wakes the task of the context when it has to later.
    pub(crate) fn is_evicted(&self, context: &mut std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.evicted.load(Ordering::Acquire)
    }

    /// What follows on the connection is no HTTP any more.
    pub(crate) fn set_upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// The answer is one without an end, or no longer.
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
    fn the_one_who_waits_longest_makes_room_and_nobody_who_is_answered_does() {
        let limiter = ConnectionLimiter::new(2);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let (first, second) = (limiter.admit().unwrap(), limiter.admit().unwrap());
        second.mark_idle();
        first.mark_busy();
        let third = limiter.admit().unwrap();
        assert!(second.slot().is_evicted(context) && !first.slot().is_evicted(context));
        third.mark_busy();
        assert!(limiter.admit().is_none());
        drop(second);
        assert!(limiter.admit().is_none(), "the slot of the evicted is the third one's");
        assert_eq!((limiter.len(), limiter.limit()), (2, 2));
        drop(first);
        assert!(limiter.admit().is_some());
        third.mark_idle();
        assert!(!limiter.evict_idle(Duration::from_secs(60)), "it has not waited for long");
        assert!(limiter.evict_idle(Duration::ZERO) && third.slot().is_evicted(context));
        assert!(!limiter.evict_idle(Duration::ZERO));
    }

    #[test]
    fn nobody_is_sent_away_before_being_looked_at() {
        let limiter = ConnectionLimiter::new(1);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let first = limiter.admit().unwrap();
        assert!(limiter.admit().is_none() && limiter.has_unpolled());
        first.mark_polled();
        assert!(!limiter.has_unpolled() && limiter.admit().is_some());
        assert!(first.slot().is_evicted(context));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_has_it_when_somebody_leaves_or_waits_in_turn() {
        let limiter = ConnectionLimiter::new(1);
        let first = limiter.admit().unwrap();
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
