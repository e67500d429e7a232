//! The app-server of this daemon: how it is run (`plan`), its process (`child_file`,
//! `shared_server`), and calls to it (`calls`).

pub(in crate::daemon) mod availability;
pub(in crate::daemon) mod calls;
#[expect(
    clippy::disallowed_methods,
    reason = "child.json is read before anything is served, and written on a thread of a pool"
)]
pub(in crate::daemon) mod child_file;
pub(in crate::daemon) mod plan;
pub(in crate::daemon) mod read_response;
pub(in crate::daemon) mod record_on_reply;
#[expect(clippy::disallowed_methods, reason = "the supervisor calls it on a thread of a pool")]
mod shared_server;
