//! The calls that await a response.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use super::call_error::CallError;

/// Handles a response; the reader runs it at the response's position in the stream.
pub(crate) type Settle = Box<dyn FnOnce(Result<&RawValue, CallError>) + Send>;

/// The pending calls of one generation.
///
/// Once closed, it accepts no call, so no call can wait for a response that cannot arrive.
#[derive(Default)]
pub(crate) struct Pending {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    calls: HashMap<u64, Settle>,
    closed: Option<String>,
}

impl Pending {
    /// Registers a call and returns its ID; when the connection is closed, returns the error and `settle`.
    pub(crate) fn register(&self, settle: Settle) -> Result<u64, (CallError, Settle)> {
        let mut table = self.lock();
        if let Some(cause) = &table.closed {
            return Err((CallError::Closed { cause: cause.clone() }, settle));
        }
        table.last_id += 1;
        let id = table.last_id;
        table.calls.insert(id, settle);
        Ok(id)
    }

    /// Removes a call: its response arrived, or its caller gave up.
    pub(crate) fn take(&self, id: u64) -> Option<Settle> {
        self.lock().calls.remove(&id)
    }

    /// Whether a call is pending.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.lock().calls.contains_key(&id)
    }

    /// The number of pending calls.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().calls.len()
    }

    /// Fails every pending call and all later ones with `cause`; only the first cause is kept.
    pub(crate) fn close(&self, cause: &str) {
        let calls = {
            let mut table = self.lock();
            if table.closed.is_none() {
                table.closed = Some(cause.to_owned());
            }
            std::mem::take(&mut table.calls)
        };
        // In the order in which they were made, and outside the lock: `settle` may use the table.
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_unstable_by_key(|&(id, _)| id);
        for (_, settle) in calls {
            settle(Err(CallError::Closed { cause: cause.to_owned() }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is one step, so it is consistent even after a panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
