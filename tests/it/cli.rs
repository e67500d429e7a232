//! What people type: the commands beside `start`, as people and scripts use them.

pub(crate) mod ask;
mod doctor;
mod follow;
mod held;
mod link;
mod lists;
#[cfg(target_os = "linux")]
mod service;
mod terminal;
mod token;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::{Ended, create, run, start, text};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::Target;
use crate::support::scratch;

/// Somebody in a folder, beside a daemon.
pub(crate) struct CliUser {
    folder: TempDir,
    base: String,
}

impl CliUser {
    pub(crate) fn beside(daemon: &Daemon) -> Self {
        Self::at(daemon.base_url())
    }

    pub(crate) fn at(base: &str) -> Self {
        Self { folder: scratch::directory("people"), base: base.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// This command line, in the folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        command(&self.base, self.folder(), arguments)
    }

    /// Runs this command line to its end, without a terminal.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        run(self.command(arguments)).await
    }

    /// The document that this command line answers with, which has to succeed.
    async fn document(&self, arguments: &[&str]) -> Value {
        let ended = self.run(arguments).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
        document(&ended)
    }
}

/// This command line, in this directory and for the daemon at this address.
pub(crate) fn command(base: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = codexd(directory);
    command.args(arguments).env("BAA_CODEXD_LOCAL_API_BASE", base).current_dir(directory);
    command
}

/// A daemon, somebody beside it, and a session in their folder.
async fn stage() -> (Daemon, CliUser, String) {
    let daemon = start().await;
    let user = CliUser::beside(&daemon);
    let session = create(&daemon, json!({ "cwd": user.folder() })).await;
    (daemon, user, text(&session["sessionId"]))
}

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Asserts that a document is the one in `answers/NAME.json`, but for what differs from run to run.
///
/// With the variable `CODEXD_UPDATE_ANSWERS` the file is written instead.
fn assert_answer(name: &str, document: &Value) {
    let mut document = document.clone();
    even_out("", &mut document);
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/cli/answers/{name}.json"));
    if std::env::var_os("CODEXD_UPDATE_ANSWERS").is_some() {
        return fs::write(path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name}.json; CODEXD_UPDATE_ANSWERS=1 writes it anew");
}

/// Replaces names, times and numbers that differ from run to run.
fn even_out(key: &str, value: &mut Value) {
    match value {
        Value::Object(object) => object.iter_mut().for_each(|(key, value)| even_out(key, value)),
        Value::Array(list) => list.iter_mut().for_each(|value| even_out(key, value)),
        Value::Null => {}
        value if key.ends_with("Id") || key == "id" || key == "startedBy" => *value = "ID".into(),
        value if key.ends_with("At") => *value = "TIME".into(),
        value if key.ends_with("Ms") || key.ends_with("Pid") => *value = 0.into(),
        value if key == "cwd" => *value = "FOLDER".into(),
        Value::String(text) if key == "path" => {
            *text = text.rsplit('/').next().unwrap_or_default().to_owned();
        }
        _ => {}
    }
}
