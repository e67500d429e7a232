//! Directories written by earlier versions: they open, sessions continue and cursors stay valid.
//!
//! The version of its time wrote each fixture; `tests/fixtures/make` creates one.

use std::fs;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::{Value, json};

use super::{json_file, sealed};
use crate::api::{
    SESSIONS, STATUS, TURN, start_turn, text, wait_for_turn_end, wait_until_idle, wait_until_ready,
};
use crate::support::daemon::Daemon;
use crate::support::http::{ApiResponse, get, request};
use crate::support::sse::EventSource;
use crate::support::wait::wait_until_async;
use crate::support::websocket::{EVENTS_PATH, EventStream};

/// The fixtures by the directory below `tests/fixtures`.
///
/// `format-1` was written by the first version in use, commit 5eed79a: a killed daemon with a rotated log whose sequence
/// numbers skip once, an open session with three turns, a closed session, a session and a turn created with idempotency
/// keys, a session whose turn waits for an approval, and a session with a running turn and two queued turns.
/// `format-2` is the same, written by commit 10cbb1a, and `format-3` by commit 1879f9e.
const FIXTURES: [&str; 3] = ["format-1", "format-2", "format-3"];

fn directory(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture)
}

/// The last responses of the version that wrote the fixture.
fn answers(fixture: &str) -> Value {
    json_file(&directory(fixture).join("answers.json"))
}

