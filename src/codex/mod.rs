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

mod listener;
pub mod process;
pub mod protocol;
mod redact;
pub mod rpc;
mod supervisor;
#[cfg(test)]
mod tests;
mod transport;

pub use listener::{Backlog, Closed, Exit, Heard, Listener, Setback};
pub use process::child::{ChildRecord, FindProgram, Program, RecordChild, StopPace};
pub use process::escapes::EscapeFilter;
pub use process::guard::run as run_guard;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use process::stderr_tail::Tail;
pub use process::tree::{
    INSTANCE, Identity, adopt_orphans, end_leftover, end_sandboxes, family_memory, memory,
};
pub use redact::redact;
pub use rpc::client::{CallError, Client};
pub use rpc::outline::Outline;
pub use rpc::wire;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rpc::{pending::Pending, reader::Ear};
pub use supervisor::task::{App, Availability, Failure, Plan, Supervisor, Waiting};
pub use transport::websocket::Address;
