//! The HTTP client of the daemon: one request and its response in [`http`], the event stream in [`events`].
//!
//! The commands and everything else that talks to a running daemon use it. It knows the envelope of responses and the
//! frames of the stream, not what routes mean, and it prints nothing: the caller passes a function for warnings.

mod events;
mod http;
mod token;

pub(crate) use events::{EventFilter, EventStream, StreamItem, find_event, newest_cursor};
pub(crate) use http::{ClientError, DaemonClient, percent_encode};
