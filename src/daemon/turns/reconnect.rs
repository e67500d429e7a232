//! What happens to turns and requests when the connection to an app-server that outlives it is lost and made again.
//!
//! Such an app-server goes on with its turns, so they stay open, and so do its requests. After each connection every
//! thread with a turn that is not known to be over, and every one that another client has loaded, is resumed and read:
//! what began or ended meanwhile is recorded as it did, with its items, and the requests that still wait are repeated by
//! the app-server. The threads that nobody has loaded are read where they have turns that codexd has not heard of.
//! Only when there is no connection for [`RECONNECT_TIMEOUT`] the turns are recorded as cut off; a later connection
//! corrects that.
//!
//! The app-server tells every client when a thread is loaded and when a turn begins in it (measured on 0.160.1 and
//! 0.171.0), and so codexd resumes a thread of its sessions that another client begins to use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::codex::protocol::methods;
use crate::codex::protocol::responses::{LoadedThreads, ThreadPage, TurnPage, thread_list_params};
use crate::codex::{Availability, Client, Closed};
use crate::daemon::app_server::availability::unavailable_reason;
use crate::daemon::app_server::calls::call;
use crate::daemon::app_server::read_response::newest_turns;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::recorder::input::Input;
use crate::daemon::server_requests::open::OpenRequests;
use crate::daemon::threads::Threads;
use crate::daemon::turns::corrections::{TurnsBefore, read_turns};
use crate::ids::{RequestId, ThreadId};
use crate::state::{Phase, ServerRequest, Session, SessionStatus, State};

/// How long there may be no connection before the open turns count as cut off.
///
/// A shared app-server that ended is started again after half a second, and answers within a few.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the app-server may take to repeat its requests after it resumed their thread; it takes a few ms (measured).
const REPEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many of the threads that changed last are searched for turns that were not heard of. Reading the newest turn of
/// one takes 3 ms (measured, 300 turns).
const MAX_CHANGED_THREADS: u64 = 100;

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
        let followed: BTreeSet<_> = threads.into_iter().chain(loaded).collect();
        let changed = self.changed_threads(&client).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "failed to list the threads that changed last");
            BTreeSet::new()
        });
        let mut reads = JoinSet::new();
        for thread_id in changed.into_iter().filter(|thread_id| !followed.contains(thread_id)) {
            let (this, client) = (self.clone(), client.clone());
            reads.spawn(async move {
                if let Err(error) = this.read_if_changed(&client, &thread_id).await {
                    tracing::warn!(%error, %thread_id, "failed to read the turns of a thread");
                }
            });
        }
        for thread_id in followed {
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
        reads.join_all().await;
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

    /// The threads of active sessions among those that changed last.
    async fn changed_threads(&self, client: &Client) -> Result<BTreeSet<ThreadId>, DaemonError> {
        let params = thread_list_params(None, None, false, MAX_CHANGED_THREADS, None);
        let page: ThreadPage = call(client, methods::THREAD_LIST, &params).await?;
        let state = self.core.state();
        let is_ours = |thread_id: &ThreadId| state.sessions.active_in_thread(thread_id).next().is_some();
        Ok(page.data.into_iter().map(|thread| thread.id).filter(is_ours).collect())
    }

    /// Records the turns of a thread that were not heard of; the thread is not loaded for that.
    async fn read_if_changed(&self, client: &Client, thread_id: &ThreadId) -> Result<(), DaemonError> {
        let _thread_lock = self.threads.lock(thread_id).await;
        let before = TurnsBefore::of(&self.core.state(), thread_id);
        let (method, params) = newest_turns(client, thread_id, 1);
        let newest: TurnPage = call(client, method, &params).await?;
        match newest.data.first() {
            Some(newest) if !before.has(&newest.id) => {
                read_turns(&self.core, client, thread_id, Some(before)).await
            }
            _ => Ok(()),
        }
    }

    /// Follows a thread that another client has begun to use, if an active session has it.
    pub(in crate::daemon) async fn follow(self, generation: u64, thread_id: ThreadId) {
        let Some(client) = self.core.client_of_generation(generation) else { return };
        let is_ours = self.core.state().sessions.active_in_thread(&thread_id).next().is_some();
        if !is_ours || self.threads.is_attached(&client, &thread_id) {
            return;
        }
        if let Err(error) = self.look_at_thread(&client, &thread_id).await {
            tracing::warn!(%error, %thread_id, "failed to resume a thread that another client uses");
        }
    }

    /// Notes that the app-server has unloaded a thread.
    pub(in crate::daemon) fn forget(&self, generation: u64, thread_id: &ThreadId) {
        if let Some(client) = self.core.client_of_generation(generation) {
            self.threads.note_detached(&client, thread_id);
        }
    }

    /// Resumes a thread, so that its turns are heard of and its requests are repeated, and records how its turns ended.
    async fn look_at_thread(&self, client: &Client, thread_id: &ThreadId) -> Result<(), DaemonError> {
        let _thread_lock = self.threads.lock(thread_id).await;
        let session = self.core.state().sessions.active_in_thread(thread_id).next().cloned();
        match session {
            // It reads the turns too.
            Some(session) => self.threads.attach(client, session).await.map(drop),
            None => read_turns(&self.core, client, thread_id, None).await,
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
