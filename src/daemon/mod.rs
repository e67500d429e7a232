//! The use cases: start, stop, sessions, turns, status; the only room that knows all the ones below.

mod drafts;
mod error;
mod hearing;
mod recorder;
mod sessions;
mod status;
mod turns;

pub use error::DaemonError;
pub use sessions::CreateSession;
pub use status::{HealthView, ServiceView, SnapshotView, StatusView};
pub use turns::SubmitTurn;
