//! Reading what the records lack from a thread of an app-server that went on without a connection.
//!
//! `threads` calls it after each resume of a thread that has other clients, and `reconnect` for threads without an active
//! session.

use std::sync::Arc;

use serde_json::Value;

use crate::codex::Client;
use crate::codex::protocol::responses::{ListedTurn, TurnPage};
use crate::codex::protocol::values;
use crate::daemon::app_server::calls::call;
use crate::daemon::app_server::read_response::newest_turns_with_items;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::ids::ThreadId;
use crate::state::{NewEvent, Phase, State, Turn, TurnEvent};

/// How many of a thread's newest turns are read.
const NEWEST_TURNS_LIMIT: u32 = 20;

/// Reads the newest turns of a thread that was just resumed and records what the records do not have: how turns ended,
/// their items, and a turn that another client started and that runs.
pub(in crate::daemon) async fn read_turns(
    core: &Core,
    client: &Client,
    thread_id: &ThreadId,
) -> Result<(), DaemonError> {
    let (method, params) = newest_turns_with_items(client, thread_id, NEWEST_TURNS_LIMIT);
    let listed: TurnPage = call(client, method, &params).await?;
    let thread_id = thread_id.clone();
    core.record_durably(move |state| {
        // Oldest first, as they happened.
        let found = listed.data.iter().enumerate().rev();
        found.flat_map(|(index, found)| corrections(state, &thread_id, found, index == 0)).collect()
    })
    .await
}

/// What the records lack of a turn as its thread lists it.
fn corrections(state: &State, thread_id: &ThreadId, found: &ListedTurn, is_newest: bool) -> Vec<NewEvent> {
    let known = state.turns.get(thread_id, &found.id);
    let runs = found.status == values::TURN_IN_PROGRESS;
    let is_news = match known {
        Some(turn) => !turn.is_over() || turn.phase == Phase::CutOff,
        // A turn that is over and was never heard of was not awaited.
        None => runs && is_newest,
    };
    let Some(session) = state.sessions.of_thread(thread_id).filter(|_| is_news) else { return Vec::new() };
    let owner = known.and_then(|turn| state.session_for(turn)).unwrap_or(session);
    let is_missing = |item: &&Value| {
        let is_known = |turn: &Arc<Turn>| turn.item_ids.iter().any(|known| item["id"] == *known);
        is_complete(item) && !known.is_some_and(is_known)
    };
    let items = found.items.iter().filter(is_missing).map(|item| {
        let (session_id, thread_id, turn_id) =
            (Some(owner.session_id.clone()), thread_id.clone(), found.id.clone());
        TurnEvent::ItemRead { session_id, thread_id, turn_id, item: item.clone() }.into()
    });
    let needs_status = match known {
        Some(turn) if runs => turn.phase == Phase::CutOff,
        _ => true,
    };
    let settled = TurnEvent::Settled {
        session_id: owner.session_id.clone(),
        thread_id: Some(thread_id.clone()),
        turn_id: found.id.clone(),
        status: found.status.clone(),
        error: found.error.clone(),
    };
    // The end last: a caller that waits for it reads the turn then.
    if runs {
        return needs_status.then(|| settled.into()).into_iter().chain(items).collect();
    }
    items.chain([settled.into()]).collect()
}

/// Whether an item of a turn that runs has ended.
fn is_complete(item: &Value) -> bool {
    item["status"] != values::TURN_IN_PROGRESS
        && (item.get("completedAtMs").is_none() || !item["completedAtMs"].is_null())
}
