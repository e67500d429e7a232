//! codexd: the always-on local home of OpenAI Codex.
//!
//! One process supervises `codex app-server`, keeps its sessions, and serves them over one loopback listener, by HTTP
//! and by WebSocket.
//! This page is the view from above; `docs/architecture.md` has the invariants, and `docs/api.md` the interface.
//!
//! # Theory of operation
//!
//! Everything that happens becomes one event in one append-only log.
//! The session records, the state files, the answers to requests and the streams of clients are views of that log, so
//! they cannot disagree about what happened, only about how far they have come.
//!
//! The app-server speaks JSON, one message a line, over the pipes of a child process, or one message a frame over the
//! WebSocket of somebody else's process.
//! A reader task cuts what it says into messages.
//! An answer goes to the call that waits for it; a notification becomes an event; a request is refused, and that becomes
//! an event too.
//!
//! One thread, the recorder, takes events in the order in which they came.
//! It numbers them, renders each once, writes them to the log, folds them into the records, and then wakes whoever
//! follows the log.
//! Whoever follows is a cursor: it takes lines from memory or, when it has fallen behind, from the file, and holds nobody
//! up.
//!
//! A request that changes something is a use case: it calls the app-server, and its event is recorded where the answer
//! stands in the stream.
//! The client gets its reply when that event is on disk.
//! Everything else reaches the disk at the latest with the next snapshots of the records, which are written at most once
//! a second; a start reads the snapshots and the log after them.
//!
//! The HTTP side stays up whatever the app-server does, and says how the app-server is.
//! Each connection to one is a generation: its calls, its reader and its listener end with it.
//!
//! # The rooms
//!
//! From the top to the bottom; a room knows only rooms that stand below it, and `tests/architecture.rs` sees to that.
//!
//! - [`commands`]: what the subcommands do; the order of a start and of a stop, signals, exit codes.
//! - `client`: the HTTP client of the daemon, for the commands.
//! - [`http`]: the edge; requests, answers, the table of errors, WebSockets.
//! - [`daemon`]: the use cases, the recorder, and the words of every event.
//! - [`service`]: the file that the system's service manager reads, and the calls to it.
//! - [`codex`]: the messages on the wire, the calls, the connections, the child process.
//! - [`journal`]: the log; lines and numbers, without a notion of what they mean.
//! - [`state`]: the records and the one rule that changes them; pure but for the snapshots.
//! - [`embedded`]: the fake app-server of the tests, for `codexd smoke`.
//! - [`cli`]: the command line, as words.
//! - [`blocking`]: bounded threads for calls that may block without end.
//! - [`config`]: flags over variables over defaults; the only reader of the environment.
//!
//! A room that is there for tests and fuzz targets only, `fuzzing`, says what must hold whatever comes from outside.
//!
//! Follow [`commands`] to `Running::start` to see how the parts are put together, and
//! [`daemon::Daemon::submit_turn`] to see a request through.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")
)]

#[expect(clippy::disallowed_types, reason = "its threads wait for calls, and do nothing else")]
pub mod blocking;
pub mod cli;
mod client;
pub mod codex;
pub mod commands;
#[expect(
    clippy::disallowed_methods,
    reason = "settings are read before anything is served, and the program is looked for on a thread of a pool"
)]
pub mod config;
pub mod daemon;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the embedded app-server is a process of its own, with threads of its own"
)]
pub mod embedded;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
#[expect(
    clippy::disallowed_methods,
    reason = "the log is written by the recorder's thread, read on threads of a pool, and opened before anything is served"
)]
pub mod journal;
#[expect(clippy::disallowed_methods, reason = "it is used by commands that are processes of their own")]
pub mod service;
pub mod state;
#[expect(
    clippy::disallowed_methods,
    reason = "its callers are threads with one purpose, or run it on a thread of a pool"
)]
pub mod storage;
pub mod time;
