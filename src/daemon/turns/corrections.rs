//! Reading what the records lack from a thread of an app-server that went on without a connection.
//!
//! `threads` calls it after each resume of a thread that has other clients, and `reconnect` for threads without an active
//! session.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::codex::Client;
use crate::codex::protocol::responses::{ListedTurn, TurnPage};
use crate::codex::protocol::values;
use crate::daemon::app_server::calls::call;
use crate::daemon::app_server::read_response::{newest_turns, newest_turns_with_items};
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::daemon::queue::held::holds_after_failure;
use crate::ids::{ThreadId, TurnId};
use crate::state::{NewEvent, NotificationEvent, Phase, State, Turn, TurnEvent};
use crate::timestamp::Timestamp;

/// How many of a thread's newest turns are read.
const NEWEST_TURNS_LIMIT: u32 = 20;

/// The turns of a thread that are known before it is resumed: of those that are newer, nothing was heard.
#[derive(Debug)]
pub(in crate::daemon) struct TurnsBefore(BTreeSet<TurnId>);

impl TurnsBefore {
    pub(in crate::daemon) fn of(state: &State, thread_id: &ThreadId) -> Self {
        let recorded = state.turns.of(thread_id).map(|turn| turn.turn_id.clone());
        // A session may have been opened on a thread with turns; it knows the newest of them.
        let sessions = state.sessions.active_in_thread(thread_id);
        Self(recorded.chain(sessions.filter_map(|session| session.last_turn_id.clone())).collect())
    }

    /// Whether this turn is one of them.
    pub(in crate::daemon) fn has(&self, turn_id: &TurnId) -> bool {
        self.0.contains(turn_id)
    }
}

/// Reads the newest turns of a thread, which was resumed before if it is to be followed, and records what the records do
/// not have: how turns ended, their items, a turn that another client started and that runs, and those that began and
/// ended after the newest one in `before`. Without `before`, none of these is awaited.
pub(in crate::daemon) async fn read_turns(
    core: &Core,
    client: &Client,
    thread_id: &ThreadId,
    before: Option<TurnsBefore>,
) -> Result<(), DaemonError> {
    let (method, params) = newest_turns_with_items(client, thread_id, NEWEST_TURNS_LIMIT);
    let listed: TurnPage = match call(client, method, &params).await {
        // With the items, the response can be longer than one may be.
        Err(DaemonError::AppServer { code: None, .. }) => {
            let (method, params) = newest_turns(client, thread_id, NEWEST_TURNS_LIMIT);
            call(client, method, &params).await?
        }
        listed => listed?,
    };
    let thread_id = thread_id.clone();
    core.record_durably(move |state| {
        let turns = &listed.data;
        let known = |before: TurnsBefore| turns.iter().position(|found| before.has(&found.id));
        // Those before it are newer.
        let end_of_missed = before.map_or(0, |before| known(before).unwrap_or(turns.len()));
        // Oldest first, as they happened.
        let found = turns.iter().enumerate().rev().flat_map(|(index, found)| {
            let place = Place {
                is_newest: index == 0,
                is_missed: index < end_of_missed,
                previous: turns.get(index + 1).map(|previous| previous.id.clone()),
            };
            corrections(state, &thread_id, found, place)
        });
        found.collect()
    })
    .await
}

/// Where a turn is in its thread.
struct Place {
    is_newest: bool,
    /// Whether it began when codexd did not hear of the thread.
    is_missed: bool,
    previous: Option<TurnId>,
}

/// Whether a listed turn that looks interrupted may only have begun.
///
/// Codex lists a turn whose history has no end as `interrupted` while its thread is not active, and the history has the
/// beginning of a turn a moment before the thread becomes active (observed with 0.171.0 on a busy machine).
pub(in crate::daemon) fn may_have_just_begun(found: &ListedTurn) -> bool {
    /// How long that moment may be, in seconds; a turn that was cut off in it counts as running until it is checked.
    const WINDOW: i64 = 60;
    let is_recent = |at: i64| at >= jiff::Timestamp::now().as_second() - WINDOW;
    found.status == values::TURN_INTERRUPTED
        && found.completed_at.is_none()
        && found.started_at.is_none_or(is_recent)
}

/// What the records lack of a turn as its thread lists it.
///
/// The newest turn counts as running if it may just have begun: the watch of running turns settles it if it was cut off.
fn corrections(state: &State, thread_id: &ThreadId, found: &ListedTurn, place: Place) -> Vec<NewEvent> {
    let known = state.turns.get(thread_id, &found.id);
    let may_begin = place.is_newest && may_have_just_begun(found) && known.is_none_or(|turn| !turn.is_over());
    let runs = found.status == values::TURN_IN_PROGRESS;
    let is_inner = found.root_turn_id.as_ref().is_some_and(|root| *root != found.id);
    let is_news = match known {
        Some(turn) => !turn.is_over() || turn.phase == Phase::CutOff,
        None if runs => place.is_newest,
        None => place.is_missed && !is_inner,
    };
    let Some(session) = state.sessions.of_thread(thread_id).filter(|_| is_news) else { return Vec::new() };
    let owner = known.and_then(|turn| state.session_for(turn)).unwrap_or(session);
    let started = NotificationEvent::TurnStarted {
        status: values::TURN_IN_PROGRESS.to_owned(),
        thread_id: thread_id.clone(),
        turn_id: found.id.clone(),
        root_turn_id: None,
        read_from_thread: true,
        started_at: found.started_at.map(Timestamp::of_seconds),
        previous_turn_id: place.previous,
    };
    let started = known.is_none().then(|| started.into());
    let is_missing = |item: &&Value| {
        let is_known = |turn: &Arc<Turn>| item["id"].as_str().is_some_and(|id| turn.has_item(id));
        is_complete(item) && !known.is_some_and(is_known)
    };
    let items = found.items.iter().filter(is_missing).map(|item| {
        let (session_id, thread_id, turn_id) =
            (Some(owner.session_id.clone()), thread_id.clone(), found.id.clone());
        TurnEvent::ItemRead { session_id, thread_id, turn_id, item: item.clone() }.into()
    });
    let settled = TurnEvent::Settled {
        session_id: owner.session_id.clone(),
        thread_id: Some(thread_id.clone()),
        turn_id: found.id.clone(),
        status: found.status.clone(),
        error: found.error.clone(),
        completed_at: found.completed_at.map(Timestamp::of_seconds),
    };
    if runs || may_begin {
        let needs_status = known.is_some_and(|turn| turn.phase == Phase::CutOff);
        let settled = needs_status.then(|| settled.into());
        return started.into_iter().chain(settled).chain(items).collect();
    }
    let error = found.error.as_ref().unwrap_or(&Value::Null);
    let holds = holds_after_failure(state, thread_id, Some(&found.id), error);
    // The end last: a caller that waits for it reads the turn then.
    started.into_iter().chain(items).chain(holds).chain([settled.into()]).collect()
}

/// Whether an item of a turn that runs has ended.
fn is_complete(item: &Value) -> bool {
    item["status"] != values::TURN_IN_PROGRESS
        && (item.get("completedAtMs").is_none() || !item["completedAtMs"].is_null())
}
