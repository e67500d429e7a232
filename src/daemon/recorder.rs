//! The one owner of the log and the records.
//!
//! A thread of its own takes everything that waits as one batch: it numbers and renders each line once, writes the
//! batch with one call, folds it into the records, and only then tells the readers.
//! Promises are synced by a second thread, so that neither the next batch nor a reader waits for the disk, and those
//! that arrive while it syncs share the next sync.
//! A third one brings the records to disk, at most once a second.

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the syncer is a thread of its own")]
pub(in crate::daemon) mod group_commit;
#[expect(clippy::disallowed_methods, reason = "the recorder's thread writes it")]
mod output_log;
pub(in crate::daemon) mod recovery;
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the keeper is a thread of its own")]
mod snapshot_writer;
pub(in crate::daemon) mod turn_metrics;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::codex::protocol::{notifications, values};
use crate::codex::{Backlog, Closed};
use crate::config::Config;
use crate::daemon::events;
use crate::daemon::recorder::group_commit::{CommitAck, GroupCommit, StorageError};
use crate::daemon::recorder::output_log::OutputLog;
use crate::daemon::recorder::recovery::Opened;
use crate::daemon::recorder::snapshot_writer::SnapshotWriter;
use crate::daemon::recorder::turn_metrics::TurnMetrics;
use crate::journal::{Damage, Entry, Journal, Line, Log};
use crate::state::snapshot::Identity;
use crate::state::{Change, Level, NewEvent, State, event_type};

/// How many inputs one batch takes at most, so that a flood still reaches its readers in steps.
const BATCH: usize = 16;
/// How often a log that cannot be written is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What the names of events begin with that are about the files of the daemon.
const FILES: [&str; 3] = ["state.", "storage.", "log."];

/// Makes events out of the records as they are at that point of the log.
pub(crate) type Build = Box<dyn FnOnce(&State) -> Vec<NewEvent> + Send>;

/// What the recorder takes, in order.
pub(crate) enum Input {
    /// Events.
    Events(Vec<NewEvent>),
    /// Events that depend on the records.
    Build(Build),
    /// Events that somebody is promised.
    Durable(Build, CommitAck),
    /// Output of the child, for its log.
    Output(Stream, Bytes),
    /// A connection ended, and with it the turns that it carried.
    Closed(Closed),
    /// Damage was found in the middle of the log; none of it means that the file which is written is to be looked at.
    Damaged(Vec<Damage>),
    /// Somebody waits until everything before is recorded.
    CaughtUp(oneshot::Sender<()>),
    /// Time to try again what failed.
    Retry,
    /// A sync that began then failed, and these promises wait for another one.
    SyncFailed(Vec<CommitAck>, Instant, StorageError),
    /// Everything known goes to disk; nothing follows.
    Stop(oneshot::Sender<()>),
}

/// One of the child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What everybody may read: the records and the log, always of one moment.
pub(crate) struct View {
    pub(crate) identity: Identity,
    pub(crate) recent: usize,
    pub(crate) log: Arc<Log>,
    pub(crate) turn_metrics: TurnMetrics,
    state: RwLock<State>,
    /// Why nothing can be promised now.
    storage_error: RwLock<Option<StorageError>>,
}

impl View {
    /// The records; they stand still while the guard is held, so hold it for a moment only.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest events, as many as are configured; read under the guard of [`View::state`] they are those of the
    /// same moment.
    pub(crate) fn recent_events(&self) -> Vec<Line> {
        self.log.recent(self.recent)
    }

    /// Why nothing can be promised now, if so.
    pub(crate) fn storage_error(&self) -> Option<StorageError> {
        self.storage_error.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_storage_error(&self, storage: Option<StorageError>) {
        *self.storage_error.write().unwrap_or_else(PoisonError::into_inner) = storage;
    }
}

/// The way in; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    inputs: mpsc::UnboundedSender<Input>,
    backlog: Arc<Backlog>,
    view: Arc<View>,
}

