//! The daemon that is attacked, and what can be seen of it when something got through.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{SESSIONS, logged_type, ready};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get};
use crate::support::wait::wait_until;

/// A daemon whose app-server writes down every byte that it is told.
pub(super) struct Guarded {
    daemon: Daemon,
    told: PathBuf,
    _home: TempDir,
}

/// What a daemon was at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Moment {
    sessions: Value,
    latest: Value,
    told: String,
}

/// One line of the access log.
#[derive(PartialEq)]
struct Access {
    method: String,
    path: String,
    status: String,
}

impl Guarded {
    /// Starts a daemon that nobody but this test has a reason to talk to.
    pub(super) async fn start() -> Self {
        let home = TempDir::with_prefix("codexd-told-").unwrap();
        let (told, store) = (home.path().join("told"), home.path().join("store"));
        let script = r#"tee "$0" | "$1" embedded-app-server --store "$2""#;
        let words = [
            "-c".as_ref(),
            script.as_ref(),
            told.as_os_str(),
            env!("CARGO_BIN_EXE_codexd").as_ref(),
            store.as_ref(),
        ];
        // Nothing is asked of the app-server because it is silent.
        let daemon = Daemon::builder().server("sh", &words).arg("--check-interval").arg("3600").start().await;
        ready(&daemon).await;
        // The last thing that is heard of a start.
        logged_type(&daemon, "app-server.notification").await;
        Self { daemon, told, _home: home }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.daemon.authority().parse().unwrap()
    }

    /// Everything that an attack could change.
    pub(super) async fn moment(&self) -> Moment {
        let sessions = get(&self.daemon, SESSIONS).await.data(200)["sessions"].clone();
        let latest = get(&self.daemon, "/v1/codexd/events?limit=1").await.data(200)["latest"].clone();
        Moment { sessions, latest, told: fs::read_to_string(&self.told).unwrap() }
    }

    /// Waits until this many requests of this method and path were answered with this status.
    pub(super) async fn answered(&self, status: &str, method: &str, path: &str, count: usize) {
        let wanted = Access { method: method.to_owned(), path: path.to_owned(), status: status.to_owned() };
        wait_until(&format!("{count} times {status} for {method} {path}"), || {
            let found = self.accesses().into_iter().filter(|access| *access == wanted).count();
            (found >= count).then_some(())
        })
        .await;
    }

    /// The access log.
    fn accesses(&self) -> Vec<Access> {
        self.daemon.stderr().lines().filter_map(Access::parse).collect()
    }
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"').to_owned())
        };
        Some(Self { method: field("method")?, path: field("path")?, status: field("status")? })
    }
}
