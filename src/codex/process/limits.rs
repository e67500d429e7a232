//! The thread pool and the times that the files of this directory share.

use std::time::Duration;

use crate::blocking::Pool;

/// Threads for starting, listing and ending processes, and for writing child.json.
pub(crate) static POOL: Pool = Pool::new("processes", 4, 12);

/// How long processes have after SIGTERM to exit, before they get SIGKILL.
pub(crate) const SIGTERM_GRACE: Duration = Duration::from_secs(1);
/// The pause between two listings while processes end.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(3);
