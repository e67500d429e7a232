//! [`NewEvent`]: an event before the recorder gives it a sequence number.

use std::borrow::Cow;

use super::delta_text::DeltaText;
use super::events::{EventDetail, NotificationEvent};
use super::level::Level;

/// An event that has not been numbered yet; as small as the most frequent one, of which thousands can wait.
#[derive(Debug, Clone)]
pub enum NewEvent {
    /// A piece of an answer.
    Delta(DeltaText),
    /// Any other event.
    Other(Box<OtherEvent>),
}

/// An event with texts of its own.
#[derive(Debug, Clone)]
pub struct OtherEvent {
    /// How much attention it needs.
    level: Level,
    /// Its type, and what it means to the records.
    pub detail: EventDetail,
    /// One sentence for the user.
    message: String,
    /// The text of a JSON object, or `None` for `null`.
    json: Option<String>,
}

impl NewEvent {
    /// An event with the text of its detail.
    pub(super) fn new(detail: EventDetail) -> Self {
        let (level, message) = detail.text();
        Self::Other(Box::new(OtherEvent { level, message, json: detail.json(), detail }))
    }

    /// An event whose message and JSON object were made from the app-server's text, without parsing all of it.
    ///
    /// `detail` must be what [`EventDetail::read`] reads from them.
    pub fn with_text(detail: impl Into<EventDetail>, message: String, json: String) -> Self {
        let detail = detail.into();
        Self::Other(Box::new(OtherEvent { level: detail.text().0, message, json: Some(json), detail }))
    }

    /// How much attention it needs.
    pub fn level(&self) -> Level {
        match self {
            Self::Delta(_) => Level::Info,
            Self::Other(event) => event.level,
        }
    }

    /// Its type, and what it means to the records.
    pub fn detail(&self) -> &EventDetail {
        static DELTA: EventDetail = EventDetail::Notification(NotificationEvent::MessageDelta {});
        match self {
            Self::Delta(_) => &DELTA,
            Self::Other(event) => &event.detail,
        }
    }

    /// One sentence for the user.
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::Delta(text) => joined(&text.message()),
            Self::Other(event) => event.message.as_str().into(),
        }
    }

    /// The message if a record may quote it; none quotes a piece of an answer.
    pub fn message_of_record(&self) -> &str {
        match self {
            Self::Delta(_) => "",
            Self::Other(event) => &event.message,
        }
    }

    /// The text of a JSON object, or `None` for `null`.
    pub fn json(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Delta(text) => Some(joined(&text.detail())),
            Self::Other(event) => event.json.as_deref().map(Cow::Borrowed),
        }
    }

    /// Replaces the text of the JSON object.
    pub fn set_json(&mut self, json: String) {
        match self {
            Self::Delta(_) => {
                *self = Self::with_text(self.detail().clone(), self.message().into_owned(), json)
            }
            Self::Other(event) => event.json = Some(json),
        }
    }

    /// About how many bytes its texts take.
    pub fn text_len(&self) -> usize {
        match self {
            Self::Delta(text) => text.line_len(),
            Self::Other(event) => event.message.len() + event.json.as_ref().map_or(0, String::len),
        }
    }

    /// About how much memory it takes, in bytes.
    pub fn memory(&self) -> usize {
        let own = match self {
            Self::Delta(_) => 0,
            Self::Other(_) => size_of::<OtherEvent>(),
        };
        size_of::<Self>() + own + self.text_len()
    }
}

impl OtherEvent {
    /// One sentence for the user.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text of a JSON object, or `None` for `null`.
    pub fn json(&self) -> Option<&str> {
        self.json.as_deref()
    }
}

fn joined(parts: &[&[u8]]) -> Cow<'static, str> {
    String::from_utf8_lossy(&parts.concat()).into_owned().into()
}

impl<E: Into<EventDetail>> From<E> for NewEvent {
    fn from(event: E) -> Self {
        Self::new(event.into())
    }
}
