//! How fast the app-server has to stop. `commands/start` sends it; the supervisor and its generations wait for it.

use tokio::sync::watch;

/// How fast the app-server has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopPace {
    /// Keep running.
    Run,
    /// Stop in order.
    Stop,
    /// Stop without waiting.
    Hurry,
}

/// Waits until the stop must hurry; for ever when the sender is gone.
pub(crate) async fn wait_for_hurry(pace: &mut watch::Receiver<StopPace>) {
    if pace.wait_for(|&pace| pace == StopPace::Hurry).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until a stop is requested or the sender is gone.
pub(crate) async fn stop_requested(pace: &mut watch::Receiver<StopPace>) {
    let _ = pace.wait_for(|&pace| pace > StopPace::Run).await;
}

/// Whether a stop is requested or the sender is gone.
pub(crate) fn is_stop_requested(pace: &watch::Receiver<StopPace>) -> bool {
    *pace.borrow() > StopPace::Run || pace.has_changed().is_err()
}
