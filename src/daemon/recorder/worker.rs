//! The recorder's thread: numbers, writes, folds and publishes events, in batches.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::codex::Backlog;
use crate::codex::protocol::{notifications, values};
use crate::daemon::attachments::Attachments;
use crate::daemon::events;
use crate::daemon::recorder::group_commit::GroupCommit;
use crate::daemon::recorder::input::{Build, CommitAck, Input, StorageError, Stream};
use crate::daemon::recorder::output_log::OutputLog;
use crate::daemon::recorder::snapshot_writer::SnapshotWriter;
use crate::daemon::recorder::view::View;
use crate::ids::ThreadId;
use crate::journal::{Entry, Journal};
use crate::state::{
    ChildEvent, DaemonEvent, EventDetail, Level, NewEvent, NotificationEvent, SessionEvent, State, TurnEvent,
};
use crate::time::rfc3339_now;

/// The maximum number of inputs per batch, so that subscribers get a flood of events in steps.
const MAX_BATCH_INPUTS: usize = 8;
/// The shortest time between two attempts to write a log that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The state of the recorder's thread.
pub(super) struct Worker {
    pub(super) journal: Journal,
    pub(super) view: Arc<View>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) group_commit: GroupCommit,
    pub(super) snapshot_writer: SnapshotWriter,
    pub(super) attachments: Attachments,
    pub(super) stdout: OutputLog,
    pub(super) stderr: OutputLog,
    pub(super) closed_sessions: usize,
    /// When writing a failed log was last tried.
    pub(super) tried: Option<Instant>,
    /// When lines were last found to be lost.
    pub(super) lost_at: Option<Instant>,
}

