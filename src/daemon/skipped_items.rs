//! Items whose message was too long and was skipped: they are read from their thread after the turn ended, so that
//! readers of the turn get all of it.

pub(in crate::daemon) mod table;

use std::sync::Arc;

use serde_json::Value;

use crate::codex::protocol::items;
use crate::daemon::app_server::calls::{search_turns, with_id};
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::skipped_items::table::{SkippedItem, SkippedItems};
use crate::daemon::turns::contents::{TurnReader, TurnView};
use crate::ids::{ThreadId, TurnId};
use crate::state::{State, TurnEvent};

/// How many turns each page has.
const PAGE_SIZE: u32 = 5;
/// How many pages are searched: the turn has just ended.
const MAX_PAGES: usize = 4;

/// Reads skipped items, and answers that were not received; clones share the table.
#[derive(Clone)]
pub(super) struct SkippedItemReader {
    pub(super) core: Arc<Core>,
    pub(super) table: Arc<SkippedItems>,
    /// Reads the turns that have records.
    pub(super) reader: TurnReader,
}

impl SkippedItemReader {
    /// Reads the skipped items of a turn once it is over: only then its thread is sure to have all of them.
    pub(super) async fn read_skipped_items(self, thread_id: ThreadId, turn_id: TurnId) {
        if self.over(&thread_id, &turn_id).await
            && let Err(error) = self.read_items(&thread_id, &turn_id).await
        {
            tracing::warn!(%error, %thread_id, %turn_id, "failed to read skipped items");
        }
        self.table.done(&turn_id);
    }

    /// Waits until a turn is over; `false` when no session has it, or the daemon stops before.
    async fn over(&self, thread_id: &ThreadId, turn_id: &TurnId) -> bool {
        let is_over = |state: &State| {
            if state.sessions.in_thread(thread_id).next().is_none() {
                return Some(false);
            }
            state.turns.get(thread_id, turn_id).filter(|turn| turn.is_over()).map(|_| true)
        };
        self.core.when(is_over).await.unwrap_or(false)
    }

    /// A turn that is over, with the answer from its thread if codexd received none: for example for a turn, or the end of a
    /// turn, that was found by a search.
    ///
    /// Without an app-server the turn is returned unchanged.
    pub(super) async fn with_answer(&self, turn: TurnView) -> TurnView {
        let (thread_id, turn_id) = (turn.thread_id.clone(), turn.turn_id.clone());
        let (Ok(_), None) = (self.core.current_client(), &turn.contents.text) else { return turn };
        if !self.table.mark_asked(&turn_id) {
            return turn;
        }
        let reader = self.clone();
        let read = self.core.run(async move {
            let answer = SkippedItem { id: None, kind: Some(items::AGENT_MESSAGE.to_owned()) };
            reader.table.note(&turn_id, answer);
            let read = reader.read_items(&thread_id, &turn_id).await;
            reader.table.done(&turn_id);
            if read.is_err() {
                reader.table.unmark_asked(&turn_id);
            }
            read
        });
        if let Err(error) = read.await {
            tracing::debug!(%error, turn_id = %turn.turn_id, "failed to read the answer of a turn from its thread");
        }
        self.reader.recorded(&turn.thread_id, &turn.turn_id).await.unwrap_or(turn)
    }

    async fn read_items(&self, thread_id: &ThreadId, turn_id: &TurnId) -> Result<(), DaemonError> {
        let client = self.core.wait_for_client().await?;
        let found = search_turns(&client, thread_id, PAGE_SIZE, MAX_PAGES, with_id(turn_id)).await?;
        let Some(turn) = found else {
            tracing::warn!(%thread_id, %turn_id, "the thread does not list the turn whose items were skipped");
            return Ok(());
        };
        let items = chosen(&self.table.of(turn_id), turn.items);
        let (thread_id, turn_id) = (thread_id.clone(), turn_id.clone());
        let read = move |state: &State| {
            let session = state.sessions.of_thread(&thread_id);
            let session_id = session.map(|session| session.session_id.clone());
            let event = |item| TurnEvent::ItemRead {
                session_id: session_id.clone(),
                thread_id: thread_id.clone(),
                turn_id: turn_id.clone(),
                item,
            };
            items.into_iter().map(|item| event(item).into()).collect()
        };
        self.core.record_durably(read).await
    }
}

/// The items that were skipped, in the order of the turn.
///
/// A thread with the history of an older Codex renumbers its items; there the newest of the same type is chosen.
fn chosen(missed: &[SkippedItem], items: Vec<Value>) -> Vec<Value> {
    let mut keep = vec![false; items.len()];
    for missed in missed {
        let by_id = items.iter().position(|item| missed.id.as_deref().is_some_and(|id| item["id"] == id));
        let of_kind = |item: &Value| missed.kind.as_deref().is_some_and(|kind| item["type"] == kind);
        let found = by_id.or_else(|| items.iter().rposition(of_kind));
        if let Some(keep) = found.and_then(|index| keep.get_mut(index)) {
            *keep = true;
        }
    }
    items.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn skipped_item_is_matched_by_id_or_newest_of_type() {
        let item = |id: &str, kind: &str| json!({ "id": id, "type": kind });
        let items = vec![
            item("1", "userMessage"),
            item("2", "agentMessage"),
            item("3", "commandExecution"),
            item("4", "agentMessage"),
        ];
        let missed = |id: &str, kind: &str| SkippedItem { id: Some(id.into()), kind: Some(kind.into()) };
        let ids = |missed: &[SkippedItem]| -> Vec<Value> {
            chosen(missed, items.clone()).iter().map(|item| item["id"].clone()).collect()
        };
        assert_eq!(ids(&[missed("4", "agentMessage"), missed("2", "agentMessage")]), ["2", "4"]);
        assert_eq!(ids(&[missed("msg_7", "agentMessage")]), ["4"]);
        assert_eq!(ids(&[missed("x", "reasoning")]), Vec::<Value>::new());
    }
}
