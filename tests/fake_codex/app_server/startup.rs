//! What startup directives make the process do without a request.

use std::sync::Arc;

use serde_json::{Value, json};

use super::control::Input;
use super::deltas::write_delta;
use super::items;
use super::shared::Shared;
use super::threads::{Record, Settings};
use super::turn::TurnRunner;
use super::wire::{DeltaLines, locked};

/// Sends deltas of an unknown thread until stdout is closed.
pub(super) fn flood(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        let (thread_id, turn_id) = (items::new_id(), items::new_id());
        let mut lines = DeltaLines::new(&thread_id, &turn_id, "msg_000000");
        let mut delta = Vec::new();
        for index in 0.. {
            write_delta(&mut delta, index, 12);
            lines.push(&delta);
            if lines.is_full() && !lines.flush(&shared.wire, true) {
                return;
            }
        }
    });
}

/// Announces a thread that no client created and runs a turn on it, as sub-agents do.
pub(super) fn foreign_thread(shared: &Arc<Shared>) {
    let mut record = Record::new(Settings::new());
    record.source = json!({ "subAgent": "other" });
    let thread = shared.threads.add(record);
    let mut state = locked(&thread.state);
    let object = items::thread(&state.record, &state.status(), None, &[]);
    shared.wire.notify("thread/started", json!({ "thread": object }));
    let runner = TurnRunner::begin(shared, &thread, &mut state);
    drop(state);
    let text = "the turn of a thread that no client created";
    let content = vec![json!({ "type": "text", "text": text, "text_elements": [] })];
    std::thread::spawn(move || runner.run(Input { content, client_id: Value::Null }));
}
