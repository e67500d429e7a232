//! When each thread sent its last message.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// When each thread sent its last message.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Activity {
    threads: Mutex<HashMap<String, Instant>>,
}

impl Activity {
    /// Notes that a thread sent a message.
    pub(in crate::daemon) fn note(&self, thread_id: &str) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.insert(thread_id.to_owned(), Instant::now());
    }

    pub(super) fn last(&self, thread_id: &str) -> Option<Instant> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).get(thread_id).copied()
    }

    pub(super) fn keep(&self, threads: &HashSet<String>) {
        let mut known = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|thread_id, _| threads.contains(thread_id));
    }
}
