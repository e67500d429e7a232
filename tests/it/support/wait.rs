//! Waiting for a condition: never a fixed sleep, always a deadline.

use std::time::{Duration, Instant};

/// How long anything in these tests may take before it counts as lost.
///
/// Generous, since many tests run in parallel on machines that may have two slow cores.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How long a poll rests between two looks at its condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Polls `probe` until it returns something; panics with `what` when the deadline passes first.
pub(crate) async fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        pause_before(end, what).await;
    }
}

/// As `wait_until`, for a condition that has to ask somebody, such as the daemon over HTTP.
///
/// The other one is not made of this one: a future that borrows an async closure cannot be given to `tokio::spawn`.
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
    assert!(Instant::now() < end, "waited {} s in vain for {what}", DEADLINE.as_secs());
    tokio::time::sleep(PAUSE).await;
}
