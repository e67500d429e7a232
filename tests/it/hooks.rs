//! Hooks: programs and URLs that get events.

mod command_line;
#[cfg(target_os = "linux")]
mod crashes;
mod delivery;
mod gaps;
mod requests;
mod urls;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::scratch;
use crate::support::wait::{wait_until, wait_until_async};

pub(crate) const HOOKS: &str = "/v1/codexd/hooks";

/// A program that appends what it gets to a file.
pub(crate) struct Sink {
    directory: TempDir,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self { directory: scratch::directory("test") }
    }

    /// The path of a file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command of the program; this script runs before the input is appended, and `$1` is the directory.
    pub(crate) fn command_after(&self, script: &str) -> Value {
        let script = format!("{script}\ninput=$(cat) && printf '%s\\n' \"$input\" >> \"$1/deliveries\"");
        json!(["sh", "-c", script, "sh", self.directory.path()])
    }

    /// The command of the program; this script runs after the input was appended.
    pub(crate) fn command_before(&self, script: &str) -> Value {
        let script = format!("input=$(cat) && printf '%s\\n' \"$input\" >> \"$1/deliveries\"\n{script}");
        json!(["sh", "-c", script, "sh", self.directory.path()])
    }

    pub(crate) fn command(&self) -> Value {
        self.command_after("")
    }

    /// What the program got so far.
    pub(crate) fn deliveries(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("deliveries")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Waits until the program got this many deliveries; returns them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} deliveries"), || {
            Some(self.deliveries()).filter(|deliveries| deliveries.len() >= count)
        })
        .await
    }
}

/// Waits until the only hook of a daemon counts this many deliveries. Its program has appended the last one before: a stop
/// until the program has exited cancels that delivery, and the next start repeats it.
pub(crate) async fn wait_until_counted(daemon: &Daemon, count: u64) {
    wait_until_async(&format!("{count} counted deliveries"), async || {
        (hooks(daemon).await[0]["delivered"].as_u64() >= Some(count)).then_some(())
    })
    .await;
}

/// Waits until a file exists.
pub(crate) async fn wait_for_file(path: &Path) {
    wait_until(&format!("the file {}", path.display()), || path.exists().then_some(())).await;
}

/// Adds a hook; returns it.
pub(crate) async fn add_hook(daemon: &Daemon, fields: Value) -> Value {
    let mut hook = json!({ "name": "test" });
    hook.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    post(daemon, HOOKS, &hook).await.data(201)["hook"].clone()
}

/// All hooks.
pub(crate) async fn hooks(daemon: &Daemon) -> Vec<Value> {
    get(daemon, HOOKS).await.data(200)["hooks"].as_array().unwrap().clone()
}

/// The sequence numbers of events.
pub(crate) fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().unwrap_or_else(|| panic!("no number: {event}"))).collect()
}

/// The numbers of the events in the log with one of these types, after an event.
pub(crate) fn logged(daemon: &Daemon, types: &[&str], after: u64) -> Vec<u64> {
    let mut events = daemon.events_on_disk();
    events.retain(|event| types.iter().any(|name| event["type"] == *name));
    numbers(&events).into_iter().filter(|&seq| seq > after).collect()
}

/// The number in the cursor of a hook.
pub(crate) fn cursor(hook: &Value) -> u64 {
    hook["cursor"].as_str().unwrap().rsplit_once('-').unwrap().1.parse().unwrap()
}
