//! What the files that end processes share.

use std::time::Duration;

use crate::blocking::Pool;

/// Threads for everything that starts, lists or ends processes, and for the file that names the app-server.
pub(crate) static POOL: Pool = Pool::new("processes", 4, 12);

/// How long processes have after SIGTERM to end by themselves, before they get SIGKILL.
pub(crate) const SIGTERM_GRACE: Duration = Duration::from_secs(1);
/// How long a sweep waits before it looks again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(3);
