//! Closing a session: its turn ends or is interrupted, and the app-server may unload its thread.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::core::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::turns::descendants::DescendantScope;
use crate::daemon::turns::interrupt::Target;
use crate::state::{Session, SessionStatus};

impl Daemon {
    /// Closes a session: it accepts no more turns, and the app-server may unload its thread.
    ///
    /// With `interrupt` its turn is interrupted, including one that is still being submitted.
    /// Returns whether that turn is not over yet; its interrupt is then pending.
    pub async fn close_session(
        &self,
        session_id: &str,
        interrupt: bool,
    ) -> Result<(Arc<Session>, bool), DaemonError> {
        let session = self.session(session_id)?;
        let daemon = self.clone();
        let session_id = session_id.to_owned();
        self.run(async move {
            // A submission holds the thread's lock until its response arrives.
            if interrupt
                && session.status == SessionStatus::Active
                && let Some(target @ Target::Submission(_)) = daemon.turn_of_session(&session)
            {
                let thread_id = session.thread_id.clone().unwrap_or_default();
                daemon.stop_in_time(&thread_id, target).await?;
            }
            // No waiting turn begins while the running one ends.
            let (_thread_lock, session) = daemon.lock_session_thread(&session_id).await?;
            if session.status == SessionStatus::Closed {
                return Ok((session, false));
            }
            let thread_id = session.thread_id.clone().unwrap_or_default();
            let mut pending = false;
            if let Some(Target::Turn(turn_id)) = daemon.turn_of_session(&session) {
                if !interrupt {
                    return Err(DaemonError::TurnInProgress { session_id, turn_id });
                }
                let stopped = daemon.stop_in_time(&thread_id, Target::Turn(turn_id.clone())).await?;
                pending = stopped.is_none() || !daemon.turn(&session_id, &turn_id).await?.is_over();
            }
            if let (Some(turn_id), Some(thread_id)) =
                (daemon.running_descendant(&session), &session.thread_id)
            {
                if !interrupt {
                    return Err(DaemonError::TurnInProgress { session_id, turn_id });
                }
                let scope = DescendantScope::Session(session_id.clone());
                daemon.stop_descendants(&daemon.wait_for_client().await?, thread_id, scope).await;
            }
            let closed = session_id.clone();
            daemon.record_durably(move |state| events::session_closed(state, &closed, None)).await?;
            if pending {
                // The thread stays subscribed until the turn's end was received.
                tokio::spawn(daemon.clone().detach_when_idle(thread_id));
            } else if let Ok(client) = daemon.current_client() {
                // Without an app-server there is nothing to unload.
                daemon.detach(&client, &thread_id).await;
            }
            Ok((daemon.session(&session_id)?, pending))
        })
        .await
    }

    /// Lets Codex unload a thread once no turn runs in it and no active session has it.
    pub(in crate::daemon) async fn detach_when_idle(self, thread_id: String) {
        loop {
            let running = self.state().turns.running(&thread_id).map(|turn| turn.turn_id.clone());
            let Some(turn_id) = running else { break };
            self.wait_until_over(&thread_id, &turn_id, Duration::MAX).await;
            if self.shared.stopping.is_cancelled() {
                return;
            }
        }
        let _thread_lock = self.lock_thread(&thread_id).await;
        if let Ok(client) = self.current_client() {
            self.detach(&client, &thread_id).await;
        }
    }
}
