//! The services of codexd: start and stop, sessions, turns, the queue, Codex's requests, status.
//!
//! This file declares the modules and re-exports what `http`, `commands` and the tests use.
//! [`services`] has the [`Daemon`], which constructs the services; [`core`] has what they share.
//! Inside this module a file imports the file that defines an item, never a re-export, so there are no import cycles.

mod app_server;
mod app_server_events;
#[expect(clippy::disallowed_methods, reason = "threads of the recorder and of a pool call it")]
mod attachments;
#[expect(clippy::disallowed_methods, reason = "the backup command runs without an async runtime")]
mod backup;
mod calls;
mod catch_panic;
mod codex_health;
mod core;
mod directory_access;
mod error;
mod events;
mod hooks;
mod idempotency;
mod keep_awake;
mod lifecycle;
mod locks;
mod mcp_servers;
mod metrics;
mod queue;
mod recorder;
mod server_requests;
mod services;
mod sessions;
mod skipped_items;
mod status;
#[cfg(test)]
mod tests;
mod threads;
mod trust;
mod turns;
mod unsupported_methods;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use crate::daemon::app_server::child_file::ChildFile;
pub use crate::daemon::services::Daemon;
pub use crate::hooks::{HookView, NewHook, TargetView, TestResult};
pub(crate) use app_server::plan::plan_for_inspection;
pub use backup::{Backup, BackupError, back_up, restore};
pub use calls::{CallRequest, CallResult};
pub(crate) use catch_panic::{catch_panic, is_panic_caught};
pub(crate) use codex_health::refused_configuration;
pub use codex_health::restart::RestartView;
pub use codex_health::{CodexHealth, CodexState};
pub use directory_access::{PROTECTED_DIRECTORY, protected_directory_hint};
pub use error::DaemonError;
pub use events::event_types;
pub use idempotency::RequestKey;
pub use keep_awake::{KeepAwakeState, KeepAwakeView};
pub use lifecycle::StartError;
pub use mcp_servers::FailedMcpServer;
pub use metrics::{HookMetrics, Metrics};
pub use recorder::recovery::{OpenError, StateDirectories};
pub use server_requests::RequestAnswer;
pub use sessions::CreateSession;
pub use sessions::thread_list::{ListedThread, ThreadList, ThreadSelection};
pub use sessions::update::{MAX_LABEL_BYTES, SessionChanges};
pub use status::account::AccountReport;
pub use status::app_server::AppServerView;
pub use status::{Readiness, SessionView, SnapshotVersion, SnapshotView, event};
pub use trust::TrustChoice;
pub use turns::contents::TurnView;
pub use turns::interrupt::Interrupted;
pub use turns::{SubmitTurn, TurnAccepted, WhenBusy};
