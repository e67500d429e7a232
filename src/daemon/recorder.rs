//! The one owner of the log and the records.
//!
//! A thread of its own takes everything that waits as one batch: it numbers and renders each line once, writes the
//! batch with one call, folds it into the records, and only then tells the readers.
//! Promises are synced by a second thread, so that neither the next batch nor a reader waits for the disk, and those
//! that arrive while it syncs share the next sync.
//! A third one brings the records to disk, at most once a second.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::drafts;
use super::keeper::Keeper;
use super::opening::Opened;
use super::output::OutputLog;
use super::syncer::{Promise, Syncer};
use crate::app_server::{Backlog, Closed};
use crate::config::Paths;
use crate::journal::{Entry, Journal, Line, Reader, Subscription, Tail};
use crate::state::snapshot::Identity;
use crate::state::{Change, Draft, Level, State, event_type};

/// How many inputs one batch takes at most, so that a flood still reaches its readers in steps.
const BATCH: usize = 64;

/// Makes events out of the records as they are at that point of the log.
pub(crate) type Build = Box<dyn FnOnce(&State) -> Vec<Draft> + Send>;

/// What the recorder takes, in order.
pub(crate) enum Input {
    /// Events.
    Events(Vec<Draft>),
    /// Events that somebody is promised.
    Promised(Build, Promise),
    /// Output of the child, for its log.
    Output(Stream, Bytes),
    /// A connection ended, and with it the turns that it carried.
    Closed(Closed),
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
    state: RwLock<State>,
    tail: Arc<Tail>,
    reader: Reader,
}

impl View {
    /// The records; they stand still while the guard is held, so hold it for a moment only.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest events, as many as are configured; read under the guard of [`View::state`] they are those of the
    /// same moment.
    pub(crate) fn recent_events(&self) -> Vec<Line> {
        self.tail.recent(self.recent)
    }

    /// Follows the log from the line after `cursor`.
    pub(crate) fn subscribe(&self, cursor: u64) -> Subscription {
        Subscription::new(cursor, Arc::clone(&self.tail), self.reader.clone())
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
    /// Opens the files and starts the threads.
    pub(crate) fn start(paths: &Paths, opened: Opened, recent: usize) -> io::Result<Self> {
        let Opened { identity, state, journal, notices: _ } = opened;
        let view = Arc::new(View {
            identity,
            recent,
            state: RwLock::new(state),
            tail: journal.tail(),
            reader: journal.reader(),
        });
        let backlog = Backlog::new();
        let (inputs, waiting) = mpsc::unbounded_channel();
        let syncer = Syncer::start(journal.file())?;
        let keeper = Keeper::start(paths, Arc::clone(&view), journal.file())?;
        let worker = Worker {
            journal,
            view: Arc::clone(&view),
            backlog: Arc::clone(&backlog),
            syncer,
            keeper,
            stdout: OutputLog::open(&paths.stdout_log)?,
            stderr: OutputLog::open(&paths.stderr_log)?,
        };
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || worker.work(waiting))?;
        Ok(Self { inputs, backlog, view })
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
    pub(crate) fn note(&self, draft: Draft) {
        self.send(Input::Events(vec![draft]));
    }

    /// Records events and returns when they are on disk.
    pub(crate) async fn promise(
        &self,
        build: impl FnOnce(&State) -> Vec<Draft> + Send + 'static,
    ) -> Result<(), Arc<io::Error>> {
        let (promise, kept) = oneshot::channel();
        self.send(Input::Promised(Box::new(build), promise));
        kept.await.unwrap_or_else(|_| Err(Arc::new(io::Error::other("the recorder has stopped"))))
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
        Input::Events(drafts) => drafts.iter().map(draft_weight).sum(),
        Input::Output(_, bytes) => bytes.len(),
        Input::Promised(..) | Input::Closed(_) | Input::Stop(_) => 0,
    }
}

fn draft_weight(draft: &Draft) -> usize {
    draft.message.len() + draft.detail.as_ref().map_or(0, String::len)
}

/// The thread.
struct Worker {
    journal: Journal,
    view: Arc<View>,
    backlog: Arc<Backlog>,
    syncer: Syncer,
    keeper: Keeper,
    stdout: OutputLog,
    stderr: OutputLog,
}

impl Worker {
    fn work(mut self, mut waiting: mpsc::UnboundedReceiver<Input>) {
        let mut drafts = Vec::new();
        while let Some(first) = waiting.blocking_recv() {
            let more = std::iter::from_fn(|| waiting.try_recv().ok());
            let inputs: Vec<Input> = std::iter::once(first).chain(more.take(BATCH - 1)).collect();
            let weight = inputs.iter().map(weight).sum();
            let mut stop = None;
            for input in inputs {
                match input {
                    Input::Events(more) => drafts.extend(more),
                    Input::Output(Stream::Stdout, bytes) => self.stdout.append(&bytes),
                    Input::Output(Stream::Stderr, bytes) => self.stderr.append(&bytes),
                    Input::Promised(build, promise) => self.promise(&mut drafts, build, promise),
                    Input::Closed(closed) => {
                        let _ = self.record(&mut drafts);
                        drafts = drafts::closed(&self.view.state(), &closed);
                    }
                    Input::Stop(done) => stop = Some(done),
                }
            }
            // A failure is logged, and the lines are written with the next batch.
            let _ = self.record(&mut drafts);
            self.backlog.remove(weight);
            if let Some(done) = stop {
                self.syncer.stop();
                self.keeper.stop();
                let _ = done.send(());
                return;
            }
        }
    }

