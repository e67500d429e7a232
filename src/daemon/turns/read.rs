//! Reading one turn, at once or when it is over; a turn without a record is read from its thread.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::codex::protocol::values;
use crate::daemon::error::DaemonError;
use crate::daemon::turns::Turns;
use crate::daemon::turns::contents::{TurnView, contents_of, list_turn};
use crate::ids::{SessionId, TurnId};
use crate::state::turn::KeptContents;
use crate::state::{OnUsageLimit, Phase, Session, Turn};
use crate::timestamp::Timestamp;

impl Turns {
    /// One turn; one without a record, such as an old one, is read from the app-server.
    pub async fn get(&self, session_id: &SessionId, turn_id: &TurnId) -> Result<TurnView, DaemonError> {
        let session = self.core.session(session_id)?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        let Some(view) = self.skipped_items.reader.recorded(&thread_id, turn_id).await else {
            let turns = self.clone();
            let turn_id = turn_id.clone();
            return self.core.run(async move { turns.turn_of_app_server(session, &turn_id).await }).await;
        };
        if !view.is_over() {
            return Ok(view);
        }
        if !self.skipped_items.table.has(turn_id) {
            return Ok(self.skipped_items.with_answer(view).await);
        }
        // The turn is complete when its skipped items are read.
        self.skipped_items.table.read(turn_id).await;
        self.skipped_items.reader.recorded(&thread_id, turn_id).await.ok_or(DaemonError::Internal)
    }

    /// One turn, as it is when it ends or when the time is up.
    pub async fn get_when_over(
        &self,
        session_id: &SessionId,
        turn_id: &TurnId,
        timeout: Duration,
    ) -> Result<TurnView, DaemonError> {
        let deadline = Instant::now() + timeout;
        let mut news = self.core.recorder.view().log.news();
        loop {
            news.borrow_and_update();
            if !self.is_recorded_as_open(session_id, turn_id)? {
                let turn = self.get(session_id, turn_id).await?;
                if turn.is_over() {
                    return Ok(turn);
                }
            }
            tokio::select! {
                changed = tokio::time::timeout_at(deadline, news.changed()) => match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return self.get(session_id, turn_id).await,
                },
                () = self.core.stopping.cancelled() => return self.get(session_id, turn_id).await,
            }
        }
    }

    fn is_recorded_as_open(&self, session_id: &SessionId, turn_id: &TurnId) -> Result<bool, DaemonError> {
        let session = self.core.session(session_id)?;
        let thread_id = session.thread_id.clone().unwrap_or_default();
        Ok(self.core.state().turns.get(&thread_id, turn_id).is_some_and(|turn| !turn.is_over()))
    }

    async fn turn_of_app_server(
        &self,
        session: Arc<Session>,
        turn_id: &TurnId,
    ) -> Result<TurnView, DaemonError> {
        let unknown =
            || DaemonError::UnknownTurn { session_id: session.session_id.clone(), turn_id: turn_id.clone() };
        let Some(thread_id) = session.thread_id.clone() else { return Err(unknown()) };
        if session.last_turn_id.is_none() {
            return Err(unknown());
        }
        let client = self.core.wait_for_client().await?;
        let found = list_turn(&client, &thread_id, turn_id).await?.ok_or_else(unknown)?;
        let contents = Arc::new(contents_of(&found));
        let is_open = found.status == values::TURN_IN_PROGRESS;
        let turn = Turn {
            turn_id: found.id,
            thread_id,
            // Unknown without a record of the turn.
            started_by: None,
            phase: if is_open { Phase::Started } else { Phase::Ended },
            status: found.status.into(),
            started_at: found.started_at.map(Timestamp::of_seconds).unwrap_or_default(),
            completed_at: found.completed_at.map(Timestamp::of_seconds),
            first_seq: 0,
            last_seq: 0,
            has_user_message: false,
            has_gap: false,
            item_digests: Vec::new(),
            kept: KeptContents::default(),
            on_usage_limit: OnUsageLimit::default(),
        };
        Ok(TurnView { turn: Arc::new(turn), contents })
    }
}
