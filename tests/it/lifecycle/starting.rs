//! The start of the daemon, with working and with failing app-servers.

use std::fs;

use hyper::header::RETRY_AFTER;
use serde_json::{Value, json};

use crate::api::{
    SESSIONS, assert_no_survivors, create_session, run_command, start_daemon, wait_for_child_status,
    wait_for_event_type, wait_until_not_ready, wait_until_ready,
};
use crate::support::daemon::{Daemon, codexd};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get, post};
use crate::support::scratch;

#[tokio::test]
async fn first_document_shows_started_daemon() {
    let daemon = start_daemon().await;
    let documents = daemon.documents();
    let snapshot = &documents[0]["snapshot"];
    assert_eq!(snapshot["daemon"]["started"], true);
    assert_eq!(snapshot["daemon"]["pid"], daemon.pid());
    assert_ne!(snapshot["daemon"]["child"]["status"], "idle");
    let first = &daemon.events_on_disk()[0];
    assert_eq!((&first["seq"], &first["type"]), (&json!(1), &json!("daemon.started")));
    assert_eq!(first["message"], "codexd started in app-server mode.");
    for key in ["endpoint", "localApiBase", "strategy"] {
        assert!(first["detail"][key].is_string(), "{first}");
    }
}

#[tokio::test]
async fn start_records_events_in_order() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let events = daemon.events_on_disk();
    let mut types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    types.retain(|event_type| !matches!(*event_type, "child.stderr" | "app-server.notification"));
    assert_eq!(types, ["daemon.started", "child.started", "app-server.connected"]);
    let find = |event_type| events.iter().find(|event| event["type"] == event_type).unwrap();
    let (started, connected) = (find("child.started"), find("app-server.connected"));
    let pid = started["detail"]["pid"].as_u64().unwrap();
    assert_eq!(started["message"], format!("Started Codex child process {pid}."));
    assert_eq!(started["detail"]["command"], fake_codex());
    assert_eq!(started["detail"]["args"][0], "app-server");
    for key in ["endpoint", "platformFamily", "platformOs", "userAgent"] {
        assert!(connected["detail"][key].is_string(), "{connected}");
    }
    assert_eq!(wait_for_child_status(&daemon, "running").await["pid"], pid);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn child_environment_names_daemon_and_endpoint() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let status = get(&daemon, crate::api::STATUS).await;
    let snapshot = &status.data(200)["snapshot"];
    let child = &snapshot["daemon"]["child"];
    let environment = fs::read(format!("/proc/{}/environ", child["pid"])).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let variables: Vec<&str> = environment.split('\0').collect();
    for (name, value) in [
        ("BAA_CODEXD_DAEMON_ID", &snapshot["identity"]["daemonId"]),
        ("BAA_CODEXD_SERVER_ENDPOINT", &child["endpoint"]),
    ] {
        let expected = format!("{name}={}", value.as_str().unwrap());
        assert!(variables.contains(&expected.as_str()), "no {expected} in {variables:?}");
    }
}

#[tokio::test]
async fn missing_program_is_reported_with_install_hint() {
    let no_arguments: [&str; 0] = [];
    let daemon = Daemon::builder().server("codex-that-is-nowhere", &no_arguments).start().await;
    let reason = wait_until_not_ready(&daemon, "npm install").await;
    assert!(reason.contains("codex-that-is-nowhere") && reason.contains("PATH"), "{reason}");
    let failed = wait_for_event_type(&daemon, "child.spawn.failed").await;
    assert_eq!(failed["level"], "error");
    assert!(reason.starts_with(failed["message"].as_str().unwrap()), "{reason}: {failed}");
    let response = post(&daemon, SESSIONS, &json!({})).await;
    assert!(response.error(503, "app_server_unavailable").contains("npm install"), "{}", response.text);
    assert!(response.headers.get(RETRY_AFTER).is_some());
    let child = wait_for_child_status(&daemon, "failed").await;
    assert_eq!(child["pid"], Value::Null);
    assert!(child["lastError"].as_str().unwrap().contains("npm install"), "{child}");
}

#[tokio::test]
async fn non_executable_program_is_reported() {
    let directory = scratch::directory("test");
    let file = directory.path().join("codex");
    fs::write(&file, "text").unwrap();
    let no_arguments: [&str; 0] = [];
    let daemon = Daemon::builder().server(&file, &no_arguments).start().await;
    let failed = wait_for_event_type(&daemon, "child.spawn.failed").await;
    assert!(failed["message"].as_str().unwrap().contains(file.to_str().unwrap()), "{failed}");
    wait_until_not_ready(&daemon, file.to_str().unwrap()).await;
}

#[tokio::test]
async fn immediate_child_exit_is_reported_and_daemon_continues() {
    let mut daemon = Daemon::builder().startup("exit=4").start().await;
    let exited = wait_for_event_type(&daemon, "child.exited").await;
    assert_eq!((&exited["detail"]["code"], &exited["level"]), (&json!(4), &json!("error")));
    wait_until_not_ready(&daemon, "code 4").await;
    let response = post(&daemon, SESSIONS, &json!({})).await;
    assert!(response.error(503, "app_server_unavailable").contains("code 4"), "{}", response.text);
    assert!(response.headers.get(RETRY_AFTER).is_some());
    let child = wait_for_child_status(&daemon, "failed").await;
    assert_eq!(child["exitCode"], 4);
    assert!(daemon.stop().await.status.success());
}

#[tokio::test]
async fn child_that_rejects_initialize_is_ended() {
    let mut daemon = Daemon::builder().startup("refuse-initialize").start().await;
    let failed = wait_for_event_type(&daemon, "app-server.connect.failed").await;
    assert!(failed["message"].as_str().unwrap().contains("initialize"), "{failed}");
    wait_for_event_type(&daemon, "child.exited").await;
    wait_until_not_ready(&daemon, "app-server").await;
    assert!(daemon.stop().await.status.success());
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn listener_opens_before_child_is_ready() {
    let mut daemon = Daemon::builder().startup("hang-initialize").start().await;
    let health = get(&daemon, "/healthz").await;
    assert_eq!((health.status, &health.json["status"]), (200, &json!("ok")));
    assert_eq!(health.json["service"]["ready"], false);
    assert_eq!(health.json["service"]["notReadyReason"], "The app-server is being started.");
    assert_eq!(get(&daemon, SESSIONS).await.data(200)["sessions"], json!([]));
    wait_for_child_status(&daemon, "starting").await;
    assert!(daemon.stop().await.status.success());
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn session_creation_waits_for_starting_child() {
    let daemon = Daemon::builder().startup("answer-late=500").start().await;
    assert_eq!(create_session(&daemon, json!({})).await["status"], "active");
}

#[tokio::test]
async fn address_in_use_is_refused_before_child_start() {
    let first = start_daemon().await;
    let directory = scratch::directory("test");
    let (root, mark) = (directory.path().join("root"), directory.path().join("started"));
    fs::create_dir(&root).unwrap();
    let mut command = codexd(directory.path());
    command.args(["start", "--local-api-base", first.base_url(), "--server-command", "touch"]);
    command.arg("--repo-root").arg(&root).arg("--server-arg").arg(&mark);
    let ended = run_command(command).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains(first.authority()) && ended.stderr.contains("in use"), "{}", ended.stderr);
    assert!(!mark.exists(), "the daemon started a child");
    // The daemon locks the directories first, so that two starts exclude each other; it creates no other file.
    for directory in [root.join("state/codexd"), root.join("logs/codexd")] {
        let files: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["codexd.lock"], "{}", directory.display());
    }
}
