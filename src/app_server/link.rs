//! The tasks of one connection.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::child::{Process, StopPace};
use super::client::Client;
use super::liveness::Pulse;
use super::pending::Pending;
use super::reader::StreamEnd;
use super::supervisor::over;

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
    /// Ends when nothing more can be said.
    pub(crate) writer: JoinHandle<String>,
    /// Closes our side.
    pub(crate) close: CancellationToken,
}

/// Why a connection is over.
pub(crate) enum Over {
    /// No app-server is wanted any more.
    Stop,
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
    ) -> Over {
        let reader = async {
            let end = match self.reader.as_mut() {
                Some(reader) => reader.await.unwrap_or_else(reader_failed),
                None => std::future::pending().await,
            };
            self.reader = None;
            end
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
            reason = &mut self.writer => {
                Over::Stream(StreamEnd::new("stdin.error", reason.unwrap_or_else(|error| error.to_string())))
            }
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

/// Ends a task that has been asked to end.
pub(crate) async fn end_task<T>(mut task: JoinHandle<T>) {
    if !task.is_finished() && tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
        task.abort();
        let _ = task.await;
    }
}

fn reader_failed(error: JoinError) -> StreamEnd {
    StreamEnd::new("reader.error", format!("its reader failed: {error}"))
}
