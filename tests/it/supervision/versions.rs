//! Which Codex runs, and which one is installed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{child, generation, signal};
use crate::api::{
    create_session, new_session, start_turn, text, wait_for_turn_end, wait_until_idle, wait_until_ready,
};
use crate::cli::CliUser;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{get, get_text};
use crate::support::scratch;

/// A directory with a program for each version, and a link `codex` to the installed one.
pub(super) struct Programs {
    directory: TempDir,
}

impl Programs {
    /// Installs the first of these versions. The programs count how often they are asked for it.
    pub(super) fn with(versions: &[&str]) -> Self {
        let programs = Self { directory: scratch::directory("test") };
        for version in versions {
            let path = programs.path(version);
            let (asked, fake_codex) = (path.with_extension("asked"), fake_codex());
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = --version ] && echo >> {} && echo codex-cli {version} && exit\n\
                 exec {fake_codex} \"$@\" --startup version={version}\n",
                asked.display()
            );
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        programs.install(versions[0]);
        programs
    }

    pub(super) fn install(&self, version: &str) {
        let link = self.directory.path().join("new");
        symlink(self.path(version), &link).unwrap();
        fs::rename(link, self.directory.path().join("codex")).unwrap();
    }

    pub(super) fn daemon(&self) -> DaemonBuilder {
        Daemon::builder().server(self.directory.path().join("codex"), &["app-server"])
    }

    fn path(&self, version: &str) -> PathBuf {
        self.directory.path().join(format!("codex-{}", version.replace('.', "-")))
    }

    fn times_asked(&self, version: &str) -> usize {
        fs::read_to_string(self.path(version).with_extension("asked")).unwrap_or_default().lines().count()
    }
}

pub(super) async fn app_server(daemon: &Daemon) -> Value {
    get(daemon, "/v1/codexd/app-server").await.data(200)["appServer"].clone()
}

fn count(daemon: &Daemon, event_type: &str) -> usize {
    daemon.events_on_disk().iter().filter(|event| event["type"] == event_type).count()
}

#[tokio::test]
async fn another_installed_codex_is_reported_once_and_started_by_the_next_start() {
    let programs = Programs::with(&["0.169.0", "0.171.0"]);
    let daemon = programs.daemon().start().await;
    wait_until_ready(&daemon).await;
    let first = app_server(&daemon).await;
    assert_eq!(
        (&first["strategy"], &first["status"], &first["generation"]),
        (&json!("spawn"), &json!("running"), &json!(1))
    );
    assert_eq!((&first["version"], &first["installedVersion"]), (&json!("0.169.0"), &json!("0.169.0")));
    assert_eq!((&first["minimumVersion"], &first["supported"]), (&json!("0.140.0"), &json!(true)));
    assert_eq!(
        (&first["pid"], &first["startedAt"]),
        (&child(&daemon).await["pid"], &child(&daemon).await["startedAt"])
    );
    assert!(first["userAgent"].as_str().unwrap().contains("/0.169.0 ("), "{first}");
    assert_eq!((&first["notes"], programs.times_asked("0.169.0")), (&json!([]), 0));

    programs.install("0.171.0");
    let note = "Codex 0.171.0 is installed, but 0.169.0 runs. \"codexd app-server restart --when-idle\" starts the \
                installed one.";
    for _ in 0..3 {
        let second = app_server(&daemon).await;
        assert_eq!((&second["version"], &second["installedVersion"]), (&json!("0.169.0"), &json!("0.171.0")));
        assert_eq!(second["notes"], json!([note]));
    }
    assert_eq!((programs.times_asked("0.171.0"), count(&daemon, "app-server.installed.changed")), (1, 1));
    assert_eq!(get(&daemon, "/healthz").await.json["service"]["codex"]["notes"], json!([note]));
    let shown = child(&daemon).await;
    assert_eq!((&shown["version"], &shown["installedVersion"]), (&json!("0.169.0"), &json!("0.171.0")));
    let status = CliUser::of(&daemon).run(&["status"]).await.stdout;
    assert!(status.contains("Codex 0.169.0") && status.contains(note), "{status}");
    let metrics = get_text(&daemon, "/metrics", &[], "text/plain; version=0.0.4; charset=utf-8").await;
    let info = "codexd_codex_info{version=\"0.169.0\",installed_version=\"0.171.0\"} 1";
    assert!(metrics.contains(info), "{metrics}");
    // Nothing else happens.
    let session = new_session(&daemon).await;
    start_turn(&daemon, &session, "hello").await;
    wait_until_idle(&daemon, &session).await;
    assert_eq!(child(&daemon).await["generation"], 1);

    signal(&child(&daemon).await["pid"], Signal::KILL);
    generation(&daemon, 2).await;
    let third = app_server(&daemon).await;
    assert_eq!((&third["version"], &third["installedVersion"]), (&json!("0.171.0"), &json!("0.171.0")));
    assert_eq!((&third["notes"], programs.times_asked("0.171.0")), (&json!([]), 1));
}

