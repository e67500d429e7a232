//! Reading one turn, at once or when it is over; a turn without a record is read from its thread.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::codex::protocol::responses::TurnPage;
use crate::codex::protocol::{items, methods, values};
use crate::daemon::app_server::calls::call;
use crate::daemon::error::DaemonError;
use crate::daemon::turns::Turns;
use crate::state::turn::item_summary;
use crate::state::{Phase, Session, Turn};

/// How many turns each page has when a thread is searched for a turn.
const PAGE_SIZE: u32 = 100;

impl Turns {
    /// One turn; one without a record, such as an old one, is read from the app-server.
    pub async fn get(&self, session_id: &str, turn_id: &str) -> Result<Arc<Turn>, DaemonError> {
        let session = self.core.session(session_id)?;
        let thread_id = session.thread_id.as_deref().unwrap_or_default();
        let known = self.core.state().turns.get(thread_id, turn_id).cloned();
        if let Some(turn) = known {
            if !turn.is_over() {
                return Ok(turn);
            }
            if !self.skipped_items.table.has(turn_id) {
                return Ok(self.skipped_items.with_answer(turn).await);
            }
            // The turn is complete when its skipped items are read.
            self.skipped_items.table.read(turn_id).await;
            return self.core.state().turns.get(thread_id, turn_id).cloned().ok_or(DaemonError::Internal);
        }
        let turns = self.clone();
        let turn_id = turn_id.to_owned();
        self.core.run(async move { turns.turn_of_app_server(session, &turn_id).await }).await
    }

    /// One turn, as it is when it ends or when the time is up.
    pub async fn get_when_over(
        &self,
        session_id: &str,
        turn_id: &str,
        timeout: Duration,
    ) -> Result<Arc<Turn>, DaemonError> {
        let deadline = Instant::now() + timeout;
        let mut news = self.core.recorder.view().log.news();
        loop {
            news.borrow_and_update();
            let turn = self.get(session_id, turn_id).await?;
            if turn.is_over() {
                return Ok(turn);
            }
            tokio::select! {
                changed = tokio::time::timeout_at(deadline, news.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Ok(turn),
                },
                () = self.core.stopping.cancelled() => return Ok(turn),
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
        let client = self.core.wait_for_client().await?;
        let mut cursor = Value::Null;
        loop {
            let mut params =
                json!({ "threadId": thread_id, "limit": PAGE_SIZE, "itemsView": values::ITEMS_FULL });
            if !cursor.is_null() {
                params["cursor"] = cursor;
            }
            let page: TurnPage = call(&client, methods::THREAD_TURNS_LIST, &params).await?;
            if let Some(found) = page.data.into_iter().find(|turn| turn.id == turn_id) {
                let last = found.items.iter().rev().find(|item| items::is_agent_message(item));
                let text = last.and_then(items::agent_message);
                return Ok(Arc::new(Turn {
                    turn_id: found.id,
                    thread_id,
                    // Unknown without a record of the turn.
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
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|at| format!("{at:.3}")).unwrap_or_default()
}
