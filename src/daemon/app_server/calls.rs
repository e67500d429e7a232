//! Calls to the app-server, and the events that their responses lead to.
//!
//! Every service calls the app-server through here. The event of a response is recorded at the position of the response
//! in the stream.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::codex::{CallError, Client};
use crate::daemon::app_server::read_response::read;
use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::input::{Build, Input};

impl Daemon {
    /// Calls the app-server and reads its answer.
    pub(in crate::daemon) async fn call<T: DeserializeOwned>(
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
    ) -> Result<T, DaemonError> {
        let answer = client.call(method, params, client.call_timeout()).await?;
        let malformed = |reason| CallError::Malformed { method: method.to_owned(), reason };
        Ok(read(answer.get()).map_err(malformed)?)
    }

    /// [`Daemon::call`] that waits for the answer until it comes or the connection ends.
    pub(in crate::daemon) async fn call_without_timeout<T: DeserializeOwned>(
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
    ) -> Result<T, DaemonError> {
        let (sender, receiver) = oneshot::channel();
        let settle = move |outcome: Result<&RawValue, CallError>| {
            let _ = sender.send(outcome.map(ToOwned::to_owned));
        };
        client.call_without_timeout(method, params, settle).await;
        let answer = receiver.await.map_err(|_| DaemonError::ShuttingDown)??;
        let malformed = |reason| CallError::Malformed { method: method.to_owned(), reason };
        Ok(read(answer.get()).map_err(malformed)?)
    }

    /// Calls the app-server and records the meaning of its response at the position of the response in the stream; returns when
    /// that is on disk.
    pub(in crate::daemon) async fn call_and_record<T: Send + 'static>(
        &self,
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
        read: impl FnOnce(&RawValue) -> Result<(T, Build), String> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let (settle, recorded) = self.recording(method, read);
        client.call_in_order(method, params, client.call_timeout(), settle).await;
        recorded.await
    }

    /// [`Daemon::call_and_record`] for a call that makes a thread, which is recorded however late the answer comes.
    pub(in crate::daemon) async fn call_without_timeout_and_record<T: Send + 'static>(
        &self,
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
        read: impl FnOnce(&RawValue) -> Result<(T, Build), String> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let (settle, recorded) = self.recording(method, read);
        client.call_without_timeout(method, params, settle).await;
        recorded.await
    }

    /// The callback that records the meaning of a response at its position in the stream, and a future that waits until
    /// that is on disk.
    fn recording<T: Send + 'static>(
        &self,
        method: &'static str,
        read: impl FnOnce(&RawValue) -> Result<(T, Build), String> + Send + 'static,
    ) -> (
        impl FnOnce(Result<&RawValue, CallError>) + Send + 'static,
        impl Future<Output = Result<T, DaemonError>> + Send,
    ) {
        let recorder = self.shared.recorder.clone();
        let (sender, receiver) = oneshot::channel();
        let settle = move |outcome: Result<&RawValue, CallError>| {
            let read = |result: &RawValue| {
                let (value, build) = read(result)
                    .map_err(|reason| CallError::Malformed { method: method.to_owned(), reason })?;
                let (ack, commit) = oneshot::channel();
                recorder.send(Input::Durable(build, ack));
                Ok((value, commit))
            };
            let _ = sender.send(outcome.and_then(read));
        };
        let recorded = async move {
            let (value, commit) = receiver.await.map_err(|_| DaemonError::ShuttingDown)??;
            match commit.await {
                Ok(Ok(())) => Ok(value),
                Ok(Err(error)) => Err(DaemonError::Storage(error)),
                Err(_) => Err(DaemonError::ShuttingDown),
            }
        };
        (settle, recorded)
    }

    /// [`Daemon::run`] for what makes a thread: it continues when its caller has waited for as long as a call may take.
    pub(in crate::daemon) async fn run_until_call_timeout<T: Send + 'static>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
    ) -> Result<T, DaemonError> {
        let limit = self.config().limits.call_timeout;
        let late = |_| Err(DaemonError::StillOpening { method, seconds: limit.as_secs() });
        tokio::time::timeout(limit, self.run(work)).await.unwrap_or_else(late)
    }
}
