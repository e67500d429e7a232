//! Calls to the app-server, and the events that their responses lead to.

use std::borrow::Cow;
use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::codex::protocol::responses::{ListedTurn, TurnPage};
use crate::codex::{Client, Wait};
use crate::daemon::app_server::read_response::{decode, newest_turns_with_items};
use crate::daemon::app_server::record_on_reply::{Outcome, RecordOnReply, recorded};
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::handle::Recorder;
use crate::ids::{ThreadId, TurnId};
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

/// Passes the turns of a thread with all their items to `visit`, from the newest back, until it breaks; `None` when it did
/// not within `max_pages` pages.
pub(in crate::daemon) async fn search_turns<T>(
    client: &Client,
    thread_id: &ThreadId,
    page_size: u32,
    max_pages: usize,
    mut visit: impl FnMut(ListedTurn) -> ControlFlow<T>,
) -> Result<Option<T>, DaemonError> {
    let (method, mut params) = newest_turns_with_items(client, thread_id, page_size);
    for _ in 0..max_pages {
        let page: TurnPage = call(client, method, &params).await?;
        if let ControlFlow::Break(found) = page.data.into_iter().try_for_each(&mut visit) {
            return Ok(Some(found));
        }
        let Some(next) = page.next_cursor else { break };
        params["cursor"] = next.into();
    }
    Ok(None)
}

/// Passes on the turn with this ID.
pub(in crate::daemon) fn with_id(turn_id: &TurnId) -> impl FnMut(ListedTurn) -> ControlFlow<ListedTurn> {
    move |turn| if turn.id == *turn_id { ControlFlow::Break(turn) } else { ControlFlow::Continue(()) }
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
