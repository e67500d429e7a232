//! The connection to Codex's app-server, and the process behind it.
//!
//! ```text
//! stdin / WebSocket  ◄── writer task ◄── Client (assigns IDs, keeps pending calls) ◄── daemon
//! stdout / WebSocket ──► reader task ──┬─ response ──► the pending call, in order of arrival
//!                                      └─ notification, request ──► the Listener
//! ```
//!
//! `daemon` starts a [`Supervisor`] and gives it a [`Listener`], which receives every event; this layer does not know what
//! becomes of them. Each connection is a generation with its own calls, reader and listeners, so messages of an older
//! generation cannot reach a newer one. After a failure the supervisor ends what is left of the generation, waits as long
//! by the policy in `supervisor/backoff.rs`, and starts the next one.

mod listener;
pub mod process;
pub mod protocol;
mod redact;
pub mod rpc;
mod supervisor;
#[cfg(test)]
mod tests;
mod transport;

pub use listener::{AppServerEvent, Backlog, Closed, Listener, RestartScheduled};
pub use process::child::{ChildRecord, FindProgram, Program, RecordChild};
pub use process::detached::{DetachedProgram, OpenOutput, run as run_detached};
pub use process::escapes::EscapeFilter;
pub use process::exit::Exit;
pub use process::filter::INSTANCE_VARIABLE;
pub use process::guard::run as run_guard;
pub use process::identity::Identity;
pub use process::info::KnownProcess;
pub use process::memory::{memory, tree_memory};
pub use process::platform::become_subreaper;
pub use process::program::{OneProgram, ProgramRunner};
pub use process::sandbox::end_sandboxes;
pub(crate) use process::stderr_tail::ERROR_OUTPUT_LABEL;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use process::stderr_tail::StderrTail;
pub use process::stop_pace::StopPace;
pub use process::sweep::{end_leftover, end_leftover_programs};
pub use process::version::{VersionQuery, VersionReader};
pub use redact::redact;
pub use rpc::call_error::CallError;
pub use rpc::client::{Client, Wait};
pub use rpc::outline::Outline;
pub use rpc::pending::OnReply;
pub use rpc::wire;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use rpc::{
    pending::{Pending, PendingCall},
    reader::MessageReader,
};
pub use supervisor::availability::{Availability, Failure, Waiting};
pub use supervisor::plan::{App, KnownServer, Plan, RecordServer, SharedProcess, SharedServer};
pub use supervisor::task::Supervisor;
pub use transport::websocket::Address;
