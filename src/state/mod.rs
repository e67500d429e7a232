//! The records and the one rule that changes them: [`State::apply`].
//!
//! Pure: no clock, no tasks, and no files outside [`snapshot`].
//! The records are the fold of the events, so a snapshot with the events after it gives the same records as
//! all events from the beginning.

mod daemon;
mod event;
mod session;
pub mod snapshot;
#[cfg(test)]
mod tests;

pub use daemon::{ChildPhase, ChildState, ChildStatus, DaemonState};
pub use event::{Change, Draft, Event, Level, event_type};
pub use session::{Purpose, Session, SessionStatus, Sessions};

/// The status of a turn that a lost connection cut off.
const FAILED: &str = "failed";
/// The status of a turn that runs.
const IN_PROGRESS: &str = "inProgress";

/// Everything the events say, as of [`State::through`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    /// The number of the newest event that is folded into everything; 0 before the first.
    pub through: u64,
    sessions_through: u64,
    daemon_through: u64,
    /// The daemon and its child.
    pub daemon: DaemonState,
    /// When a session last changed, RFC 3339, UTC, milliseconds.
    pub sessions_updated_at: Option<String>,
    /// All sessions.
    pub sessions: Sessions,
}

impl State {
    /// The state that two snapshots hold; the log is to be folded in from the older of the two.
    ///
    /// A crash can leave them apart; each half then ignores the events it already has.
    pub fn restore(registry: snapshot::RegistryFile, daemon: snapshot::DaemonFile) -> Self {
        let mut sessions = Sessions::default();
        for session in registry.sessions {
            sessions.insert(std::sync::Arc::unwrap_or_clone(session));
        }
        Self {
            through: registry.through_seq.min(daemon.through_seq),
            sessions_through: registry.through_seq,
            daemon_through: daemon.through_seq,
            daemon: daemon.daemon,
            sessions_updated_at: registry.updated_at,
            sessions,
        }
    }

    /// Says that all events through `seq` were looked at; those that were not folded in change nothing.
    pub fn caught_up(&mut self, seq: u64) {
        self.through = self.through.max(seq);
        self.sessions_through = self.sessions_through.max(seq);
        self.daemon_through = self.daemon_through.max(seq);
    }

    /// Folds one event in.
    ///
    /// `seq` is its number, `at` its time (RFC 3339).
    /// Events that are already folded in are left alone, so applying a log twice does no harm.
    /// Returns whether a session changed.
    pub fn apply(&mut self, seq: u64, at: &str, change: &Change) -> bool {
        if seq <= self.through {
            return false;
        }
        self.through = seq;
        let mut sessions_changed = false;
        if seq > self.sessions_through {
            self.sessions_through = seq;
            sessions_changed = self.apply_to_sessions(at, change);
            if sessions_changed {
                self.sessions_updated_at = Some(at.to_owned());
            }
        }
        if seq > self.daemon_through {
            self.daemon_through = seq;
            if self.daemon.updated_at.as_deref() != Some(at) {
                self.daemon.updated_at = Some(at.to_owned());
            }
            self.apply_to_daemon(at, change);
        }
        sessions_changed
    }

