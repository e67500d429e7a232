//! Recording what a response means, at the position of the response in the stream.
//!
//! Three threads take part: the reader takes the response, the recorder turns it into events against the records at that
//! point of the log, and the caller waits until the events are on disk.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::codex::{CallError, OnReply};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::{CommitAck, Input, StorageError};
use crate::state::{NewEvent, State};

/// The value for the caller, and the events that are recorded.
pub(in crate::daemon) type Outcome<T> = (T, Vec<NewEvent>);

/// Turns a response into its meaning, with the records as they are at its position; runs on the recorder's thread.
type Meaning<R, T> = Box<dyn FnOnce(R, &State) -> Outcome<T> + Send>;

/// What the response `R` to a call means: a value for the caller, and events.
pub(in crate::daemon) struct RecordOnReply<R, T> {
    pub(in crate::daemon) method: Cow<'static, str>,
    pub(in crate::daemon) recorder: Recorder,
    pub(in crate::daemon) meaning: Meaning<R, T>,
    pub(in crate::daemon) waiter: Waiter<T>,
}

impl<R: DeserializeOwned + Send + 'static, T: Send + 'static> OnReply for RecordOnReply<R, T> {
    fn on_reply(self: Box<Self>, outcome: Result<&RawValue, CallError>) {
        let Self { method, recorder, meaning, waiter } = *self;
        match outcome.and_then(|response| decode(&method, response)) {
            Ok(response) => waiter.record(&recorder, move |state| meaning(response, state)),
            Err(error) => waiter.fail(error),
        }
    }
}

/// Reports to a caller what was recorded.
pub(in crate::daemon) struct Waiter<T> {
    value: oneshot::Sender<Result<T, CallError>>,
    ack: CommitAck,
}

/// What a caller waits for.
pub(in crate::daemon) struct Recorded<T> {
    value: oneshot::Receiver<Result<T, CallError>>,
    committed: oneshot::Receiver<Result<(), StorageError>>,
}

/// A caller that waits, and what reports to it.
pub(in crate::daemon) fn recorded<T>() -> (Waiter<T>, Recorded<T>) {
    let ((sender, value), (ack, committed)) = (oneshot::channel(), oneshot::channel());
    (Waiter { value: sender, ack }, Recorded { value, committed })
}

impl<T: Send + 'static> Waiter<T> {
    /// Records the events of `meaning`, at this position.
    pub(in crate::daemon) fn record(
        self,
        recorder: &Recorder,
        meaning: impl FnOnce(&State) -> Outcome<T> + Send + 'static,
    ) {
        let Self { value: sender, ack } = self;
        let build = move |state: &State| {
            let (value, new_events) = meaning(state);
            // The caller may be gone; the events are recorded all the same.
            let _ = sender.send(Ok(value));
            new_events
        };
        recorder.send(Input::Durable(Box::new(build), ack));
    }

    /// There is nothing to record.
    pub(in crate::daemon) fn fail(self, error: CallError) {
        let _ = self.value.send(Err(error));
    }
}

impl<T> Recorded<T> {
    /// Returns the value when its events are on disk.
    pub(in crate::daemon) async fn committed(self) -> Result<T, DaemonError> {
        let value = self.value.await.map_err(|_| DaemonError::ShuttingDown)??;
        match self.committed.await {
            Ok(Ok(())) => Ok(value),
            Ok(Err(error)) => Err(DaemonError::Storage(error)),
            Err(_) => Err(DaemonError::ShuttingDown),
        }
    }
}
