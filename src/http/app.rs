//! Responds to every request: checks it, routes it, and logs it.
//!
//! [`App`] owns the router and the shared state. `server` calls [`App::respond`]; `commands::start` creates the app and
//! closes its WebSockets when the daemon stops.
//!
//! Invariant: a request that comes from outside reaches the router in [`App::respond`] only, after the request guard has
//! admitted it; [`App::respond_locally`] takes those that a tool of `/mcp` makes for such a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::response::Response;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::access_log::{Access, ResponseCounts};
use super::app_state::{AppState, SharedState, base_url};
use super::auth::peer::Peer;
use super::auth::{self, Admission, AllowedClients, Assurance, RequestGuard};
use super::body;
use super::connections::ConnectionLimiter;
use super::error::ApiError;
use super::router::router;
use super::routes::mcp::McpService;
use super::routes::service::StatusView;
use super::stream::{self, SnapshotCache};
use crate::daemon::{Daemon, catch_panic};

/// The router and the state of its handlers; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(super) state: AppState,
    pub(super) router: Router,
    /// The handler of `/mcp`; `None` in the app that it calls itself.
    mcp: Option<McpService>,
}

impl App {
    /// Returns the app of `daemon`, for a listener at `address`. With a token file in `clients`, requests need the token
    /// that it contains.
    pub fn new(daemon: Daemon, address: SocketAddr, clients: AllowedClients) -> Self {
        let config = &daemon.config().http;
        let guard = RequestGuard::new(address, &config.allowed_host, &config.allowed_origin, clients);
        let limiter = ConnectionLimiter::new(daemon.config().http.connection_limit);
        let state = Arc::new(SharedState {
            daemon,
            guard,
            base_url: base_url(address),
            websocket_clients: AtomicUsize::new(0),
            response_counts: ResponseCounts::default(),
            limiter,
            subscribers: Arc::default(),
            snapshots: SnapshotCache::default(),
            websocket_tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        let router = router(&state);
        Self { state, router, mcp: None }
    }

    /// The same app with a handler of `/mcp`.
    pub(crate) fn with_mcp(self, mcp: McpService) -> Self {
        Self { mcp: Some(mcp), ..self }
    }

    /// Cancelled when the daemon stops.
    pub(crate) fn shutdown(&self) -> CancellationToken {
        self.state.shutdown.clone()
    }

    /// Responds to a request of this process, which needs no admission: it comes from a request that was admitted.
    pub(crate) async fn respond_locally(&self, request: Request) -> Response {
        self.route(request).await
    }

    /// Responds to one request of `peer`; trailing slashes of its path are ignored.
    ///
    /// The request is not routed and its body is not read before the guard has admitted it.
    pub async fn respond(&self, peer: &Peer, mut request: Request) -> Response {
        if let Some(uri) = without_trailing_slashes(request.uri()) {
            *request.uri_mut() = uri;
        }
        let access = Access::begin(&request);
        let (head, body) = request.into_parts();
        let guard = &self.state.guard;
        let origin = guard.readable_origin(&head.headers);
        let mut response = match guard.check(peer, &head).await {
            // An encoded body is rejected unread.
            Ok(Admission::Granted(_)) if body::is_encoded(&head.headers, &body) => {
                ApiError::unsupported_encoding().into_closing_response()
            }
            Ok(Admission::Granted(credential)) => {
                let mut request = Request::from_parts(head, body);
                request.extensions_mut().insert(Arc::clone(&access));
                request.extensions_mut().insert(Assurance::of(peer, credential));
                request.extensions_mut().insert(self.mcp.clone());
                let forwarded = guard.forwarded_address(request.headers());
                credential.map(|credential| request.extensions_mut().insert(credential));
                forwarded.map(|address| request.extensions_mut().insert(address));
                self.route(request).await
            }
            Ok(Admission::Preflight) => auth::preflight_response(&head.headers),
            Err(error) => error.into_closing_response(),
        };
        if let Some(origin) = origin {
            auth::add_cors_headers(origin, response.headers_mut());
        }
        self.state.response_counts.count(&response);
        access.record_response(response)
    }

    async fn route(&self, request: Request) -> Response {
        match catch_panic(self.router.clone().oneshot(request)).await {
            Ok(Ok(response)) => response,
            // The handler panicked; the panic was logged.
            Err(_) => ApiError::internal().into_closing_response(),
        }
    }

    /// The current state of the listener and the daemon.
    pub fn status(&self) -> StatusView {
        self.state.status()
    }

    /// Closes every WebSocket with 1001 and waits until all are closed, slightly longer than [`stream::CLOSE_TIMEOUT`]
    /// at most.
    pub async fn close_websockets(&self) {
        self.state.shutdown.cancel();
        self.state.websocket_tasks.close();
        // Each WebSocket enforces the limit itself, except one whose handshake is not complete yet.
        let closed = tokio::time::timeout(stream::CLOSE_TIMEOUT * 5 / 4, self.state.websocket_tasks.wait());
        if closed.await.is_err() {
            tracing::warn!(
                open = self.state.websocket_tasks.len(),
                "failed to close all WebSockets in time: their clients do not read"
            );
        }
    }
}

/// The URI without trailing slashes of its path; `None` if it has none.
fn without_trailing_slashes(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || path == "/" {
        return None;
    }
    let path = if trimmed.is_empty() { "/" } else { trimmed };
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.parse().ok()?);
    Uri::from_parts(parts).ok()
}
