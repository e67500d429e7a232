//! The reader and writer tasks of one connection, and how it ends. Owned by a generation of the supervisor.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::liveness::LastReceived;
use super::pending::Pending;
use super::reader::StreamEnd;
use crate::codex::process::child::Process;
use crate::codex::process::stop_pace::{StopPace, stop_requested};

/// How long the output of an ended process is still read: a process that it started may hold the pipe open.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// One connection.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) pending: Arc<Pending>,
    /// When the last message arrived.
    pub(crate) last_received: Arc<LastReceived>,
    /// Ends when no more messages arrive; taken once it has ended.
    pub(crate) reader: Option<JoinHandle<StreamEnd>>,
    /// Ends when no more messages can be sent; taken once it has ended.
    pub(crate) writer: Option<JoinHandle<WriterEnd>>,
    /// Closes our side.
    pub(crate) close: CancellationToken,
}

/// Why no more messages can be sent over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriterEnd {
    /// Our side was closed.
    Closed,
    /// Our side could not be closed in order, for this reason.
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

/// Why a connection ended.
pub(crate) enum ConnectionEnd {
    /// A stop was requested.
    Stop,
    /// The generation is to be replaced.
    Retired,
    /// One of its streams ended, or it is unusable.
    Stream(StreamEnd),
    /// Its process exited.
    Exited(io::Result<ExitStatus>),
}

impl Connection {
    /// Waits until the connection ends.
    pub(crate) async fn wait_for_end(
        &mut self,
        process: Option<&mut Process>,
        mut pace: watch::Receiver<StopPace>,
        mut retired: watch::Receiver<u64>,
    ) -> ConnectionEnd {
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
            // An error means that the supervisor's handle is gone.
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
            // The order matters: a process that exits closes its pipes first, and the messages in them are more useful.
            biased;
            () = stop_requested(&mut pace) => ConnectionEnd::Stop,
            end = reader => ConnectionEnd::Stream(end),
            reason = writer => ConnectionEnd::Stream(StreamEnd::new("stdin.error", reason)),
            () = retired => ConnectionEnd::Retired,
            status = exit => ConnectionEnd::Exited(status),
        }
    }

    /// Lets the reader finish what has arrived, for at most [`DRAIN_TIMEOUT`]; no message is reported after this.
    pub(crate) async fn drain_reader(&mut self) -> StreamEnd {
        let Some(mut reader) = self.reader.take() else {
            return StreamEnd::new("stdout.end", "its stdout ended");
        };
        match tokio::time::timeout(DRAIN_TIMEOUT, &mut reader).await {
            Ok(end) => end.unwrap_or_else(reader_failed),
            Err(_) => {
                reader.abort();
                // It runs until its next await, and must not report anything after the end was reported.
                let _ = reader.await;
                StreamEnd::new("process.exit", "its process ended, its stdout is still open")
            }
        }
    }
}

/// Waits for a task that was asked to end; `None` when it had to be aborted or its result was taken before.
pub(crate) async fn end_task<T>(task: Option<JoinHandle<T>>) -> Option<T> {
    let mut task = task?;
    match tokio::time::timeout(DRAIN_TIMEOUT, &mut task).await {
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
