//! Calls to the app-server, and the events that their responses lead to.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::codex::{Client, Wait};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::app_server::record_on_reply::{Outcome, RecordOnReply, recorded};
use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::state::State;

impl Daemon {
    /// Calls the app-server and reads its answer.
    pub(in crate::daemon) async fn call<T: DeserializeOwned>(
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
    ) -> Result<T, DaemonError> {
        Self::call_within(client, method, params, Wait::Limited(client.call_timeout())).await
    }

    /// [`Daemon::call`] with a limit for the answer.
    pub(in crate::daemon) async fn call_within<T: DeserializeOwned>(
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
        wait: Wait,
    ) -> Result<T, DaemonError> {
        let (sender, receiver) = oneshot::channel();
        client.call_in_order(method, params, wait, sender).await;
        let answer = receiver.await.map_err(|_| DaemonError::ShuttingDown)??;
        Ok(decode(method, &answer)?)
    }

    /// Calls the app-server and records the meaning of its response at the position of the response in the stream; returns when
    /// that is on disk.
    pub(in crate::daemon) async fn call_and_record<R, T>(
        &self,
        client: &Client,
        method: &'static str,
        params: &impl Serialize,
        wait: Wait,
        meaning: impl FnOnce(R, &State) -> Outcome<T> + Send + 'static,
    ) -> Result<T, DaemonError>
    where
        R: DeserializeOwned + Send + 'static,
        T: Send + 'static,
    {
        let (waiter, recorded) = recorded();
        let (recorder, meaning) = (self.shared.recorder.clone(), Box::new(meaning));
        let on_reply = RecordOnReply { method, recorder, meaning, waiter };
        client.call_in_order(method, params, wait, on_reply).await;
        recorded.committed().await
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
