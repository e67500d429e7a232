//! The event filter of a stream query. Owned by `feed` and `json`, one per client.

use super::query::StreamQuery;
use crate::daemon::DaemonError;
use crate::http::app_state::SharedState;
use crate::ids::ThreadId;
use crate::journal::Line;
use crate::state::EventFilter;

/// The filter of a stream.
#[derive(Debug)]
pub(super) struct Filter(EventFilter);

impl Filter {
    /// The filter of a query; an error if its session does not exist. A stream of a session that may be created later
    /// would be silent, and clients could not distinguish it from an idle session.
    pub(super) fn for_query(state: &SharedState, query: &StreamQuery) -> Result<Self, DaemonError> {
        let session =
            query.session_id.as_ref().map(|session_id| state.daemon.sessions.get(session_id)).transpose()?;
        Ok(Self::new(query, session.as_ref().and_then(|session| session.thread_id.as_ref())))
    }

    /// The filter of a query; `thread_id` is the thread of its session, if known.
    pub(super) fn new(query: &StreamQuery, thread_id: Option<&ThreadId>) -> Self {
        Self(EventFilter::new(&query.types, query.session_id.as_ref(), thread_id))
    }

    /// Whether it passes every event.
    pub(super) fn passes_all(&self) -> bool {
        self.0.passes_all()
    }

    /// Whether this event passes. Must be called for every event in order, because a session may get a new thread.
    pub(super) fn passes(&mut self, line: &Line) -> bool {
        self.0.passes(line.event_type(), line.json())
    }
}
