//! Waiting for a condition: never a fixed sleep, always a deadline.

use std::time::{Duration, Instant};

/// The limit of every wait in these tests.
///
/// It is long, because many tests run in parallel on machines that may have two slow cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The time between two polls of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls `probe` until it returns a value; panics with `what` after [`DEADLINE`].
pub(crate) async fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        pause_before(end, what).await;
    }
}

/// Like `wait_until`, for a condition that needs async calls, such as a request to the daemon.
///
/// `wait_until` does not use this function: a future that borrows an async closure cannot be passed to `tokio::spawn`.
pub(crate) async fn wait_until_async<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        pause_before(end, what).await;
    }
}

async fn pause_before(end: Instant, what: &str) {
    assert!(Instant::now() < end, "timed out after {} s waiting for {what}", DEADLINE.as_secs());
    tokio::time::sleep(POLL_INTERVAL).await;
}
