//! When each thread sent its last message.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::ids::ThreadId;

/// When each thread sent its last message.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Activity {
    threads: Mutex<HashMap<ThreadId, Instant>>,
}

impl Activity {
    /// Notes that a thread sent a message.
    pub(in crate::daemon) fn note(&self, thread_id: &ThreadId) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.insert(thread_id.clone(), Instant::now());
    }

    pub(super) fn last(&self, thread_id: &ThreadId) -> Option<Instant> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).get(thread_id).copied()
    }

    pub(super) fn keep(&self, threads: &HashSet<ThreadId>) {
        let mut known = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|thread_id, _| threads.contains(thread_id));
    }
}
