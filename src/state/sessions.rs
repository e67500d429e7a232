//! [`Sessions`]: the collection of all sessions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::session::{Session, SessionStatus};
use crate::ids::{SessionId, ThreadId};
use crate::timestamp::Timestamp;

/// All sessions in the order of their creation, with the indexes that the fold needs.
///
/// A record is shared, so that a reader's copy of the whole list costs one pointer a session.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    records: BTreeMap<u64, Arc<Session>>,
    by_id: HashMap<SessionId, u64>,
    by_thread: HashMap<ThreadId, Vec<u64>>,
    /// By the time of their end, oldest first.
    closed: BTreeSet<(Timestamp, u64)>,
    next: u64,
}

impl Sessions {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// One session by its id.
    pub fn get(&self, session_id: &SessionId) -> Option<&Arc<Session>> {
        self.records.get(self.by_id.get(session_id)?)
    }

    /// The sessions of a thread, oldest first.
    pub fn in_thread(&self, thread_id: &ThreadId) -> impl Iterator<Item = &Arc<Session>> {
        let ordinals = self.by_thread.get(thread_id).into_iter().flatten();
        ordinals.filter_map(|ordinal| self.records.get(ordinal))
    }

    /// The newest session of a thread, an active one before a closed one.
    pub fn of_thread(&self, thread_id: &ThreadId) -> Option<&Arc<Session>> {
        self.in_thread(thread_id).max_by_key(|session| session.status == SessionStatus::Active)
    }

    /// All sessions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.records.values()
    }

    /// The active sessions of a thread, oldest first.
    pub fn active_in_thread(&self, thread_id: &ThreadId) -> impl Iterator<Item = &Arc<Session>> {
        self.in_thread(thread_id).filter(|session| session.status == SessionStatus::Active)
    }

    /// How many are closed.
    pub fn closed_count(&self) -> usize {
        self.closed.len()
    }

    /// The closed ones, the one that ended first at the beginning.
    pub fn closed(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.closed.iter().filter_map(|(_, ordinal)| self.records.get(ordinal))
    }

    /// Removes a session; `false` when there is none with that id.
    pub fn remove(&mut self, session_id: &SessionId) -> bool {
        let Some(ordinal) = self.by_id.remove(session_id) else { return false };
        self.unindex(ordinal);
        self.records.remove(&ordinal).is_some()
    }

    /// Adds a session, or replaces the one with the same id at its position.
    pub fn insert(&mut self, mut session: Session) {
        if let Some((_, newest)) = self.records.last_key_value() {
            session.share_texts(newest);
        }
        if let Some(&ordinal) = self.by_id.get(&session.session_id) {
            self.unindex(ordinal);
            self.put(ordinal, Arc::new(session));
            return;
        }
        let ordinal = self.next;
        self.next += 1;
        self.by_id.insert(session.session_id.clone(), ordinal);
        self.put(ordinal, Arc::new(session));
    }

    /// Changes one session; `false` when there is none with that id.
    pub fn update(&mut self, session_id: &SessionId, change: impl FnOnce(&mut Session)) -> bool {
        let Some(&ordinal) = self.by_id.get(session_id) else { return false };
        self.update_at(ordinal, change);
        true
    }

    /// Changes every active session of a thread; `false` when there is none.
    pub fn update_active(&mut self, thread_id: &ThreadId, change: impl Fn(&mut Session)) -> bool {
        let active: Vec<_> =
            self.active_in_thread(thread_id).map(|session| session.session_id.clone()).collect();
        for session_id in &active {
            self.update(session_id, &change);
        }
        !active.is_empty()
    }

    /// Changes every session of a thread; `false` when there is none.
    pub fn update_thread(&mut self, thread_id: &ThreadId, change: impl Fn(&mut Session)) -> bool {
        let Some(ordinals) = self.by_thread.get(thread_id).cloned() else { return false };
        for &ordinal in &ordinals {
            self.update_at(ordinal, &change);
        }
        !ordinals.is_empty()
    }

    fn update_at(&mut self, ordinal: u64, change: impl FnOnce(&mut Session)) {
        let Some(mut session) = self.records.get(&ordinal).cloned() else { return };
        self.unindex(ordinal);
        // Without the entry of the table the record is not shared, unless a reader holds it.
        self.records.remove(&ordinal);
        change(Arc::make_mut(&mut session));
        self.put(ordinal, session);
    }

    /// Inserts a record, and adds it to the indexes.
    fn put(&mut self, ordinal: u64, session: Arc<Session>) {
        if let Some(thread_id) = &session.thread_id {
            let ordinals = self.by_thread.entry(thread_id.clone()).or_default();
            let at = ordinals.partition_point(|&other| other < ordinal);
            ordinals.insert(at, ordinal);
        }
        if session.status == SessionStatus::Closed {
            self.closed.insert((session.updated_at.clone(), ordinal));
        }
        self.records.insert(ordinal, session);
    }

    /// Removes a record from the indexes only.
    fn unindex(&mut self, ordinal: u64) {
        let Some(session) = self.records.get(&ordinal) else { return };
        if let Some(thread_id) = &session.thread_id
            && let Some(ordinals) = self.by_thread.get_mut(thread_id)
        {
            ordinals.retain(|&other| other != ordinal);
            if ordinals.is_empty() {
                self.by_thread.remove(thread_id);
            }
        }
        self.closed.remove(&(session.updated_at.clone(), ordinal));
    }
}

impl PartialEq for Sessions {
    fn eq(&self, other: &Self) -> bool {
        self.records.values().eq(other.records.values())
    }
}
