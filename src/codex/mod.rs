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

pub use listener::{Backlog, Closed, Heard, Listener, Setback};
pub use process::child::{ChildRecord, FindProgram, Program, RecordChild};
pub use process::escapes::EscapeFilter;
pub use process::exit::Exit;
pub use process::filter::INSTANCE;
pub use process::guard::run as run_guard;
pub use process::identity::Identity;
pub use process::memory::{family_memory, memory};
pub use process::platform::adopt_orphans;
pub use process::sandbox::end_sandboxes;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use process::stderr_tail::Tail;
pub use process::stop_pace::StopPace;
pub use process::sweep::end_leftover;
pub use redact::redact;
pub use rpc::call_error::CallError;
pub use rpc::client::Client;
pub use rpc::outline::Outline;
pub use rpc::wire;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rpc::{pending::Pending, reader::Ear};
pub use supervisor::availability::{Availability, Failure, Waiting};
pub use supervisor::plan::{App, Plan};
pub use supervisor::task::Supervisor;
pub use transport::websocket::Address;
