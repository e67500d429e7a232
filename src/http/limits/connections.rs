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
/// When all places are taken, the one who has been waiting longest for the rest of a request makes room: whoever opens
/// connections and says nothing takes nobody else's place, while those who are being answered stay.
pub(crate) struct Crowd {
    limit: usize,
    began: Instant,
    next: AtomicU64,
    places: Mutex<HashMap<u64, Arc<Place>>>,
    /// Told when somebody has left, or may be sent away.
    changed: Notify,
    turned_away: AtomicU64,
}

/// The place of one connection, shared by the crowd and the connection itself.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Since when nothing but more of a request is awaited, in ms since the crowd began, and one more; 0 when something
    /// is being done.
    waiting_since: AtomicU64,
    /// Whether its own task has looked at it yet; what it says at once is heard before it may be sent away.
    heard: AtomicBool,
    evicted: AtomicBool,
    upgraded: AtomicBool,
    streaming: AtomicBool,
    waker: AtomicWaker,
}

/// Keeps a place for as long as it lives.
pub(crate) struct Ticket {
    crowd: Arc<Crowd>,
    number: u64,
    place: Arc<Place>,
}

impl Crowd {
    /// A crowd of so many at most.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        let (next, turned_away) = (AtomicU64::new(0), AtomicU64::new(0));
        let (began, places, changed) = (Instant::now(), Mutex::default(), Notify::new());
        Arc::new(Self { limit, began, next, places, changed, turned_away })
    }

    /// A place for one more; `None` when all are taken by those who are being answered.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Ticket> {
        let mut places = self.lock();
        if places.len() >= self.limit && !evict(&mut places, u64::MAX) {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = Arc::<Place>::default();
        places.insert(number, Arc::clone(&place));
        Some(Ticket { crowd: Arc::clone(self), number, place })
    }

    /// A place for one more, as soon as there is one.
    pub(crate) async fn place(self: &Arc<Self>) -> Ticket {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before the look, so that nothing that changes in between is missed.
            changed.as_mut().enable();
            if let Some(ticket) = self.admit() {
                return ticket;
            }
            changed.await;
        }
    }

    /// Whether some who came were not even looked at.
    pub(crate) fn has_newcomers(&self) -> bool {
        self.lock().values().any(|place| !place.heard.load(Ordering::Relaxed))
    }

    /// Sends away the one who has been waiting longest, and for this long at least, in which an honest client says what it
    /// wants; returns whether there was one.
    pub(crate) fn make_room(&self, least: Duration) -> bool {
        let least = u64::try_from(least.as_millis()).unwrap_or(u64::MAX);
        evict(&mut self.lock(), self.now().saturating_sub(least))
    }

    /// How many are here now.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many may be here at once.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Counts one for whom there was no place.
    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// For how many there was no place.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends away the one who has been waiting longest, if it began no later than `latest`.
///
/// The place is free at once, although its connection closes a moment later.
fn evict(places: &mut HashMap<u64, Arc<Place>>, latest: u64) -> bool {
    let waiting = places.iter().filter_map(|(number, place)| {
        let since = place.waiting_since.load(Ordering::Acquire);
        (since > 0 && since <= latest).then_some((since, *number))
    });
    let Some((_, number)) = waiting.min() else { return false };
    if let Some(place) = places.remove(&number) {
        place.evicted.store(true, Ordering::Release);
        place.waker.wake();
    }
    true
}

impl Ticket {
    pub(crate) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// From now on nothing but more of a request is awaited.
    pub(crate) fn waits(&self) {
        self.place.waiting_since.store(self.crowd.now(), Ordering::Release);
        self.crowd.changed.notify_waiters();
    }

    /// There is nothing more to read now, and that is what is waited for, unless it is already.
    pub(crate) fn has_looked(&self) {
        if !self.place.heard.swap(true, Ordering::Relaxed) {
            self.waits();
        }
    }

    /// From now on something is being done.
    pub(crate) fn is_busy(&self) {
        self.place.heard.store(true, Ordering::Relaxed);
        self.place.waiting_since.store(0, Ordering::Release);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.crowd.lock().remove(&self.number);
        self.crowd.changed.notify_waiters();
    }
}

impl Place {
    /// Whether it has to be left; wakes the task of the context when it has to later.
    pub(crate) fn is_evicted(&self, context: &mut std::task::Context<'_>) -> bool {
        self.waker.register(context.waker());
        self.evicted.load(Ordering::Acquire)
    }

    /// What follows on the connection is no HTTP any more.
    pub(crate) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// The answer is one without an end, or no longer.
    pub(crate) fn stream(&self, is_streaming: bool) {
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
        let crowd = Crowd::new(2);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let (first, second) = (crowd.admit().unwrap(), crowd.admit().unwrap());
        second.waits();
        first.is_busy();
        let third = crowd.admit().unwrap();
        assert!(second.place().is_evicted(context) && !first.place().is_evicted(context));
        third.is_busy();
        assert!(crowd.admit().is_none());
        drop(second);
        assert!(crowd.admit().is_none(), "the place of the evicted is the third one's");
        assert_eq!((crowd.len(), crowd.limit()), (2, 2));
        drop(first);
        assert!(crowd.admit().is_some());
        third.waits();
        assert!(!crowd.make_room(Duration::from_secs(60)), "it has not waited for long");
        assert!(crowd.make_room(Duration::ZERO) && third.place().is_evicted(context));
        assert!(!crowd.make_room(Duration::ZERO));
    }

    #[test]
    fn nobody_is_sent_away_before_being_looked_at() {
        let crowd = Crowd::new(1);
        let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
        let first = crowd.admit().unwrap();
        assert!(crowd.admit().is_none() && crowd.has_newcomers());
        first.has_looked();
        assert!(!crowd.has_newcomers() && crowd.admit().is_some());
        assert!(first.place().is_evicted(context));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_has_it_when_somebody_leaves_or_waits_in_turn() {
        let crowd = Crowd::new(1);
        let first = crowd.admit().unwrap();
        first.is_busy();
        let mut second = Box::pin(crowd.place());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await;
        second.is_busy();
        let mut third = Box::pin(crowd.place());
        assert!(third.as_mut().now_or_never().is_none());
        second.waits();
        third.await;
    }
}
