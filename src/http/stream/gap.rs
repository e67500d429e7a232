//! The notices about events that a stream cannot send. Stateless; called by every transport.

use serde_json::{Value, json};

use crate::journal::{Bounds, CursorExpired, Hole};

/// The notice about events that are missing from the log; its `cursor` continues after them.
pub(super) fn lost_notice(bounds: &Bounds, hole: Hole) -> Value {
    let mut gap = gap_notice(bounds, CursorExpired::Lost);
    gap["cursor"] = bounds.cursor(hole.through).into();
    gap["lostFrom"] = hole.from.into();
    gap["lostThrough"] = hole.through.into();
    gap
}

/// The notice about a cursor that has expired; its `cursor` continues after the newest event.
pub(super) fn gap_notice(bounds: &Bounds, expired: CursorExpired) -> Value {
    json!({
        "reason": expired.as_str(),
        "epoch": bounds.epoch,
        "oldest": bounds.oldest,
        "latest": bounds.latest,
        "cursor": bounds.cursor(bounds.latest),
    })
}
