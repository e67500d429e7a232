//! The calls that wait for an answer.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;

use super::call_error::CallError;

/// What is done with an answer: run by the reader, where the answer stands in the stream.
pub(crate) type Settle = Box<dyn FnOnce(Result<&RawValue, CallError>) + Send>;

/// The table of calls of one generation.
///
/// Once closed it takes no call any more, so none can wait for an answer that cannot come.
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
    /// Numbers a call; an error when the connection is gone, with `settle` handed back unused.
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

    /// Takes a call out: its answer came, or nobody waits for it any more.
    pub(crate) fn take(&self, id: u64) -> Option<Settle> {
        self.lock().calls.remove(&id)
    }

    /// Whether a call waits for its answer.
    pub(crate) fn waits(&self, id: u64) -> bool {
        self.lock().calls.contains_key(&id)
    }

    /// How many calls wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().calls.len()
    }

    /// Fails every call, and all later ones, with the cause; only the first cause counts.
    pub(crate) fn close(&self, cause: &str) {
        let calls = {
            let mut table = self.lock();
            if table.closed.is_none() {
                table.closed = Some(cause.to_owned());
            }
            std::mem::take(&mut table.calls)
        };
        // In the order they were made, and outside the lock: a settlement may look at the table.
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_unstable_by_key(|&(id, _)| id);
        for (_, settle) in calls {
            settle(Err(CallError::Closed { cause: cause.to_owned() }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is one step, so a poisoned lock still guards a whole one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
