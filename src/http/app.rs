//! The app: the guard, the router and the access log around every request.

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
use super::app_state::{AppState, Credential, SharedState, base_url};
use super::auth::peer::Peer;
use super::auth::token::TokenFile;
use super::auth::{self, Admission, RequestGuard};
use super::body;
use super::error::ApiError;
use super::limits::connections::ConnectionLimiter;
use super::router::router;
use super::routes::service::StatusView;
use super::stream;
use crate::daemon::{Daemon, catch_panic};

/// What every handler can reach; cheap to clone.
#[derive(Clone)]
pub struct App {
    pub(super) state: AppState,
    pub(super) router: Router,
}

impl App {
    /// The edge of `daemon`, which listens at `address` and, with a token file, lets nobody in without the token.
    pub fn new(daemon: Daemon, address: SocketAddr, token: Option<TokenFile>) -> Self {
        let guard = RequestGuard::new(address, &daemon.config().service.allowed_origins, token);
        let limiter = ConnectionLimiter::new(daemon.config().service.connections);
        let state = Arc::new(SharedState {
            daemon,
            guard,
            base_url: base_url(address),
            websocket_clients: AtomicUsize::new(0),
            response_counts: ResponseCounts::default(),
            limiter,
            subscribers: Arc::default(),
            websocket_tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        let router = router(&state);
        Self { state, router }
    }

    /// ResponseCounts one request of `peer`; trailing slashes of its path are ignored.
    ///
    /// The only way in: nothing is routed and no body is read before the door was passed.
    pub async fn respond(&self, peer: &Peer, mut request: Request) -> Response {
        if let Some(uri) = without_trailing_slashes(request.uri()) {
            *request.uri_mut() = uri;
        }
        let access = Access::begin(&request);
        let (head, body) = request.into_parts();
        let guard = &self.state.guard;
        let origin = guard.readable_origin(&head.headers);
        let mut response = match guard.check(peer, &head).await {
            // What cannot be read is not read.
            Ok(Admission::Granted(_)) if body::is_encoded(&head.headers, &body) => {
                ApiError::unsupported_encoding().into_closing_response()
            }
            Ok(Admission::Granted(credential)) => {
                let mut request = Request::from_parts(head, body);
                request.extensions_mut().insert(Arc::clone(&access));
                request.extensions_mut().insert(Credential(credential));
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
            // A handler that panicked; the log says where.
            Err(_) => ApiError::internal().into_closing_response(),
        }
    }

    /// Everything as it is now.
    pub fn status(&self) -> StatusView {
        self.state.status()
    }

    /// Closes every WebSocket with 1001 and waits until they are closed, but for no client longer than
    /// [`stream::CLOSE_TIMEOUT`] and a little.
    pub async fn close_websockets(&self) {
        self.state.shutdown.cancel();
        self.state.websocket_tasks.close();
        // Each socket keeps the limit by itself, but for one whose handshake is not through yet.
        let closed = tokio::time::timeout(stream::CLOSE_TIMEOUT * 5 / 4, self.state.websocket_tasks.wait());
        if closed.await.is_err() {
            tracing::warn!(
                left = self.state.websocket_tasks.len(),
                "WebSockets are left whose clients take nothing"
            );
        }
    }
}

/// What the door at `address` says to a request: `None` when it stays outside, else whether it is a preflight.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check_without_token_file(
    address: SocketAddr,
    origins: &[String],
    peer: &Peer,
    request: &axum::http::request::Parts,
) -> Option<bool> {
    let admission = RequestGuard::new(address, origins, None).check_without_token_file(peer, request).ok()?;
    Some(admission == Admission::Preflight)
}

/// The same address with a path that ends in no slash; `None` when it is already so.
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