#[tokio::test]
async fn version_of_another_program_is_unknown() {
    let programs = Programs::with(&["0.169.0"]);
    let daemon = programs.daemon().start().await;
    wait_until_ready(&daemon).await;
    let path = programs.directory.path();
    fs::rename(path.join("codex"), path.join("codex-before")).unwrap();
    assert_eq!(
        app_server(&daemon).await["installedVersion"],
        "0.169.0",
        "a file that is missing is no other Codex"
    );
    symlink(Path::new("/bin/true"), path.join("codex")).unwrap();
    for _ in 0..3 {
        assert_eq!(app_server(&daemon).await["installedVersion"], Value::Null);
    }
    let notes = app_server(&daemon).await["notes"].clone();
    assert!(notes[0].as_str().unwrap().contains("does not report its version"), "{notes}");
    assert_eq!(count(&daemon, "app-server.installed.changed"), 1);
}

#[tokio::test]
async fn turns_of_codex_without_turn_list_are_read_from_the_thread() {
    let startup = "version=0.118.0 without=thread/turns/list";
    let daemon = Daemon::builder().startup(startup).arg("--stall-timeout=1").start().await;
    wait_until_ready(&daemon).await;
    let shown = app_server(&daemon).await;
    assert_eq!((&shown["version"], &shown["supported"]), (&json!("0.118.0"), &json!(false)));
    let first = create_session(&daemon, json!({})).await;
    let session = text(&first["sessionId"]);
    let turn_id = start_turn(&daemon, &session, "text=hello").await;
    wait_until_idle(&daemon, &session).await;
    // A resume reads the newest turn, and the end of a turn that was not heard of is read too.
    let resumed = create_session(&daemon, json!({ "threadId": first["threadId"] })).await;
    assert_eq!((&resumed["lastTurnId"], &resumed["lastTurnStatus"]), (&json!(turn_id), &json!("completed")));
    let lost = start_turn(&daemon, &session, "lose-everything-after-deltas").await;
    assert_eq!(wait_for_turn_end(&daemon, &session, &json!(lost)).await["lastTurnStatus"], "completed");
}

#[tokio::test]
async fn method_that_codex_does_not_have_is_reported_in_one_sentence() {
    let daemon = Daemon::builder().startup("without=model/list").start().await;
    let refused = get(&daemon, "/v1/codexd/models").await;
    let message = refused.error(400, "app_server_rejected");
    assert_eq!(
        message,
        "Codex does not have the method model/list; install version 0.140.0 or newer with \"npm install --global \
         @openai/codex\"."
    );
    assert_eq!(refused.json["details"]["code"], -32600);
    assert!(refused.text.len() < 500, "{}", refused.text);
}

#[tokio::test]
async fn newer_codex_than_tested_is_used_and_noted() {
    let daemon = Daemon::builder().startup("version=0.999.0").start().await;
    wait_until_ready(&daemon).await;
    let shown = app_server(&daemon).await;
    let note = "Codex 0.999.0 is newer than 0.171.0, the newest that this codexd was tested with.";
    assert_eq!((&shown["supported"], &shown["notes"]), (&json!(true), &json!([note])));
    let session = new_session(&daemon).await;
    start_turn(&daemon, &session, "hello").await;
    assert_eq!(wait_until_idle(&daemon, &session).await["lastTurnStatus"], "completed");
}
