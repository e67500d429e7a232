//! The `service` object of status and health: the listener as clients see it.

use std::sync::atomic::Ordering;

use schemars::JsonSchema;
use serde::Serialize;

use crate::daemon::{CodexHealth, KeepAwakeView, SnapshotView};
use crate::http::app_state::SharedState;
use crate::http::auth::ForwardedAddress;

/// The listener, and whether turns can be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// The configured address.
    pub configured_base_url: String,
    /// The path of the event stream.
    pub event_stream_path: String,
    /// The URL of the event stream.
    pub event_stream_url: Option<String>,
    /// Whether the daemon is listening.
    pub listening: bool,
    /// Why no turn can be accepted, as a sentence.
    pub not_ready_reason: Option<String>,
    /// The health of Codex; it may be bad even if turns can be accepted, and they would fail.
    pub codex: CodexHealth,
    /// Whether the machine is kept from going to sleep by itself while turns run.
    pub keep_awake: KeepAwakeView,
    /// Whether turns can be accepted.
    pub ready: bool,
    /// The address that the daemon really listens at.
    pub resolved_base_url: Option<String>,
    /// The number of open WebSockets.
    pub websocket_clients: usize,
}

/// The response of `status`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StatusView {
    /// The listener.
    pub service: ServiceView,
    /// The state of the daemon, at one moment.
    pub snapshot: SnapshotView,
}

impl SharedState {
    /// The maximum size of a request body, in bytes.
    pub(crate) fn body_limit(&self) -> usize {
        self.daemon.config().http.body_limit
    }

    /// The current state of the listener, for a client that reaches it at this address.
    pub(crate) fn service_at(&self, address: Option<&ForwardedAddress>) -> ServiceView {
        let mut service = self.service();
        if let (Some(url), Some(address)) = (&mut service.event_stream_url, address) {
            *url = format!("{}{}", address.url("ws"), service.event_stream_path);
        }
        service
    }

    /// The current state of the listener.
    pub(crate) fn service(&self) -> ServiceView {
        let service = &self.daemon.config().service;
        let readiness = self.daemon.readiness();
        let listening = !self.shutdown.is_cancelled();
        ServiceView {
            configured_base_url: service.local_api_base.as_str().to_owned(),
            event_stream_path: service.event_stream_path.clone(),
            event_stream_url: listening.then(|| self.event_stream_url()),
            listening,
            not_ready_reason: readiness.reason,
            codex: self.daemon.codex(),
            keep_awake: self.daemon.keep_awake(),
            ready: readiness.ready,
            resolved_base_url: listening.then(|| self.base_url.clone()),
            websocket_clients: self.websocket_clients.load(Ordering::Relaxed),
        }
    }

    /// The current state of everything.
    pub(crate) fn status(&self) -> StatusView {
        StatusView { service: self.service(), snapshot: self.daemon.snapshot() }
    }

    /// The URL of the event stream, such as `ws://127.0.0.1:4319/v1/codexd/events`.
    pub(crate) fn event_stream_url(&self) -> String {
        let address = self.base_url.trim_start_matches("http://");
        format!("ws://{address}{}", self.daemon.config().service.event_stream_path)
    }
}
