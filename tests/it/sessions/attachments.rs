//! Images in inputs: stored once beside the log, named in events and records, and sent to the app-server as they were.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::queue::{drained_queue, end_hanging_turn};
use super::{RecordingAppServer, ask_with};
use crate::api::{SESSIONS, TURN, new_session, start_turn, wait_until_idle};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post};
use crate::support::wait::wait_until;

/// Bytes that stand for an image, and their data URL.
fn image(number: u8) -> (Vec<u8>, String) {
    let data: Vec<u8> = (0..40_000u32).map(|at| number.wrapping_add(((at * at) >> 3) as u8)).collect();
    let url = format!("data:image/png;base64,{}", BASE64.encode(&data));
    (data, url)
}

fn file_of(daemon: &Daemon, data: &[u8]) -> PathBuf {
    daemon.logs_dir().join("attachments").join(HEXLOWER.encode(&Sha256::digest(data)))
}

fn reference_to(data: &[u8]) -> String {
    format!("codexd-attachment:{};image/png", HEXLOWER.encode(&Sha256::digest(data)))
}

fn input_with(url: &str) -> Value {
    json!([{ "type": "text", "text": "text=seen", "text_elements": [] }, { "type": "image", "url": url }])
}

/// The inputs that the app-server received.
fn inputs(app_server: &RecordingAppServer) -> Vec<Value> {
    app_server.calls("turn/start").into_iter().map(|mut params| params["input"].take()).collect()
}

fn assert_no_data(daemon: &Daemon, url: &str) {
    for directory in [daemon.state_dir(), daemon.logs_dir()] {
        for file in fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()) {
            // What the app-server wrote is recorded as it is.
            if file.is_file() && !file.ends_with("stdout.log") {
                // A file may get its name meanwhile.
                let Ok(bytes) = fs::read(&file) else { continue };
                let text = String::from_utf8_lossy(&bytes).into_owned();
                assert!(!text.contains(url.get(..100).unwrap()), "{} has the data", file.display());
            }
        }
    }
}

#[tokio::test]
async fn image_is_stored_once_and_sent_as_it_was() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let (data, url) = image(1);
    for _ in 0..2 {
        let body = json!({ "sessionId": session_id, "input": input_with(&url) });
        post(&daemon, TURN, &body).await.data(202);
        wait_until_idle(&daemon, &session_id).await;
    }
    assert_eq!(inputs(&app_server), [input_with(&url), input_with(&url)]);
    let log = fs::read_to_string(daemon.logs_dir().join("events.jsonl")).unwrap();
    assert_eq!(
        log.matches(&reference_to(&data)).count(),
        4,
        "two turns, each item started and completed: {log}"
    );
    assert_no_data(&daemon, &url);
    let file = file_of(&daemon, &data);
    assert_eq!(fs::read(&file).unwrap(), data);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    daemon.stop().await;
    assert_no_data(&daemon, &url);
}

#[tokio::test]
async fn queued_image_is_sent_after_sigkill() {
    let app_server = RecordingAppServer::new();
    let mut daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hang").await;
    let (data, url) = image(2);
    let body = json!({ "sessionId": session_id, "input": input_with(&url), "whenBusy": "queue" });
    post(&daemon, TURN, &body).await.data(202);
    let read = get(&daemon, &format!("{SESSIONS}/{session_id}")).await;
    let waiting = read.data(200)["queuedTurns"][0]["input"].clone();
    assert_eq!(waiting, input_with(&reference_to(&data)));
    assert_no_data(&daemon, &url);
    daemon.kill().await;
    let daemon = super::restart(&app_server, &daemon).await;
    drained_queue(&daemon, &session_id).await;
    assert_eq!(inputs(&app_server).last(), Some(&input_with(&url)));
    assert_no_data(&daemon, &url);
}

#[tokio::test]
async fn queue_is_held_when_an_image_is_gone() {
    let app_server = RecordingAppServer::new();
    let daemon = app_server.builder().start().await;
    let session_id = new_session(&daemon).await;
    let running = start_turn(&daemon, &session_id, "hang").await;
    let (data, url) = image(3);
    ask_with(&daemon, &session_id, "", json!({ "input": input_with(&url), "whenBusy": "queue" }))
        .await
        .data(202);
    fs::remove_file(file_of(&daemon, &data)).unwrap();
    end_hanging_turn(&daemon, &session_id, &running).await;
    let held = crate::api::wait_for_event_type(&daemon, "session.held").await;
    assert_eq!(held["detail"]["held"]["cause"], "turnRefused", "{held}");
    assert!(held["detail"]["held"]["reason"].as_str().unwrap().contains("attachments"), "{held}");
}

#[tokio::test]
async fn image_is_removed_with_the_last_event_that_names_it() {
    let app_server = RecordingAppServer::new();
    let daemon =
        app_server.builder().arg("--event-segment-bytes").arg("20000").arg("--event-log-bytes").arg("60000");
    let daemon = daemon.start().await;
    let session_id = new_session(&daemon).await;
    let (data, url) = image(4);
    let body = json!({ "sessionId": session_id, "input": input_with(&url) });
    post(&daemon, TURN, &body).await.data(202);
    wait_until_idle(&daemon, &session_id).await;
    let file = file_of(&daemon, &data);
    // Older than any event, as the clock may be set back by an hour.
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(past).unwrap();
    start_turn(&daemon, &session_id, "deltas=500").await;
    wait_until_idle(&daemon, &session_id).await;
    wait_until("the removal of the image", || (!file.exists()).then_some(())).await;
}
