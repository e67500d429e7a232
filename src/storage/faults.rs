//! Injects failures of the disk, for tests.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, Operation};

/// Which call fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Calls of this kind are counted.
    pub(crate) operation: Operation,
    /// The first call that fails, counted from 1.
    pub(crate) first: u64,
    /// Whether all later calls of this kind fail too.
    pub(crate) forever: bool,
    /// The error.
    pub(crate) kind: io::ErrorKind,
}

/// The planned failures and the calls so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    calls: u64,
    failed: u64,
    cut: bool,
}

impl Faults {
    /// A disk that fails as planned.
    pub(crate) fn disk(self: &Arc<Self>) -> Disk {
        Disk {
            faults: Some(Arc::clone(self)),
            #[cfg(feature = "mutations")]
            mutation: None,
        }
    }

    /// Starts counting and failing; `None` lets every call pass.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        *self.lock() = State { plan, ..State::default() };
    }

    /// The number of calls that failed since the last plan.
    pub(crate) fn failed(&self) -> u64 {
        self.lock().failed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Fails the call if it is due; the write before a failing one writes only a part of its bytes, as a disk does that fills
    /// up.
    pub(super) fn may(&self, operation: Operation) -> io::Result<()> {
        let Some(faults) = &self.faults else { return Ok(()) };
        let mut state = faults.lock();
        let Some(plan) = state.plan.filter(|plan| plan.operation == operation) else { return Ok(()) };
        state.calls += 1;
        let due = |call: u64| if plan.forever { call >= plan.first } else { call == plan.first };
        state.cut = operation == Operation::Write && due(state.calls + 1);
        if due(state.calls) {
            state.failed += 1;
            return Err(plan.kind.into());
        }
        Ok(())
    }

    /// The part of the bytes that this write takes.
    pub(super) fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let cut = self.faults.as_ref().is_some_and(|faults| faults.lock().cut);
        if cut { &bytes[..bytes.len().div_ceil(2) + 7.min(bytes.len() / 2)] } else { bytes }
    }
}
