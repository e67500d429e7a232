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

mod child;
mod client;
mod listener;
mod pending;
mod reader;
mod spawned;
mod supervisor;
#[cfg(test)]
mod tests;
mod websocket;
pub mod wire;

pub use child::{FindProgram, Program, StopPace};
pub use client::{CallError, Client};
pub use listener::{Backlog, Closed, Exit, Heard, Listener};
pub use supervisor::{App, Availability, Plan, Supervisor};
pub use websocket::Address;
