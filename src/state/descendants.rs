//! Threads of sub-agents: whose they are, and what runs in them.
//!
//! Codex announces them by items of the thread that calls upon them (`collabAgentToolCall`, `subAgentActivity`), by the
//! `parentThreadId` of a thread that started, and by the `rootTurnId` of their turns (measured on 0.140.0, 0.160.1,
//! 0.169.0 and 0.171.0; the item that spawns comes before the first turn of the spawned thread, and only 0.169.0 and
//! later name the root of a turn).
//! A descendant is nobody's session: what it does belongs to the session of the thread at its root, and is decided by
//! the session that started the turn at the root.

use std::collections::BTreeMap;

use super::{Change, ServerRequest, State};
use crate::codex::protocol::items::called_sub_agents;
use serde::{Deserialize, Serialize};

/// How many generations are looked through for the root; Codex allows few, and a circle must end.
const MAX_DEPTH: usize = 64;
/// How many descendants are remembered.
const MAX_KEPT: usize = 10_000;

/// A thread that descends from the thread of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descendant {
    /// The thread that spawned it.
    parent_thread_id: String,
    /// The newest turn in which an agent called upon it, with the thread of that turn.
    #[serde(default)]
    called_by: Option<CallingTurn>,
    /// The turn that runs in it.
    #[serde(default)]
    current: Option<RunningTurn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallingTurn {
    thread_id: String,
    turn_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunningTurn {
    turn_id: String,
    /// The turn at the root that it is part of, where Codex says so.
    #[serde(default)]
    root_turn_id: Option<String>,
}

/// All threads that descend from the threads of sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Descendants {
    by_thread: BTreeMap<String, Descendant>,
}

/// Where a thread and a turn come from; a thread that descends from none is its own root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The thread at the root.
    pub thread_id: String,
    /// The turn of that thread, as far as it is known.
    pub turn_id: Option<String>,
}

impl Change {
    /// Whether it may say of a thread that it descends from another one, so that what follows is about a descendant.
    pub fn may_add_descendant(&self) -> bool {
        match self {
            Change::ThreadStarted { .. } => true,
            Change::ItemCompleted { thread_id, item, .. } => called_sub_agents(thread_id, item).is_some(),
            _ => false,
        }
    }
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

    fn add(&mut self, thread_id: &str, parent_thread_id: &str, called_by: Option<CallingTurn>) {
        // Whoever calls upon its own ancestor, or upon a thread of a session, makes no descendant of it.
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

impl State {
    /// Whether a request is shown with a session: it belongs to it, or to none and to its thread.
    pub fn lists_request(&self, session_id: &str, request: &ServerRequest) -> bool {
        match &request.session_id {
            Some(owner) => owner == session_id,
            None => {
                let session = self.sessions.get(session_id);
                let thread_id = session.and_then(|session| session.thread_id.as_deref());
                thread_id.is_some() && request.root_thread_id.as_deref() == thread_id
            }
        }
    }

    /// The session that decides about something of a thread and a turn: the one that started the turn at the root.
    ///
    /// `None` for what descends from a turn that no session started.
    pub fn deciding_session(&self, thread_id: &str, turn_id: Option<&str>) -> Option<&str> {
        let root = self.descendants.root(thread_id, turn_id);
        let running = || self.turns.running(&root.thread_id).map(|turn| turn.turn_id.clone());
        let turn_id = root.turn_id.clone().or_else(running)?;
        let owner = self.owner_of(&root.thread_id, &turn_id)?;
        self.sessions.get(owner).map(|session| session.session_id.as_str())
    }

    /// Takes in what a change says about descendants; returns whether it said anything.
    pub(super) fn apply_to_descendants(&mut self, change: &Change) -> bool {
        match change {
            Change::ThreadStarted { thread_id, parent_thread_id } => {
                self.add_descendant(thread_id, parent_thread_id, None)
            }
            Change::ItemCompleted { thread_id, turn_id, item } => {
                let Some((sender, receivers)) = called_sub_agents(thread_id, item) else { return false };
                let caller = CallingTurn { thread_id: thread_id.clone(), turn_id: turn_id.clone() };
                let mut is_change = false;
                for receiver in &receivers {
                    is_change |= self.add_descendant(receiver, &sender, Some(caller.clone()));
                }
                is_change
            }
            Change::TurnStarted { thread_id, turn_id, root_turn_id, .. } => {
                let Some(descendant) = self.descendants.by_thread.get_mut(thread_id) else { return false };
                descendant.current =
                    Some(RunningTurn { turn_id: turn_id.clone(), root_turn_id: root_turn_id.clone() });
                true
            }
            Change::TurnCompleted { thread_id, turn_id, .. } => {
                let Some(descendant) = self.descendants.by_thread.get_mut(thread_id) else { return false };
                if descendant.current.as_ref().is_some_and(|current| current.turn_id == *turn_id) {
                    descendant.current = None;
                }
                true
            }
            // The turns of descendants are carried by the connection like all others.
            Change::ConnectionFailed { .. } | Change::DaemonStarted { .. } | Change::Connected { .. } => {
                let any = self.descendants.all_running().next().is_some();
                self.descendants.by_thread.values_mut().for_each(|descendant| descendant.current = None);
                any
            }
            Change::SessionForgotten { .. } => {
                let threads = &self.descendants.by_thread;
                let is_kept = |thread_id: &String| {
                    self.sessions.of_thread(&self.descendants.root(thread_id, None).thread_id).is_some()
                };
                let gone: Vec<_> = threads.keys().filter(|thread_id| !is_kept(thread_id)).cloned().collect();
                gone.iter().for_each(|thread_id| drop(self.descendants.by_thread.remove(thread_id)));
                !gone.is_empty()
            }
            _ => false,
        }
    }

    /// A thread descends from another one; kept when there is a session at the root.
    fn add_descendant(
        &mut self,
        thread_id: &str,
        parent_thread_id: &str,
        called_by: Option<CallingTurn>,
    ) -> bool {
        let root = self.descendants.root(parent_thread_id, None).thread_id;
        if self.sessions.of_thread(&root).is_none() || self.sessions.of_thread(thread_id).is_some() {
            return false;
        }
        self.descendants.add(thread_id, parent_thread_id, called_by);
        true
    }
}
