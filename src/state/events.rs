//! Every event: its type, its detail, its level and message, and how it is read back from the log.
//!
//! [`EventDetail`] has one variant per event type, in one enum per area: a variant's fields are the keys of the detail, in
//! the order of the log.
//! `daemon` makes the events and records them, [`super::State::apply`] folds them into the records, and the OpenAPI
//! document contains their schemas.
//! Logs on disk contain every type, key and meaning, so none of them may change.

#[macro_use]
mod macros;
mod child;
mod daemon;
mod hook;
mod notification;
mod preview;
mod request;
mod session;
mod turn;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::{Map, Value};

use super::level::Level;

pub use child::{ChildEvent, FreeText, RestartSchedule, WaitedTurn};
pub use daemon::{DaemonEvent, LogDamage};
pub use hook::HookEvent;
pub use notification::{NotificationEvent, PassedThrough};
pub use preview::preview;
pub use request::RequestEvent;
pub use session::{SessionEvent, SessionOpened};
pub use turn::{MissingTurn, TurnEvent};

event_areas! {
    /// The daemon and its files.
    Daemon(DaemonEvent),
    /// The app-server's process, the connection to it, and the health of Codex.
    Child(ChildEvent),
    /// Sessions and their queues.
    Session(SessionEvent),
    /// The turns of sessions, as codexd knows them.
    Turn(TurnEvent),
    /// Server requests.
    Request(RequestEvent),
    /// Hooks.
    Hook(HookEvent),
    /// The notifications of the app-server.
    Notification(NotificationEvent),
}

impl EventDetail {
    /// The JSON object of the detail; `None` for `null`, which is written for an object without members.
    pub(super) fn json(&self) -> Option<String> {
        // The enums are tagged externally: `{"turn.accepted": {…}}`.
        let Ok(Value::Object(tagged)) = serde_json::to_value(self) else { return None };
        let detail = tagged.into_values().next()?;
        let is_empty = detail.as_object().is_none_or(Map::is_empty);
        (!is_empty).then(|| detail.to_string())
    }
}

/// Reads one variant of an externally tagged enum.
///
/// Nothing is buffered between the text and the variant: serde's buffer would lose the digits of long numbers.
fn read<T: DeserializeOwned>(event_type: &str, detail: &Value) -> Option<T> {
    let empty = Value::Object(Map::new());
    let detail = if detail.is_object() { detail } else { &empty };
    let tagged = MapDeserializer::<_, serde_json::Error>::new(std::iter::once((event_type, detail)));
    T::deserialize(MapAccessDeserializer::new(tagged)).ok()
}

/// Reads a member that counts as absent when it has another form than expected.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(T::deserialize(Value::deserialize(deserializer)?).unwrap_or_default())
}