impl Recorder {
    /// Starts the threads on what was opened; what was noticed becomes the first events.
    pub(crate) fn start(config: &Config, opened: Opened) -> std::io::Result<Self> {
        let Opened { disk, identity, state, journal, notices, known_damage } = opened;
        let paths = &config.paths;
        let view = Arc::new(View {
            identity,
            recent: config.event_cache_size,
            log: journal.log(),
            turn_metrics: TurnMetrics::new(state.daemon.updated_at.clone()),
            state: RwLock::new(state),
            storage_error: RwLock::new(None),
        });
        let (inputs, waiting) = mpsc::unbounded_channel();
        let recorder = Self { inputs, backlog: Backlog::new(), view };
        let view = &recorder.view;
        let output = |path| OutputLog::open(disk.clone(), path, config.limits.output_log_bytes);
        let worker = Worker {
            view: Arc::clone(view),
            backlog: Arc::clone(&recorder.backlog),
            group_commit: GroupCommit::start(journal.sync(), recorder.clone())?,
            snapshot_writer: SnapshotWriter::start(disk.clone(), config, journal.sync(), recorder.clone())?,
            stdout: output(&paths.stdout_log)?,
            stderr: output(&paths.stderr_log)?,
            closed_sessions: config.limits.closed_sessions,
            tried: None,
            lost_at: None,
            journal,
        };
        recorder.send(Input::Events(notices));
        // A weak one: the log, which keeps it, must not keep the recorder alive.
        let inputs = recorder.inputs.downgrade();
        recorder.view.log.watch(known_damage, move |damage| {
            if let Some(inputs) = inputs.upgrade() {
                // The recorder may have stopped.
                let _ = inputs.send(Input::Damaged(damage));
            }
        });
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || worker.work(waiting))?;
        Ok(recorder)
    }

    /// What everybody may read.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// What the readers of the app-server look at before they read on.
    pub(crate) fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }

    /// Hands something over; it is recorded after everything that was handed over before.
    pub(crate) fn send(&self, input: Input) {
        self.backlog.add(weight(&input));
        // The recorder lives until the daemon has stopped; what comes after is of no interest to anybody.
        let _ = self.inputs.send(input);
    }

    /// Records one event.
    pub(crate) fn record(&self, event: NewEvent) {
        self.send(Input::Events(vec![event]));
    }

    /// Records events and returns when they are on disk.
    pub(crate) async fn record_durably(
        &self,
        build: impl FnOnce(&State) -> Vec<NewEvent> + Send + 'static,
    ) -> Result<(), StorageError> {
        let (promise, kept) = oneshot::channel();
        self.send(Input::Durable(Box::new(build), promise));
        kept.await.unwrap_or_else(|_| Err("the recorder has stopped".into()))
    }

    /// Returns when everything that was handed over before is recorded.
    pub(crate) async fn caught_up(&self) {
        let (recorded, waiting) = oneshot::channel();
        self.send(Input::CaughtUp(recorded));
        let _ = waiting.await;
    }

    /// Brings everything to disk and ends the threads.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Input::Stop(done));
        let _ = stopped.await;
    }
}

/// About how many bytes an input keeps in memory.
fn weight(input: &Input) -> usize {
    match input {
        Input::Events(new_events) => new_events.iter().map(draft_weight).sum(),
        Input::Output(_, bytes) => bytes.len(),
        Input::Build(_)
        | Input::CaughtUp(_)
        | Input::Durable(..)
        | Input::Closed(_)
        | Input::Damaged(_)
        | Input::Retry
        | Input::SyncFailed(..)
        | Input::Stop(_) => 0,
    }
}

fn draft_weight(event: &NewEvent) -> usize {
    event.message.len() + event.detail.as_ref().map_or(0, String::len)
}

/// The thread.
struct Worker {
    journal: Journal,
    view: Arc<View>,
    backlog: Arc<Backlog>,
    group_commit: GroupCommit,
    snapshot_writer: SnapshotWriter,
    stdout: OutputLog,
    stderr: OutputLog,
    closed_sessions: usize,
    /// When a log that cannot be written was tried last.
    tried: Option<Instant>,
    /// When lines were found to be lost last.
    lost_at: Option<Instant>,
}

