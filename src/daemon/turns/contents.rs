//! What a turn has to show (its items, its answer, its error): read from the log when it is asked for, and cached.
//!
//! The log may lack events of a turn during which the connection to an app-server that outlives it was lost; when it is
//! over, its items are read from the app-server too.
//!
//! [`TurnReader`] reads them and owns the cache, which is bounded in bytes; `turns/read.rs` and `skipped_items.rs` call it.
//! The record of a turn names its first and its newest event, so a search of the log reads what lies between them.

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use crate::codex::Client;
use crate::codex::protocol::responses::ListedTurn;
use crate::codex::protocol::values;
use crate::daemon::app_server::calls::{search_turns, with_id};
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::recorder::recovery::is_foldable;
use crate::ids::{ThreadId, TurnId};
use crate::journal::{Log, Next};
use crate::state::{Contents, Event, JsonText, Turn};

/// The most memory of the cached contents, approximately.
const MAX_CACHE_BYTES: usize = 4 * 1024 * 1024;
/// How many turns have cached contents at most.
const MAX_CACHED_TURNS: usize = 256;

/// How many turns each page has when a thread is searched for a turn.
const PAGE_SIZE: u32 = 100;

/// A turn with its contents.
#[derive(Debug, Clone)]
pub struct TurnView {
    pub(in crate::daemon) turn: Arc<Turn>,
    /// What it has to show.
    pub contents: Arc<Contents>,
}

impl Deref for TurnView {
    type Target = Turn;

    fn deref(&self) -> &Turn {
        &self.turn
    }
}

/// The contents that were read last.
#[derive(Debug, Default)]
struct ContentsCache {
    /// The one that was used last is at the end.
    entries: Mutex<VecDeque<Entry>>,
}

#[derive(Debug)]
struct Entry {
    thread_id: ThreadId,
    turn_id: TurnId,
    found: Found,
    bytes: usize,
}

/// What was read of a turn.
#[derive(Debug, Clone, Default)]
struct Found {
    contents: Arc<Contents>,
    /// The newest event that is folded in.
    through: u64,
    /// Whether the app-server was asked for it too.
    is_of_app_server: bool,
}

impl ContentsCache {
    /// The contents of a turn from its first event to `through`; `None` when the log no longer has all of them.
    async fn read(&self, log: &Arc<Log>, turn: &Turn, through: u64) -> io::Result<Option<Found>> {
        // An item of a later event may be among those that the app-server listed.
        let usable = |found: &Found| !found.is_of_app_server || found.through >= through;
        let found = self.take(turn).filter(usable).unwrap_or_else(|| {
            let before = if turn.first_seq > 0 { turn.first_seq } else { log.bounds().oldest };
            Found { through: before.saturating_sub(1), ..Found::default() }
        });
        let Found { mut contents, through: cursor, is_of_app_server } = found;
        let mut lines = log.follow(cursor);
        while lines.cursor() < through {
            match lines.step().await? {
                // With a disk that fails the records may be ahead of the visible events.
                None => break,
                Some(Next::Lines(lines)) => {
                    for line in lines.iter().filter(|line| line.seq <= through) {
                        apply(Arc::make_mut(&mut contents), turn, line.json());
                    }
                }
                Some(Next::Missing(_) | Next::Expired) => return Ok(None),
            }
        }
        if turn.first_seq == 0 && !contents.has_beginning {
            return Ok(None);
        }
        let found = Found { contents, through, is_of_app_server };
        self.put(turn, &found);
        Ok(Some(found))
    }

    /// Keeps what was read of a turn.
    fn put(&self, turn: &Turn, found: &Found) {
        // Another reader may have put them there meanwhile.
        drop(self.take(turn));
        let bytes = found.contents.bytes();
        let (thread_id, turn_id) = (turn.thread_id.clone(), turn.turn_id.clone());
        let entry = Entry { thread_id, turn_id, found: found.clone(), bytes };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back(entry);
        let mut total: usize = entries.iter().map(|entry| entry.bytes).sum();
        while total > MAX_CACHE_BYTES || entries.len() > MAX_CACHED_TURNS {
            let Some(oldest) = entries.pop_front() else { break };
            total -= oldest.bytes;
        }
    }

