//! The threads of sub-agents: their ancestors, and the turns that run in them.
//!
//! Codex announces them by items of the thread that calls upon them (`collabAgentToolCall`, `subAgentActivity`), by the
//! `parentThreadId` of a thread that started, and by the `rootTurnId` of their turns (measured on 0.140.0, 0.160.1,
//! 0.169.0 and 0.171.0; only 0.169.0 and later name the root of a turn).
//! The item that spawns usually comes before the first turn of the spawned thread; on a busy machine the start of that
//! turn can come first (seen on 0.171.0), so the turns that start in unknown threads are remembered too.
//! A descendant has no session: its events belong to the sessions of the thread at its root, and the session that started
//! the turn at the root decides about its requests.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::{ThreadId, TurnId};

/// How many ancestors are followed to the root; Codex allows few, and the search must end in a cycle too.
const MAX_DEPTH: usize = 64;
/// How many descendants are remembered.
const MAX_KEPT: usize = 10_000;
/// How many turns of unknown threads are remembered; the item that spawns follows within milliseconds.
const MAX_EARLY_TURNS: usize = 64;

/// A thread that descends from the thread of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descendant {
    /// The thread that spawned it.
    pub(super) parent_thread_id: ThreadId,
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
    pub(super) thread_id: ThreadId,
    pub(super) turn_id: TurnId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunningTurn {
    pub(super) turn_id: TurnId,
    /// The turn at the root that it is part of, if Codex reports it.
    #[serde(default)]
    pub(super) root_turn_id: Option<TurnId>,
}

/// All threads that descend from the threads of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descendants {
    pub(super) by_thread: BTreeMap<ThreadId, Descendant>,
    /// Turns that run in threads which are not known to descend from anything, oldest first, with their threads.
    #[serde(skip)]
    pub(super) early: VecDeque<(ThreadId, RunningTurn)>,
}

/// Where a thread and a turn come from; a thread that descends from none is its own root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The thread at the root.
    pub thread_id: ThreadId,
    /// The turn of that thread, as far as it is known.
    pub turn_id: Option<TurnId>,
}

impl Descendants {
    /// Whether there is none, so that nothing has another root than itself.
    pub fn is_empty(&self) -> bool {
        self.by_thread.is_empty()
    }

    /// The thread and the turn at the root of a thread and one of its turns.
    pub fn root(&self, thread_id: &ThreadId, turn_id: Option<&TurnId>) -> Root {
        let mut thread_id = thread_id.clone();
        let mut turn_id = turn_id.cloned();
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
    pub fn running(
        &self,
        root_thread_id: &ThreadId,
        root_turn_id: Option<&TurnId>,
    ) -> Vec<(ThreadId, TurnId)> {
        let running = self.by_thread.iter().filter_map(|(thread_id, descendant)| {
            let turn_id = &descendant.current.as_ref()?.turn_id;
            let root = self.root(thread_id, Some(turn_id));
            let is_of_turn =
                root_turn_id.is_none_or(|id| root.turn_id.as_ref().is_none_or(|root| root == id));
            (root.thread_id == *root_thread_id && is_of_turn).then(|| (thread_id.clone(), turn_id.clone()))
        });
        running.collect()
    }

    /// The turns that run in any of them, with their threads.
    pub fn all_running(&self) -> impl Iterator<Item = (&ThreadId, &TurnId)> {
        self.by_thread
            .iter()
            .filter_map(|(thread_id, descendant)| Some((thread_id, &descendant.current.as_ref()?.turn_id)))
    }

    pub(super) fn add(
        &mut self,
        thread_id: &ThreadId,
        parent_thread_id: &ThreadId,
        called_by: Option<CallingTurn>,
    ) {
        // A thread that calls its own ancestor, or the thread of a session, does not make it a descendant.
        if self.root(parent_thread_id, None).thread_id == *thread_id || thread_id == parent_thread_id {
            return;
        }
        let is_new = !self.by_thread.contains_key(thread_id);
        if is_new && self.by_thread.len() >= MAX_KEPT {
            return;
        }
        let early = &mut self.early;
        let known = self.by_thread.entry(thread_id.clone()).or_insert_with(|| Descendant {
            parent_thread_id: parent_thread_id.clone(),
            called_by: None,
            current: take_early(early, thread_id),
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

    /// Remembers the turn that runs in a thread; returns whether the thread is a descendant.
    pub(super) fn turn_started(&mut self, thread_id: &ThreadId, turn: RunningTurn) -> bool {
        if let Some(descendant) = self.by_thread.get_mut(thread_id) {
            descendant.current = Some(turn);
            return true;
        }
        take_early(&mut self.early, thread_id);
        if self.early.len() >= MAX_EARLY_TURNS {
            self.early.pop_front();
        }
        self.early.push_back((thread_id.clone(), turn));
        false
    }

    /// Forgets a turn that is over; returns whether its thread is a descendant.
    pub(super) fn turn_ended(&mut self, thread_id: &ThreadId, turn_id: &TurnId) -> bool {
        self.early.retain(|(_, turn)| turn.turn_id != *turn_id);
        let Some(descendant) = self.by_thread.get_mut(thread_id) else { return false };
        descendant.current.take_if(|current| current.turn_id == *turn_id);
        true
    }

    /// Forgets all turns, as the connection that carried them is over; returns whether one ran in a descendant.
    pub(super) fn connection_ended(&mut self) -> bool {
        self.early.clear();
        let ended = self.by_thread.values_mut().filter_map(|descendant| descendant.current.take()).count();
        ended > 0
    }

    /// Whether the way from a thread to its root leads back to itself.
    fn is_cycle(&self, thread_id: &ThreadId) -> bool {
        self.by_thread.contains_key(&self.root(thread_id, None).thread_id)
    }
}

/// Takes the turn that started in a thread before the thread was known.
fn take_early(early: &mut VecDeque<(ThreadId, RunningTurn)>, thread_id: &ThreadId) -> Option<RunningTurn> {
    let position = early.iter().position(|(other, _)| other == thread_id)?;
    early.remove(position).map(|(_, turn)| turn)
}
