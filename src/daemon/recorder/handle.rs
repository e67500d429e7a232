//! The handle through which the daemon sends inputs to the recorder and reads its view; cheap to clone.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::codex::Backlog;
use crate::daemon::recorder::input::{Input, StorageError};
use crate::daemon::recorder::view::View;
use crate::state::{NewEvent, State};

/// The way in; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub(super) inputs: mpsc::UnboundedSender<Input>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) view: Arc<View>,
}

impl Recorder {
    /// The view for readers.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The backlog that the app-server's readers check before they read more.
    pub(crate) fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }

    /// Queues an input; inputs are recorded in the order in which they are queued.
    pub(crate) fn send(&self, input: Input) {
        self.backlog.add(input.weight());
        // The recorder runs until the daemon has stopped; later inputs are dropped.
        let _ = self.inputs.send(input);
    }

    /// Records one event.
    pub(crate) fn record(&self, event: impl Into<NewEvent>) {
        self.send(Input::Events(vec![event.into()]));
    }

    /// Records events and returns when they are on disk.
    pub(crate) async fn record_durably(
        &self,
        build: impl FnOnce(&State) -> Vec<NewEvent> + Send + 'static,
    ) -> Result<(), StorageError> {
        let (ack, committed) = oneshot::channel();
        self.send(Input::Durable(Box::new(build), ack));
        committed.await.unwrap_or_else(|_| Err("the recorder has stopped".into()))
    }

    /// Returns when every earlier input is recorded.
    pub(crate) async fn caught_up(&self) {
        let (recorded, waiting) = oneshot::channel();
        self.send(Input::CaughtUp(recorded));
        let _ = waiting.await;
    }

    /// Writes everything to disk and ends the threads.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Input::Stop(done));
        let _ = stopped.await;
    }
}
