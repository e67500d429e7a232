//! The items whose messages were skipped and that are not read yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::ids::TurnId;

/// How many turns without an answer are remembered.
const MAX_ASKED_TURNS: usize = 10_000;

/// An item whose message was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct SkippedItem {
    /// Its id, if the message had one.
    pub(in crate::daemon) id: Option<String>,
    /// Its type, such as `agentMessage`, if the message had one.
    pub(in crate::daemon) kind: Option<String>,
}

/// The skipped items that were not read yet, by turn.
#[derive(Debug, Default)]
pub(in crate::daemon) struct SkippedItems {
    turns: watch::Sender<HashMap<TurnId, Vec<SkippedItem>>>,
    /// The turns without an answer that were searched for in their threads, so that each is searched for once.
    asked: Mutex<HashSet<TurnId>>,
}

impl SkippedItems {
    /// Adds an item; returns whether it is the first one of its turn.
    pub(in crate::daemon) fn note(&self, turn_id: &TurnId, item: SkippedItem) -> bool {
        let mut is_first = false;
        self.turns.send_modify(|turns| {
            let items = turns.entry(turn_id.clone()).or_default();
            is_first = items.is_empty();
            items.push(item);
        });
        is_first
    }

    /// Marks a turn as searched for; returns whether it was not marked before.
    pub(in crate::daemon) fn mark_asked(&self, turn_id: &TurnId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= MAX_ASKED_TURNS {
            asked.clear();
        }
        asked.insert(turn_id.clone())
    }

    pub(in crate::daemon) fn unmark_asked(&self, turn_id: &TurnId) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(turn_id);
    }

    /// Whether items of this turn are still unread.
    pub(in crate::daemon) fn has(&self, turn_id: &TurnId) -> bool {
        self.turns.borrow().contains_key(turn_id)
    }

    /// Waits until no item of this turn is unread.
    pub(in crate::daemon) async fn read(&self, turn_id: &TurnId) {
        let _ = self.turns.subscribe().wait_for(|turns| !turns.contains_key(turn_id)).await;
    }

    pub(in crate::daemon) fn of(&self, turn_id: &TurnId) -> Vec<SkippedItem> {
        self.turns.borrow().get(turn_id).cloned().unwrap_or_default()
    }

    pub(in crate::daemon) fn done(&self, turn_id: &TurnId) {
        self.turns.send_modify(|turns| drop(turns.remove(turn_id)));
    }
}