    /// Takes what was read of a turn out.
    fn take(&self, turn: &Turn) -> Option<Found> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |entry: &Entry| entry.turn_id == turn.turn_id && entry.thread_id == turn.thread_id;
        let entry = entries.iter().position(is_it).and_then(|index| entries.remove(index))?;
        Some(entry.found)
    }
}

/// Reads the turns that have records; clones share the cache.
#[derive(Clone)]
pub(in crate::daemon) struct TurnReader {
    core: Arc<Core>,
    cache: Arc<ContentsCache>,
}

impl TurnReader {
    pub(in crate::daemon) fn new(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), cache: Arc::default() }
    }

    /// A turn that has a record, with its contents: from the log, else from the app-server, else what its record kept.
    pub(in crate::daemon) async fn recorded(
        &self,
        thread_id: &ThreadId,
        turn_id: &TurnId,
    ) -> Option<TurnView> {
        let (turn, through) = {
            let state = self.core.state();
            let turn = state.turns.get(thread_id, turn_id).cloned()?;
            let through = if turn.is_over() { turn.last_seq } else { state.through };
            (turn, through)
        };
        let of_log = self.cache.read(&self.core.recorder.view().log, &turn, through).await;
        let of_log = of_log.unwrap_or_else(|error| {
            tracing::warn!(%error, %turn_id, "failed to read a turn from the event log");
            None
        });
        // The items of a turn that runs are recorded as they end, and those before at each connection.
        let lacks_events =
            turn.has_gap && turn.is_over() && self.core.config.server.strategy.has_other_clients();
        if let Some(found) = of_log.as_ref().filter(|found| found.is_of_app_server || !lacks_events) {
            return Some(TurnView { turn, contents: Arc::clone(&found.contents) });
        }
        let listed = match self.core.current_client() {
            Ok(client) => list_turn(&client, thread_id, turn_id).await.unwrap_or_else(|error| {
                tracing::debug!(%error, %turn_id, "failed to read a turn from its thread");
                None
            }),
            Err(_) => None,
        };
        let contents = match (listed, of_log) {
            (Some(listed), of_log) => {
                let is_current = !turn.is_over() || listed.status != values::TURN_IN_PROGRESS;
                let mut contents = contents_of(&listed);
                contents.add_what_it_lacks(of_log.map(|found| found.contents).unwrap_or_default().as_ref());
                let found = Found { contents: Arc::new(contents), through, is_of_app_server: true };
                if is_current {
                    self.cache.put(&turn, &found);
                }
                found.contents
            }
            (None, Some(of_log)) => of_log.contents,
            (None, None) => Arc::new(Contents {
                text: turn.kept.text.as_deref().map(str::to_owned),
                error: turn.kept.error.as_ref().map(JsonText::value),
                token_usage: turn.kept.token_usage.as_ref().map(JsonText::value),
                ..Contents::default()
            }),
        };
        Some(TurnView { turn, contents })
    }
}

/// The turn as its thread lists it.
pub(super) async fn list_turn(
    client: &Client,
    thread_id: &ThreadId,
    turn_id: &TurnId,
) -> Result<Option<ListedTurn>, DaemonError> {
    search_turns(client, thread_id, PAGE_SIZE, usize::MAX, with_id(turn_id)).await
}

pub(super) fn contents_of(turn: &ListedTurn) -> Contents {
    let mut contents = Contents { error: turn.error.clone(), ..Contents::default() };
    contents.has_beginning = true;
    for item in &turn.items {
        contents.add_item(item);
    }
    contents
}

/// Folds in an event of the log if it is about the turn.
fn apply(contents: &mut Contents, turn: &Turn, json: &[u8]) {
    let names = |id: &str| memchr::memmem::find(json, id.as_bytes()).is_some();
    if names(turn.turn_id.as_str())
        && names(turn.thread_id.as_str())
        && is_foldable(json)
        && let Ok(event) = serde_json::from_slice::<Event>(json)
        && let Some(detail) = event.read()
    {
        contents.apply(&turn.turn_id, &detail);
    }
}
