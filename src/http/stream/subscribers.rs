//! Who follows the event stream now, and how far each has come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In which transport a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Transport {
    WebSocket,
    ServerSentEvents,
}

/// Those who follow.
#[derive(Debug, Default)]
pub(in crate::http) struct Subscribers {
    next: AtomicU64,
    positions: Mutex<HashMap<u64, (Transport, Arc<AtomicU64>)>>,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub(in crate::http) struct SubscriberPosition {
    subscribers: Arc<Subscribers>,
    id: u64,
    position: Arc<AtomicU64>,
}

impl Subscribers {
    /// Adds one.
    pub(in crate::http) fn add(self: &Arc<Self>, transport: Transport) -> SubscriberPosition {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Until it says more, it is behind nothing.
        let position = Arc::new(AtomicU64::new(u64::MAX));
        self.lock().insert(id, (transport, Arc::clone(&position)));
        SubscriberPosition { subscribers: Arc::clone(self), id, position }
    }

    /// How many follow in this transport.
    pub(in crate::http) fn count(&self, transport: Transport) -> u64 {
        self.lock().values().filter(|(other, _)| *other == transport).count() as u64
    }

    /// How many events up to `latest` the slowest has not passed on to its connection; 0 when nobody follows.
    pub(in crate::http) fn max_lag(&self, latest: u64) -> u64 {
        let positions = self.lock();
        let slowest = positions.values().map(|(_, position)| position.load(Ordering::Relaxed)).min();
        latest.saturating_sub(slowest.unwrap_or(latest))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Transport, Arc<AtomicU64>)>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubscriberPosition {
    /// Everything through this id was passed on, or left out by a filter.
    pub(in crate::http) fn set_position(&self, seq: u64) {
        self.position.store(seq, Ordering::Relaxed);
    }
}

impl Drop for SubscriberPosition {
    fn drop(&mut self) {
        self.subscribers.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_those_who_are_here_counts() {
        let subscribers = Arc::<Subscribers>::default();
        assert_eq!(subscribers.max_lag(9), 0);
        let (first, second) =
            (subscribers.add(Transport::WebSocket), subscribers.add(Transport::ServerSentEvents));
        assert_eq!(subscribers.max_lag(9), 0);
        first.set_position(7);
        second.set_position(4);
        assert_eq!(
            (subscribers.count(Transport::WebSocket), subscribers.count(Transport::ServerSentEvents)),
            (1, 1)
        );
        assert_eq!(subscribers.max_lag(9), 5);
        // One may be further than what was looked up just before.
        assert_eq!(subscribers.max_lag(3), 0);
        drop(second);
        assert_eq!((subscribers.count(Transport::ServerSentEvents), subscribers.max_lag(9)), (0, 2));
    }
}