    /// Records what waits and then what is promised, each against the records as they are then.
    fn promise(&mut self, drafts: &mut Vec<Draft>, build: Build, promise: Promise) {
        let _ = self.record(drafts);
        *drafts = build(&self.view.state());
        match self.record(drafts) {
            Ok(()) => self.syncer.sync(promise),
            Err(error) => drop(promise.send(Err(Arc::new(error)))),
        }
    }

    /// Numbers, writes, folds and publishes.
    fn record(&mut self, drafts: &mut Vec<Draft>) -> io::Result<()> {
        if drafts.is_empty() {
            return Ok(());
        }
        let at = now();
        let (lines, written) = self.journal.append(&at, drafts.iter().map(entry));
        if let Err(error) = &written {
            tracing::error!(%error, "the event log cannot be written");
        }
        for (line, draft) in lines.iter().zip(drafts.iter()) {
            log(line.seq, draft);
        }
        let mut sessions_changed = false;
        {
            let mut state = self.view.state.write().unwrap_or_else(PoisonError::into_inner);
            for (line, draft) in lines.iter().zip(drafts.iter()) {
                sessions_changed |= state.apply(line.seq, &at, &draft.change);
            }
            // Under the same guard, so that records and recent events are always of one moment.
            self.journal.publish(&lines);
        }
        drafts.clear();
        self.keeper.changed(sessions_changed);
        written
    }
}

/// Says on stderr what the owner wants to know at night: what became of the daemon, the child, sessions and turns.
///
/// What users and models say stays out of it.
fn log(seq: u64, draft: &Draft) {
    let event_type = draft.event_type;
    let quotes = event_type == "child.stderr" || event_type == event_type::TURN_ERROR;
    if draft.change == Change::None || quotes || event_type == event_type::THREAD_STATUS_CHANGED {
        tracing::debug!(seq, event_type, "event");
        return;
    }
    let message = &draft.message;
    match draft.level {
        Level::Info => tracing::info!(seq, event_type, "{message}"),
        Level::Warn => tracing::warn!(seq, event_type, "{message}"),
        Level::Error => tracing::error!(seq, event_type, "{message}"),
    }
}

fn entry(draft: &Draft) -> Entry<'_> {
    Entry {
        level: draft.level.as_str(),
        event_type: draft.event_type,
        message: &draft.message,
        detail: draft.detail.as_deref(),
    }
}

/// The time, RFC 3339 in UTC with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
