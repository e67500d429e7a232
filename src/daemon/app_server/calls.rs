//! Calls to the app-server, and the events that their responses lead to.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::codex::{Client, Wait};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::app_server::record_on_reply::{Outcome, RecordOnReply, recorded};
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::handle::Recorder;
use crate::state::State;

/// Calls the app-server and reads its answer.
pub(in crate::daemon) async fn call<T: DeserializeOwned>(
    client: &Client,
    method: &'static str,
    params: &impl Serialize,
) -> Result<T, DaemonError> {
    call_within(client, method, params, Wait::Limited(client.call_timeout())).await
}

/// [`call`] with a limit for the answer.
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
    recorder: &Recorder,
    client: &Client,
    method: impl Into<Cow<'static, str>>,
    params: &impl Serialize,
    wait: Wait,
    meaning: impl FnOnce(R, &State) -> Outcome<T> + Send + 'static,
) -> Result<T, DaemonError>
where
    R: DeserializeOwned + Send + 'static,
    T: Send + 'static,
{
    let (waiter, recorded) = recorded();
    let method = method.into();
    let on_reply = RecordOnReply {
        method: method.clone(),
        recorder: recorder.clone(),
        meaning: Box::new(meaning),
        waiter,
    };
    client.call_in_order(method, params, wait, on_reply).await;
    recorded.committed().await
}
