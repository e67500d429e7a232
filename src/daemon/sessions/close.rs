//! Closing a session: its turn ends or is interrupted, and the app-server may unload its thread.

use std::sync::Arc;
use std::time::Duration;

use crate::daemon::error::DaemonError;
use crate::daemon::events;
use crate::daemon::sessions::Sessions;
use crate::daemon::turns::descendants::DescendantScope;
use crate::daemon::turns::interrupt::Target;
use crate::ids::{SessionId, ThreadId};
use crate::state::{Session, SessionStatus};

impl Sessions {
    /// Closes a session: it accepts no more turns, and the app-server may unload its thread.
    ///
    /// With `interrupt` its turn is interrupted, including one that is still being submitted.
    /// Returns whether that turn is not over yet; its interrupt is then pending.
    pub async fn close(
        &self,
        session_id: &SessionId,
        interrupt: bool,
    ) -> Result<(Arc<Session>, bool), DaemonError> {
        let session = self.core.session(session_id)?;
        let sessions = self.clone();
        let session_id = session_id.clone();
        self.core
            .run(async move {
                // A submission holds the thread's lock until its response arrives.
                if interrupt
                    && session.status == SessionStatus::Active
                    && let Some(target @ Target::Submission(_)) = sessions.turns.of_session(&session)
                {
                    let thread_id = session.thread_id.clone().unwrap_or_default();
                    sessions.turns.stop_in_time(&thread_id, target).await?;
                }
                // No waiting turn begins while the running one ends.
                let (_thread_lock, session) = sessions.threads.lock_of_session(&session_id).await?;
                if session.status == SessionStatus::Closed {
                    return Ok((session, false));
                }
                let thread_id = session.thread_id.clone().unwrap_or_default();
                let mut pending = false;
                if let Some(Target::Turn(turn_id)) = sessions.turns.of_session(&session) {
                    if !interrupt {
                        return Err(DaemonError::TurnInProgress { session_id, turn_id });
                    }
                    let stopped =
                        sessions.turns.stop_in_time(&thread_id, Target::Turn(turn_id.clone())).await?;
                    pending =
                        stopped.is_none() || !sessions.turns.get(&session_id, &turn_id).await?.is_over();
                }
                if let (Some(turn_id), Some(thread_id)) =
                    (sessions.turns.running_descendant(&session), &session.thread_id)
                {
                    if !interrupt {
                        return Err(DaemonError::TurnInProgress { session_id, turn_id });
                    }
                    let scope = DescendantScope::Session(session_id.clone());
                    sessions
                        .turns
                        .stop_descendants(&sessions.core.wait_for_client().await?, thread_id, scope)
                        .await;
                }
                let closed = session_id.clone();
                sessions
                    .core
                    .record_durably(move |state| events::session_closed(state, &closed, None))
                    .await?;
                if pending {
                    // The thread stays subscribed until the turn's end was received.
                    tokio::spawn(sessions.clone().detach_when_idle(thread_id));
                } else if let Ok(client) = sessions.core.current_client() {
                    // Without an app-server there is nothing to unload.
                    sessions.threads.detach(&client, &thread_id).await;
                }
                Ok((sessions.core.session(&session_id)?, pending))
            })
            .await
    }

    /// Lets Codex unload a thread once no turn runs in it and no active session has it.
    pub(in crate::daemon) async fn detach_when_idle(self, thread_id: ThreadId) {
        loop {
            let running = self.core.state().turns.running(&thread_id).map(|turn| turn.turn_id.clone());
            let Some(turn_id) = running else { break };
            self.turns.wait_until_over(&thread_id, &turn_id, Duration::MAX).await;
            if self.core.stopping.is_cancelled() {
                return;
            }
        }
        let _thread_lock = self.threads.lock(&thread_id).await;
        if let Ok(client) = self.core.current_client() {
            self.threads.detach(&client, &thread_id).await;
        }
    }
}
