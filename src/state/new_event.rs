//! [`NewEvent`]: an event before the recorder gives it a sequence number.

use super::events::EventDetail;
use super::level::Level;

/// An event that has not been numbered yet.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// How much attention it needs.
    pub level: Level,
    /// One sentence for the user.
    pub message: String,
    /// The text of a JSON object, or `None` for `null`.
    pub json: Option<String>,
    /// Its type, and what it means to the records.
    pub detail: EventDetail,
}

impl NewEvent {
    /// An event with the text of its detail.
    pub(super) fn new(detail: EventDetail) -> Self {
        let (level, message) = detail.text();
        Self { level, message, json: detail.json(), detail }
    }

    /// An event whose message and JSON object were made from the app-server's text, without parsing all of it.
    ///
    /// `detail` must be what [`EventDetail::read`] reads from them.
    pub fn with_text(detail: impl Into<EventDetail>, message: String, json: String) -> Self {
        let detail = detail.into();
        Self { level: detail.text().0, message, json: Some(json), detail }
    }
}

impl<E: Into<EventDetail>> From<E> for NewEvent {
    fn from(event: E) -> Self {
        Self::new(event.into())
    }
}
