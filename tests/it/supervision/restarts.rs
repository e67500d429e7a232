//! The delay before an app-server restarts, and the responses to requests until then.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use hyper::header::RETRY_AFTER;
use rustix::process::Signal;
use serde_json::json;

use super::{child, generation, signal};
use crate::api::{
    SESSIONS, assert_no_survivors, create_session, start_daemon, wait_for_backoff_event, wait_for_event_type,
    wait_until_not_ready, wait_until_ready,
};
use crate::cli::CliUser;
use crate::support::daemon::Daemon;
use crate::support::fake_codex::fake_codex;
use crate::support::http::post;
use crate::support::scratch;

#[tokio::test]
async fn restart_delay_grows_with_repeated_exits() {
    let mut daemon = Daemon::builder().startup("stderr=because exit-after-initialize=1").start().await;
    let crash_loop = wait_for_event_type(&daemon, "child.crash_loop").await;
    assert_eq!((&crash_loop["level"], &crash_loop["detail"]["deaths"]), (&json!("error"), &json!(6)));
    assert_eq!(crash_loop["detail"]["delayMs"], 60_000);
    let tail = crash_loop["detail"]["stderrTail"].as_array().unwrap();
    assert!(tail.contains(&json!("because")), "{crash_loop}");
    let events = daemon.events_on_disk();
    let of = |name: &str| events.iter().filter(|event| event["type"] == name).collect::<Vec<_>>();
    assert_eq!(of("child.started").len(), 6, "one start for each exit");
    let delays = of("child.backoff").into_iter().map(|event| event["detail"]["delayMs"].as_u64().unwrap());
    for (delay, nominal) in delays.zip([500, 1000, 2000, 4000, 8000]) {
        assert!((nominal * 8 / 10..=nominal * 12 / 10).contains(&delay), "{delay} for {nominal}");
    }
    assert_eq!(of("child.backoff").len(), 5);

    wait_until_not_ready(&daemon, "tried once a minute").await;
    let record = child(&daemon).await;
    assert_eq!((&record["status"], &record["state"]), (&json!("failed"), &json!("crash_loop")));
    assert_eq!((&record["deaths"], &record["nextStartAt"]), (&json!(6), &crash_loop["detail"]["until"]));
    assert_eq!(record["stderrTail"], crash_loop["detail"]["stderrTail"]);
    let status = CliUser::of(&daemon).run(&["status"]).await;
    let reason = "exited with code 1. Error output: because";
    assert!(status.stdout.contains(reason), "{status:?}");
    let sent = Instant::now();
    let answer = post(&daemon, SESSIONS, &json!({})).await;
    answer.error(503, "app_server_unavailable");
    assert!(sent.elapsed() < Duration::from_secs(5), "the request waited although no restart is near");
    let seconds: u64 = answer.headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((20..=60).contains(&seconds), "{seconds}");
    // The stop does not wait for the next start.
    let stopped = daemon.stop().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(5), "{stopped:?}");
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn request_waits_for_the_next_app_server() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    signal(&child(&daemon).await["pid"], Signal::KILL);
    wait_for_backoff_event(&daemon).await;
    assert_eq!(create_session(&daemon, json!({})).await["status"], "active");
    assert_eq!(child(&daemon).await["generation"], 2);
}

#[tokio::test]
async fn program_installed_after_start_is_found() {
    let directory = scratch::directory("test");
    let program = directory.path().join("codex");
    let daemon = Daemon::builder().server(&program, &["app-server"]).start().await;
    assert_eq!(wait_for_backoff_event(&daemon).await["detail"]["exitCode"], json!(null));
    symlink(fake_codex(), &program).unwrap();
    generation(&daemon, 2).await;
    assert_eq!(create_session(&daemon, json!({})).await["status"], "active");
}

#[tokio::test]
async fn stop_does_not_wait_for_app_server_start() {
    let mut daemon = Daemon::builder().startup("hang-initialize").start().await;
    wait_for_event_type(&daemon, "child.started").await;
    let stopped = daemon.stop().await;
    assert!(stopped.status.success() && stopped.took < Duration::from_secs(10), "{stopped:?}");
    assert_no_survivors(&daemon);
}
