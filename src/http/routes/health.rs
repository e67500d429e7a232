//! `GET /healthz` and `GET /v1/codexd/status`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::{AppState, ServiceView, response};

/// How the daemon is.
#[derive(Serialize, JsonSchema)]
pub(in crate::http) struct Health {
    #[schemars(extend("const" = true))]
    ok: bool,
    service: ServiceView,
    /// `ok` as long as the daemon answers.
    status: &'static str,
}

/// 200 as long as the daemon lives; whether turns can be taken stands in `service`.
pub(in crate::http) async fn healthz(State(state): State<AppState>) -> Response {
    response::json(StatusCode::OK, &Health { ok: true, service: state.service(), status: "ok" })
}

/// Everything at one moment.
pub(in crate::http) async fn status(State(state): State<AppState>) -> Response {
    response::data(StatusCode::OK, state.status())
}
