//! Items that were not heard because their message was too long: they are read from their thread, so that the turn is
//! whole for whoever reads it.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::sessions::Turns;
use super::{Daemon, DaemonError, drafts};

/// How many turns are asked for at once.
const PAGE: u32 = 5;
/// How many pages are looked through: the turn has just ended.
const PAGES: usize = 4;

/// An item that was not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MissedItem {
    /// Its id, if the message had one.
    pub(super) id: Option<String>,
    /// Its type, such as `agentMessage`, if the message had one.
    pub(super) kind: Option<String>,
}

/// The items that were not heard and are not read yet, by their turns.
#[derive(Debug, Default)]
pub(super) struct Missed {
    turns: watch::Sender<HashMap<String, Vec<MissedItem>>>,
}

impl Missed {
    /// Takes note of an item; returns whether it is the first one of its turn.
    pub(super) fn note(&self, turn_id: &str, item: MissedItem) -> bool {
        let mut is_first = false;
        self.turns.send_modify(|turns| {
            let items = turns.entry(turn_id.to_owned()).or_default();
            is_first = items.is_empty();
            items.push(item);
        });
        is_first
    }

    /// Whether items of this turn are still to be read.
    pub(super) fn has(&self, turn_id: &str) -> bool {
        self.turns.borrow().contains_key(turn_id)
    }

    /// Waits until no item of this turn is to be read.
    pub(super) async fn read(&self, turn_id: &str) {
        let _ = self.turns.subscribe().wait_for(|turns| !turns.contains_key(turn_id)).await;
    }

    fn of(&self, turn_id: &str) -> Vec<MissedItem> {
        self.turns.borrow().get(turn_id).cloned().unwrap_or_default()
    }

    fn done(&self, turn_id: &str) {
        self.turns.send_modify(|turns| drop(turns.remove(turn_id)));
    }
}

impl Daemon {
    /// Reads what was not heard of a turn once it is over, because only then the thread is sure to have all of it.
    pub(super) async fn read_missed(self, thread_id: String, turn_id: String) {
        if self.over(&thread_id, &turn_id).await
            && let Err(error) = self.read_items(&thread_id, &turn_id).await
        {
            tracing::warn!(%error, thread_id, turn_id, "items that were too long to be heard cannot be read");
        }
        self.shared.missed.done(&turn_id);
    }

    /// Waits until a turn is over; `false` when no session has it, or the daemon stops before.
    async fn over(&self, thread_id: &str, turn_id: &str) -> bool {
        let mut news = self.shared.recorder.view().log.news();
        loop {
            news.borrow_and_update();
            {
                let state = self.state();
                if state.sessions.in_thread(thread_id).next().is_none() {
                    return false;
                }
                if state.turns.get(thread_id, turn_id).is_some_and(|turn| turn.is_over()) {
                    return true;
                }
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return false },
                () = self.shared.stopping.cancelled() => return false,
            }
        }
    }

    async fn read_items(&self, thread_id: &str, turn_id: &str) -> Result<(), DaemonError> {
        let client = self.client().await?;
        let mut params = json!({ "threadId": thread_id, "limit": PAGE, "itemsView": "full" });
        for _ in 0..PAGES {
            let page: Turns = Daemon::ask(&client, "thread/turns/list", &params).await?;
            if let Some(turn) = page.data.into_iter().find(|turn| turn.id == turn_id) {
                let items = chosen(&self.shared.missed.of(turn_id), turn.items);
                let (thread_id, turn_id) = (thread_id.to_owned(), turn_id.to_owned());
                return self
                    .promise(move |state| {
                        let draft = |item: &Value| drafts::turn_item_read(state, &thread_id, &turn_id, item);
                        items.iter().map(draft).collect()
                    })
                    .await;
            }
            let Some(next) = page.next_cursor else { break };
            params["cursor"] = next.into();
        }
        tracing::warn!(thread_id, turn_id, "the thread does not have the turn whose items were not heard");
        Ok(())
    }
}

/// The items that were missed, in the order of the turn.
///
/// A thread with the history of an older Codex numbers its items anew; there the newest of the same type is taken.
fn chosen(missed: &[MissedItem], items: Vec<Value>) -> Vec<Value> {
    let mut wanted = vec![false; items.len()];
    for missed in missed {
        let by_id = items.iter().position(|item| missed.id.as_deref().is_some_and(|id| item["id"] == id));
        let of_kind = |item: &Value| missed.kind.as_deref().is_some_and(|kind| item["type"] == kind);
        let found = by_id.or_else(|| items.iter().rposition(of_kind));
        if let Some(wanted) = found.and_then(|index| wanted.get_mut(index)) {
            *wanted = true;
        }
    }
    items.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_found_by_its_id_or_as_the_newest_of_its_type() {
        let item = |id: &str, kind: &str| json!({ "id": id, "type": kind });
        let items = vec![
            item("1", "userMessage"),
            item("2", "agentMessage"),
            item("3", "commandExecution"),
            item("4", "agentMessage"),
        ];
        let missed = |id: &str, kind: &str| MissedItem { id: Some(id.into()), kind: Some(kind.into()) };
        let ids = |missed: &[MissedItem]| -> Vec<Value> {
            chosen(missed, items.clone()).iter().map(|item| item["id"].clone()).collect()
        };
        assert_eq!(ids(&[missed("4", "agentMessage"), missed("2", "agentMessage")]), ["2", "4"]);
        assert_eq!(ids(&[missed("msg_7", "agentMessage")]), ["4"]);
        assert_eq!(ids(&[missed("x", "reasoning")]), Vec::<Value>::new());
    }
}
