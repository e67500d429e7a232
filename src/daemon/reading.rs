//! Turns as things: reading them, waiting for their end, interrupting them; closing and forking sessions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::descendants::DescendantScope;
use super::{Daemon, DaemonError};
use crate::codex;
use crate::codex::protocol::responses::TurnPage;
use crate::codex::protocol::{items, methods, values};
use crate::config::ChildStrategy;
use crate::daemon::events;
use crate::daemon::turns::interrupt::Target;
use crate::state::turn::item_summary;
use crate::state::{Phase, Session, SessionStatus, Turn};

/// How long the sandboxes of commands may take to end before their turn is interrupted; they need 20 to 50 ms (measured on
/// 0.169.0 and 0.171.0).
///
/// In the first quarter of a second of a command an interrupt ends it with SIGKILL, later it leaves it alone, so they are
/// asked to end before it. Only a model that answers within this time could begin another command.
pub(super) const SANDBOXES: Duration = Duration::from_millis(200);
/// The same after it, before what still runs is ended.
pub(super) const STUBBORN_SANDBOXES: Duration = Duration::from_secs(1);
/// How many turns are asked for at once when one is looked for in the app-server.
const PAGE: u32 = 100;

impl Daemon {
    /// One turn; an older one than those that are kept is read from the app-server.
    pub async fn turn(&self, session_id: &str, turn_id: &str) -> Result<Arc<Turn>, DaemonError> {
        let session = self.session(session_id)?;
        let thread_id = session.thread_id.as_deref().unwrap_or_default();
        let known = self.state().turns.get(thread_id, turn_id).cloned();
        if let Some(turn) = known {
            if !turn.is_over() {
                return Ok(turn);
            }
            if !self.shared.skipped_items.has(turn_id) {
                return Ok(self.with_answer(turn).await);
            }
            // It is whole when what was not heard of it is read.
            self.shared.skipped_items.read(turn_id).await;
            return self.state().turns.get(thread_id, turn_id).cloned().ok_or(DaemonError::Internal);
        }
        let daemon = self.clone();
        let turn_id = turn_id.to_owned();
        self.run(async move { daemon.turn_of_app_server(session, &turn_id).await }).await
    }

    /// One turn, as it is when it ends or when the time is up.
    pub async fn turn_when_over(
        &self,
        session_id: &str,
        turn_id: &str,
        patience: Duration,
    ) -> Result<Arc<Turn>, DaemonError> {
        let deadline = Instant::now() + patience;
        let mut news = self.shared.recorder.view().log.news();
        loop {
            news.borrow_and_update();
            let turn = self.turn(session_id, turn_id).await?;
            if turn.is_over() {
                return Ok(turn);
            }
            tokio::select! {
                changed = tokio::time::timeout_at(deadline, news.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Ok(turn),
                },
                () = self.shared.stopping.cancelled() => return Ok(turn),
            }
        }
    }

    async fn turn_of_app_server(
        &self,
        session: Arc<Session>,
        turn_id: &str,
    ) -> Result<Arc<Turn>, DaemonError> {
        let unknown = || DaemonError::UnknownTurn {
            session_id: session.session_id.clone(),
            turn_id: turn_id.to_owned(),
        };
        let Some(thread_id) = session.thread_id.clone() else { return Err(unknown()) };
        if session.last_turn_id.is_none() {
            return Err(unknown());
        }
        let client = self.wait_for_client().await?;
        let mut cursor = Value::Null;
        loop {
            let mut params = json!({ "threadId": thread_id, "limit": PAGE, "itemsView": values::ITEMS_FULL });
            if !cursor.is_null() {
                params["cursor"] = cursor;
            }
            let page: TurnPage = Daemon::call(&client, methods::THREAD_TURNS_LIST, &params).await?;
            if let Some(found) = page.data.into_iter().find(|turn| turn.id == turn_id) {
                let last = found.items.iter().rev().find(|item| items::is_agent_message(item));
                let text = last.and_then(items::agent_message);
                return Ok(Arc::new(Turn {
                    turn_id: found.id,
                    thread_id,
                    // That was forgotten with the record of the turn.
                    started_by: None,
                    phase: if found.status == values::TURN_IN_PROGRESS {
                        Phase::Started
                    } else {
                        Phase::Ended
                    },
                    status: found.status,
                    started_at: found.started_at.map(rfc3339).unwrap_or_default(),
                    completed_at: found.completed_at.map(rfc3339),
                    text: text.map(str::to_owned),
                    error: found.error,
                    token_usage: None,
                    items: found.items.iter().map(item_summary).collect(),
                }));
            }
            match page.next_cursor {
                Some(next) => cursor = next.into(),
                None => return Err(unknown()),
            }
        }
    }

    /// Ends a session: it takes no more turns, and the app-server may unload its thread.
    ///
    /// With `interrupt` its turn is interrupted, also one that is only on its way to the app-server.
    /// Returns whether that turn is not over yet; the interrupt is pursued then.
    pub async fn close_session(
        &self,
        session_id: &str,
        interrupt: bool,
    ) -> Result<(Arc<Session>, bool), DaemonError> {
        let session = self.session(session_id)?;
        let daemon = self.clone();
        let session_id = session_id.to_owned();
        self.run(async move {
            // A turn on its way keeps the thread's lock until its answer comes.
            if interrupt
                && session.status == SessionStatus::Active
                && let Some(target @ Target::Submission(_)) = daemon.turn_of_session(&session)
            {
                let thread_id = session.thread_id.clone().unwrap_or_default();
                daemon.stop_in_time(&thread_id, target).await?;
            }
            // No waiting turn begins while the running one ends.
            let (_alone, session) = daemon.lock_session_thread(&session_id).await?;
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
                // Until it is over its end is to be heard.
                tokio::spawn(daemon.clone().detach_when_idle(thread_id));
            } else if let Ok(client) = daemon.current_client() {
                // Without an app-server there is nothing to unload.
                daemon.detach(&client, &thread_id).await;
            }
            Ok((daemon.session(&session_id)?, pending))
        })
        .await
    }
}

impl Daemon {
    /// Lets the sandboxes in which commands of this thread run remove what they made in the user's directories; Codex
    /// ends them in a way that keeps them from it.
    pub(super) async fn end_sandboxes(&self, thread_id: Option<&str>, grace: Duration) {
        let is_ours = self.config().server.strategy != ChildStrategy::External;
        if let Some(thread_id) = thread_id.filter(|_| is_ours) {
            codex::end_sandboxes(thread_id, grace).await;
        }
    }
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| format!("{at:.3}")).unwrap_or_default()
}
