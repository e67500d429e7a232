//! `GET /v1/codexd/app-server`: the app-server, its version and the installed one; its restart; and the account.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::{AccountReport, AppServerView, RestartView};
use crate::http::app_state::AppState;
use crate::http::bodies::RestartAppServer;
use crate::http::body::Fields;
use crate::http::error::ApiError;
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

/// The account.
#[derive(Serialize, JsonSchema)]
pub(crate) struct OneAccount {
    account: AccountReport,
}

/// Reads the account of Codex, its limits and its usage.
pub(crate) async fn account(State(state): State<AppState>) -> Result<Response, ApiError> {
    let account = state.daemon.account().await?;
    Ok(response::data(StatusCode::OK, OneAccount { account }))
}

/// What a restart waits for.
#[derive(Serialize, JsonSchema)]
pub(crate) struct RestartAnswer {
    restart: RestartView,
    /// The fields of the body that were ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    ignored: Option<Vec<String>>,
}

/// Restarts the app-server.
pub(crate) async fn restart(State(state): State<AppState>, body: Body) -> Result<Response, ApiError> {
    let (RestartAppServer { drain_seconds, force }, ignored) =
        Fields::read(body, state.body_limit()).await?.parse()?;
    let drain = drain_seconds.map(|seconds| Duration::from_secs(seconds.0));
    let restart = state.daemon.restart_app_server(drain, force.unwrap_or_default())?;
    let answer = RestartAnswer { restart, ignored: response::non_empty(ignored.clone()) };
    Ok(response::with_ignored_header(response::data(StatusCode::ACCEPTED, answer), &ignored))
}
