//! The task of one hook: it follows the log at the hook's cursor and delivers one event after the other.
//!
//! A failed delivery keeps nothing in memory: after its delay the task follows the log again from the cursor. So an event
//! that expired meanwhile is a gap, as it is after a restart.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::backoff;
use super::gap::Gap;
use super::hook::Hook;
use super::payload;
use super::status::Status;
use super::store::{Progress, Store};
use super::surroundings::Surroundings;
use crate::codex::protocol::notifications;
use crate::journal::{Cursor, CursorExpired, Line, Next};
use crate::state::{EventFilter, HookEvent};
use crate::time;

/// After how many failures in a row a hook is reported as failing.
const FAILING_AFTER: u32 = 3;
/// The delay before the log is read again after it could not be read.
const READ_RETRY: Duration = Duration::from_secs(5);
/// The delay before the cursor is written again after it could not be written.
const SAVE_RETRY: Duration = Duration::from_secs(5);
/// The type of the events that are distinguished by their method.
const NOTIFICATION_TYPE: &[u8] = b"app-server.notification";
/// The end of the types of the pieces of texts.
const DELTA_SUFFIX: &[u8] = b".delta";

/// The task of one hook.
pub(super) struct Worker {
    pub(super) hook: Arc<Hook>,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) store: Store,
    pub(super) status: Arc<Status>,
    pub(super) progress: Progress,
    pub(super) filter: EventFilter,
    /// The number of the event that the hook is done with, while it follows the log.
    pub(super) position: Option<u64>,
    /// No delivery begins any more.
    pub(super) stopping: CancellationToken,
    /// The delivery under way ends.
    pub(super) cancelled: CancellationToken,
    /// The bytes of the events since the cursor was written.
    pub(super) unsaved_bytes: u64,
    /// Whether writing the cursor failed.
    pub(super) is_unsaved: bool,
}

/// What became of a delivery.
enum Attempt {
    /// It is done: delivered, or skipped.
    Done,
    /// It is to be tried again, or the task stops.
    Pending,
}

impl Worker {
    /// Runs until `stopping`.
    pub(super) async fn run(mut self) {
        while self.wait_for_retry().await {
            match self.progress.gap.clone() {
                Some(gap) => self.deliver_gap(gap).await,
                None => match self.position() {
                    Ok(after) => self.follow(after).await,
                    Err(gap) => self.find_gap(gap).await,
                },
            }
        }
        self.save().await;
    }

    /// Waits until the next attempt is due; `false` when the task is to end.
    async fn wait_for_retry(&self) -> bool {
        let retry_at = self.progress.retry_at.as_ref().and_then(crate::timestamp::Timestamp::time);
        if let (Some(at), Some(longest)) = (retry_at, backoff::delay(self.progress.failures)) {
            // A clock that was set back must not put it off.
            let at = at.min(time::after(longest));
            tokio::select! {
                () = time::reached(at, Timestamp::now) => {}
                () = self.status.retry_now.notified() => {}
                () = self.stopping.cancelled() => {}
            }
        }
        !self.stopping.is_cancelled()
    }

    /// The number after which the hook continues, or the gap before it.
    fn position(&mut self) -> Result<u64, Gap> {
        self.set_cursor();
        let bounds = self.surroundings.log.bounds();
        let cursor = self.progress.cursor.as_ref().and_then(|cursor| cursor.parse::<Cursor>().ok());
        let Some(cursor) = cursor else { return Err(Gap::without_cursor(&bounds)) };
        bounds.check(&cursor).map_err(|expired| Gap::after(&bounds, &cursor, expired))
    }

    /// Delivers the events after this number, until one fails, a gap is found, or the task is to end.
    async fn follow(&mut self, after: u64) {
        let mut events = self.surroundings.log.follow(after);
        self.position = Some(after);
        while !self.stopping.is_cancelled() {
            let next = tokio::select! {
                next = events.next() => next,
                () = tokio::time::sleep(SAVE_RETRY), if self.is_unsaved => {
                    self.save().await;
                    continue;
                }
                () = self.stopping.cancelled() => return,
            };
            let position = self.position.unwrap_or(after);
            match next {
                Ok(Next::Lines(lines)) => {
                    for line in lines {
                        if self.concerns(&line) && !self.deliver_event(&line).await {
                            return;
                        }
                        self.pass(&line).await;
                    }
                }
                Ok(Next::Missing(hole)) => {
                    let gap = Gap::in_log(&self.surroundings.log.bounds(), position, hole);
                    return self.find_gap(gap).await;
                }
                Ok(Next::Expired) => {
                    let cursor = Cursor { epoch: None, seq: position };
                    let gap = Gap::after(&self.surroundings.log.bounds(), &cursor, CursorExpired::Expired);
                    return self.find_gap(gap).await;
                }
                Err(error) => {
                    tracing::warn!(hook = self.hook.name, %error, "failed to read the event log for a hook");
                    tokio::select! {
                        () = tokio::time::sleep(READ_RETRY) => {}
                        () = self.stopping.cancelled() => {}
                    }
                    return;
                }
            }
        }
    }

