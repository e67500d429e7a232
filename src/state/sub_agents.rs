//! The threads of sub-agents, from events, and the session that decides about them.

use serde_json::Value;

use super::descendants::{CallingTurn, RunningTurn};
use super::events::{ChildEvent, DaemonEvent, EventDetail, NotificationEvent, PassedThrough};
use super::events::{SessionEvent, TurnEvent};
use super::records::State;
use super::server_requests::ServerRequest;
use crate::codex::protocol::items::called_sub_agents;
use crate::ids::{SessionId, ThreadId, TurnId};

impl EventDetail {
    /// Whether it may report that a thread descends from another one, so that later events are about a descendant.
    pub fn may_add_descendant(&self) -> bool {
        if let EventDetail::Notification(NotificationEvent::ThreadStarted { parent_thread_id, .. }) = self {
            return parent_thread_id.is_some();
        }
        self.completed_item().is_some_and(|(thread_id, _, item)| called_sub_agents(thread_id, item).is_some())
    }

    /// The thread, the turn and the item, when an item is complete.
    fn completed_item(&self) -> Option<(&ThreadId, &TurnId, &Value)> {
        match self {
            EventDetail::Turn(TurnEvent::ItemRead { thread_id, turn_id, item, .. })
            | EventDetail::Notification(NotificationEvent::Other(PassedThrough::ItemCompleted {
                thread_id,
                turn_id,
                item,
            })) => Some((thread_id, turn_id, item)),
            _ => None,
        }
    }
}

impl State {
    /// Whether a request is shown with a session: it belongs to it, or to none and to its thread.
    pub fn lists_request(&self, session_id: &SessionId, request: &ServerRequest) -> bool {
        match &request.session_id {
            Some(owner) => owner == session_id,
            None => {
                let session = self.sessions.get(session_id);
                let thread_id = session.and_then(|session| session.thread_id.as_ref());
                thread_id.is_some() && request.root_thread_id.as_ref() == thread_id
            }
        }
    }

    /// The session that decides about something of a thread and a turn: the one that started the turn at the root.
    ///
    /// `None` for what descends from a turn that no session started.
    pub fn deciding_session(&self, thread_id: &ThreadId, turn_id: Option<&TurnId>) -> Option<&SessionId> {
        let root = self.descendants.root(thread_id, turn_id);
        let running = || self.turns.running(&root.thread_id).map(|turn| turn.turn_id.clone());
        let turn_id = root.turn_id.clone().or_else(running)?;
        let owner = self.owner_of(&root.thread_id, &turn_id)?;
        self.sessions.get(owner).map(|session| &session.session_id)
    }

    /// Applies an event to the descendants; returns whether it was about them.
    pub(super) fn apply_to_descendants(&mut self, event: &EventDetail) -> bool {
        if let Some((thread_id, turn_id, item)) = event.completed_item() {
            let Some((sender, receivers)) = called_sub_agents(thread_id, item) else { return false };
            let caller = CallingTurn { thread_id: thread_id.clone(), turn_id: turn_id.clone() };
            let mut is_change = false;
            for receiver in &receivers {
                is_change |= self.add_descendant(receiver, &sender, Some(caller.clone()));
            }
            return is_change;
        }
        match event {
            EventDetail::Notification(NotificationEvent::ThreadStarted {
                thread_id,
                parent_thread_id: Some(parent),
            }) => self.add_descendant(thread_id, parent, None),
            EventDetail::Notification(NotificationEvent::TurnStarted {
                thread_id,
                turn_id,
                root_turn_id,
                ..
            }) => {
                // The threads of sessions are no descendants.
                if self.sessions.of_thread(thread_id).is_some() {
                    return false;
                }
                let (turn_id, root_turn_id) = (turn_id.clone(), root_turn_id.clone());
                self.descendants.turn_started(thread_id, RunningTurn { turn_id, root_turn_id })
            }
            EventDetail::Notification(NotificationEvent::TurnCompleted { thread_id, turn_id, .. }) => {
                self.descendants.turn_ended(thread_id, turn_id)
            }
            // The turns of descendants are carried by the connection like all others.
            EventDetail::Daemon(DaemonEvent::Started { .. })
            | EventDetail::Child(
                ChildEvent::Connected { .. }
                | ChildEvent::ConnectFailed { .. }
                | ChildEvent::TransportClosed { .. },
            ) => self.descendants.connection_ended(),
            EventDetail::Session(SessionEvent::Forgotten { .. }) => {
                let threads = &self.descendants.by_thread;
                let is_kept = |thread_id: &ThreadId| {
                    self.sessions.of_thread(&self.descendants.root(thread_id, None).thread_id).is_some()
                };
                let gone: Vec<_> = threads.keys().filter(|thread_id| !is_kept(thread_id)).cloned().collect();
                gone.iter().for_each(|thread_id| drop(self.descendants.by_thread.remove(thread_id)));
                !gone.is_empty()
            }
            _ => false,
        }
    }

    /// Adds a thread that descends from another one, when there is a session at the root.
    fn add_descendant(
        &mut self,
        thread_id: &ThreadId,
        parent_thread_id: &ThreadId,
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
