//! Hooks: programs and URLs that get events of the log.
//!
//! [`Hooks`] owns the hooks, their files and one task for each ([`worker`]), which follows the log at the cursor of its hook
//! like any other subscriber. `daemon` adds and removes hooks and records what this layer reports; nothing here is on the
//! way of an event into the log.
//!
//! Invariants: the cursor of a hook moves over an event only when the event does not concern the hook, was delivered, or was
//! reported as skipped. At most one delivery of a hook is under way. An idle hook waits for the log and for nothing else.

mod backoff;
mod delivery;
mod gap;
mod hook;
mod payload;
mod set;
mod signature;
mod status;
mod store;
mod surroundings;
mod url;
mod webhook;
mod worker;

pub use delivery::Deliveries;
pub use hook::{NewHook, TargetView};
pub use set::{HookError, HookView, Hooks, TestResult};
pub use status::Counts;
pub use store::{CursorsFile, FoundHooks, HooksFile};
pub use surroundings::Surroundings;
