//! Why a call has no result.

use std::time::Duration;

use super::wire::RpcError;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection ended, or had ended, before the answer came.
    #[error("the app-server connection is gone: {cause}")]
    Closed {
        /// What ended it.
        cause: String,
    },
    /// No answer came in time; it is unknown whether the call took effect.
    #[error("the app-server did not answer {method} within {} s", after.as_secs_f32())]
    Timeout {
        /// The call's method.
        method: String,
        /// How long was waited.
        after: Duration,
    },
    /// The app-server answered with an error.
    #[error("the app-server answered {method} with an error: {}", error.message)]
    Refused {
        /// The call's method.
        method: String,
        /// Its answer.
        error: RpcError,
    },
    /// The call or its answer could not be put into or read from JSON.
    #[error("the answer to {method} is not what the protocol promises: {reason}")]
    Malformed {
        /// The call's method.
        method: String,
        /// What is wrong.
        reason: String,
    },
}
