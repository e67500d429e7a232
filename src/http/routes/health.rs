//! `GET /healthz` and `GET /v1/codexd/status`. Stateless.

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::event;
use crate::http::app_state::AppState;
use crate::http::auth::ForwardedAddress;
use crate::http::long_response::LongResponse;
use crate::http::response;
use crate::http::routes::service::{ServiceView, StatusView};
use crate::state::SessionBody;

/// The address that the client uses, if it uses one of `--allowed-host`.
pub(crate) type Address = Option<Extension<ForwardedAddress>>;

/// The health of the daemon.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Health {
    #[schemars(extend("const" = true))]
    ok: bool,
    service: ServiceView,
    /// `ok` while the daemon answers.
    status: &'static str,
}

/// 200 while the daemon runs; `service` reports whether turns can be accepted.
pub(crate) async fn healthz(State(state): State<AppState>, address: Address) -> Response {
    let service = state.service_at(address.as_deref());
    response::json(StatusCode::OK, &Health { ok: true, service, status: "ok" })
}

/// A snapshot of the complete state.
pub(crate) async fn status(State(state): State<AppState>, address: Address) -> Response {
    let service = state.service_at(address.as_deref());
    let mut snapshot = state.daemon.snapshot();
    let sessions = std::mem::take(&mut snapshot.session_registry.sessions);
    let events = std::mem::take(&mut snapshot.recent_events.events);
    LongResponse::new(StatusCode::OK, StatusView { service, snapshot })
        .with_list(
            &["data", "snapshot", "sessionRegistry", "sessions"],
            sessions.into_iter().map(|session| SessionBody::from(&*session)),
        )
        .with_list(
            &["data", "snapshot", "recentEvents", "events"],
            events.0.into_iter().map(|line| event(&line)),
        )
        .into_response()
}
