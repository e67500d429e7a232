//! `GET /healthz` and `GET /v1/codexd/status`. Stateless.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::app_state::AppState;
use crate::http::response;
use crate::http::routes::service::ServiceView;

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
pub(crate) async fn healthz(State(state): State<AppState>) -> Response {
    response::json(StatusCode::OK, &Health { ok: true, service: state.service(), status: "ok" })
}

/// A snapshot of the complete state.
pub(crate) async fn status(State(state): State<AppState>) -> Response {
    response::data(StatusCode::OK, state.status())
}