impl Worker {
    pub(super) fn work(mut self, mut waiting: mpsc::UnboundedReceiver<Input>) {
        let mut new_events = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            let more = std::iter::from_fn(|| waiting.try_recv().ok());
            let inputs: Vec<Input> = std::iter::once(first).chain(more.take(MAX_BATCH_INPUTS - 1)).collect();
            let weight = inputs.iter().map(Input::weight).sum();
            let mut stop = None;
            for input in inputs {
                match input {
                    Input::Events(more) => new_events.extend(more),
                    Input::Output(Stream::Stdout, bytes) => self.stdout.append(&bytes),
                    Input::Output(Stream::Stderr, bytes) => self.stderr.append(&bytes),
                    Input::Build(build) => {
                        self.record(&mut new_events);
                        new_events = build(&self.view.state());
                    }
                    Input::Durable(build, ack) => self.record_durably(&mut new_events, build, ack),
                    Input::Closed(closed) => {
                        self.record(&mut new_events);
                        new_events = events::closed(&self.view.state(), &closed);
                    }
                    Input::Damaged(damage) if damage.is_empty() => self.snapshot_writer.changed(false),
                    Input::Damaged(damage) => {
                        new_events.push(events::log_damaged(&damage));
                        let keys = damage.iter().map(|damage| damage.key);
                        if let Err(error) = self.journal.remember_damage(keys) {
                            tracing::warn!(%error, "failed to save the reported damage; the next start reports it again");
                        }
                    }
                    Input::CaughtUp(waiting) => {
                        self.record(&mut new_events);
                        let _ = waiting.send(());
                    }
                    Input::Retry => self.recover(&mut new_events),
                    Input::SyncFailed(acks, began, error) => {
                        self.record(&mut new_events);
                        self.recover(&mut new_events);
                        self.record(&mut new_events);
                        let is_failing = self.journal.failing().is_some() || self.journal.sync().failed();
                        let is_whole = !is_failing && self.lost_at.is_none_or(|lost_at| lost_at < began);
                        for ack in acks {
                            match is_whole {
                                true => self.group_commit.sync_again(ack),
                                // The caller may have stopped waiting.
                                false => drop(ack.send(Err(error.clone()))),
                            }
                        }
                    }
                    Input::Stop(done) => stop = Some(done),
                }
            }
            self.record(&mut new_events);
            self.backlog.remove(weight);
            if let Some(done) = stop {
                self.stop();
                let _ = done.send(());
                return;
            }
        }
    }

    fn stop(&mut self) {
        self.group_commit.stop();
        self.snapshot_writer.stop();
        let journal = &mut self.journal;
        let mut closed = journal.close();
        if closed.is_err() {
            // This sync may be the first one that finds that the file was removed or replaced.
            closed = journal.recover().and_then(|_| journal.close());
        }
        if let Err(error) = closed {
            tracing::error!(%error, "failed to close the event log");
        }
    }

    /// Records the waiting events and then those of a durable commit, each against the records at that point.
    fn record_durably(&mut self, new_events: &mut Vec<NewEvent>, build: Build, ack: CommitAck) {
        self.record(new_events);
        *new_events = build(&self.view.state());
        self.record(new_events);
        match self.view.storage_error() {
            None => self.group_commit.sync(ack),
            // The caller may have stopped waiting.
            Some(error) => drop(ack.send(Err(error))),
        }
    }

    /// Records all new events, and the events that recording them causes.
    fn record(&mut self, new_events: &mut Vec<NewEvent>) {
        while !new_events.is_empty() {
            self.recover(new_events);
            let was_failing = self.journal.failing().is_some();
            // Events after one that adds a descendant may be about that descendant, so its change is applied first.
            let last = new_events.iter().position(|event| event.detail().may_add_descendant());
            let later = last.map(|last| new_events.split_off(last + 1)).unwrap_or_default();
            let mut now = std::mem::replace(new_events, later);
            self.write(&mut now);
            if let Some(reason) = self.journal.failing().filter(|_| !was_failing) {
                tracing::error!(reason, "failed to write the event log");
                new_events.push(DaemonEvent::StorageFailed { reason: reason.to_owned() }.into());
                self.view.set_storage_error(Some(reason.into()));
                self.snapshot_writer.failing(true);
            }
            self.forget(new_events);
        }
    }

    /// Numbers, writes, folds and publishes events.
    fn write(&mut self, new_events: &mut [NewEvent]) {
        let at = rfc3339_now();
        for event in &mut *new_events {
            self.attachments.store_in_event(event);
        }
        name_roots(&self.view.state(), new_events);
        let lines = self.journal.append(&at.text(), new_events.iter().map(entry));
        for (line, event) in lines.iter().zip(&*new_events) {
            log(line.seq, event);
        }
        let mut sessions_changed = false;
        {
            let mut state = self.view.state.write().unwrap_or_else(PoisonError::into_inner);
            for (line, event) in lines.iter().zip(&*new_events) {
                self.view.turn_metrics.note(&state, &at, event.detail());
                sessions_changed |=
                    state.apply(line.seq, &at, event.message_of_record(), Some(event.detail()));
            }
            // Publish under the same guard, so that records and recent events always match.
            self.journal.publish(lines);
        }
        self.snapshot_writer.changed(sessions_changed);
    }

    /// Retries writing a failed log; the result is recorded before the new events.
    fn recover(&mut self, new_events: &mut Vec<NewEvent>) {
        let failing = self.journal.failing().is_some() || self.journal.sync().failed();
        if !failing || self.tried.is_some_and(|tried| tried.elapsed() < RETRY_INTERVAL) {
            return;
        }
        self.tried = Some(Instant::now());
        // A failed sync may be the first sign of the failure.
        let unreported = self.journal.sync().cause().filter(|_| self.view.storage_error().is_none());
        match self.journal.recover() {
            Ok(recovered) => {
                tracing::info!("the event log can be written again");
                self.tried = None;
                self.view.set_storage_error(None);
                self.snapshot_writer.failing(false);
                new_events.insert(0, events::storage_recovered(&recovered));
                if let Some(reason) = unreported {
                    new_events.insert(0, DaemonEvent::StorageFailed { reason }.into());
                }
                self.stdout.reopen_if_replaced();
                self.stderr.reopen_if_replaced();
                if recovered.lost.is_some() {
                    self.lost_at = Some(Instant::now());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the event log still cannot be written");
                let reason: StorageError = error.to_string().into();
                if self.view.storage_error().is_none() {
                    let reason = reason.to_string();
                    new_events.insert(0, DaemonEvent::StorageFailed { reason }.into());
                }
                self.view.set_storage_error(Some(reason));
                self.snapshot_writer.failing(true);
            }
        }
    }

    /// Removes the oldest closed sessions when there are too many.
    fn forget(&self, new_events: &mut Vec<NewEvent>) {
        let state = self.view.state();
        let too_many = state.sessions.closed_count().saturating_sub(self.closed_sessions);
        new_events.extend(state.sessions.closed().take(too_many).map(|session| {
            let forgotten = SessionEvent::Forgotten {
                closed_at: session.updated_at.clone(),
                session_id: session.session_id.clone(),
                thread_id: session.thread_id.clone(),
            };
            NewEvent::from(forgotten)
        }));
    }
}

