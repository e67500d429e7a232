//! Stopping the turns of sub-agents: Codex interrupts the named turn and none of its descendants
//! (measured on 0.169.0 and 0.171.0).

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::codex::Client;
use crate::codex::protocol::methods;
use crate::daemon::turns::Turns;
use crate::daemon::turns::sandboxes::{
    SANDBOX_GRACE_AFTER_INTERRUPT, SANDBOX_GRACE_BEFORE_INTERRUPT, end_sandboxes,
};
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{Session, State};

/// How long to wait for interrupted turns to end; Codex takes about 10 ms (measured).
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a failed interrupt is retried.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Which sub-agents to include.
#[derive(Debug, Clone)]
pub(in crate::daemon) enum DescendantScope {
    /// Those that descend from a turn.
    Turn(TurnId),
    /// Those that descend from the turns of a session; with the last active session of a thread, all of the thread.
    Session(SessionId),
}

/// The turns that run in what descends from a thread, with their threads.
fn running(state: &State, thread_id: &ThreadId, scope: &DescendantScope) -> Vec<(ThreadId, TurnId)> {
    match scope {
        DescendantScope::Turn(turn_id) => state.descendants.running(thread_id, Some(turn_id)),
        DescendantScope::Session(session_id) => {
            let mut running = state.descendants.running(thread_id, None);
            if state.sessions.active_in_thread(thread_id).any(|other| other.session_id != *session_id) {
                running.retain(|(thread_id, turn_id)| {
                    state.deciding_session(thread_id, Some(turn_id)) == Some(session_id)
                });
            }
            running
        }
    }
}

impl Turns {
    /// A turn that runs in what descends from the turns of a session.
    pub(in crate::daemon) fn running_descendant(&self, session: &Session) -> Option<TurnId> {
        let thread_id = session.thread_id.as_ref()?;
        let scope = DescendantScope::Session(session.session_id.clone());
        running(&self.core.state(), thread_id, &scope).into_iter().next().map(|(_, turn_id)| turn_id)
    }

    /// Interrupts the turns of sub-agents, and those that they begin meanwhile; waits for their ends, 5 s at most.
    pub(in crate::daemon) async fn stop_descendants(
        &self,
        client: &Client,
        thread_id: &ThreadId,
        scope: DescendantScope,
    ) {
        let stopped = async {
            let mut news = self.core.recorder.view().log.news();
            let mut interrupted = HashSet::new();
            loop {
                news.borrow_and_update();
                let running = running(&self.core.state(), thread_id, &scope);
                if running.is_empty() {
                    return;
                }
                let mut has_failed = false;
                for (thread_id, turn_id) in running {
                    if interrupted.contains(&turn_id) {
                        continue;
                    }
                    end_sandboxes(&self.core.config, &thread_id, SANDBOX_GRACE_BEFORE_INTERRUPT).await;
                    let params = json!({ "threadId": thread_id, "turnId": turn_id });
                    match client.call(methods::TURN_INTERRUPT, &params, client.call_timeout()).await {
                        Ok(_) => {
                            interrupted.insert(turn_id);
                            end_sandboxes(&self.core.config, &thread_id, SANDBOX_GRACE_AFTER_INTERRUPT).await;
                            let _ = clean_terminals(client, &thread_id).await;
                        }
                        // It may not have started, or may be over; the next event shows which.
                        Err(error) => {
                            tracing::debug!(%error, %thread_id, %turn_id, "failed to interrupt a sub-agent");
                            has_failed = true;
                        }
                    }
                }
                tokio::select! {
                    changed = news.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(RETRY_INTERVAL), if has_failed => {}
                }
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, stopped).await.is_err() {
            tracing::warn!(%thread_id, "turns of sub-agents were interrupted and have not ended");
        }
    }
}

/// Ends the background commands of a thread; the error states why they may still run.
pub(in crate::daemon) async fn clean_terminals(client: &Client, thread_id: &ThreadId) -> Result<(), String> {
    let params = json!({ "threadId": thread_id });
    let method = methods::THREAD_BACKGROUND_TERMINALS_CLEAN;
    let cleaned = client.call(method, &params, client.call_timeout()).await;
    cleaned.map(drop).map_err(|error| error.to_string())
}
