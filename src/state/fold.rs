//! [`State::apply`]: the one rule that changes the records.
//!
//! The turns of threads are folded in `threads.rs`, the threads of sub-agents in `sub_agents.rs`.

use std::sync::Arc;

use super::answers::{IdempotencyKey, SessionMoment, StoredResponse};
use super::daemon::{ChildPhase, ChildState, ChildStatus, CodexRecord};
use super::events::{ChildEvent, DaemonEvent, EventDetail, NotificationEvent, PassedThrough};
use super::events::{RequestEvent, SessionEvent, TurnEvent};
use super::held::HoldCause;
use super::queued_turn::QueuedTurn;
use super::records::State;
use super::server_requests::RequestPolicy;
use super::session::SessionStatus;
use crate::codex::protocol::versions;
use crate::ids::SessionId;
use crate::timestamp::Timestamp;

/// Why a session is closed whose event gives no reason: until now only a client's request to close it gives none.
const DEFAULT_CLOSE_REASON: &str = "A client closed it with DELETE /v1/codexd/sessions/:session_id.";

impl State {
    /// Folds one event in.
    ///
    /// `seq` is its number, `at` its time (RFC 3339); `None` is an event that cannot be read and changes nothing.
    /// Events that are already applied are ignored, so applying a log twice changes nothing.
    /// Returns whether a session changed.
    pub fn apply(&mut self, seq: u64, at: &Timestamp, message: &str, event: Option<&EventDetail>) -> bool {
        if seq <= self.through {
            return false;
        }
        self.through = seq;
        let mut sessions_changed = false;
        if seq > self.sessions_through {
            self.sessions_through = seq;
            if let Some(event) = event {
                // Before what is remembered of an answer, which has the session as it was answered.
                sessions_changed = self.apply_to_threads(at, event);
                sessions_changed |= self.apply_to_sessions(at, event);
                sessions_changed |= self.apply_to_descendants(event);
            }
            if sessions_changed {
                self.sessions_updated_at = Some(at.clone());
            }
        }
        if seq > self.daemon_through {
            self.daemon_through = seq;
            if self.daemon.updated_at.as_ref() != Some(at) {
                self.daemon.updated_at = Some(at.clone());
            }
            if let Some(event) = event {
                self.apply_to_daemon(at, message, event);
            }
        }
        sessions_changed
    }

    fn apply_to_daemon(&mut self, at: &Timestamp, message: &str, event: &EventDetail) {
        let now = || Some(at.clone());
        let daemon = &mut self.daemon;
        match event {
            EventDetail::Daemon(DaemonEvent::Started { pid, strategy, .. }) => {
                daemon.started = true;
                daemon.started_at = now();
                daemon.stopped_at = None;
                daemon.pid = *pid;
                let is_external = strategy == "external";
                let status = if is_external { ChildStatus::External } else { ChildStatus::Starting };
                daemon.child = ChildState { status, state: ChildPhase::Starting, ..ChildState::default() };
                daemon.codex = None;
            }
            EventDetail::Daemon(DaemonEvent::Stopped {}) => {
                daemon.started = false;
                daemon.stopped_at = now();
                daemon.pid = None;
                daemon.child.state = ChildPhase::Stopped;
                daemon.child.next_start_at = None;
                if daemon.child.status == ChildStatus::External {
                    daemon.child = ChildState { exited_at: now(), ..ChildState::default() };
                }
            }
            EventDetail::Child(event) => self.apply_to_child(at, message, event),
            EventDetail::Notification(NotificationEvent::Other(PassedThrough::RateLimits(limits))) => {
                daemon.account.rate_limits = Some(limits.clone());
                daemon.account.updated_at = now();
            }
            EventDetail::Notification(NotificationEvent::Other(PassedThrough::Account {
                auth_mode,
                plan_type,
            })) => {
                daemon.account.auth_mode.clone_from(auth_mode);
                daemon.account.plan_type.clone_from(plan_type);
                daemon.account.updated_at = now();
            }
            _ => {}
        }
    }

