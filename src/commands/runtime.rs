//! The tokio runtime of a command.

use super::failure::Failure;

/// Builds the runtime on which a command runs.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        // Two are enough to read while something is sent, and each further one costs memory.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("Failed to start the runtime: {error}.")))
}