/// The events of the fixture, as `DaemonBuilder::fixture` prepares them.
fn log(fixture: &str) -> Vec<Value> {
    let logs = directory(fixture).join("logs");
    let segments = sealed(&logs).into_iter().chain([logs.join("events.jsonl")]);
    let text: String = segments.map(|path| fs::read_to_string(path).unwrap()).collect();
    text.replace("\"expiresAt\":\"20", "\"expiresAt\":\"29")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Sends a POST with an idempotency key.
async fn repeat(daemon: &Daemon, path: &str, key: &str, body: &Value) -> ApiResponse {
    request(daemon, Method::POST, path, &[("idempotency-key", key)], body.to_string()).await
}

/// Asserts that `new` has every key of `old` with the same value, except the keys in `except`.
fn assert_holds(new: &Value, old: &Value, except: &[&str]) {
    for (key, value) in old.as_object().unwrap() {
        if !except.contains(&key.as_str()) {
            assert_eq!(new[key], *value, "{key} of {new:#}");
        }
    }
}

/// Asserts that a client that resumes after `seq` receives exactly the later events of `log`, over all transports.
async fn assert_resumes(daemon: &Daemon, epoch: &str, seq: u64, log: &[Value]) {
    let rest: Vec<_> = log.iter().filter(|event| event["seq"].as_u64().unwrap() > seq).cloned().collect();
    let path = format!("{EVENTS_PATH}?after={epoch}-{seq}");
    let page = get(daemon, &format!("{path}&limit=1000")).await;
    let events = page.data(200)["events"].as_array().unwrap();
    assert_eq!(events[..rest.len()], rest, "a page after {seq}");
    let mut stream = EventStream::connect_to(daemon, &path, &[]).await;
    stream.hello().await;
    let mut source = EventSource::connect(daemon, &path, None).await;
    for event in &rest {
        assert_eq!(stream.next_event().await, *event, "the stream after {seq}");
        assert_eq!(source.next_event().await, *event, "server-sent events after {seq}");
    }
}

#[tokio::test]
async fn earlier_version_directories_open_and_continue() {
    for fixture in FIXTURES {
        let old = answers(fixture);
        let epoch = text(&old["page"]["epoch"]);
        let made = |name: &str| text(&old["made"][name]);
        let log = log(fixture);
        let mut daemon = Daemon::builder().fixture(fixture).start().await;
        wait_until_ready(&daemon).await;

        let status = get(&daemon, STATUS).await;
        assert_eq!(status.data(200)["snapshot"]["identity"]["daemonId"], old["daemonId"]);
        let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].clone();
        for (new, old) in sessions.as_array().unwrap().iter().zip(old["sessions"].as_array().unwrap()) {
            let changing = ["updatedAt", "currentTurnId", "lastTurnId", "lastTurnStatus", "childPid"];
            assert_holds(new, old, &changing);
        }
        let turn_path = format!("{SESSIONS}/{}/turns", made("keyed"));
        let known = &old["turn"]["turn"];
        let read = get(&daemon, &format!("{turn_path}/{}", text(&known["turnId"]))).await;
        assert_holds(&read.data(200)["turn"], known, &[]);

        let requests = get(&daemon, "/v1/codexd/requests?status=all").await.data(200)["requests"].clone();
        let open = &old["requests"][0];
        assert_holds(&requests[0], open, &["status", "expiresAt", "resolvedAt", "resolvedBy", "reason"]);
        assert_eq!(requests[0]["resolvedBy"], "connectionClosed");

        for (key, path, of) in [("key-session", SESSIONS, "sessionId"), ("key-turn", TURN, "turnId")] {
            let repeated = &old["keys"][key];
            let answer = repeat(&daemon, path, key, &repeated["body"]).await;
            let data = &answer.json["data"];
            let id = if of == "sessionId" { &data["session"][of] } else { &data[of] };
            assert_eq!(*id, repeated["answer"][of], "{}", answer.text);
        }

        let queued = made("queued");
        let work = wait_until_async("the end of the queue", async || {
            let read = get(&daemon, &format!("{SESSIONS}/{queued}")).await;
            let data = read.data(200);
            let done = data["queuedTurns"] == json!([]) && data["session"]["currentTurnId"].is_null();
            done.then(|| data["session"].clone())
        });
        assert_eq!(work.await["lastTurnStatus"], "completed");
        let user_message = |event: &Value| {
            let item = &event["detail"]["params"]["item"];
            (item["type"] == "userMessage").then(|| text(&item["content"][0]["text"]))
        };
        let completed = |event: &&Value| event["detail"]["notificationMethod"] == "item/completed";
        let after: Vec<_> =
            daemon.events_on_disk()[log.len()..].iter().filter(completed).filter_map(user_message).collect();
        assert_eq!(after, ["text=waited-1", "text=waited-2"], "the queued turns ran out of order");

        for name in ["first", "keyed", "asking", "queued"] {
            let turn_id = start_turn(&daemon, &made(name), "deltas=2").await;
            assert_eq!(
                wait_for_turn_end(&daemon, &made(name), &json!(turn_id)).await["lastTurnStatus"],
                "completed",
                "{name}"
            );
        }
        let closed = get(&daemon, &format!("{SESSIONS}/{}", made("closed"))).await;
        assert_eq!(closed.data(200)["session"]["status"], "closed");

        let seqs: Vec<u64> = log.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        let skip = seqs.windows(2).position(|pair| pair[1] > pair[0] + 1).expect("skipped sequence numbers");
        let ends = [0, seqs[0], seqs[seqs.len() / 3], seqs[skip], seqs[skip] + 7, seqs[skip + 1]];
        for seq in ends.into_iter().chain([seqs[seqs.len() - 2], seqs[seqs.len() - 1]]) {
            assert_resumes(&daemon, &epoch, seq, &log).await;
        }
        let events = daemon.events_on_disk();
        assert!(
            !events.iter().any(|event| event["type"] == "log.damaged"),
            "a skipped sequence number was reported as damage"
        );

        // Directories written by the present version open as well.
        assert!(daemon.stop().await.status.success());
        let daemon = Daemon::builder().state_from(&daemon).start().await;
        wait_until_ready(&daemon).await;
        wait_until_idle(&daemon, &made("first")).await;
        assert_resumes(&daemon, &epoch, seqs[skip], &log).await;
    }
}
