//! How fast the app-server has to end.

use tokio::sync::watch;

/// How fast an end is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopPace {
    /// No end is wanted.
    Run,
    /// End in order.
    Stop,
    /// End without waiting for anything.
    Hurry,
}

/// Waits until nobody wants to wait any more; for ever when nobody is left to say so.
pub(crate) async fn hurry(pace: &mut watch::Receiver<StopPace>) {
    if pace.wait_for(|&pace| pace == StopPace::Hurry).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until no app-server is wanted any more, or nobody is left to want one.
pub(crate) async fn over(pace: &mut watch::Receiver<StopPace>) {
    let _ = pace.wait_for(|&pace| pace > StopPace::Run).await;
}

pub(crate) fn is_over(pace: &watch::Receiver<StopPace>) -> bool {
    *pace.borrow() > StopPace::Run || pace.has_changed().is_err()
}
