//! The turns that run when the app-server is to end: waiting for them, and interrupting them.

use std::sync::Arc;
use std::time::Duration;

use crate::codex::Availability;
use crate::codex::protocol::methods;
use crate::daemon::core::Core;
use crate::daemon::turns::sandboxes::{SANDBOX_GRACE_BEFORE_INTERRUPT, end_sandboxes};
use crate::ids::{ThreadId, TurnId};

/// How long interrupted turns may take to end; Codex takes about 10 ms (measured).
const INTERRUPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until no turn runs.
pub(in crate::daemon) async fn wait_until_idle(core: &Core) {
    let mut news = core.recorder.view().log.news();
    while !turns_to_drain(core).is_empty() {
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// The turns that run, as thread and turn IDs.
fn turns_to_drain(core: &Core) -> Vec<(ThreadId, TurnId)> {
    let state = core.state();
    let open = state.turns.open().map(|turn| (turn.thread_id.clone(), turn.turn_id.clone()));
    let of_sub_agents = state.descendants.all_running();
    let of_sub_agents = of_sub_agents.map(|(thread_id, turn_id)| (thread_id.clone(), turn_id.clone()));
    open.chain(of_sub_agents).collect()
}

/// Asks the app-server to end the turns that run, and waits a moment until they have.
pub(in crate::daemon) async fn interrupt_turns(core: &Arc<Core>) {
    let Availability::Ready(client) = core.availability.borrow().clone() else { return };
    let turns = turns_to_drain(core);
    if turns.is_empty() {
        return;
    }
    for (thread_id, turn_id) in turns {
        let (owner, client) = (Arc::clone(core), client.clone());
        core.tasks.spawn(async move {
            end_sandboxes(&owner.config, &thread_id, SANDBOX_GRACE_BEFORE_INTERRUPT).await;
            let params = serde_json::json!({ "threadId": thread_id, "turnId": turn_id });
            let _ = client.call(methods::TURN_INTERRUPT, &params, INTERRUPT_TIMEOUT).await;
        });
    }
    let _ = tokio::time::timeout(INTERRUPT_TIMEOUT, wait_until_idle(core)).await;
}
