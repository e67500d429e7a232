//! codexd: a local daemon that supervises OpenAI Codex's app-server and serves it over HTTP, SSE and WebSocket.
//!
//! This page explains how it works. `docs/architecture.md` has the invariants, and `docs/api.md` the interface.
//!
//! # Theory of operation
//!
//! Everything that happens becomes one event in one append-only log. Session records, state files, responses and event
//! streams are views of that log, so they cannot disagree about what happened, only about how far they have read.
//!
//! The app-server speaks JSON: one message per line over the pipes of a child process, or one message per frame over the
//! WebSocket of an external process. A reader task decodes the messages. A response goes to its pending call, a notification
//! becomes an event, and a server request is kept until a client answers it, which makes events too.
//!
//! One thread, the recorder, takes events in order of arrival. It numbers them, renders each once, writes them to the log,
//! folds them into the records, and then wakes the subscribers. A subscriber is a cursor: it takes lines from memory or,
//! when it is behind, from the files, and never blocks the recorder.
//!
//! An HTTP request that changes something calls the app-server, and its event is recorded at the response's position in the
//! stream. The client gets its response when that event is on disk. All other events are on disk at the latest with the next
//! snapshots of the records, which are written at most once a second. A start reads the snapshots and the log after them.
//!
//! The HTTP side does not depend on the app-server and reports its health. Each connection to an app-server
//! is a generation: its calls, its reader and its listeners end with it.
//!
//! # The layers
//!
//! From top to bottom; a layer uses only lower layers, which `tests/architecture.rs` checks.
//!
//! - [`commands`]: the subcommands; the order of start and stop, signals, exit codes.
//! - `mcp`: the tools for clients of the Model Context Protocol.
//! - `client`: the HTTP client of the daemon, for the commands and the tools.
//! - [`http`]: routes, requests and responses, the table of errors, event streams, WebSockets.
//! - [`daemon`]: sessions, turns and server requests, and the recorder.
//! - [`hooks`]: programs and URLs that get events of the log.
//! - [`service`]: the unit file of the system's service manager, and the calls to it.
//! - [`codex`]: the protocol, calls, connections and the child process.
//! - [`journal`]: the log; it knows lines and sequence numbers but not their meaning.
//! - [`state`]: every event, the records, and the one function that changes them; pure except for the snapshots.
//! - [`demo`]: an app-server with prepared answers, for `codexd start --demo` and `codexd smoke`; a separate process.
//! - [`cli`]: parses the command line.
//! - [`config`]: flags, environment variables and defaults; the only reader of the environment.
//! - [`ids`]: the types of ids.
//! - [`storage`]: every file operation.
//! - [`blocking`]: bounded thread pools for calls that may hang.
//! - [`time`](mod@time): wall-clock deadlines.
//! - [`timestamp`]: the times of events and records.
//!
//! The layer `fuzzing`, for tests and fuzz targets only, has the properties that must hold for any input.
//!
//! Start at [`commands`] and `Running::start` to see how the parts are put together, and at
//! [`daemon::Daemon::submit_turn`] to follow a request.

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "tests may block: each runs on a separate thread")
)]

#[expect(clippy::disallowed_types, reason = "its threads wait for calls, and do nothing else")]
pub mod blocking;
pub mod cli;
mod client;
pub mod codex;
pub mod commands;
#[expect(
    clippy::disallowed_methods,
    reason = "settings are read before anything is served, and the program is searched on a thread of a pool"
)]
pub mod config;
pub mod daemon;
#[expect(
    clippy::disallowed_methods,
    reason = "the demo app-server is a separate process without an async runtime"
)]
pub mod demo;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hooks;
pub mod http;
pub mod ids;
#[expect(
    clippy::disallowed_methods,
    reason = "the log is written by the recorder's thread, read on threads of a pool, and opened before anything is served"
)]
pub mod journal;
mod mcp;
#[expect(clippy::disallowed_methods, reason = "it is used by commands, which are separate processes")]
pub mod service;
pub mod state;
#[expect(
    clippy::disallowed_methods,
    reason = "its callers are threads with one purpose, or run it on a thread of a pool"
)]
pub mod storage;
pub mod time;
pub mod timestamp;
