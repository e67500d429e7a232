//! [`State::apply`]: the one rule that changes the records.
//!
//! The turns of threads are folded in `threads.rs`, the threads of sub-agents in `sub_agents.rs`.

use super::change::Change;
use super::daemon::{ChildPhase, ChildState, ChildStatus, CodexRecord};
use super::held::HoldCause;
use super::private::{IdempotencyKey, QueuedTurn, StoredResponse};
use super::records::State;
use super::server_requests::RequestPolicy;
use super::session::SessionStatus;

impl State {
    /// Folds one event in.
    ///
    /// `seq` is its number, `at` its time (RFC 3339).
    /// Events that are already applied are ignored, so applying a log twice changes nothing.
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
                let updated = || CodexRecord { since: at.to_owned(), ..record.clone() };
                daemon.codex = (record.state != "ready").then(updated);
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

    /// Stores the response to a request with an idempotency key, with the session as it is now.
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
