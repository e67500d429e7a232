//! The app-server: what is said on the wire, the connection, the child process and who looks after it.
//!
//! ```text
//! stdin / WebSocket  ◄── writer task ◄── Client (numbers calls, remembers who waits) ◄── the daemon
//! stdout / WebSocket ──► reader task ──┬─ answer ──► whoever waits for it, in the order it came
//!                                      └─ notification, request ──► the Listener
//! ```
//!
//! Everything heard goes to a [`Listener`] that the caller hands in; this room does not know who listens.
//! Each connection is a generation: its calls, its reader and its listener die with it, so nothing that an older
//! one still says can reach the next.
//!
//! The [`Supervisor`] lives one generation after the other: when one has died, it ends what is left of it, waits as long
//! as the rule in `backoff.rs` says, and starts the next.

mod backoff;
mod child;
mod client;
pub mod deadline;
mod escapes;
mod guard;
mod life;
mod link;
mod listener;
mod liveness;
mod outline;
mod pending;
#[expect(
    clippy::disallowed_methods,
    reason = "its callers run it on a thread of its pool, or before anything is served"
)]
mod processes;
mod reader;
mod redact;
mod spawned;
mod supervisor;
mod tail;
#[cfg(test)]
mod tests;
mod wards;
mod websocket;
pub mod wire;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::{pending::Pending, reader::Ear, tail::Tail};
pub use child::{ChildRecord, FindProgram, Program, RecordChild, StopPace};
pub use client::{CallError, Client};
pub use escapes::EscapeFilter;
pub use guard::run as run_guard;
pub use listener::{Backlog, Closed, Exit, Heard, Listener, Setback};
pub use outline::Outline;
pub use processes::{INSTANCE, Identity, adopt_orphans, end_leftover, end_sandboxes, family_memory, memory};
pub use redact::redact;
pub use supervisor::{App, Availability, Failure, Plan, Supervisor, Waiting};
pub use websocket::Address;
