//! The handlers, one module per resource.

pub(super) mod describe;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod requests;
pub(super) mod service;
pub(super) mod sessions;
pub(super) mod turns;
