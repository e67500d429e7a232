//! The daemon that is attacked, and the state that a successful attack would change.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::api::{SESSIONS, wait_for_event_type, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::wait::wait_until;

/// The path of the last request of the test before the attack.
const EVENTS_PATH: &str = "/v1/codexd/events";

/// A daemon; a file records all bytes that its app-server receives.
pub(super) struct TargetDaemon {
    daemon: Daemon,
    app_server_input: PathBuf,
    /// The number of the last request that the test itself sent before the attack.
    last_own_request: u64,
    _home: TempDir,
}

/// The state that an attack could change.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    sessions: Value,
    latest: Value,
    app_server_input: String,
}

/// One line of the access log.
#[derive(Debug, PartialEq)]
pub(super) struct Access {
    number: u64,
    method: String,
    pub(super) path: String,
    pub(super) status: String,
}

impl TargetDaemon {
    /// Starts a daemon that no other client uses; returns it with its state.
    pub(super) async fn start() -> (Self, State) {
        let home = scratch::directory("input");
        let (app_server_input, store) = (home.path().join("input"), home.path().join("store"));
        let script = r#""$1" record "$0" | "$1" app-server --store "$2""#;
        let program = fake_codex();
        let arguments: [&OsStr; 5] =
            ["-c".as_ref(), script.as_ref(), app_server_input.as_os_str(), program.as_ref(), store.as_ref()];
        // The long check interval prevents liveness requests to the idle app-server.
        let daemon =
            Daemon::builder().server("sh", &arguments).arg("--check-interval").arg("3600").start().await;
        wait_until_ready(&daemon).await;
        // This is the last event of a start.
        wait_for_event_type(&daemon, "app-server.notification").await;
        wait_until("the account", || {
            std::fs::read_to_string(&app_server_input).ok()?.contains("account/read").then_some(())
        })
        .await;
        let mut target = Self { daemon, app_server_input, last_own_request: 0, _home: home };
        let state = target.state().await;
        target.last_own_request = wait_until("the access log line of the last request", || {
            target.access_log().find(|access| access.path == EVENTS_PATH).map(|access| access.number)
        })
        .await;
        (target, state)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.daemon.authority().parse().unwrap()
    }

    pub(super) async fn state(&self) -> State {
        let sessions = get(&self.daemon, SESSIONS).await.data(200)["sessions"].clone();
        let latest = get(&self.daemon, &format!("{EVENTS_PATH}?limit=1")).await.data(200)["latest"].clone();
        State { sessions, latest, app_server_input: fs::read_to_string(&self.app_server_input).unwrap() }
    }

    /// Waits until `count` requests with this method and path have got this status.
    pub(super) async fn wait_for_response(&self, status: &str, method: &str, path: &str, count: usize) {
        wait_until(&format!("{count} responses with {status} to {method} {path}"), || {
            let is_match =
                |access: &Access| (&*access.status, &*access.method, &*access.path) == (status, method, path);
            (self.access_log().filter(is_match).count() >= count).then_some(())
        })
        .await;
    }

    /// The answered requests that came after the last one of the test itself.
    pub(super) fn access_log(&self) -> impl Iterator<Item = Access> {
        let lines: Vec<_> = self.daemon.stderr().lines().filter_map(Access::parse).collect();
        lines.into_iter().filter(|access| access.number > self.last_own_request)
    }
}

impl Access {
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"').to_owned())
        };
        let number = field("request")?.parse().ok()?;
        Some(Self { number, method: field("method")?, path: field("path")?, status: field("status")? })
    }
}
