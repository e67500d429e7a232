//! Submissions: turns that are sent to the app-server, until their turn ID is known or it is known that there is none.
//!
//! At most one submission is under way in a thread, because the submitter holds the thread's lock.
//! The first of these names the turn: the response to `turn/start`, the user's item that carries the submission's message
//! ID, or a search of the thread.
//! [`Submission::accept`] records the acceptance once, at that position in the stream; later ones change nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::codex::protocol::methods;
use crate::codex::protocol::notifications::UserItem;
use crate::codex::protocol::responses::StartedTurn;
use crate::codex::{CallError, OnReply};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::app_server::record_on_reply::{Recorded, Waiter, recorded};
use crate::daemon::events;
use crate::daemon::recorder::handle::Recorder;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{IdempotencyKey, OnUsageLimit, State, TurnEvent};

/// How many submissions of unknown outcome are remembered, in case a later message names their turn.
const MAX_UNRESOLVED: usize = 64;

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
    Accepted(TurnId),
    /// It became no turn, or its outcome is unknown.
    Over,
}

/// A turn that is submitted to the app-server.
pub(in crate::daemon) struct Submission {
    pub(in crate::daemon) session_id: SessionId,
    pub(in crate::daemon) thread_id: ThreadId,
    /// The message ID that the app-server's records carry.
    pub(in crate::daemon) message_id: String,
    /// Its queue ID, when it waited.
    pub(in crate::daemon) queue_id: Option<String>,
    pub(in crate::daemon) key: Option<IdempotencyKey>,
    pub(in crate::daemon) on_usage_limit: OnUsageLimit,
    recorder: Recorder,
    progress: watch::Sender<Progress>,
    /// The submitter, which waits for the turn ID.
    waiter: Mutex<Option<Waiter<TurnId>>>,
}

impl Submission {
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

    /// Marks it as sent; returns the outcome to wait for, `None` when it was withdrawn.
    pub(in crate::daemon) fn send(&self) -> Option<Recorded<TurnId>> {
        self.progress.send_if_modified(|progress| {
            let is_first = *progress == Progress::Preparing;
            if is_first {
                *progress = Progress::Sent;
            }
            is_first
        });
        (!self.is_withdrawn()).then(|| self.outcome())
    }

    /// The outcome to wait for: the turn ID, once its acceptance is on disk.
    pub(in crate::daemon) fn outcome(&self) -> Recorded<TurnId> {
        let (waiter, outcome) = recorded();
        let mut waiting = self.waiter();
        match &*self.progress.borrow() {
            // A message named the turn before; its acceptance is before this in the log.
            Progress::Accepted(turn_id) => {
                let turn_id = turn_id.clone();
                waiter.record(&self.recorder, move |_| (turn_id, Vec::new()));
            }
            _ => *waiting = Some(waiter),
        }
        outcome
    }

    /// Records its turn, unless that is recorded already; `found` is the turn's status and whether it is the newest
    /// of its thread, where a search found it.
    pub(in crate::daemon) fn accept(&self, turn_id: &TurnId, found: Option<(&str, bool)>) {
        // Held until the acceptance was sent, so that it is in the log before what `outcome` finds.
        let mut waiting = self.waiter();
        let is_first = self.progress.send_if_modified(|progress| {
            let is_first = !matches!(progress, Progress::Accepted(_));
            if is_first {
                *progress = Progress::Accepted(turn_id.clone());
            }
            is_first
        });
        if !is_first {
            return;
        }
        let (session_id, thread_id, turn_id) =
            (self.session_id.clone(), self.thread_id.clone(), turn_id.clone());
        let (queue_id, idempotency) = (self.queue_id.clone(), self.key.clone());
        let on_usage_limit = Some(self.on_usage_limit).filter(|on_usage_limit| !on_usage_limit.is_default());
        let status = found.map(|(status, _)| status.to_owned());
        let is_newest = found.map(|(_, is_newest)| is_newest);
        let meaning = move |state: &State| {
            let accepted = TurnEvent::Accepted {
                // A search finds turns of earlier runs too, whose beginning is not known here.
                steered: status.is_none() && is_of_another_client(state, &thread_id, &turn_id),
                session_id,
                thread_id: Some(thread_id),
                turn_id: turn_id.clone(),
                status,
                is_newest,
                queue_id,
                on_usage_limit,
                idempotency,
            };
            (turn_id, events::accepted_with_release(state, accepted))
        };
        // The submitter may not wait any more.
        let waiter = waiting.take().unwrap_or_else(|| recorded().0);
        waiter.record(&self.recorder, meaning);
    }

