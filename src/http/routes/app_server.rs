//! `GET /v1/codexd/app-server`: the app-server, its version and the installed one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::AppServerView;
use crate::http::app_state::AppState;
use crate::http::response;

/// The app-server.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OneAppServer {
    app_server: AppServerView,
}

/// Reads the app-server.
pub(crate) async fn read(State(state): State<AppState>) -> Response {
    response::data(StatusCode::OK, OneAppServer { app_server: state.daemon.app_server().await })
}
