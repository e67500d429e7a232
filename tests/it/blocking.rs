//! File systems that do not answer: who asks for them waits for a limited time, and nobody else waits at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;

use crate::api::{
    SESSIONS, STATUS, TURN, assert_no_survivors, logged_type, not_ready, ready, session, start,
};
use crate::support::daemon::Daemon;
use crate::support::hanging::Hanging;
use crate::support::http::{Target, get, post, request};
use crate::support::scratch;
use crate::support::wait::wait_until_async;

/// Many times the workers of the runtime, and more than the threads of any pool.
const CALLERS: usize = 40;
/// What nobody waits for who has nothing to do with the file system that hangs: less than the limits of those who do.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Points a symbolic link elsewhere, all at once.
fn point(link: &Path, target: &Path) {
    let new = link.with_extension("new");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

#[tokio::test]
async fn hanging_directory_blocks_only_requests_that_name_it() {
    let Some(mut hanging) = Hanging::mount() else { return };
    let good = scratch::directory("blocking");
    let daemon = start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    let base = daemon.base_url().to_owned();
    let callers: Vec<_> = (0..CALLERS)
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
    let began = Instant::now();
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        assert_eq!(get(&daemon, "/healthz").await.status, 200);
        assert!(asked.elapsed() < AT_ONCE, "/healthz took {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() > Duration::from_secs(1), "the file system answered");
    for caller in callers {
        let answer = caller.await.unwrap();
        let message = answer.error(503, "storage_unavailable").to_owned();
        assert!(message.contains("within 5 s") && message.contains("directory"), "{message}");
        assert!(answer.headers.contains_key("retry-after"), "{}", answer.text);
    }
    // Threads still hang there, and others are not kept by them.
    let asked = Instant::now();
    let cwd = json!({ "cwd": good.path() });
    post(&daemon, SESSIONS, &cwd).await.data(201);
    // It is known by now which directory hangs.
    let refused = post(&daemon, SESSIONS, &json!({ "cwd": hanging.path().join("other") })).await;
    let message = refused.error(503, "storage_unavailable");
    assert!(message.contains(&format!("{:?} did not answer within 5 s", hanging.path())), "{message}");
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    hanging.release();
    // The directory counts as unavailable until the calls that wait for it have returned.
    let gone = wait_until_async("an answer about the directory", async || {
        let answer = post(&daemon, SESSIONS, &json!({ "cwd": hanging.path() })).await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    assert!(gone.error(400, "bad_request").contains("must be an existing directory"), "{}", gone.text);
}

#[tokio::test]
async fn hanging_token_file_rejects_only_requests_with_tokens() {
    const TOKEN: &str = "f00dfacecafe0123456789abcdef0123f00dfacecafe0123456789abcdef0123";
    let Some(mut hanging) = Hanging::mount() else { return };
    let home = scratch::directory("blocking");
    let (good, link) = (home.path().join("good"), home.path().join("link"));
    fs::create_dir(&good).unwrap();
    fs::write(good.join("token"), TOKEN).unwrap();
    fs::set_permissions(good.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    point(&link, &good);
    let daemon = Daemon::builder().arg("--auth-token-file").arg(link.join("token")).start().await;
    let bearer = format!("Bearer {TOKEN}");
    let ask = |base: String| {
        let headers = [("authorization", bearer.clone())];
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            request(base.as_str(), Method::GET, STATUS, &headers, "").await
        }
    };
    let base = daemon.base_url().to_owned();
    ask(base.clone()).await.data(200);
    point(&link, hanging.path());
    let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(ask(base.clone()))).collect();
    while !callers.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        assert_eq!(get(&daemon, "/healthz").await.status, 200);
        assert!(asked.elapsed() < AT_ONCE, "/healthz took {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for caller in callers {
        let answer = caller.await.unwrap();
        let message = answer.error(503, "storage_unavailable");
        assert!(message.starts_with("The token file ") && message.contains("within 5 s"), "{message}");
    }
    hanging.release();
    point(&link, &good);
    ask(base).await.data(200);
}

#[tokio::test]
async fn hanging_app_server_directory_is_reported_and_stop_works() {
    let Some(hanging) = Hanging::mount() else { return };
    let home = scratch::directory("blocking");
    let (good, link) = (home.path().join("good"), home.path().join("link"));
    fs::create_dir(&good).unwrap();
    point(&link, &good);
    let mut daemon = Daemon::builder().arg("--server-cwd").arg(&link).start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    point(&link, hanging.path());
    post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "crash" })).await.data(202);
    let failed = logged_type(&daemon, "child.spawn.failed").await;
    let message = failed["message"].as_str().unwrap();
    assert!(
        message.contains(&format!("{} that it starts in, did not answer within 10 s", link.display())),
        "{message}"
    );
    let asked = Instant::now();
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    // The next start hangs as well.
    not_ready(&daemon, "It is being started again.").await;
    assert!(daemon.stop().await.status.success());
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    assert_no_survivors(&daemon);
}

#[tokio::test]
async fn hanging_disk_does_not_block_stop() {
    let mut daemon = start().await;
    ready(&daemon).await;
    let session_id = session(&daemon).await;
    let Some(hanging) = Hanging::over(&daemon.state_dir()) else { return };
    // The records changed, so that there is something to write.
    post(&daemon, TURN, &json!({ "sessionId": session_id, "input": "hang" })).await.data(202);
    assert_eq!(get(&daemon, "/healthz").await.status, 200);
    let stopped = daemon.stop().await;
    assert!(stopped.took < Duration::from_secs(15), "{stopped:?}");
    drop(hanging);
    assert_no_survivors(&daemon);
}
