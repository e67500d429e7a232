//! The event `session.trust`.

use crate::daemon::trust::decision::TrustDecision;
use crate::ids::{SessionId, ThreadId};
use crate::state::{NewEvent, SessionEvent, Trust};

/// The trust decision for a session's directory, where it is notable: the client requested trust, something in the
/// directory is not used, or the app-server's settings could not be read.
pub(crate) fn session_trust_if_notable(
    session_id: &SessionId,
    thread_id: Option<&ThreadId>,
    decision: &TrustDecision,
) -> Option<NewEvent> {
    let is_notable = match decision.trust {
        Trust::AsUser => false,
        Trust::Trusted => true,
        Trust::Untrusted => !decision.left_out.is_empty() || decision.unreadable.is_some(),
    };
    is_notable.then(|| session_trust(session_id, thread_id, decision))
}

/// The trust decision for a session's directory.
pub(crate) fn session_trust(
    session_id: &SessionId,
    thread_id: Option<&ThreadId>,
    decision: &TrustDecision,
) -> NewEvent {
    SessionEvent::Trust {
        session_id: session_id.clone(),
        thread_id: thread_id.cloned(),
        cwd: decision.cwd.clone(),
        trust: decision.trust,
        left_out: decision.left_out.clone(),
        unreadable: decision.unreadable.clone(),
    }
    .into()
}
