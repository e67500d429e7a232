//! The open requests by connection, and the rule that each is resolved by one caller.
//!
//! A caller claims the entry before it answers the app-server, and the entry is removed when the resolution is recorded.
//! So of two callers that resolve a request at once the second finds either the claim of the first, and waits for it, or
//! no entry, and then the resolution has already been sent to the recorder.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::codex::rpc::wire::RpcId;
use crate::daemon::events;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::Input;
use crate::ids::{RequestId, TurnId};
use crate::state::{Resolution, ResolvedBy};

/// A request that waits.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct OpenRequest {
    /// The connection over which it came.
    pub(in crate::daemon) generation: u64,
    /// Its id there.
    pub(in crate::daemon) id: RpcId,
    /// The turn that waits for it.
    pub(in crate::daemon) turn_id: Option<TurnId>,
}

/// An entry of the table.
#[derive(Debug)]
struct Waiting {
    open: OpenRequest,
    /// Closes when the caller that claimed it is done; `None` while it is not claimed.
    claimed: Option<watch::Receiver<()>>,
}

/// The open requests; shared by the handlers of events and the use cases that answer.
pub(in crate::daemon) struct OpenRequests {
    pub(super) recorder: Recorder,
    table: Mutex<HashMap<RequestId, Waiting>>,
}

/// The result of claiming a request.
pub(in crate::daemon) enum ClaimResult {
    /// The caller resolves it.
    Claimed(Claim),
    /// Another caller is resolving it; the receiver closes when that is over, one way or the other.
    ClaimedByOther(watch::Receiver<()>),
    /// Its resolution has been sent to the recorder, or is recorded.
    Resolved,
}

/// A claim on one request; dropped before [`Claim::recorded`], it leaves the request open.
pub(in crate::daemon) struct Claim {
    requests: Arc<OpenRequests>,
    request_id: RequestId,
    open: OpenRequest,
    /// Dropped after the table was changed, so that those who wait see the change.
    _over: watch::Sender<()>,
}

impl Claim {
    /// The request, as the connection knows it.
    pub(in crate::daemon) fn open(&self) -> &OpenRequest {
        &self.open
    }

    /// Removes the request from the table; its resolution is recorded.
    pub(in crate::daemon) fn recorded(self) {
        self.requests.lock().remove(&self.request_id);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(waiting) = self.requests.lock().get_mut(&self.request_id) {
            waiting.claimed = None;
        }
    }
}

impl OpenRequests {
    pub(in crate::daemon) fn new(recorder: Recorder) -> Self {
        Self { recorder, table: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Waiting>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request.
    pub(in crate::daemon) fn insert(&self, request_id: RequestId, open: OpenRequest) {
        self.lock().insert(request_id, Waiting { open, claimed: None });
    }

    /// Whether the request waits on a connection.
    pub(in crate::daemon) fn is_open(&self, request_id: &RequestId) -> bool {
        self.lock().contains_key(request_id)
    }

    /// Claims a request, unless another caller has.
    pub(in crate::daemon) fn claim(self: &Arc<Self>, request_id: &RequestId) -> ClaimResult {
        let mut table = self.lock();
        let Some(waiting) = table.get_mut(request_id) else { return ClaimResult::Resolved };
        if let Some(claimed) = &waiting.claimed {
            return ClaimResult::ClaimedByOther(claimed.clone());
        }
        let (over, claimed) = watch::channel(());
        waiting.claimed = Some(claimed);
        ClaimResult::Claimed(Claim {
            requests: Arc::clone(self),
            request_id: request_id.clone(),
            open: waiting.open.clone(),
            _over: over,
        })
    }

    /// The app-server no longer waits for this answer.
    ///
    /// It reports answered requests too; their end is recorded by the caller that answered. The requests of a turn that ends
    /// are reported after the end of the turn (measured on 0.171.0), so where there are other clients one of them answered
    /// what is reported before.
    pub(in crate::daemon) fn resolved_by_app_server(
        &self,
        generation: u64,
        id: &str,
        has_other_clients: bool,
    ) {
        let is_it = |open: &OpenRequest| open.generation == generation && open.id.get() == id;
        let (by, reason) = match has_other_clients {
            true => (ResolvedBy::OtherClient, "Another client of the app-server answered it."),
            false => (ResolvedBy::AppServer, "The app-server no longer waits for it."),
        };
        self.end(is_it, by, reason);
    }

    /// A turn is over, and with it what it waited for.
    pub(in crate::daemon) fn ended_with_turn(&self, generation: u64, turn_id: &TurnId) {
        let of_turn =
            |open: &OpenRequest| open.generation == generation && open.turn_id.as_ref() == Some(turn_id);
        self.end(of_turn, ResolvedBy::TurnEnd, "Its turn is over.");
    }

    /// Resolves unclaimed requests, and sends that to the recorder before another caller sees the table.
    fn end(&self, is_over: impl Fn(&OpenRequest) -> bool, by: ResolvedBy, reason: &str) {
        let mut table = self.lock();
        let over = |waiting: &Waiting| waiting.claimed.is_none() && is_over(&waiting.open);
        let ended: Vec<_> = table
            .iter()
            .filter(|(_, waiting)| over(waiting))
            .map(|(request_id, _)| request_id.clone())
            .collect();
        for request_id in ended {
            let Entry::Occupied(entry) = table.entry(request_id) else { continue };
            let resolution = Resolution {
                request_id: entry.remove_entry().0,
                resolved_by: by,
                decision: None,
                reason: Some(reason.to_owned()),
            };
            self.recorder.send(Input::Build(Box::new(move |state| {
                let request = state.requests.get(&resolution.request_id);
                vec![events::request_resolved(request.map(|request| &**request), &resolution)]
            })));
        }
    }

    /// Removes the requests of a connection that ended; the recorder ends their records.
    pub(in crate::daemon) fn forget(&self, generation: u64) {
        self.lock().retain(|_, waiting| waiting.open.generation > generation);
    }
}
