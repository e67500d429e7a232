//! The event `session.trust`.

use serde_json::json;

use crate::daemon::events::detail::add;
use crate::daemon::trust::decision::TrustDecision;
use crate::state::{Level, NewEvent, Trust, event_type};

/// The trust decision for a session's directory, where it is notable: the client requested trust, something in the
/// directory is not used, or the app-server's settings could not be read.
pub(crate) fn session_trust_if_notable(
    session_id: &str,
    thread_id: Option<&str>,
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
pub(crate) fn session_trust(session_id: &str, thread_id: Option<&str>, decision: &TrustDecision) -> NewEvent {
    let TrustDecision { trust, cwd, left_out, unreadable, .. } = decision;
    let directory = cwd.as_deref().unwrap_or("(the app-server's own directory)");
    let mut message = match trust {
        Trust::AsUser => format!("Session {session_id}: the user has decided about {directory}."),
        Trust::Trusted => format!("Session {session_id} trusts {directory}, as its client requested."),
        Trust::Untrusted => format!("Session {session_id} does not trust {directory}."),
    };
    if !left_out.is_empty() {
        message.push_str(&format!(" Not used: {}.", left_out.join(", ")));
    }
    let level = if unreadable.is_some() { Level::Warn } else { Level::Info };
    if let Some(reason) = unreadable {
        message.push_str(&format!(" The settings of Codex could not be read: {reason}"));
    }
    let mut detail = json!({
        "sessionId": session_id,
        "threadId": thread_id,
        "cwd": cwd,
        "trust": trust,
        "leftOut": left_out,
    });
    add(&mut detail, "unreadable", unreadable.as_ref());
    NewEvent::with_state_change(level, event_type::SESSION_TRUST, message, detail)
}
