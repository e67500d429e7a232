//! Submissions: turns that are sent to the app-server, until their turn ID is known or it is known that there is none.
//!
//! At most one submission is under way in a thread, because the submitter holds the thread's lock.
//! The first of these names the turn: the response to `turn/start`, the user's item that carries the submission's message
//! ID, or a search of the thread.
//! [`Submission::accept`] records the acceptance once, at that position in the stream; later ones change nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::codex::CallError;
use crate::codex::protocol::notifications::UserItem;
use crate::daemon::events;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::{Input, StorageError};
use crate::state::{IdempotencyKey, State, TurnEvent};

/// How many submissions of unknown outcome are remembered, in case a later message names their turn.
const MAX_UNRESOLVED: usize = 64;

/// The accepted turn's ID, and the receiver of the commit's ack.
pub(in crate::daemon) type Accepted = (String, oneshot::Receiver<Result<(), StorageError>>);
/// Sends the outcome of a call to the task that waits for it.
type Waiter = oneshot::Sender<Result<Accepted, CallError>>;

/// The progress of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) enum Progress {
    /// It has not been sent.
    Preparing,
    /// It is not sent, because the turn was interrupted before.
    Withdrawn,
    /// It was sent, and there is no response yet.
    Sent,
    /// It became this turn.
    Accepted(String),
    /// It became no turn, or its outcome is unknown.
    Over,
}

/// A turn that is submitted to the app-server.
pub(in crate::daemon) struct Submission {
    pub(in crate::daemon) session_id: String,
    pub(in crate::daemon) thread_id: String,
    /// The message ID that the app-server's records carry.
    pub(in crate::daemon) message_id: String,
    /// Its queue ID, when it waited.
    pub(in crate::daemon) queue_id: Option<String>,
    pub(in crate::daemon) key: Option<IdempotencyKey>,
    progress: watch::Sender<Progress>,
    waiter: Mutex<Option<Waiter>>,
}

impl Submission {
    /// A submission that is being prepared.
    pub(in crate::daemon) fn new(
        session_id: &str,
        thread_id: &str,
        message_id: String,
        queue_id: Option<String>,
        key: Option<IdempotencyKey>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session_id: session_id.to_owned(),
            thread_id: thread_id.to_owned(),
            message_id,
            queue_id,
            key,
            progress: watch::Sender::new(Progress::Preparing),
            waiter: Mutex::default(),
        })
    }

    /// Its progress, now and from now on.
    pub(in crate::daemon) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Withdraws it if it has not been sent; returns whether it is withdrawn.
    pub(in crate::daemon) fn withdraw(&self) -> bool {
        self.progress.send_if_modified(|progress| {
            let is_in_time = *progress == Progress::Preparing;
            if is_in_time {
                *progress = Progress::Withdrawn;
            }
            is_in_time
        });
        self.is_withdrawn()
    }

    /// Whether it was withdrawn before it was sent.
    pub(in crate::daemon) fn is_withdrawn(&self) -> bool {
        *self.progress.borrow() == Progress::Withdrawn
    }

    /// Marks it as sent and sets the waiter for the outcome; returns `false` when it was withdrawn.
    pub(in crate::daemon) fn send(&self, waiter: Waiter) -> bool {
        self.wait_with(waiter);
        self.progress.send_if_modified(|progress| {
            let is_first = *progress == Progress::Preparing;
            if is_first {
                *progress = Progress::Sent;
            }
            is_first
        });
        *self.progress.borrow() != Progress::Withdrawn
    }

    /// Sets the waiter for the outcome.
    pub(in crate::daemon) fn wait_with(&self, waiter: Waiter) {
        *self.waiter() = Some(waiter);
    }

    /// Records its turn, unless that is recorded already; `found` is the turn's status and whether it is the newest
    /// of its thread, where a search found it.
    pub(in crate::daemon) fn accept(&self, recorder: &Recorder, turn_id: &str, found: Option<(&str, bool)>) {
        let is_first = self.progress.send_if_modified(|progress| {
            let is_first = !matches!(progress, Progress::Accepted(_));
            if is_first {
                *progress = Progress::Accepted(turn_id.to_owned());
            }
            is_first
        });
        if !is_first {
            return;
        }
        let accepted = TurnEvent::Accepted {
            session_id: self.session_id.clone(),
            thread_id: Some(self.thread_id.clone()),
            turn_id: turn_id.to_owned(),
            status: found.map(|(status, _)| status.to_owned()),
            is_newest: found.map(|(_, is_newest)| is_newest),
            steered: false,
            queue_id: self.queue_id.clone(),
            idempotency: self.key.clone(),
        };
        let (ack, committed) = oneshot::channel();
        let build = move |state: &State| events::accepted_with_release(state, accepted);
        recorder.send(Input::Durable(Box::new(build), ack));
        self.notify_waiter(Ok((turn_id.to_owned(), committed)));
    }

    /// Handles the app-server's response.
    pub(in crate::daemon) fn answered(&self, recorder: &Recorder, outcome: Result<String, CallError>) {
        match outcome {
            Ok(turn_id) => self.accept(recorder, &turn_id, None),
            Err(error) => self.notify_waiter(Err(error)),
        }
    }

    fn notify_waiter(&self, outcome: Result<Accepted, CallError>) {
        if let Some(waiter) = self.waiter().take() {
            // The waiter may have the outcome from another source and be gone.
            let _ = waiter.send(outcome);
        }
    }

    fn waiter(&self) -> MutexGuard<'_, Option<Waiter>> {
        self.waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The submissions since the daemon's start.