impl Worker {
    fn work(mut self, mut waiting: mpsc::UnboundedReceiver<Input>) {
        let mut new_events = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            let more = std::iter::from_fn(|| waiting.try_recv().ok());
            let inputs: Vec<Input> = std::iter::once(first).chain(more.take(BATCH - 1)).collect();
            let weight = inputs.iter().map(weight).sum();
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
                    Input::Durable(build, promise) => self.record_durably(&mut new_events, build, promise),
                    Input::Closed(closed) => {
                        self.record(&mut new_events);
                        new_events = events::closed(&self.view.state(), &closed);
                    }
                    Input::Damaged(damage) if damage.is_empty() => self.snapshot_writer.changed(false),
                    Input::Damaged(damage) => {
                        new_events.push(events::log_damaged(&damage));
                        let keys = damage.iter().map(|damage| damage.key);
                        if let Err(error) = self.journal.remember_damage(keys) {
                            tracing::warn!(%error, "the damage will be reported again");
                        }
                    }
                    Input::CaughtUp(waiting) => {
                        self.record(&mut new_events);
                        let _ = waiting.send(());
                    }
                    Input::Retry => self.recover(&mut new_events),
                    Input::SyncFailed(promises, began, error) => {
                        self.record(&mut new_events);
                        self.recover(&mut new_events);
                        self.record(&mut new_events);
                        let is_failing = self.journal.failing().is_some() || self.journal.sync().failed();
                        let is_whole = !is_failing && self.lost_at.is_none_or(|lost_at| lost_at < began);
                        for promise in promises {
                            match is_whole {
                                true => self.group_commit.sync_again(promise),
                                // Whoever waited may have gone.
                                false => drop(promise.send(Err(error.clone()))),
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
        if let Err(error) = self.journal.close() {
            tracing::error!(%error, "the event log could not be closed in order");
        }
    }

    /// Records what waits and then what is promised, each against the records as they are then.
    fn record_durably(&mut self, new_events: &mut Vec<NewEvent>, build: Build, promise: CommitAck) {
        self.record(new_events);
        *new_events = build(&self.view.state());
        self.record(new_events);
        match self.view.storage_error() {
            None => self.group_commit.sync(promise),
            // Whoever waited may have gone.
            Some(error) => drop(promise.send(Err(error))),
        }
    }

    /// Records all new_events, and what recording them leads to.
    fn record(&mut self, new_events: &mut Vec<NewEvent>) {
        while !new_events.is_empty() {
            self.recover(new_events);
            let was_failing = self.journal.failing().is_some();
            // What follows the news of a descendant may be about it, and says so.
            let news = new_events.iter().position(|event| event.change.may_add_descendant());
            let mut now: Vec<NewEvent> =
                new_events.drain(..news.map_or(new_events.len(), |news| news + 1)).collect();
            self.write(&mut now);
            if let Some(reason) = self.journal.failing().filter(|_| !was_failing) {
                tracing::error!(reason, "the event log cannot be written");
                new_events.push(events::storage_failed(reason));
                self.view.set_storage_error(Some(reason.into()));
                self.snapshot_writer.failing(true);
            }
            self.forget(new_events);
        }
    }

    /// Numbers, writes, folds and publishes.
    fn write(&mut self, new_events: &mut [NewEvent]) {
        let at = now();
        name_roots(&self.view.state(), new_events);
        let lines = self.journal.append(&at, new_events.iter().map(entry));
        for (line, event) in lines.iter().zip(&*new_events) {
            log(line.seq, event);
        }
        let mut sessions_changed = false;
        {
            let mut state = self.view.state.write().unwrap_or_else(PoisonError::into_inner);
            for (line, event) in lines.iter().zip(&*new_events) {
                self.view.turn_metrics.note(&state, &at, &event.change);
                sessions_changed |= state.apply(line.seq, &at, &event.change);
            }
            // Under the same guard, so that records and recent events are always of one moment.
            self.journal.publish(&lines);
        }
        self.snapshot_writer.changed(sessions_changed);
    }

    /// Tries to write what could not be written; what became of it is recorded before the new_events.
    fn recover(&mut self, new_events: &mut Vec<NewEvent>) {
        let failing = self.journal.failing().is_some() || self.journal.sync().failed();
        if !failing || self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        self.tried = Some(Instant::now());
        // A failed sync may be the first that is heard of it.
        let untold = self.journal.sync().cause().filter(|_| self.view.storage_error().is_none());
        match self.journal.recover() {
            Ok(recovered) => {
                tracing::info!("the event log can be written again");
                self.tried = None;
                self.view.set_storage_error(None);
                self.snapshot_writer.failing(false);
                new_events.insert(0, events::storage_recovered(&recovered));
                if let Some(reason) = untold {
                    new_events.insert(0, events::storage_failed(&reason));
                }
                self.stdout.see_to_place();
                self.stderr.see_to_place();
                if recovered.lost.is_some() {
                    self.lost_at = Some(Instant::now());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the event log still cannot be written");
                let reason: StorageError = error.to_string().into();
                if self.view.storage_error().is_none() {
                    new_events.insert(0, events::storage_failed(&reason));
                }
                self.view.set_storage_error(Some(reason));
                self.snapshot_writer.failing(true);
            }
        }
    }

    /// Forgets the oldest of the closed sessions when there are too many.
    fn forget(&self, new_events: &mut Vec<NewEvent>) {
        let state = self.view.state();
        let too_many = state.sessions.closed_count().saturating_sub(self.closed_sessions);
        new_events
            .extend(state.sessions.closed().take(too_many).map(|session| events::session_forgotten(session)));
    }
}

/// Says on stderr what the owner wants to know at night: what became of the daemon, the child, sessions and turns.
///
/// What users and models say stays out of it.
fn log(seq: u64, event: &NewEvent) {
    let event_type = event.event_type;
    let quotes = event_type == "child.stderr" || event_type == event_type::TURN_ERROR;
    let is_frequent =
        event_type == event_type::THREAD_STATUS_CHANGED || event_type == event_type::NOTIFICATION;
    let is_about_files = FILES.iter().any(|prefix| event_type.starts_with(prefix));
    if (event.change == Change::None && !is_about_files) || quotes || is_frequent {
        tracing::debug!(seq, event_type, "event");
        return;
    }
    // The texts of these events say that a turn is over and not how: only their details do.
    if let Change::TurnCompleted { turn_id, status, .. } = &event.change
        && status != values::TURN_COMPLETED
    {
        return tracing::warn!(seq, event_type, status, "App-server turn {turn_id} ended: {status}.");
    }
    let message = &event.message;
    match event.level {
        Level::Info => tracing::info!(seq, event_type, "{message}"),
        Level::Warn => tracing::warn!(seq, event_type, "{message}"),
        Level::Error => tracing::error!(seq, event_type, "{message}"),
    }
}

/// Adds the thread at the root to what is about the thread of a sub-agent, so that whoever looks for the events of a
/// session finds it there.
fn name_roots(state: &State, new_events: &mut [NewEvent]) {
    if state.descendants.is_empty() {
        return;
    }
    for detail in new_events.iter_mut().filter_map(|event| event.detail.as_mut()) {
        let Some(thread_id) = notifications::thread_in_text(detail) else { continue };
        let root = state.descendants.root(thread_id, None).thread_id;
        if root != thread_id && detail.pop() == Some('}') {
            detail.push_str(&format!(",\"rootThreadId\":{}}}", serde_json::Value::from(root)));
        }
    }
}

fn entry(event: &NewEvent) -> Entry<'_> {
    Entry {
        level: event.level.as_str(),
        event_type: event.event_type,
        message: &event.message,
        detail: event.detail.as_deref(),
    }
}

/// The time after a while, RFC 3339 in UTC with milliseconds.
pub(crate) fn in_time(length: Duration) -> String {
    let then = jiff::Timestamp::now().checked_add(length).unwrap_or(jiff::Timestamp::MAX);
    format!("{then:.3}")
}

/// The time, RFC 3339 in UTC with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
