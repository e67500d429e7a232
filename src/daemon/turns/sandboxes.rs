//! Ending the sandboxes of a thread's commands before and after an interrupt.

use std::time::Duration;

use crate::codex;
use crate::config::{ChildStrategy, Config};
use crate::ids::ThreadId;

/// How long the sandboxes of commands may take to end before their turn is interrupted; they need 20 to 50 ms (measured on
/// 0.169.0 and 0.171.0).
///
/// In the first 250 ms of a command an interrupt ends it with SIGKILL, and later not at all, so the sandboxes get SIGTERM
/// before it. Only a model that answers within this time could start another command.
pub(in crate::daemon) const SANDBOX_GRACE_BEFORE_INTERRUPT: Duration = Duration::from_millis(200);
/// The same after the interrupt, before what still runs is ended.
pub(in crate::daemon) const SANDBOX_GRACE_AFTER_INTERRUPT: Duration = Duration::from_secs(1);

/// Lets the sandboxes in which commands of this thread run remove the files they created in the user's directories;
/// Codex ends them without giving them time for that.
pub(in crate::daemon) async fn end_sandboxes(config: &Config, thread_id: &ThreadId, grace: Duration) {
    if config.server.strategy != ChildStrategy::External {
        codex::end_sandboxes(thread_id, grace).await;
    }
}
