//! The tasks of one connection.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::liveness::Pulse;
use super::pending::Pending;
use super::reader::StreamEnd;
use crate::codex::process::child::Process;
use crate::codex::process::stop_pace::{StopPace, over};

/// How long the output of an ended process is still read: something it started may hold the pipe open.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(500);

/// One connection.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) pending: Arc<Pending>,
    /// When something was heard last.
    pub(crate) pulse: Arc<Pulse>,
    /// Ends when nothing more is heard; taken once it has.
    pub(crate) reader: Option<JoinHandle<StreamEnd>>,
    /// Ends when nothing more can be said; taken once it has.
    pub(crate) writer: Option<JoinHandle<WriterEnd>>,
    /// Closes our side.
    pub(crate) close: CancellationToken,
}

/// Why nothing more can be said over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriterEnd {
    /// Our side was closed.
    Closed,
    /// Our side was to be closed, and could not be closed in order, for this reason.
    CloseFailed(String),
    /// It failed, for this reason.
    Failed(String),
}

impl WriterEnd {
    fn into_reason(self) -> String {
        match self {
            Self::Closed => "it was closed".to_owned(),
            Self::CloseFailed(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Why a connection is over.
pub(crate) enum Over {
    /// No app-server is wanted any more.
    Stop,
    /// Another one is wanted in its place.
    Retired,
    /// One of its two streams ended, or it is of no use.
    Stream(StreamEnd),
    /// Its process ended.
    Exited(io::Result<ExitStatus>),
}

impl Link {
    /// Waits until the connection is over.
    pub(crate) async fn over(
        &mut self,
        process: Option<&mut Process>,
        mut pace: watch::Receiver<StopPace>,
        mut retired: watch::Receiver<u64>,
    ) -> Over {
        let generation = self.client.generation();
        let reader = async {
            let end = match self.reader.as_mut() {
                Some(reader) => reader.await.unwrap_or_else(reader_failed),
                None => std::future::pending().await,
            };
            self.reader = None;
            end
        };
        let writer = async {
            let end = match self.writer.as_mut() {
                Some(writer) => writer.await.map_or_else(|error| error.to_string(), WriterEnd::into_reason),
                None => std::future::pending().await,
            };
            self.writer = None;
            end
        };
        let retired = async {
            // Nobody is left to say so when it fails.
            if retired.wait_for(|&through| through >= generation).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let exit = async {
            match process {
                Some(process) => process.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The order matters: a process that ends closes its pipes first, and the last words in them tell more.
            biased;
            () = over(&mut pace) => Over::Stop,
            end = reader => Over::Stream(end),
            reason = writer => Over::Stream(StreamEnd::new("stdin.error", reason)),
            () = retired => Over::Retired,
            status = exit => Over::Exited(status),
        }
    }

    /// Lets the reader finish what it has, within reason; nothing is heard after this.
    pub(crate) async fn last_words(&mut self) -> StreamEnd {
        let Some(mut reader) = self.reader.take() else {
            return StreamEnd::new("stdout.end", "its stdout ended");
        };
        match tokio::time::timeout(LAST_WORDS, &mut reader).await {
            Ok(end) => end.unwrap_or_else(reader_failed),
            Err(_) => {
                reader.abort();
                // It goes on until it next waits, and what it still says must not come after the end is told.
                let _ = reader.await;
                StreamEnd::new("process.exit", "its process ended, its stdout is still open")
            }
        }
    }
}

/// Ends a task that has been asked to end; `None` when it had to be aborted, or its end was taken before.
pub(crate) async fn end_task<T>(task: Option<JoinHandle<T>>) -> Option<T> {
    let mut task = task?;
    match tokio::time::timeout(LAST_WORDS, &mut task).await {
        Ok(ended) => ended.ok(),
        Err(_) => {
            task.abort();
            let _ = task.await;
            None
        }
    }
}

fn reader_failed(error: JoinError) -> StreamEnd {
    StreamEnd::new("reader.error", format!("its reader failed: {error}"))
}