    fn waiter(&self) -> MutexGuard<'_, Option<Waiter<TurnId>>> {
        self.waiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The response to `turn/start`.
impl OnReply for Arc<Submission> {
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>) {
        match outcome.and_then(|response| decode(methods::TURN_START, response)) {
            Ok(StartedTurn { turn }) => self.accept(&turn.id, None),
            Err(error) => {
                if let Some(waiter) = self.waiter().take() {
                    waiter.fail(error);
                }
            }
        }
    }
}

/// Whether a turn was begun by another client of the app-server, which adds input for a thread in which a turn runs to that
/// turn: then the turn has a message of its user before ours.
fn is_of_another_client(state: &State, thread_id: &ThreadId, turn_id: &TurnId) -> bool {
    let begun = state.turns.get(thread_id, turn_id).filter(|turn| turn.started_by.is_none());
    begun.is_some_and(|turn| turn.has_user_message)
}

/// The submissions since the daemon's start.
pub(in crate::daemon) struct Submissions {
    recorder: Recorder,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Those in progress, by thread.
    under_way: HashMap<ThreadId, Arc<Submission>>,
    /// Those that ended with an unknown outcome, oldest first.
    unresolved: VecDeque<Arc<Submission>>,
}

impl Submissions {
    pub(in crate::daemon) fn new(recorder: Recorder) -> Self {
        Self { recorder, table: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares a submission, which is in progress until the returned guard is dropped; the caller holds the thread's lock.
    pub(in crate::daemon) fn begin(
        self: &Arc<Self>,
        session_id: &SessionId,
        thread_id: &ThreadId,
        message_id: &str,
        queue_id: Option<&str>,
        key: Option<&IdempotencyKey>,
        on_usage_limit: OnUsageLimit,
    ) -> UnderWay {
        let submission = Arc::new(Submission {
            session_id: session_id.clone(),
            thread_id: thread_id.clone(),
            message_id: message_id.to_owned(),
            queue_id: queue_id.map(str::to_owned),
            key: key.cloned(),
            on_usage_limit,
            recorder: self.recorder.clone(),
            progress: watch::Sender::new(Progress::Preparing),
            waiter: Mutex::default(),
        });
        self.lock().under_way.insert(thread_id.clone(), Arc::clone(&submission));
        UnderWay { submissions: Arc::clone(self), submission }
    }

    /// The submission in progress in a thread.
    pub(in crate::daemon) fn in_thread(&self, thread_id: &ThreadId) -> Option<Arc<Submission>> {
        self.lock().under_way.get(thread_id).cloned()
    }

    /// The submission whose message id an item carries, as the user's item does, and the turn of the item.
    ///
    /// `params` are those of `item/started` and `item/completed`.
    pub(in crate::daemon) fn of_item(&self, params: &str) -> Option<(Arc<Submission>, TurnId)> {
        let item = UserItem::read(params)?;
        let is_it = |submission: &Arc<Submission>| {
            submission.message_id == item.client_message_id() && submission.thread_id == item.thread_id
        };
        let mut table = self.lock();
        let unresolved = table.unresolved.iter().position(is_it);
        let unresolved = unresolved.and_then(|index| table.unresolved.remove(index));
        let submission =
            unresolved.or_else(|| table.under_way.values().find(|other| is_it(other)).cloned())?;
        Some((submission, item.turn_id))
    }
}

/// Guard of a submission in progress; dropping it ends the submission.
pub(in crate::daemon) struct UnderWay {
    submissions: Arc<Submissions>,
    pub(in crate::daemon) submission: Arc<Submission>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::{TestRecorder, config};

    #[tokio::test]
    async fn turn_that_an_item_named_is_accepted_once_and_known_to_its_submitter() {
        let directory = tempfile::TempDir::new().unwrap();
        let test_recorder = TestRecorder::start(&config(directory.path(), &[]));
        let submissions = Arc::new(Submissions::new(test_recorder.recorder.clone()));
        let under_way =
            submissions.begin(&"session".into(), &"thread".into(), "message", None, None, OnUsageLimit::Hold);
        let submission = &under_way.submission;
        let early = submission.send().unwrap();
        submission.accept(&"turn".into(), None);
        assert_eq!(early.committed().await.unwrap(), "turn".into());
        // Such as one that searched the thread while the item came.
        submission.accept(&"turn".into(), Some(("inProgress", true)));
        assert_eq!(submission.outcome().committed().await.unwrap(), "turn".into());
        let lines = test_recorder.recorder.view().log.recent(100);
        let accepted =
            lines.iter().filter(|line| line.json().windows(15).any(|part| part == b"\"turn.accepted\""));
        assert_eq!(accepted.count(), 1);
        test_recorder.recorder.stop().await;
    }
}