/// Logs an event about the daemon, the child, sessions or turns to stderr.
///
/// Frequent events, and those whose message quotes a user or a model, are logged at the level `debug` by their type.
fn log(seq: u64, event: &NewEvent) {
    let event_type = event.detail().event_type();
    // The messages of these events do not contain the turn's status; only their details do.
    if let EventDetail::Notification(NotificationEvent::TurnCompleted { turn_id, status, .. }) =
        event.detail()
        && status != values::TURN_COMPLETED
    {
        return tracing::warn!(seq, event_type, status, "App-server turn {turn_id} ended: {status}.");
    }
    if !is_shown(event.detail()) {
        return tracing::debug!(seq, event_type, "event");
    }
    let message = event.message();
    match event.level() {
        Level::Info => tracing::info!(seq, event_type, "{message}"),
        Level::Warn => tracing::warn!(seq, event_type, "{message}"),
        Level::Error => tracing::error!(seq, event_type, "{message}"),
    }
}

/// Whether the message of an event is logged.
fn is_shown(event: &EventDetail) -> bool {
    // What follows a failed start says why it failed.
    use ChildEvent::{CloseFailed, MessageInvalid, RequestRefused, SpawnFailed, Stderr};
    use NotificationEvent::{ThreadStarted, TurnCompleted, TurnStarted};
    match event {
        EventDetail::Child(event) => !matches!(
            event,
            Stderr { .. } | CloseFailed(_) | MessageInvalid { .. } | RequestRefused { .. } | SpawnFailed(_)
        ),
        EventDetail::Notification(ThreadStarted { parent_thread_id, .. }) => parent_thread_id.is_some(),
        EventDetail::Notification(event) => matches!(event, TurnStarted { .. } | TurnCompleted { .. }),
        EventDetail::Turn(event) => !matches!(event, TurnEvent::Stalled { .. }),
        EventDetail::Daemon(_) | EventDetail::Session(_) | EventDetail::Request(_) | EventDetail::Hook(_) => {
            true
        }
    }
}

/// Adds `rootThreadId` to events about the thread of a sub-agent, so that a search for the events of a session finds
/// them.
fn name_roots(state: &State, new_events: &mut [NewEvent]) {
    if state.descendants.is_empty() {
        return;
    }
    for event in new_events {
        let Some(json) = event.json() else { continue };
        let Some(thread_id) = notifications::thread_in_text(&json).map(ThreadId::new) else { continue };
        let root = state.descendants.root(&thread_id, None).thread_id;
        if root != thread_id
            && let Some(members) = json.strip_suffix('}')
        {
            let json = format!("{members},\"rootThreadId\":{}}}", serde_json::json!(root));
            event.set_json(json);
        }
    }
}

fn entry(event: &NewEvent) -> Entry<'_> {
    let (level, event_type) = (event.level().as_str(), event.detail().event_type());
    match event {
        NewEvent::Delta(text) => Entry { level, event_type, message: text.message(), detail: text.detail() },
        NewEvent::Other(event) => Entry::new(level, event_type, event.message(), event.json()),
    }
}
