//! The state of the handlers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access_log::ResponseCounts;
use super::auth::RequestGuard;
use super::auth::token::Digest;
use super::limits::connections::ConnectionLimiter;
use super::stream::Subscribers;
use crate::daemon::Daemon;

/// What every handler can reach.
pub(super) struct SharedState {
    pub(super) daemon: Daemon,
    pub(super) guard: RequestGuard,
    /// Where it really listens, such as `http://127.0.0.1:4319`.
    pub(super) base_url: String,
    pub(super) websocket_clients: AtomicUsize,
    pub(super) response_counts: ResponseCounts,
    pub(super) limiter: Arc<ConnectionLimiter>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) websocket_tasks: TaskTracker,
    /// Cancelled when the daemon stops; ends every event stream.
    pub(super) shutdown: CancellationToken,
}

/// What let a request in, for those who are still served when it may no longer hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credential(pub(super) Option<Digest>);

/// The state of the handlers.
pub(super) type AppState = Arc<SharedState>;

/// The URL of a listener, such as `http://127.0.0.1:4319`.
pub fn base_url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) if address.port() == 80 => format!("http://[{}]", address.ip()),
        SocketAddr::V4(address) if address.port() == 80 => format!("http://{}", address.ip()),
        _ => format!("http://{address}"),
    }
}
