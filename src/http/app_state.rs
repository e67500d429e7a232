//! The state that all handlers share.
//!
//! [`SharedState`] owns the request guard, the connection limiter, the subscribers and the counters of the listener.
//! `app` creates it; `routes::service` and `directories` add methods to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access_log::ResponseCounts;
use super::auth::RequestGuard;
use super::connections::ConnectionLimiter;
use super::stream::{SnapshotCache, Subscribers};
use crate::daemon::Daemon;

/// The daemon, and the state of the listener.
pub(super) struct SharedState {
    pub(super) daemon: Daemon,
    pub(super) guard: RequestGuard,
    /// The URL of the listener, such as `http://127.0.0.1:4319`.
    pub(super) base_url: String,
    /// The number of open WebSockets.
    pub(super) websocket_clients: AtomicUsize,
    pub(super) response_counts: ResponseCounts,
    pub(super) limiter: Arc<ConnectionLimiter>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) snapshots: SnapshotCache,
    /// The tasks that serve WebSockets.
    pub(super) websocket_tasks: TaskTracker,
    /// Cancelled when the daemon stops; ends every event stream.
    pub(super) shutdown: CancellationToken,
}

/// The state as the handlers get it.
pub(super) type AppState = Arc<SharedState>;

/// The URL of a listener, such as `http://127.0.0.1:4319`.
pub fn base_url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) if address.port() == 80 => format!("http://[{}]", address.ip()),
        SocketAddr::V4(address) if address.port() == 80 => format!("http://{}", address.ip()),
        _ => format!("http://{address}"),
    }
}
