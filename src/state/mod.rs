//! The records and the one rule that changes them: [`State::apply`].
//!
//! Pure: no clock, no tasks, and no files outside [`snapshot`].
//! The records are the fold of the events, so a snapshot with the events after it gives the same records as
//! all events from the beginning.

mod daemon;
mod descendants;
mod event;
pub mod event_type;
mod held;
mod new_event;
mod private;
pub mod server_requests;
mod session;
#[expect(
    clippy::disallowed_methods,
    reason = "snapshots are read before anything is served, and written by the keeper's thread"
)]
pub mod snapshot;
#[cfg(test)]
mod tests;
mod threads;
pub mod turn;
mod turn_end;

pub use daemon::{AccountState, ChildPhase, ChildState, ChildStatus, CodexRecord, DaemonState};
pub use descendants::{Descendants, Root};
pub use event::{Change, Event, FoundTurn};
pub use held::{Held, HoldCause};
pub use new_event::{Level, NewEvent};
pub use private::{IdempotencyKey, PrivateSession, PrivateState, QueuedTurn, StoredResponse};
pub use server_requests::{
    RequestPolicy, Resolution, ResolvedBy, ServerRequest, ServerRequestStatus, ServerRequests,
};
pub use session::{Purpose, Session, SessionStatus, Sessions, Trust};
pub use turn::{Phase, Turn, Turns};
pub use turn_end::TurnEnd;

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
    /// The state that two snapshots hold; the log is to be folded in from the older of the two.
    ///
    /// A crash can leave them apart, or one of them can be lost; each half then ignores the events it already has.
    pub fn restore(
        registry: Option<snapshot::RegistryFile>,
        daemon: Option<snapshot::DaemonFile<DaemonState>>,
    ) -> Self {
        let mut state = Self::default();
        if let Some(registry) = registry {
            for session in registry.sessions {
                state.sessions.insert(std::sync::Arc::unwrap_or_clone(session));
            }
            for request in registry.requests {
                state.requests.insert(request);
            }
            state.turns = registry.turns.restore(registry.turns_of_sessions);
            state.descendants = registry.descendants;
            state.private = registry.private;
            state.sessions_through = registry.through_seq;
            state.sessions_updated_at = registry.updated_at;
        }
        if let Some(daemon) = daemon {
            state.daemon_through = daemon.through_seq;
            state.daemon = daemon.daemon;
        }
        state.through = state.sessions_through.min(state.daemon_through);
        state
    }

    /// Says that all events through `seq` were looked at; those that were not folded in change nothing.
    pub fn skip_through(&mut self, seq: u64) {
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
            // Before what is remembered of an answer, which has the session as it was answered.
            sessions_changed = self.apply_to_threads(at, change);
            sessions_changed |= self.apply_to_sessions(at, change);
            sessions_changed |= self.apply_to_descendants(change);
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
                daemon.codex = None;
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
            Change::RateLimits(limits) => {
                daemon.account.rate_limits = Some(limits.clone());
                daemon.account.updated_at = now();
            }
            Change::Account { auth_mode, plan_type } => {
                daemon.account.auth_mode.clone_from(auth_mode);
                daemon.account.plan_type.clone_from(plan_type);
                daemon.account.updated_at = now();
            }
            Change::CodexState(record) => {
                let told = || CodexRecord { since: at.to_owned(), ..record.clone() };
                daemon.codex = (record.state != "ready").then(told);
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

    /// Remembers what came of a request that may be repeated, with the session as it is now.
    fn remember(
        &mut self,
        at: &str,
        key: Option<&IdempotencyKey>,
        session_id: &str,
        outcome: impl FnOnce(&mut StoredResponse),
    ) {
        let Some(key) = key else { return };
        let mut answer = StoredResponse {
            key: key.clone(),
            session: self.sessions.get(session_id).cloned(),
            turn_id: None,
            queue_id: None,
            client_message_id: None,
            steered: false,
        };
        outcome(&mut answer);
        self.private.answer(at, answer);
    }

    /// Returns whether the change was one of a session's.
    fn apply_to_sessions(&mut self, at: &str, change: &Change) -> bool {
        let sessions = &mut self.sessions;
        match change {
            Change::RequestOpened(request) => {
                self.requests.insert(std::sync::Arc::new((**request).clone()));
                true
            }
            Change::RequestResolved(resolution) => self.requests.resolve(at, resolution),
            Change::SessionOpened { session, settings, policy, trust, key } => {
                sessions.insert((**session).clone());
                if let Some(settings) = settings.as_ref().filter(|settings| !settings.is_empty()) {
                    self.private.of(&session.session_id).settings = settings.clone();
                }
                if let Some(policy) = policy.filter(|policy| *policy != RequestPolicy::default()) {
                    self.private.of(&session.session_id).requests = policy;
                }
                self.show_thread_in_session(at, &session.session_id);
                if let Some(trust) = trust {
                    self.private.of(&session.session_id).trust = Some(*trust);
                    if let Some(cwd) = &session.cwd {
                        self.private.trust(cwd, *trust);
                    }
                }
                self.remember(at, key.as_ref(), &session.session_id, |_| {});
                true
            }
            Change::SessionTrust { session_id, trust } => {
                sessions.update(session_id, |session| session.trust = *trust)
            }
            Change::SessionClosed { session_id, reason } => sessions.update(session_id, |session| {
                session.status = SessionStatus::Closed;
                session.current_turn_id = None;
                session.held = None;
                session.closed_reason = Some(reason.clone());
                session.updated_at = at.to_owned();
            }),
            Change::SessionHeld { session_id, held } => {
                if held.cause == HoldCause::TurnRefused {
                    // What was refused is known not to have begun.
                    for turn in &mut self.private.of(session_id).queue {
                        turn.submitted &= held.queue_id.as_ref() != Some(&turn.queue_id);
                    }
                }
                sessions.update(session_id, |session| {
                    session.held = Some((**held).clone());
                    session.updated_at = at.to_owned();
                })
            }
            Change::SessionReleased { session_id } => sessions.update(session_id, |session| {
                session.held = None;
                session.updated_at = at.to_owned();
            }),
            Change::SessionForgotten { session_id } => {
                self.private.sessions.remove(session_id);
                let thread_id = sessions.get(session_id).and_then(|session| session.thread_id.clone());
                let was_known = sessions.remove(session_id);
                if let Some(thread_id) = thread_id.filter(|id| sessions.in_thread(id).next().is_none()) {
                    self.turns.forget(&thread_id);
                }
                was_known
            }
            Change::TurnAccepted { session_id, turn_id, queue_id, key, steered, .. } => {
                if let Some(queue_id) = queue_id {
                    self.private.dequeue(session_id, queue_id);
                }
                self.remember(at, key.as_ref(), session_id, |answer| {
                    answer.turn_id = Some(turn_id.clone());
                    answer.steered = *steered;
                });
                self.sessions.get(session_id).is_some()
            }
            Change::TurnSubmitted { session_id, client_message_id, queue_id, key } => {
                if let Some(queue_id) = queue_id {
                    let queue = &mut self.private.of(session_id).queue;
                    for turn in queue.iter_mut().filter(|turn| turn.queue_id == *queue_id) {
                        turn.submitted = true;
                    }
                }
                if let Some(key) = key {
                    let answer = StoredResponse {
                        key: key.clone(),
                        session: None,
                        turn_id: None,
                        queue_id: None,
                        client_message_id: Some(client_message_id.clone()),
                        steered: false,
                    };
                    self.private.answer(at, answer);
                }
                true
            }
            Change::TurnRejected { session_id, queue_id, key } => {
                if let Some(queue_id) = queue_id {
                    self.private.dequeue(session_id, queue_id);
                }
                if let Some(key) = key {
                    self.private.answers.remove(key);
                }
                true
            }
            Change::TurnQueued { session_id, turn, key } => {
                let turn = QueuedTurn { order: self.through, ..(**turn).clone() };
                let queue_id = turn.queue_id.clone();
                self.private.of(session_id).queue.push_back(turn);
                self.remember(at, key.as_ref(), session_id, |answer| answer.queue_id = Some(queue_id));
                true
            }
            _ => false,
        }
    }
}