#[derive(Default)]
pub(in crate::daemon) struct Submissions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Those in progress, by thread.
    under_way: HashMap<String, Arc<Submission>>,
    /// Those that ended with an unknown outcome, oldest first.
    unresolved: VecDeque<Arc<Submission>>,
}

impl Submissions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a submission until the returned guard is dropped; the caller holds the thread's lock.
    pub(in crate::daemon) fn begin(self: &Arc<Self>, submission: &Arc<Submission>) -> UnderWay {
        self.lock().under_way.insert(submission.thread_id.clone(), Arc::clone(submission));
        UnderWay { submissions: Arc::clone(self), submission: Arc::clone(submission) }
    }

    /// The submission in progress in a thread.
    pub(in crate::daemon) fn in_thread(&self, thread_id: &str) -> Option<Arc<Submission>> {
        self.lock().under_way.get(thread_id).cloned()
    }

    /// The submission whose message id an item carries, as the user's item does, and the turn of the item.
    ///
    /// `params` are those of `item/started` and `item/completed`.
    pub(in crate::daemon) fn of_item(&self, params: &str) -> Option<(Arc<Submission>, String)> {
        let item = UserItem::read(params)?;
        let is_it = |submission: &Arc<Submission>| {
            submission.message_id == item.client_message_id() && submission.thread_id == item.thread_id
        };
        let mut table = self.lock();
        let unresolved = table.unresolved.iter().position(is_it);
        let unresolved = unresolved.and_then(|index| table.unresolved.remove(index));
        let submission =
            unresolved.or_else(|| table.under_way.values().find(|other| is_it(other)).cloned())?;
        let turn_id = item.turn_id.into_owned();
        Some((submission, turn_id))
    }
}

/// Guard of a submission in progress; dropping it ends the submission.
pub(in crate::daemon) struct UnderWay {
    submissions: Arc<Submissions>,
    submission: Arc<Submission>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut table = self.submissions.lock();
        table.under_way.remove(&self.submission.thread_id);
        let mut was_sent = false;
        self.submission.progress.send_if_modified(|progress| {
            was_sent = *progress == Progress::Sent;
            let is_open = matches!(progress, Progress::Sent | Progress::Preparing);
            if is_open {
                *progress = Progress::Over;
            }
            is_open
        });
        if was_sent {
            if table.unresolved.len() >= MAX_UNRESOLVED {
                table.unresolved.pop_front();
            }
            table.unresolved.push_back(Arc::clone(&self.submission));
        }
    }
}
