//! The clients that currently follow the event stream, and the position of each.
//!
//! [`Subscribers`] owns the positions; `sse` and `websocket` add one per client, `feed` advances it, and `/metrics`
//! reads the counts and the lag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The transport of an event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    ServerSentEvents,
}

/// The positions of all subscribers.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    next: AtomicU64,
    positions: Mutex<HashMap<u64, (Transport, Arc<AtomicU64>)>>,
}

/// The position of one subscriber; removed on drop.
#[derive(Debug)]
pub(crate) struct SubscriberPosition {
    subscribers: Arc<Subscribers>,
    id: u64,
    position: Arc<AtomicU64>,
}

impl Subscribers {
    /// Adds a subscriber.
    pub(crate) fn add(self: &Arc<Self>, transport: Transport) -> SubscriberPosition {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Until the first `set_position` it has no lag.
        let position = Arc::new(AtomicU64::new(u64::MAX));
        self.lock().insert(id, (transport, Arc::clone(&position)));
        SubscriberPosition { subscribers: Arc::clone(self), id, position }
    }

    /// The number of subscribers with this transport.
    pub(crate) fn count(&self, transport: Transport) -> u64 {
        self.lock().values().filter(|(other, _)| *other == transport).count() as u64
    }

    /// How many events up to `latest` the slowest subscriber has not forwarded to its connection; 0 without
    /// subscribers.
    pub(crate) fn max_lag(&self, latest: u64) -> u64 {
        let positions = self.lock();
        let slowest = positions.values().map(|(_, position)| position.load(Ordering::Relaxed)).min();
        latest.saturating_sub(slowest.unwrap_or(latest))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Transport, Arc<AtomicU64>)>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SubscriberPosition {
    /// Every event through `seq` was forwarded, or dropped by the filter.
    pub(crate) fn set_position(&self, seq: u64) {
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
    fn max_lag_is_that_of_slowest_subscriber() {
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
        // A subscriber may be ahead of the `latest` that was read before.
        assert_eq!(subscribers.max_lag(3), 0);
        drop(second);
        assert_eq!((subscribers.count(Transport::ServerSentEvents), subscribers.max_lag(9)), (0, 2));
    }
}
