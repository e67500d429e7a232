//! The record of a session after its thread was opened.

use crate::codex::protocol::responses::OpenedThread;
use crate::state::{Session, Trust};
use crate::time::rfc3339_now;

/// The session on a thread that was opened, in a directory about which this was decided.
pub(super) fn on_thread(thread: OpenedThread, session: Session, trust: Trust) -> Session {
    Session {
        trust,
        thread_id: Some(thread.thread.id),
        updated_at: rfc3339_now(),
        cwd: thread.cwd,
        model: thread.model,
        model_provider: thread.model_provider,
        service_tier: thread.service_tier,
        reasoning_effort: thread.reasoning_effort,
        ..session
    }
}
