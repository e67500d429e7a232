//! Everything this program knows of Codex's protocol: the names on the wire, what they mean, and how they changed.
//!
//! A new Codex release changes this directory and nothing else: the other modules use these names, types and functions,
//! and `tests/architecture/protocol.rs` rejects a method name or an enum value of the protocol anywhere else.
//! Everything here is pure and owns no state, so that every layer may use it.
//!
//! Decoding is lenient: unknown fields are ignored, unknown methods and values pass through.
//! Facts are measured on Codex 0.140.0 to 0.171.0 unless a comment names a version.

pub mod account;
pub mod calls;
pub mod config;
pub mod decisions;
pub mod delta;
pub mod environment;
pub mod errors;
pub mod items;
pub mod methods;
pub mod notifications;
pub mod parameters;
pub mod responses;
pub mod server_requests;
pub mod thread_changes;
pub mod usage_limits;
pub mod values;
pub mod versions;
