//! File systems that hang: requests that need them wait for a limited time, and other requests do not wait.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use crate::api::{
    SESSIONS, STATUS, TURN, assert_no_survivors, new_session, start_daemon, wait_for_event_type,
    wait_until_not_ready, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::hanging::Hanging;
use crate::support::http::{Target, get, post, request};
use crate::support::scratch;
use crate::support::wait::wait_until_async;

/// The number of concurrent requests: far more than runtime workers, and more than the threads of any pool.
const REQUESTS: usize = 40;
/// The limit for requests that do not need the hanging file system; it is below the timeout of those that do.
const UNBLOCKED_LIMIT: Duration = Duration::from_secs(4);

/// Atomically replaces the target of a symlink.
fn retarget(link: &Path, target: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn hanging_directory_blocks_only_requests_that_name_it() {
    let Some(mut hanging) = Hanging::mount() else { return };
    let good = scratch::directory("blocking");
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let base = daemon.base_url().to_owned();
    let requests: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let base = base.clone();
            let cwd = match number % 3 {
                0 => hanging.path().to_owned(),
                1 => hanging.path().join("project"),
                _ => hanging.path().join(format!("{number}/project")),
            };
            let session_id = session_id.clone();
            tokio::spawn(async move {
                match number % 2 {
                    0 => post(base.as_str(), SESSIONS, &json!({ "cwd": cwd })).await,
                    _ => {
                        let body = json!({ "sessionId": session_id, "input": "hello", "cwd": cwd });
                        post(base.as_str(), TURN, &body).await
                    }
                }
            })
        })
        .collect();
    let started = Instant::now();
    while !requests.iter().all(tokio::task::JoinHandle::is_finished) {
        let sent = Instant::now();
        assert_eq!(get(&daemon, "/healthz").await.status, 200);
        assert!(sent.elapsed() < UNBLOCKED_LIMIT, "/healthz took {:?}", sent.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() > Duration::from_secs(1), "the file system responded");
    for request_task in requests {
        let response = request_task.await.unwrap();
        let message = response.error(503, "storage_unavailable").to_owned();
        assert!(message.contains("within 5 s") && message.contains("directory"), "{message}");
        assert!(response.headers.contains_key("retry-after"), "{}", response.text);
    }
    // Threads still hang there, but they do not block other requests.
    let sent = Instant::now();
    let cwd = json!({ "cwd": good.path() });
    post(&daemon, SESSIONS, &cwd).await.data(201);
    // The daemon has recorded which directory hangs.
    let refused = post(&daemon, SESSIONS, &json!({ "cwd": hanging.path().join("other") })).await;
    let message = refused.error(503, "storage_unavailable");
    assert!(message.contains(&format!("{:?} did not answer within 5 s", hanging.path())), "{message}");
    assert!(sent.elapsed() < UNBLOCKED_LIMIT, "{:?}", sent.elapsed());
    hanging.release();
    // The directory counts as unavailable until the calls that wait for it have returned.
    let gone = wait_until_async("a response about the directory", async || {
        let response = post(&daemon, SESSIONS, &json!({ "cwd": hanging.path() })).await;
        (response.status != 503).then_some(response)
    })
    .await;
    assert!(gone.error(400, "bad_request").contains("must be an existing directory"), "{}", gone.text);
}

#[tokio::test]
async fn hanging_token_file_rejects_only_requests_with_tokens() {
    const TOKEN: &str = "f00dfacecafe0123456789abcdef0123f00dfacecafe0123456789abcdef0123";
    let Some(mut hanging) = Hanging::mount() else { return };
    let directory = scratch::directory("blocking");
    let (good, link) = (directory.path().join("good"), directory.path().join("link"));
    fs::create_dir(&good).unwrap();
    fs::write(good.join("token"), TOKEN).unwrap();
    fs::set_permissions(good.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    retarget(&link, &good);
    let daemon = Daemon::builder().arg("--auth-token-file").arg(link.join("token")).start().await;
    let bearer = format!("Bearer {TOKEN}");
    let send = |base: String| {
        let headers = [("authorization", bearer.clone())];
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            request(base.as_str(), Method::GET, STATUS, &headers, "").await
        }
    };
    let base = daemon.base_url().to_owned();
    send(base.clone()).await.data(200);
    retarget(&link, hanging.path());
    let requests: Vec<_> = (0..REQUESTS).map(|_| tokio::spawn(send(base.clone()))).collect();
    while !requests.iter().all(tokio::task::JoinHandle::is_finished) {
        let sent = Instant::now();
        assert_eq!(get(&daemon, "/healthz").await.status, 200);
        assert!(sent.elapsed() < UNBLOCKED_LIMIT, "/healthz took {:?}", sent.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for request_task in requests {
        let response = request_task.await.unwrap();
        let message = response.error(503, "storage_unavailable");
        assert!(message.starts_with("The token file ") && message.contains("within 5 s"), "{message}");
    }
    hanging.release();
    retarget(&link, &good);
    send(base).await.data(200);
}

#[tokio::test]
async fn hanging_app_server_directory_is_reported_and_stop_works() {
    let Some(hanging) = Hanging::mount() else { return };
    let directory = scratch::directory("blocking");
    let (good, link) = (directory.path().join("good"), directory.path().join("link"));
    fs::create_dir(&good).unwrap();
    retarget(&link, &good);
    let mut daemon = Daemon::builder().arg("--server-cwd").arg(&link).start().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    retarget(&link, hanging.path());
    post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "crash" })).await.data(202);
    let failed = wait_for_event_type(&daemon, "child.spawn.failed").await;
    let message = failed["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("{} that it starts in, did not answer within 10 s", link.display())),
        "{message}"
    );
    let sent = Instant::now();
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    // The next start of the app-server hangs as well.
    wait_until_not_ready(&daemon, "It is being started again.").await;
    assert!(daemon.stop().await.status.success());
    assert!(sent.elapsed() < Duration::from_secs(15), "{:?}", sent.elapsed());
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn hanging_disk_does_not_block_stop() {
    let mut daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let session_id = new_session(&daemon).await;
    let Some(hanging) = Hanging::over(&daemon.state_dir()) else { return };
    // A turn changes the records, so that the stop has something to write.
    post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "hang" })).await.data(202);
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    let stopped = daemon.stop().await;
    assert!(stopped.took < Duration::from_secs(15), "{stopped:?}");
    drop(hanging);
    assert_no_survivors(&daemon);
}
