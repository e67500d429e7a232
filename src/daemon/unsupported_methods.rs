//! Methods that an older app-server does not have: logged once for each generation.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::daemon::error::DaemonError;

/// The methods that the app-server of the newest generation does not have.
#[derive(Debug, Default)]
pub(super) struct UnsupportedMethods {
    known: Mutex<(u64, HashSet<String>)>,
}

impl UnsupportedMethods {
    /// Records a failed call; `true` when it failed because there is no such method, which is logged the first time.
    pub(super) fn note(&self, generation: u64, error: &DaemonError) -> bool {
        let DaemonError::UnknownMethod { method, .. } = error else { return false };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != generation {
            *known = (generation, HashSet::new());
        }
        if known.1.insert(method.clone()) {
            tracing::warn!(generation, method, "the state of a turn cannot be read: {error}");
        }
        true
    }
}
