//! The request handlers, one module per resource. `router` refers to them; they call the daemon.

pub(super) mod app_server;
pub(super) mod calls;
pub(super) mod describe;
pub(super) mod health;
pub(super) mod hooks;
pub(super) mod mcp;
pub(super) mod metrics;
pub(super) mod requests;
pub(super) mod service;
pub(super) mod sessions;
pub(super) mod threads;
pub(super) mod turns;
