//! `GET /healthz` and `GET /v1/codexd/status`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Handle, ServiceView, answer};

/// How the daemon is.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    #[schemars(extend("const" = true))]
    ok: bool,
    service: ServiceView,
    /// `ok` as long as the daemon answers.
    status: &'static str,
}

/// 200 as long as the daemon lives; whether turns can be taken stands in `service`.
pub(super) async fn healthz(State(edge): State<Handle>) -> Response {
    answer::json(StatusCode::OK, &Health { ok: true, service: edge.service(), status: "ok" })
}

/// Everything at one moment.
pub(super) async fn status(State(edge): State<Handle>) -> Response {
    answer::data(StatusCode::OK, edge.status())
}