    fn apply_to_child(&mut self, at: &Timestamp, message: &str, event: &ChildEvent) {
        let now = || Some(at.clone());
        let child = &mut self.daemon.child;
        match event {
            ChildEvent::External { .. } => child.status = ChildStatus::External,
            ChildEvent::Started { pid, generation, .. } | ChildEvent::Joined { pid, generation, .. } => {
                let before = std::mem::take(child);
                *child = ChildState {
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
            ChildEvent::Connected { generation, user_agent, .. } => {
                if child.status == ChildStatus::External {
                    child.started_at = now();
                    child.state = ChildPhase::External;
                } else {
                    child.status = ChildStatus::Running;
                    child.state = ChildPhase::Running;
                }
                child.generation = *generation;
                let agent = user_agent.as_ref().and_then(serde_json::Value::as_str);
                child.version = agent.and_then(versions::in_user_agent).map(str::to_owned);
                child.last_error = None;
                child.next_start_at = None;
                child.stderr_tail.clear();
            }
            ChildEvent::Backoff(schedule) | ChildEvent::CrashLoop(schedule) => {
                let is_crash_loop = matches!(event, ChildEvent::CrashLoop(_));
                if child.status != ChildStatus::External {
                    child.status = ChildStatus::Failed;
                }
                child.state = if is_crash_loop { ChildPhase::CrashLoop } else { ChildPhase::Backoff };
                child.deaths = schedule.deaths;
                child.next_start_at.clone_from(&schedule.until);
                child.last_error = Some(schedule.cause.clone().unwrap_or_else(|| message.to_owned()));
                child.stderr_tail.clone_from(&schedule.stderr_tail);
            }
            ChildEvent::Exited { code, signal, expected } => {
                (child.status, child.state) = match expected {
                    true => (ChildStatus::Stopped, ChildPhase::Stopped),
                    false => (ChildStatus::Failed, ChildPhase::Backoff),
                };
                child.pid = None;
                child.version = None;
                child.exited_at = now();
                child.exit_code = *code;
                child.signal.clone_from(signal);
                if !expected {
                    child.last_error = Some(message.to_owned());
                }
            }
            ChildEvent::SpawnFailed(_) | ChildEvent::Error(_) | ChildEvent::KillFailed(_) => {
                child.status = ChildStatus::Failed;
                child.state = ChildPhase::Backoff;
                child.pid = None;
                child.exited_at = now();
                child.last_error = Some(message.to_owned());
            }
            ChildEvent::ConnectFailed { .. } | ChildEvent::TransportClosed { .. } => {
                child.last_error = Some(message.to_owned());
                child.version = None;
                if child.state == ChildPhase::External {
                    child.state = ChildPhase::Backoff;
                }
            }
            ChildEvent::CodexStateChanged { state, message, command } => {
                let record = CodexRecord {
                    state: state.clone(),
                    message: message.clone(),
                    command: command.clone(),
                    since: at.clone(),
                };
                self.daemon.codex = (state != "ready").then_some(record);
            }
            _ => {}
        }
    }

    /// Stores the response to a request with an idempotency key, with the session as it is now.
    fn remember(
        &mut self,
        at: &Timestamp,
        key: Option<&IdempotencyKey>,
        session_id: &SessionId,
        outcome: impl FnOnce(&mut StoredResponse),
    ) {
        let Some(key) = key else { return };
        let mut answer = StoredResponse::new(key, session_id);
        answer.session = self.sessions.get(session_id).map(|session| SessionMoment::of(session));
        outcome(&mut answer);
        self.private.answers.add(at, &key.key, &answer);
    }

    /// Returns whether the event changed a session.
    fn apply_to_sessions(&mut self, at: &Timestamp, event: &EventDetail) -> bool {
        match event {
            EventDetail::Session(event) => self.apply_to_session(at, event),
            EventDetail::Turn(event) => self.apply_to_turn_memory(at, event),
            EventDetail::Request(RequestEvent::Opened { request, .. }) => {
                self.requests.insert(Arc::new((**request).clone()));
                true
            }
            EventDetail::Request(RequestEvent::Resolved {
                request_id,
                resolved_by,
                decision,
                reason,
                ..
            }) => self.requests.resolve(at, request_id, *resolved_by, decision.as_ref(), reason.as_deref()),
            _ => false,
        }
    }

    fn apply_to_session(&mut self, at: &Timestamp, event: &SessionEvent) -> bool {
        if self.apply_to_usage_limits(at, event) {
            return true;
        }
        let sessions = &mut self.sessions;
        match event {
            SessionEvent::Created(opened) | SessionEvent::Resumed(opened) => {
                let session = &opened.session;
                sessions.insert(session.clone().into());
                if !opened.settings.is_empty() {
                    self.private.of(&session.session_id).settings = opened.settings.clone();
                }
                if opened.request_policy != RequestPolicy::default() {
                    self.private.of(&session.session_id).requests = opened.request_policy;
                }
                self.show_thread_in_session(at, &session.session_id);
                if let Some(trust) = opened.trust {
                    self.private.of(&session.session_id).trust = Some(trust);
                    if let Some(cwd) = &session.cwd {
                        self.private.trust(cwd, trust);
                    }
                }
                self.remember(at, opened.idempotency.as_ref(), &session.session_id, |_| {});
                true
            }
            SessionEvent::Recreated { session, .. } => {
                if let Some(before) = sessions.get(&session.session_id) {
                    self.private.keep_former(before);
                }
                sessions.insert((**session).clone().into());
                self.show_thread_in_session(at, &session.session_id);
                true
            }
            SessionEvent::Trust { session_id, trust, .. } => {
                if let Some(before) = sessions.get(session_id).filter(|session| session.trust != *trust) {
                    self.private.keep_former(before);
                }
                sessions.update(session_id, |session| session.trust = *trust)
            }
            SessionEvent::Updated {
                session_id,
                title,
                archived,
                metadata,
                model,
                reasoning_effort,
                service_tier,
                ..
            } => {
                let Some(before) = sessions.get(session_id) else { return false };
                // An answer knows whether there was no title.
                let settings = [model, reasoning_effort, service_tier];
                let is_shown = before.title.is_some() && title.is_some()
                    || settings.iter().any(|setting| setting.is_some());
                if is_shown || archived.is_some() || metadata.is_some() {
                    self.private.keep_former(before);
                }
                sessions.update(session_id, |session| {
                    if let Some(title) = title {
                        session.title = Some(title.as_str().into());
                    }
                    let shown =
                        [&mut session.model, &mut session.reasoning_effort, &mut session.service_tier];
                    for (shown, setting) in shown.into_iter().zip(settings) {
                        if let Some(setting) = setting {
                            *shown = Some(setting.as_str().into());
                        }
                    }
                    session.archived = archived.unwrap_or(session.archived);
                    if let Some(metadata) = metadata {
                        session.metadata = Arc::new(metadata.clone());
                    }
                    // That of a closed session is the time of its end.
                    if session.status == SessionStatus::Active {
                        session.updated_at = at.clone();
                    }
                })
            }
            SessionEvent::Closed { session_id, reason } => sessions.update(session_id, |session| {
                session.status = SessionStatus::Closed;
                session.current_turn_id = None;
                session.held = None;
                session.closed_reason =
                    Some(reason.clone().unwrap_or_else(|| DEFAULT_CLOSE_REASON.to_owned()));
                session.updated_at = at.clone();
            }),
            SessionEvent::Held { session_id, held, .. } => {
                if held.cause == HoldCause::TurnRefused {
                    // What was refused is known not to have begun.
                    for turn in &mut self.private.of(session_id).queue {
                        turn.submitted &= held.queue_id.as_ref() != Some(&turn.queue_id);
                    }
                }
                sessions.update(session_id, |session| {
                    session.held = Some(held.clone());
                    session.updated_at = at.clone();
                })
            }
            SessionEvent::Released { session_id, .. } => sessions.update(session_id, |session| {
                session.held = None;
                session.updated_at = at.clone();
            }),
            SessionEvent::Forgotten { session_id, .. } => {
                Arc::make_mut(&mut self.private.sessions).remove(session_id);
                if let Some(before) = sessions.get(session_id) {
                    self.private.keep_former(before);
                }
                let thread_id = sessions.get(session_id).and_then(|session| session.thread_id.clone());
                let was_known = sessions.remove(session_id);
                if let Some(thread_id) = thread_id.filter(|id| sessions.in_thread(id).next().is_none()) {
                    self.turns.forget(&thread_id);
                }
                was_known
            }
            SessionEvent::UsageLimitReached { .. } | SessionEvent::UsageLimitTrial { .. } => true,
        }
    }

    /// Applies an event of a turn to the queue and the stored responses; `threads.rs` applies it to the turn.
    fn apply_to_turn_memory(&mut self, at: &Timestamp, event: &TurnEvent) -> bool {
        match event {
            TurnEvent::Accepted { session_id, turn_id, queue_id, idempotency, steered, .. } => {
                if let Some(queue_id) = queue_id {
                    self.private.dequeue(session_id, queue_id);
                    self.note_trial(queue_id, turn_id);
                }
                self.remember(at, idempotency.as_ref(), session_id, |answer| {
                    answer.turn_id = Some(turn_id.clone());
                    answer.steered = *steered;
                });
                self.sessions.get(session_id).is_some()
            }
            TurnEvent::Submitted { session_id, client_message_id, queue_id, idempotency, .. } => {
                if let Some(queue_id) = queue_id {
                    let queue = &mut self.private.of(session_id).queue;
                    for turn in queue.iter_mut().filter(|turn| turn.queue_id == *queue_id) {
                        turn.submitted = true;
                    }
                }
                if let Some(key) = idempotency {
                    let mut answer = StoredResponse::new(key, session_id);
                    answer.client_message_id = Some(client_message_id.clone());
                    self.private.answers.add(at, &key.key, &answer);
                }
                true
            }
            TurnEvent::Rejected { session_id, queue_id, idempotency_key, .. } => {
                if let Some(queue_id) = queue_id {
                    self.private.dequeue(session_id, queue_id);
                }
                if let Some(key) = idempotency_key {
                    self.private.answers.remove(key);
                }
                true
            }
            TurnEvent::Queued { session_id, turn, idempotency, .. } => {
                // What continues a turn is before all others.
                let order = if turn.continues.is_some() { 0 } else { self.through };
                let turn = QueuedTurn { order, ..(**turn).clone() };
                let queue_id = turn.queue_id.clone();
                let queue = &mut self.private.of(session_id).queue;
                match turn.continues {
                    Some(_) => queue.push_front(turn),
                    None => queue.push_back(turn),
                }
                self.remember(at, idempotency.as_ref(), session_id, |answer| {
                    answer.queue_id = Some(queue_id);
                });
                true
            }
            TurnEvent::Rescheduled { session_id, queue_id, not_before, .. } => {
                let queue = &mut self.private.of(session_id).queue;
                let turn = queue.iter_mut().find(|turn| turn.queue_id == *queue_id);
                turn.is_some_and(|turn| {
                    turn.not_before.clone_from(not_before);
                    true
                })
            }
            _ => false,
        }
    }
}