    /// Whether the hook gets an event. Must be called for every event in order.
    fn concerns(&mut self, line: &Line) -> bool {
        let event_type = line.event_type();
        let is_piece = || {
            event_type.ends_with(DELTA_SUFFIX)
                || (event_type == NOTIFICATION_TYPE && notifications::is_piece_in_text(line.json()))
        };
        self.filter.passes(event_type, line.json()) && self.hook.selects(event_type, is_piece)
    }

    /// Moves the cursor over an event, in memory.
    async fn pass(&mut self, line: &Line) {
        self.position = Some(line.seq);
        self.unsaved_bytes += line.len() as u64;
        if self.unsaved_bytes >= self.surroundings.save_after_bytes {
            self.save().await;
        }
    }

    /// Keeps a gap until it is delivered.
    async fn find_gap(&mut self, gap: Gap) {
        self.progress = Progress { gap: Some(gap), failures: 0, retry_at: None, ..self.progress.clone() };
        self.save().await;
    }

    async fn deliver_gap(&mut self, gap: Gap) {
        let payload = gap.payload(&self.hook.name).to_string();
        if let Attempt::Done = self.attempt(&gap.id(), None, payload.into()).await {
            self.position = None;
            self.progress.gap = None;
            self.progress.cursor = Some(format!("{}-{}", gap.epoch, gap.through));
            self.save().await;
        }
    }

    /// Delivers an event; returns whether the cursor moves over it.
    async fn deliver_event(&mut self, line: &Line) -> bool {
        if self.stopping.is_cancelled() {
            return false;
        }
        let id = self.surroundings.log.bounds().cursor(line.seq);
        let payload = payload::of_event(&self.hook, &id, line);
        match self.attempt(&id, Some(line.seq), payload).await {
            Attempt::Done => {
                self.position = Some(line.seq);
                self.save().await;
                true
            }
            Attempt::Pending => false,
        }
    }

    async fn attempt(&mut self, id: &str, event_seq: Option<u64>, payload: Bytes) -> Attempt {
        let delivered =
            self.status.deliver(&self.hook, &self.surroundings.deliveries, id, payload, &self.cancelled);
        let (hook_id, name) = (self.hook.hook_id.clone(), self.hook.name.clone());
        match delivered.await {
            Ok(()) => {
                let was_failing = self.progress.is_failing;
                self.progress = Progress { cursor: self.progress.cursor.take(), ..Progress::default() };
                self.status.count_delivery();
                // Before the event, so that a reader of the event finds the hook as it says.
                self.status.set_progress(self.progress.clone());
                if was_failing {
                    self.surroundings.record(HookEvent::Recovered { hook_id, name }).await;
                }
                Attempt::Done
            }
            // The event is delivered again when there is time for it.
            Err(_) if self.cancelled.is_cancelled() => Attempt::Pending,
            Err(error) => {
                self.status.count_failure();
                let attempts = self.progress.failures.saturating_add(1);
                match backoff::delay(attempts) {
                    Some(delay) => {
                        let retry_at = Some(time::rfc3339_after(delay));
                        self.progress = Progress {
                            failures: attempts,
                            retry_at,
                            error: Some(error.clone()),
                            ..self.progress.clone()
                        };
                        if attempts >= FAILING_AFTER && !self.progress.is_failing {
                            self.progress.is_failing = true;
                            self.status.set_progress(self.progress.clone());
                            let failing = HookEvent::Failing { hook_id, name, event_seq, attempts, error };
                            self.surroundings.record(failing).await;
                        }
                        self.save().await;
                        Attempt::Pending
                    }
                    None => self.skip(event_seq, attempts, error).await,
                }
            }
        }
    }

    /// Gives up a delivery, if that can be recorded.
    async fn skip(&mut self, event_seq: Option<u64>, attempts: u32, error: String) -> Attempt {
        let (hook_id, name) = (self.hook.hook_id.clone(), self.hook.name.clone());
        // On disk before the cursor: an event that was not delivered must not be passed over silently.
        if !self
            .surroundings
            .record(HookEvent::Skipped { hook_id, name, event_seq, attempts, error: error.clone() })
            .await
        {
            self.progress.retry_at = backoff::delay(self.progress.failures).map(time::rfc3339_after);
            return Attempt::Pending;
        }
        self.progress.failures = 0;
        self.progress.retry_at = None;
        self.progress.error = Some(error);
        self.status.count_skip();
        Attempt::Done
    }

    fn set_cursor(&mut self) {
        if let Some(position) = self.position {
            self.progress.cursor = Some(self.surroundings.log.bounds().cursor(position));
        }
    }

    /// Writes the cursor. If that is impossible the hook goes on: a restart would repeat deliveries, and lose none.
    async fn save(&mut self) {
        self.set_cursor();
        self.status.set_progress(self.progress.clone());
        let saved = self.store.save_progress(&self.hook.hook_id, self.progress.clone()).await;
        if let (Err(error), false) = (&saved, self.is_unsaved) {
            tracing::warn!(hook = self.hook.name, %error, "failed to write hook-cursors.json; it is tried again");
        }
        self.is_unsaved = saved.is_err();
        self.unsaved_bytes = 0;
    }
}
