//! The records, and the one function that changes them: [`State::apply`].
//!
//! The recorder of `daemon` owns the only live [`State`] and applies each event to it; everything else reads it.
//! The records are the fold of the events: a snapshot and the events after it give the same records as all events from
//! the beginning.
//! The module is pure: it has no clock and no tasks, and only [`snapshot`] uses files.

mod answers;
mod compact;
mod daemon;
mod delta_text;
mod descendants;
mod earlier_registry;
mod event;
mod event_filter;
mod events;
mod fold;
mod held;
mod level;
mod new_event;
mod private;
mod queued_turn;
mod records;
mod records_file;
mod registry_file;
pub mod server_requests;
mod session;
mod session_forms;
mod sessions;
#[expect(
    clippy::disallowed_methods,
    reason = "snapshots are read before anything is served, and written by a separate thread"
)]
pub mod snapshot;
mod sub_agents;
#[cfg(test)]
mod tests;
mod threads;
pub mod title;
pub mod turn;
mod turn_end;
mod usage_limit;
mod usage_limits;

pub use answers::{Answers, IdempotencyKey, StoredResponse};
pub use compact::JsonText;
pub use daemon::{AccountState, ChildPhase, ChildState, ChildStatus, CodexRecord, DaemonState};
pub use delta_text::{DeltaText, detail_parts, unescaped};
pub use descendants::{Descendants, Root};
pub use event::Event;
pub use event_filter::EventFilter;
pub use events::{
    ChildEvent, DaemonEvent, EventDetail, FreeText, HookEvent, LogDamage, MissingTurn, NotificationEvent,
    PassedThrough, RequestEvent, RestartSchedule, SessionEvent, SessionOpened, TurnEvent, WaitedTurn,
    preview,
};
pub use held::{Held, HoldCause};
pub use level::Level;
pub use new_event::NewEvent;
pub use private::{PrivateSession, PrivateState};
pub use queued_turn::QueuedTurn;
pub use records::State;
pub use server_requests::{
    RequestPolicy, Resolution, ResolvedBy, ServerRequest, ServerRequestStatus, ServerRequests,
};
pub use session::{Purpose, Session, SessionStatus, Trust};
pub use session_forms::{SessionBody, write_sessions};
pub use sessions::Sessions;
pub use turn::{Contents, Phase, Turn, Turns};
pub use turn_end::TurnEnd;
pub use usage_limit::{OnUsageLimit, Trial, UsageLimit};
pub use usage_limits::provider_of;
