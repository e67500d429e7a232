//! Why a call has no result.

use std::time::Duration;

use super::wire::RpcError;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The connection ended, or had ended, before the response arrived.
    #[error("the app-server connection is gone: {cause}")]
    Closed {
        /// Why it ended.
        cause: String,
    },
    /// No response arrived in time; whether the call took effect is unknown.
    #[error("the app-server did not answer {method} within {} s", after.as_secs_f32())]
    Timeout {
        /// The call's method.
        method: String,
        /// The time limit.
        after: Duration,
    },
    /// The app-server responded with an error.
    #[error("the app-server answered {method} with an error: {}", error.message)]
    Refused {
        /// The call's method.
        method: String,
        /// The error.
        error: RpcError,
    },
    /// The app-server does not have the method.
    #[error("{explanation}")]
    UnknownMethod {
        /// The call's method.
        method: String,
        /// The error code.
        code: i64,
        /// The same in a sentence that says what to do.
        explanation: String,
    },
    /// The call could not be encoded, or its response could not be decoded.
    #[error("the answer to {method} does not match the protocol: {reason}")]
    Malformed {
        /// The call's method.
        method: String,
        /// What is wrong.
        reason: String,
    },
}
