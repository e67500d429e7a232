//! A login on disk that the shared app-server does not use yet: it reads its login at its start, and codexd does not restart
//! it for another one, because its other clients may be at work.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Mutex;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct SharedLogin {
    /// Whether the login on disk is another one than when codexd connected.
    pub(super) is_another: AtomicBool,
    /// Whether the app-server itself has a new login, which it has written then.
    pub(super) is_of_server: AtomicBool,
    /// The generation for which the login was noted.
    pub(super) noted: Mutex<u64>,
}

impl SharedLogin {
    /// Notes that the app-server has a new login.
    pub(super) fn server_logged_in(&self) {
        self.is_of_server.store(true, Ordering::Relaxed);
    }

    /// The note for a user, if there is another login.
    pub(super) fn note(&self, is_ours: bool) -> Option<String> {
        let restart = match is_ours {
            true => "\"codexd app-server restart --when-idle\" starts it again with the new one.",
            false => {
                "Send it SIGTERM, or type \"codex app-server daemon restart\": it finishes its turns and starts again."
            }
        };
        let note = "auth.json has another login than when codexd connected to the app-server, which uses the earlier one.";
        self.is_another.load(Ordering::Relaxed).then(|| format!("{note} {restart}"))
    }
}
