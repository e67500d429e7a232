//! What happens to turns and requests when the connection to an app-server that outlives it is lost and made again.
//!
//! Such an app-server goes on with its turns, so they stay open, and so do its requests. After each connection every
//! thread with a turn that is not known to be over, and every one that another client has loaded, is resumed and read: what ended meanwhile is recorded as it ended, with
//! its items, and the requests that still wait are repeated by the app-server. Only when there is no connection for
//! [`RECONNECT_TIMEOUT`] the turns are recorded as cut off; a later connection corrects that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::codex::protocol::methods;
use crate::codex::protocol::responses::LoadedThreads;
use crate::codex::{Availability, Client, Closed};
use crate::daemon::app_server::availability::unavailable_reason;
use crate::daemon::app_server::calls::call;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::recorder::input::Input;
use crate::daemon::server_requests::open::OpenRequests;
use crate::daemon::threads::Threads;
use crate::daemon::turns::corrections::read_turns;
use crate::ids::{RequestId, ThreadId};
use crate::state::{Phase, ServerRequest, Session, SessionStatus, State};

/// How long there may be no connection before the open turns count as cut off.
///
/// A shared app-server that ended is started again after half a second, and answers within a few.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the app-server may take to repeat its requests after it resumed their thread; it takes a few ms (measured).
const REPEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps turns and requests current over lost connections; clones share all state.
#[derive(Clone)]
pub(in crate::daemon) struct Reconnect {
    pub(in crate::daemon) core: Arc<Core>,
    pub(in crate::daemon) threads: Threads,
    pub(in crate::daemon) open: Arc<OpenRequests>,
}

impl Reconnect {
    /// Follows the connection until the daemon stops.
    pub(in crate::daemon) async fn run(self) {
        let mut availability = self.core.availability.clone();
        let mut generation = None;
        let mut cut_off_at = Some(Instant::now() + RECONNECT_TIMEOUT);
        loop {
            let now = availability.borrow_and_update().clone();
            match &now {
                Availability::Ready(client) => {
                    cut_off_at = None;
                    if generation.replace(client.generation()) != Some(client.generation()) {
                        self.core.tasks.spawn(self.clone().look_at_threads(client.clone()));
                    }
                }
                _ if generation.take().is_some() => cut_off_at = Some(Instant::now() + RECONNECT_TIMEOUT),
                _ => {}
            }
            tokio::select! {
                changed = availability.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(cut_off_at.unwrap_or_else(Instant::now)), if cut_off_at.is_some() => {
                    cut_off_at = None;
                    self.cut_off(None, unavailable_reason(&now).unwrap_or_default());
                }
                () = self.core.stopping.cancelled() => return,
            }
        }
    }

    /// Records that the open turns and requests are cut off: those of one thread, or all.
    fn cut_off(&self, thread_id: Option<ThreadId>, reason: String) {
        let closed = Closed {
            source: "reconnect.timeout",
            message: reason,
            flushed_trailing_message: false,
            trailing_message_length: 0,
            exit: None,
            expected: false,
            app_server_outlives_it: true,
        };
        let build = move |state: &State| events::cut_off(state, &closed, thread_id.as_ref());
        self.core.recorder.send(Input::Build(Box::new(build)));
    }

