//! What a hook is told when events between its cursor and the next event are missing.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::journal::{Bounds, Cursor, CursorExpired, Hole};

/// A gap that is to be delivered; it stays the same until it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Gap {
    /// Why events are missing: `expired`, `epoch`, `future`, `lost`, or `cursor` if the cursor itself was lost.
    reason: String,
    /// The cursor of the hook before; `null` when it was lost.
    after: Option<String>,
    /// The first event that is missing, if that is known.
    lost_from: Option<u64>,
    /// The last event that is missing, if that is known.
    lost_through: Option<u64>,
    /// The number after which the hook continues.
    pub(super) through: u64,
    /// The epoch of that number.
    pub(super) epoch: String,
}

/// The reason of a gap whose hook has no cursor.
const NO_CURSOR: &str = "cursor";

impl Gap {
    /// The gap of a cursor that cannot be followed.
    ///
    /// The hook continues with the first event in the log that its cursor does not exclude: numbers are not used twice, so
    /// those above the cursor are new even in another epoch.
    pub(super) fn after(bounds: &Bounds, cursor: &Cursor, expired: CursorExpired) -> Self {
        let before_oldest = bounds.oldest.saturating_sub(1);
        let is_known = expired == CursorExpired::Expired;
        let through = match cursor.seq {
            // The log is shorter than it was: all of it is new.
            seq if seq > bounds.latest => before_oldest,
            seq if seq < before_oldest => before_oldest,
            // Neither the files nor memory have the next event.
            _ if is_known => bounds.latest,
            seq => seq,
        };
        let epoch = cursor.epoch.as_ref().unwrap_or(&bounds.epoch);
        Self {
            reason: expired.as_str().to_owned(),
            after: Some(format!("{epoch}-{}", cursor.seq)),
            lost_from: is_known.then_some(cursor.seq + 1),
            lost_through: is_known.then_some(through),
            through,
            epoch: bounds.epoch.clone(),
        }
    }

    /// The gap of a hole in the log after event `cursor`.
    pub(super) fn in_log(bounds: &Bounds, cursor: u64, hole: Hole) -> Self {
        Self {
            reason: CursorExpired::Lost.as_str().to_owned(),
            after: Some(bounds.cursor(cursor)),
            lost_from: Some(hole.from),
            lost_through: Some(hole.through),
            through: hole.through,
            epoch: bounds.epoch.clone(),
        }
    }

    /// The gap of a hook whose cursor was lost: it continues with the next event.
    pub(super) fn without_cursor(bounds: &Bounds) -> Self {
        Self {
            reason: NO_CURSOR.to_owned(),
            after: None,
            lost_from: None,
            lost_through: None,
            through: bounds.latest,
            epoch: bounds.epoch.clone(),
        }
    }

    /// The ID of its delivery, the same for every attempt.
    pub(super) fn id(&self) -> String {
        format!("{}-{}-gap", self.epoch, self.through)
    }

    /// What is delivered.
    pub(super) fn payload(&self, hook_name: &str) -> Value {
        json!({
            "id": self.id(),
            "hook": hook_name,
            "type": "gap",
            "message": "Events are missing between this cursor and the next event.",
            "detail": {
                "reason": self.reason,
                "after": self.after,
                "lostFrom": self.lost_from,
                "lostThrough": self.lost_through,
                "cursor": format!("{}-{}", self.epoch, self.through),
            },
        })
    }
}
