//! The stable parameters of the methods that open threads and start turns, as Codex 0.171.0 has them.
//!
//! Stateless. Clients pass them through `POST /v1/codexd/sessions` and `POST /v1/codexd/turn`; a test compares the tables with
//! the schema of the installed Codex, so that a new parameter is noticed.

use super::methods;

/// The parameters of a method.
#[derive(Debug)]
pub struct Parameters {
    /// The method.
    pub method: &'static str,
    /// Those that a client sets, under the same names.
    pub passed: &'static [&'static str],
    /// Those that codexd sets itself.
    pub own: &'static [&'static str],
}

/// Those of [`methods::THREAD_START`].
pub const THREAD_START: Parameters = Parameters {
    method: methods::THREAD_START,
    passed: &[
        "approvalPolicy",
        "approvalsReviewer",
        "baseInstructions",
        "config",
        "cwd",
        "developerInstructions",
        "ephemeral",
        "model",
        "modelProvider",
        "personality",
        "sandbox",
        "serviceName",
        "serviceTier",
        "sessionStartSource",
        "threadSource",
    ],
    own: &[],
};

/// Those of [`methods::THREAD_RESUME`].
pub const THREAD_RESUME: Parameters = Parameters {
    method: methods::THREAD_RESUME,
    passed: &[
        "approvalPolicy",
        "approvalsReviewer",
        "baseInstructions",
        "config",
        "cwd",
        "developerInstructions",
        "model",
        "modelProvider",
        "personality",
        "sandbox",
        "serviceTier",
    ],
    own: &["excludeTurns", "threadId"],
};

/// Those of [`methods::THREAD_FORK`].
pub const THREAD_FORK: Parameters = Parameters {
    method: methods::THREAD_FORK,
    passed: &[
        "approvalPolicy",
        "approvalsReviewer",
        "baseInstructions",
        "config",
        "cwd",
        "developerInstructions",
        "ephemeral",
        "lastTurnId",
        "model",
        "modelProvider",
        "sandbox",
        "serviceTier",
        "threadSource",
    ],
    own: &["excludeTurns", "threadId"],
};

/// Those of [`methods::TURN_START`].
pub const TURN_START: Parameters = Parameters {
    method: methods::TURN_START,
    passed: &[
        "approvalPolicy",
        "approvalsReviewer",
        "cwd",
        "disabledPluginIds",
        "effort",
        "input",
        "model",
        "outputSchema",
        "parentTurnId",
        "personality",
        "rootTurnId",
        "sandboxPolicy",
        "serviceTier",
        "serviceTierForTurn",
        "summary",
        "toolOutput",
        "turnTrigger",
    ],
    own: &["clientUserMessageId", "threadId"],
};

/// Those of [`methods::TURN_STEER`].
pub const TURN_STEER: Parameters = Parameters {
    method: methods::TURN_STEER,
    passed: &["expectedTurnId", "input"],
    own: &["clientUserMessageId", "threadId"],
};

/// Those of each of these methods.
pub const ALL: [&Parameters; 5] = [&THREAD_START, &THREAD_RESUME, &THREAD_FORK, &TURN_START, &TURN_STEER];
