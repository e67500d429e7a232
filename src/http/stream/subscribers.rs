//! Who follows the event stream now, and how far each has come.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In which form a client follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Form {
    WebSocket,
    ServerSent,
}

/// Those who follow.
#[derive(Debug, Default)]
pub(in crate::http) struct Readers {
    next: AtomicU64,
    here: Mutex<HashMap<u64, (Form, Arc<AtomicU64>)>>,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub(in crate::http) struct Reader {
    readers: Arc<Readers>,
    number: u64,
    through: Arc<AtomicU64>,
}

impl Readers {
    /// Adds one.
    pub(in crate::http) fn enter(self: &Arc<Self>, form: Form) -> Reader {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Until it says more, it is behind nothing.
        let through = Arc::new(AtomicU64::new(u64::MAX));
        self.lock().insert(number, (form, Arc::clone(&through)));
        Reader { readers: Arc::clone(self), number, through }
    }

    /// How many follow in this form.
    pub(in crate::http) fn count(&self, form: Form) -> u64 {
        self.lock().values().filter(|(other, _)| *other == form).count() as u64
    }

    /// How many events up to `latest` the slowest has not passed on to its connection; 0 when nobody follows.
    pub(in crate::http) fn behind(&self, latest: u64) -> u64 {
        let here = self.lock();
        let slowest = here.values().map(|(_, through)| through.load(Ordering::Relaxed)).min();
        latest.saturating_sub(slowest.unwrap_or(latest))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Form, Arc<AtomicU64>)>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Everything through this number was passed on, or left out by a filter.
    pub(in crate::http) fn is_through(&self, seq: u64) {
        self.through.store(seq, Ordering::Relaxed);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_those_who_are_here_counts() {
        let readers = Arc::<Readers>::default();
        assert_eq!(readers.behind(9), 0);
        let (first, second) = (readers.enter(Form::WebSocket), readers.enter(Form::ServerSent));
        assert_eq!(readers.behind(9), 0);
        first.is_through(7);
        second.is_through(4);
        assert_eq!((readers.count(Form::WebSocket), readers.count(Form::ServerSent)), (1, 1));
        assert_eq!(readers.behind(9), 5);
        // One may be further than what was looked up just before.
        assert_eq!(readers.behind(3), 0);
        drop(second);
        assert_eq!((readers.count(Form::ServerSent), readers.behind(9)), (0, 2));
    }
}
