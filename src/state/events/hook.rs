//! The events of hooks. No hook gets them, so that none can cause itself to run.

use crate::ids::{HookId, SessionId};
use crate::state::Level::{self, Error, Info, Warn};

event_types! {
    /// The events of hooks.
    enum HookEvent {
        /// A hook was added.
        "hook.added" => Added {
            /// The hook.
            hook_id: HookId,
            /// Its name.
            name: String,
            /// The prefixes of the types of its events.
            on: Vec<String> = default,
            /// The session to which it is limited; `null` for all.
            session_id: Option<SessionId> = default,
        } => Info, format!("Added hook \"{name}\".");
        /// A hook was removed.
        "hook.removed" => Removed {
            /// The hook.
            hook_id: HookId,
            /// Its name.
            name: String,
        } => Info, format!("Removed hook \"{name}\".");
        /// The deliveries of a hook fail repeatedly; recorded once until one succeeds.
        "hook.failing" => Failing {
            /// The hook.
            hook_id: HookId,
            /// Its name.
            name: String,
            /// The number of the event that it does not take; `null` for a gap.
            event_seq: Option<u64> = default,
            /// How often the delivery was tried.
            attempts: u32 = default,
            /// Why the last one failed, as a clause.
            error: String = default,
        } => Warn, format!("Hook \"{name}\" fails: {error}. It is tried again.");
        /// A delivery succeeded again.
        "hook.recovered" => Recovered {
            /// The hook.
            hook_id: HookId,
            /// Its name.
            name: String,
        } => Info, format!("Hook \"{name}\" works again.");
        /// An event was not delivered within a day.
        "hook.skipped" => Skipped {
            /// The hook.
            hook_id: HookId,
            /// Its name.
            name: String,
            /// The number of the event; `null` for a gap.
            event_seq: Option<u64> = default,
            /// How often the delivery was tried.
            attempts: u32 = default,
            /// Why the last one failed, as a clause.
            error: String = default,
        } => Error, match event_seq {
            Some(seq) => format!("Hook \"{name}\" did not get event {seq} in {attempts} attempts: {error}."),
            None => format!("Hook \"{name}\" did not get the notice of a gap in {attempts} attempts: {error}."),
        };
    }
}
