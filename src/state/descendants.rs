//! The threads of sub-agents: their ancestors, and the turns that run in them.
//!
//! Codex announces them by items of the thread that calls upon them (`collabAgentToolCall`, `subAgentActivity`), by the
//! `parentThreadId` of a thread that started, and by the `rootTurnId` of their turns (measured on 0.140.0, 0.160.1,
//! 0.169.0 and 0.171.0; the item that spawns comes before the first turn of the spawned thread, and only 0.169.0 and
//! later name the root of a turn).
//! A descendant has no session: its events belong to the sessions of the thread at its root, and the session that started
//! the turn at the root decides about its requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many ancestors are followed to the root; Codex allows few, and the search must end in a cycle too.
const MAX_DEPTH: usize = 64;
/// How many descendants are remembered.
const MAX_KEPT: usize = 10_000;

/// A thread that descends from the thread of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descendant {
    /// The thread that spawned it.
    pub(super) parent_thread_id: String,
    /// The newest turn in which an agent called upon it, with the thread of that turn.
    #[serde(default)]
    pub(super) called_by: Option<CallingTurn>,
    /// The turn that runs in it.
    #[serde(default)]
    pub(super) current: Option<RunningTurn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallingTurn {
    pub(super) thread_id: String,
    pub(super) turn_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunningTurn {
    pub(super) turn_id: String,
    /// The turn at the root that it is part of, if Codex reports it.
    #[serde(default)]
    pub(super) root_turn_id: Option<String>,
}

/// All threads that descend from the threads of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descendants {
    pub(super) by_thread: BTreeMap<String, Descendant>,
}

/// Where a thread and a turn come from; a thread that descends from none is its own root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The thread at the root.
    pub thread_id: String,
    /// The turn of that thread, as far as it is known.
    pub turn_id: Option<String>,
}

impl Descendants {
    /// Whether there is none, so that nothing has another root than itself.
    pub fn is_empty(&self) -> bool {
        self.by_thread.is_empty()
    }

    /// The thread and the turn at the root of a thread and one of its turns.
    pub fn root(&self, thread_id: &str, turn_id: Option<&str>) -> Root {
        let mut thread_id = thread_id.to_owned();
        let mut turn_id = turn_id.map(str::to_owned);
        let mut named = None;
        for _ in 0..MAX_DEPTH {
            let Some(descendant) = self.by_thread.get(&thread_id) else { break };
            let current = descendant.current.as_ref();
            if let Some(current) =
                current.filter(|current| turn_id.as_ref().is_none_or(|id| *id == current.turn_id))
            {
                named = named.or_else(|| current.root_turn_id.clone());
            }
            // The caller need not be the parent: agents write to each other.
            match &descendant.called_by {
                Some(caller) => {
                    thread_id.clone_from(&caller.thread_id);
                    turn_id = Some(caller.turn_id.clone());
                }
                None => {
                    thread_id.clone_from(&descendant.parent_thread_id);
                    turn_id = None;
                }
            }
        }
        Root { thread_id, turn_id: named.or(turn_id) }
    }

    /// The turns that run in what descends from a thread, with their threads; only those of one turn at the root, if
    /// one is given.
    pub fn running(&self, root_thread_id: &str, root_turn_id: Option<&str>) -> Vec<(String, String)> {
        let running = self.by_thread.iter().filter_map(|(thread_id, descendant)| {
            let turn_id = &descendant.current.as_ref()?.turn_id;
            let root = self.root(thread_id, Some(turn_id));
            let is_of_turn =
                root_turn_id.is_none_or(|id| root.turn_id.as_deref().is_none_or(|root| root == id));
            (root.thread_id == root_thread_id && is_of_turn).then(|| (thread_id.clone(), turn_id.clone()))
        });
        running.collect()
    }

    /// The turns that run in any of them, with their threads.
    pub fn all_running(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_thread.iter().filter_map(|(thread_id, descendant)| {
            Some((thread_id.as_str(), descendant.current.as_ref()?.turn_id.as_str()))
        })
    }

    pub(super) fn add(&mut self, thread_id: &str, parent_thread_id: &str, called_by: Option<CallingTurn>) {
        // A thread that calls its own ancestor, or the thread of a session, does not make it a descendant.
        if self.root(parent_thread_id, None).thread_id == thread_id || thread_id == parent_thread_id {
            return;
        }
        let is_new = !self.by_thread.contains_key(thread_id);
        if is_new && self.by_thread.len() >= MAX_KEPT {
            return;
        }
        let known = self.by_thread.entry(thread_id.to_owned()).or_insert_with(|| Descendant {
            parent_thread_id: parent_thread_id.to_owned(),
            called_by: None,
            current: None,
        });
        let Some(caller) = called_by else { return };
        let before = known.called_by.replace(caller);
        // Two that write to each other have their root where they were spawned.
        if self.is_cycle(thread_id)
            && let Some(known) = self.by_thread.get_mut(thread_id)
        {
            known.called_by = before;
        }
    }

    /// Whether the way from a thread to its root leads back to itself.
    fn is_cycle(&self, thread_id: &str) -> bool {
        self.by_thread.contains_key(&self.root(thread_id, None).thread_id)
    }
}
