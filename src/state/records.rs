//! [`State`]: all records, as of one event.

use super::answers::StoredResponse;
use super::daemon::DaemonState;
use super::descendants::Descendants;
use super::private::PrivateState;
use super::server_requests::ServerRequests;
use super::session::Session;
use super::sessions::Sessions;
use super::turn::Turns;
use crate::timestamp::Timestamp;

/// The fold of all events through [`State::through`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// The number of the newest event that is folded into everything; 0 before the first.
    pub through: u64,
    pub(super) sessions_through: u64,
    pub(super) daemon_through: u64,
    /// The daemon and its child.
    pub daemon: DaemonState,
    /// When a session last changed, RFC 3339, UTC, milliseconds.
    pub sessions_updated_at: Option<Timestamp>,
    /// All sessions.
    pub sessions: Sessions,
    /// The newest turns of each thread.
    pub turns: Turns,
    /// The threads of sub-agents.
    pub descendants: Descendants,
    /// What the app-server asked.
    pub requests: ServerRequests,
    /// What is remembered beside the records.
    pub private: PrivateState,
}

impl State {
    /// The session as an answer had it; `None` when its record is no longer known.
    pub fn session_of_answer(&self, answer: &StoredResponse) -> Option<Session> {
        let moment = answer.session.as_ref()?;
        let record = match moment.former {
            Some(number) => self.private.former_sessions.get(&number),
            None => self.sessions.get(&answer.session_id),
        };
        record.map(|record| moment.in_record(record))
    }

    /// Marks all events through `seq` as applied; the caller has skipped only events that change nothing.
    pub fn skip_through(&mut self, seq: u64) {
        self.through = self.through.max(seq);
        self.sessions_through = self.sessions_through.max(seq);
        self.daemon_through = self.daemon_through.max(seq);
    }
}
