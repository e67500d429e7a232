//! The gap notices of the event stream. Stateless; called by every transport.

use serde_json::{Value, json};

use crate::journal::{Bounds, CursorExpired, Hole};

/// The notice for a client that reaches events which are missing from the log; its `cursor` continues right after them.
pub(super) fn lost_notice(bounds: &Bounds, hole: Hole) -> Value {
    let mut gap = gap_notice(bounds, CursorExpired::Lost);
    gap["cursor"] = bounds.cursor(hole.through).into();
    gap["lostFrom"] = hole.from.into();
    gap["lostThrough"] = hole.through.into();
    gap
}

/// The notice for a client whose cursor has expired.
pub(super) fn gap_notice(bounds: &Bounds, expired: CursorExpired) -> Value {
    json!({
        "reason": expired.as_str(),
        "epoch": bounds.epoch,
        "oldest": bounds.oldest,
        "latest": bounds.latest,
        "cursor": bounds.cursor(bounds.latest),
    })
}
