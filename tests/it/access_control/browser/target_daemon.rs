//! The daemon that is attacked, and what can be seen of it when something got through.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{SESSIONS, logged_type, ready};
use crate::support::daemon::Daemon;
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::wait_until;

/// The path of the last look at a daemon before it is attacked.
const EVENTS: &str = "/v1/codexd/events";

/// A daemon whose app-server writes down every byte that it is told.
pub(super) struct Guarded {
    daemon: Daemon,
    told: PathBuf,
    /// The number of the last request that was the test's own.
    own: u64,
    _home: TempDir,
}

/// Everything of a daemon that an attack could change.
#[derive(Debug, PartialEq)]
pub(super) struct Moment {
    sessions: Value,
    latest: Value,
    told: String,
}

/// One line of the access log.
#[derive(Debug, PartialEq)]
pub(super) struct Access {
    number: u64,
    method: String,
    pub(super) path: String,
    pub(super) status: String,
}

impl Guarded {
    /// Starts a daemon that nobody but this test has a reason to talk to; how it is then.
    pub(super) async fn start() -> (Self, Moment) {
        let home = scratch::directory("told");
        let (told, store) = (home.path().join("told"), home.path().join("store"));
        let script = r#"tee "$0" | "$1" app-server --store "$2""#;
        let program = fake_codex();
        let words: [&OsStr; 5] =
            ["-c".as_ref(), script.as_ref(), told.as_os_str(), program.as_ref(), store.as_ref()];
        // Nothing is asked of the app-server because it is silent.
        let daemon = Daemon::builder().server("sh", &words).arg("--check-interval").arg("3600").start().await;
        ready(&daemon).await;
        // The last thing that is heard of a start.
        logged_type(&daemon, "app-server.notification").await;
        let mut guarded = Self { daemon, told, own: 0, _home: home };
        let moment = guarded.moment().await;
        guarded.own = wait_until("the line of the last look", || {
            guarded.answered().find(|access| access.path == EVENTS).map(|access| access.number)
        })
        .await;
        (guarded, moment)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.daemon.authority().parse().unwrap()
    }

    pub(super) async fn moment(&self) -> Moment {
        let sessions = get(&self.daemon, SESSIONS).await.data(200)["sessions"].clone();
        let latest = get(&self.daemon, &format!("{EVENTS}?limit=1")).await.data(200)["latest"].clone();
        Moment { sessions, latest, told: fs::read_to_string(&self.told).unwrap() }
    }

    /// Waits until as many requests of this method and path as `count` got this status.
    pub(super) async fn has_answered(&self, status: &str, method: &str, path: &str, count: usize) {
        wait_until(&format!("{count} times {status} for {method} {path}"), || {
            let is_it =
                |access: &Access| (&*access.status, &*access.method, &*access.path) == (status, method, path);
            (self.answered().filter(is_it).count() >= count).then_some(())
        })
        .await;
    }

    /// The requests that were answered so far and are not from before the attack.
    pub(super) fn answered(&self) -> impl Iterator<Item = Access> {
        let lines: Vec<_> = self.daemon.stderr().lines().filter_map(Access::parse).collect();
        lines.into_iter().filter(|access| access.number > self.own)
    }
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"').to_owned())
        };
        let number = field("request")?.parse().ok()?;
        Some(Self { number, method: field("method")?, path: field("path")?, status: field("status")? })
    }
}