    fn apply_to_daemon(&mut self, at: &str, change: &Change) {
        let now = || Some(at.to_owned());
        let daemon = &mut self.daemon;
        match change {
            Change::DaemonStarted { pid, external } => {
                daemon.started = true;
                daemon.started_at = now();
                daemon.stopped_at = None;
                daemon.pid = *pid;
                let status = if *external { ChildStatus::External } else { ChildStatus::Starting };
                daemon.child = ChildState { status, state: ChildPhase::Starting, ..ChildState::default() };
            }
            Change::DaemonStopped => {
                daemon.started = false;
                daemon.stopped_at = now();
                daemon.pid = None;
                daemon.child.state = ChildPhase::Stopped;
                daemon.child.next_start_at = None;
                if daemon.child.status == ChildStatus::External {
                    daemon.child = ChildState { exited_at: now(), ..ChildState::default() };
                }
            }
            Change::ChildStarted { pid, generation } => {
                let before = std::mem::take(&mut daemon.child);
                daemon.child = ChildState {
                    status: ChildStatus::Starting,
                    pid: *pid,
                    started_at: now(),
                    generation: *generation,
                    state: ChildPhase::Starting,
                    // What is known of the one before stays until this one answers.
                    last_error: before.last_error,
                    stderr_tail: before.stderr_tail,
                    deaths: before.deaths,
                    ..ChildState::default()
                };
            }
            Change::Connected { generation } => {
                let child = &mut daemon.child;
                if child.status == ChildStatus::External {
                    child.started_at = now();
                    child.state = ChildPhase::External;
                } else {
                    child.status = ChildStatus::Running;
                    child.state = ChildPhase::Running;
                }
                child.generation = *generation;
                child.last_error = None;
                child.next_start_at = None;
                child.stderr_tail.clear();
            }
            Change::ChildBackoff { until, deaths, crash_loop, cause, stderr_tail } => {
                let child = &mut daemon.child;
                if child.status != ChildStatus::External {
                    child.status = ChildStatus::Failed;
                }
                child.state = if *crash_loop { ChildPhase::CrashLoop } else { ChildPhase::Backoff };
                child.deaths = *deaths;
                child.next_start_at.clone_from(until);
                child.last_error = Some(cause.clone());
                child.stderr_tail.clone_from(stderr_tail);
            }
            Change::ChildExited { code, signal, expected, message } => {
                (daemon.child.status, daemon.child.state) = match expected {
                    true => (ChildStatus::Stopped, ChildPhase::Stopped),
                    false => (ChildStatus::Failed, ChildPhase::Backoff),
                };
                daemon.child.pid = None;
                daemon.child.exited_at = now();
                daemon.child.exit_code = *code;
                daemon.child.signal.clone_from(signal);
                if !expected {
                    daemon.child.last_error = Some(message.clone());
                }
            }
            Change::ChildFailed { message } => {
                daemon.child.status = ChildStatus::Failed;
                daemon.child.state = ChildPhase::Backoff;
                daemon.child.pid = None;
                daemon.child.exited_at = now();
                daemon.child.last_error = Some(message.clone());
            }
            Change::ChildExternal => daemon.child.status = ChildStatus::External,
            Change::ConnectionFailed { message } => {
                daemon.child.last_error = Some(message.clone());
                if daemon.child.state == ChildPhase::External {
                    daemon.child.state = ChildPhase::Backoff;
                }
            }
            _ => {}
        }
    }

    /// Returns whether the change was one of a session's.
    fn apply_to_sessions(&mut self, at: &str, change: &Change) -> bool {
        let sessions = &mut self.sessions;
        match change {
            Change::SessionOpened(session) => {
                sessions.insert((**session).clone());
                true
            }
            Change::SessionClosed { session_id } => sessions.update(session_id, |session| {
                session.status = SessionStatus::Closed;
                session.current_turn_id = None;
                session.updated_at = at.to_owned();
            }),
            Change::SessionForgotten { session_id } => sessions.remove(session_id),
            Change::TurnAccepted { session_id, turn_id } => sessions.update(session_id, |session| {
                // A turn that already reported itself has more to say than its acceptance.
                if session.last_turn_id.as_ref() != Some(turn_id) {
                    session.current_turn_id = Some(turn_id.clone());
                    session.last_turn_id = Some(turn_id.clone());
                    session.last_turn_status = Some(IN_PROGRESS.to_owned());
                    session.updated_at = at.to_owned();
                }
            }),
            Change::ThreadStatusChanged { thread_id } => {
                sessions.update_thread(thread_id, |session| session.updated_at = at.to_owned())
            }
            Change::TurnStarted { thread_id, turn_id, status } => {
                sessions.update_thread(thread_id, |session| {
                    session.current_turn_id = Some(turn_id.clone());
                    session.last_turn_id = Some(turn_id.clone());
                    session.last_turn_status = Some(status.clone());
                    session.updated_at = at.to_owned();
                })
            }
            Change::TurnCompleted { thread_id, turn_id, status } => {
                sessions.update_thread(thread_id, |session| {
                    if session.current_turn_id.as_ref() == Some(turn_id) {
                        session.current_turn_id = None;
                    }
                    session.last_turn_id = Some(turn_id.clone());
                    session.last_turn_status = Some(status.clone());
                    session.updated_at = at.to_owned();
                })
            }
            Change::TurnError { thread_id, turn_id, will_retry } => {
                sessions.update_thread(thread_id, |session| {
                    if *will_retry {
                        session.current_turn_id.get_or_insert_with(|| turn_id.clone());
                    } else if session.current_turn_id.as_ref() == Some(turn_id) {
                        session.current_turn_id = None;
                    }
                    session.last_turn_id = Some(turn_id.clone());
                    session.last_turn_status =
                        Some(if *will_retry { IN_PROGRESS } else { FAILED }.to_owned());
                    session.updated_at = at.to_owned();
                })
            }
            Change::TurnMissing { session_id, turn_id } => sessions.update(session_id, |session| {
                session.current_turn_id = None;
                session.last_turn_id = Some(turn_id.clone());
                session.last_turn_status = Some(FAILED.to_owned());
                session.updated_at = at.to_owned();
            }),
            _ => false,
        }
    }
}
