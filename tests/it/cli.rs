//! The client commands of the CLI, as users and scripts run them.

pub(crate) mod ask;
mod config;
mod doctor;
mod follow;
mod held;
mod link;
mod lists;
mod page;
mod recurring;
#[cfg(target_os = "linux")]
mod service;
mod terminal;
mod token;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{CommandOutput, create_session, run_command, start_daemon, text};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::scratch;

/// A user in a directory, whose commands use one daemon.
pub(crate) struct CliUser {
    directory: TempDir,
    base: String,
}

impl CliUser {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self::at(daemon.base_url())
    }

    pub(crate) fn at(base: &str) -> Self {
        Self { directory: scratch::directory("user"), base: base.to_owned() }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The command with these arguments, in the directory of the user.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(&self.base, self.directory(), arguments)
    }

    /// Runs the command with these arguments without a terminal, until it ends.
    pub(crate) async fn run(&self, arguments: &[&str]) -> CommandOutput {
        run_command(self.command(arguments)).await
    }

    /// Runs the command with these arguments, which must succeed; returns its JSON document.
    async fn document(&self, arguments: &[&str]) -> Value {
        let ended = self.run(arguments).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        document(&ended)
    }
}

/// The command with these arguments, in this directory and for the daemon at this address.
pub(crate) fn command(base: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = codexd(directory);
    command.args(arguments).env("BAA_CODEXD_LOCAL_API_BASE", base).current_dir(directory);
    command
}

/// A daemon, a user of it, and a session in the directory of the user.
async fn user_with_session() -> (Daemon, CliUser, String) {
    let daemon = start_daemon().await;
    let user = CliUser::of(&daemon);
    let session = create_session(&daemon, json!({ "cwd": user.directory() })).await;
    (daemon, user, text(&session["sessionId"]))
}

fn document(ended: &CommandOutput) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Asserts that a document equals `answers/NAME.json`, except for values that differ between runs.
///
/// With the environment variable `CODEXD_UPDATE_ANSWERS`, it writes the file instead.
fn assert_answer(name: &str, document: &Value) {
    let mut document = document.clone();
    normalize("", &mut document);
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/cli/answers/{name}.json"));
    if std::env::var_os("CODEXD_UPDATE_ANSWERS").is_some() {
        return fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name}.json differs; CODEXD_UPDATE_ANSWERS=1 updates it");
}

/// Replaces IDs, times and numbers that differ between runs.
fn normalize(key: &str, value: &mut Value) {
    match value {
        Value::Object(object) => object.iter_mut().for_each(|(key, value)| normalize(key, value)),
        Value::Array(list) => list.iter_mut().for_each(|value| normalize(key, value)),
        Value::Null => {}
        value if key.ends_with("Id") || key == "id" || key == "startedBy" => *value = "ID".into(),
        value if key.ends_with("At") => *value = "TIME".into(),
        value if key.ends_with("Ms") || key.ends_with("Pid") => *value = 0.into(),
        value if key == "cwd" => *value = "DIRECTORY".into(),
        Value::String(text) if key == "path" => {
            *text = text.rsplit('/').next().unwrap_or_default().to_owned();
        }
        _ => {}
    }
}