    /// Brings the turns and requests of the connections before up to date.
    async fn look_at_threads(self, client: Client) {
        // What the connection before sent is recorded by then.
        self.core.recorder.caught_up().await;
        let (threads, requests) = {
            let state = self.core.state();
            let of_thread =
                |request: &Arc<ServerRequest>| (request.request_id.clone(), request.thread_id.clone());
            let requests: Vec<_> = state.requests.pending().map(of_thread).collect();
            (uncertain_threads(&state), requests)
        };
        let mut looks = JoinSet::new();
        let loaded = self.loaded_threads(&client).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to list the threads that other clients use");
            BTreeSet::new()
        });
        for thread_id in threads.into_iter().chain(loaded).collect::<BTreeSet<_>>() {
            let (this, client) = (self.clone(), client.clone());
            looks.spawn(async move {
                let Err(error) = this.look_at_thread(&client, &thread_id).await else { return None };
                tracing::warn!(%error, %thread_id, "failed to find out what became of the turns of a thread");
                // The thread is gone, as an ephemeral one is with its app-server, or Codex cannot read it, as after SIGKILL in
                // the first milliseconds of its first turn.
                if error.is_app_server_error() || matches!(error, DaemonError::ThreadUnavailable { .. }) {
                    this.cut_off(Some(thread_id.clone()), error.to_string());
                }
                Some(thread_id)
            });
        }
        // An app-server that is shutting down resumes no thread, so it repeats no request that waits.
        let unread: Vec<_> = looks.join_all().await.into_iter().flatten().collect();
        self.core.looked_at.send_replace(client.generation());
        let is_read =
            |thread_id: &Option<ThreadId>| !thread_id.as_ref().is_some_and(|id| unread.contains(id));
        let requests = requests.into_iter().filter(|(_, thread_id)| is_read(thread_id));
        let requests = requests.map(|(request_id, _)| request_id).collect();
        self.end_requests_not_repeated(&client, requests).await;
    }

    /// The threads of active sessions that the app-server has loaded, as for a terminal: what other clients do in them is
    /// heard of after they are resumed.
    async fn loaded_threads(&self, client: &Client) -> Result<BTreeSet<ThreadId>, DaemonError> {
        let (mut loaded, mut params) = (BTreeSet::new(), json!({}));
        loop {
            let page: LoadedThreads = call(client, methods::THREAD_LOADED_LIST, &params).await?;
            let state = self.core.state();
            let is_ours = |thread_id: &ThreadId| state.sessions.active_in_thread(thread_id).next().is_some();
            loaded.extend(page.data.into_iter().filter(is_ours));
            match page.next_cursor {
                Some(cursor) => params["cursor"] = cursor.into(),
                None => return Ok(loaded),
            }
        }
    }

    /// Resumes a thread, so that its turns are heard of and its requests are repeated, and records how its turns ended.
    async fn look_at_thread(&self, client: &Client, thread_id: &ThreadId) -> Result<(), DaemonError> {
        let _thread_lock = self.threads.lock(thread_id).await;
        let session = self.core.state().sessions.active_in_thread(thread_id).next().cloned();
        match session {
            // It reads the turns too.
            Some(session) => self.threads.attach(client, session).await.map(drop),
            None => read_turns(&self.core, client, thread_id).await,
        }
    }

    /// Ends the requests of earlier connections that the app-server does not repeat: it no longer waits for them.
    async fn end_requests_not_repeated(&self, client: &Client, requests: Vec<RequestId>) {
        let is_open = |request_id: &RequestId| self.open.is_open(request_id);
        let deadline = Instant::now() + REPEAT_TIMEOUT;
        while !requests.iter().all(is_open) && Instant::now() < deadline {
            tokio::time::sleep(REPEAT_TIMEOUT / 40).await;
        }
        if self.core.client_of_generation(client.generation()).is_none() {
            return;
        }
        let over: Vec<RequestId> = requests.into_iter().filter(|request_id| !is_open(request_id)).collect();
        self.core.recorder.send(Input::Build(Box::new(move |state| {
            let pending = state.requests.pending().filter(|request| over.contains(&request.request_id));
            pending.map(|request| events::request_cut_off(request)).collect()
        })));
    }
}

/// The threads with a turn that is not over, or whose newest was cut off, and those with requests.
fn uncertain_threads(state: &State) -> BTreeSet<ThreadId> {
    let is_cut_off = |session: &&Arc<Session>| {
        let thread_id = session.thread_id.clone().unwrap_or_default();
        state.turns.of(&thread_id).next().is_some_and(|turn| turn.phase == Phase::CutOff)
    };
    let cut_off = state.sessions.iter().filter(|session| session.status == SessionStatus::Active);
    let cut_off = cut_off.filter(is_cut_off).filter_map(|session| session.thread_id.clone());
    let turns = state.turns.open().map(|turn| turn.thread_id.clone()).chain(cut_off);
    let requests = state.requests.pending().filter_map(|request| request.thread_id.clone());
    turns.chain(requests).collect()
}
