//! The records and the log as readers see them.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::daemon::recorder::input::StorageError;
use crate::daemon::recorder::turn_metrics::TurnMetrics;
use crate::journal::{Line, Log};
use crate::state::State;
use crate::state::snapshot::Identity;

/// The records and the log, always consistent with each other.
pub(crate) struct View {
    pub(crate) identity: Identity,
    pub(crate) recent: usize,
    pub(crate) log: Arc<Log>,
    pub(crate) turn_metrics: TurnMetrics,
    pub(super) state: RwLock<State>,
    /// Why commits fail now.
    pub(super) storage_error: RwLock<Option<StorageError>>,
}

impl View {
    /// The records; the recorder cannot change them while the guard is held, so hold it briefly.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest events, as many as are configured; read under the guard of [`View::state`] they are those of the
    /// same moment.
    pub(crate) fn recent_events(&self) -> Vec<Line> {
        self.log.recent(self.recent)
    }

    /// Why commits fail now, if they do.
    pub(crate) fn storage_error(&self) -> Option<StorageError> {
        self.storage_error.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_storage_error(&self, storage: Option<StorageError>) {
        *self.storage_error.write().unwrap_or_else(PoisonError::into_inner) = storage;
    }
}
