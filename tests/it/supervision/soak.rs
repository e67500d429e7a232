//! Repeated SIGKILL of the app-server and of the daemon while turns run.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{assert_no_leftover_processes, child, generation, signal};
use crate::api::{
    SESSIONS, TURN, assert_no_survivors, create_session, start_turn, text, try_post, wait_until_idle,
    wait_until_ready,
};
use crate::history::random::{SeededRandom, seed};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::skip::repetitions;
use crate::support::wait::wait_until;

/// The number of kills in a run with the long tests; `CODEXD_SUPERVISION_KILLS` overrides it.
const KILLS: u64 = 20;
/// The number of kills otherwise: several of each kind.
const SHORT_KILLS: u64 = 8;
/// The number of sessions with concurrent turns.
const CONCURRENT_SESSIONS: usize = 5;
/// The number of app-server kills before the daemon is killed: more of them would end in a crash loop.
const APP_SERVER_KILLS: u64 = 2;

/// An acknowledged turn: its session ID and turn ID.
type Acknowledged = (String, String);

/// `CODEXD_SUPERVISION_KILLS=200` runs the long version; see `docs/testing.md`.
#[tokio::test]
async fn turns_end_and_sessions_continue_under_random_kills() {
    let kills = repetitions("CODEXD_SUPERVISION_KILLS", "kills", SHORT_KILLS, KILLS);
    let mut random = SeededRandom::new(seed());
    let began = Instant::now();
    let store = scratch::directory("soak");
    let mut daemon = builder(&store).start().await;
    let mut sessions = Vec::new();
    for _ in 0..CONCURRENT_SESSIONS {
        sessions.push(text(&create_session(&daemon, json!({})).await["sessionId"]));
    }
    run_turn_in_each(&daemon, &sessions).await;
    let (files, before) = (open_files(&daemon), memory(&daemon));

    let (mut turns, mut app_server_kills) = (0, 0);
    for _ in 0..kills {
        let acknowledged = start_turns(&daemon, &sessions, &mut random).await;
        turns += acknowledged.len();
        tokio::time::sleep(random.milliseconds(0, 40)).await;
        if app_server_kills < APP_SERVER_KILLS && random.chance(60) {
            app_server_kills += 1;
            let target = child(&daemon).await;
            signal(&target["pid"], Signal::KILL);
            generation(&daemon, target["generation"].as_u64().unwrap() + 1).await;
        } else {
            app_server_kills = 0;
            daemon.kill().await;
            daemon = builder(&store).state_from(&daemon).start().await;
            wait_until_ready(&daemon).await;
        }
        for turn in &acknowledged {
            assert_ends(&daemon, turn).await;
        }
    }

    assert_eq!(known_sessions(&daemon).await, sorted(&sessions), "the session IDs changed");
    run_turn_in_each(&daemon, &sessions).await;
    assert!(turns as u64 >= kills, "only {turns} turns in {kills} kills: the load is too low");
    assert_no_leftover_processes(&daemon, &child(&daemon).await);
    // A snapshot may be written just now.
    wait_until("no leaked file descriptors", || (open_files(&daemon) <= files).then_some(())).await;
    let now = memory(&daemon);
    assert!(now < 3 * before, "{before} KiB at first, {now} KiB after {kills} kills");
    print_summary(&format!(
        "{kills} kills in {:.1?}: {turns} turns, {before} KiB before, {now} KiB after",
        began.elapsed()
    ));
    daemon.stop().await;
    assert_no_survivors(&daemon);
}

fn builder(store: &TempDir) -> DaemonBuilder {
    let program = fake_codex();
    let store = store.path().join("store");
    Daemon::builder().server(program, &["app-server", "--store", store.to_str().unwrap()])
}

/// Requests a turn in each session; returns the acknowledged turns.
async fn start_turns(daemon: &Daemon, sessions: &[String], random: &mut SeededRandom) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for session_id in sessions {
        let (deltas, delay) = (1 + random.below(12), random.below(6));
        let body = json!({ "sessionId": session_id, "input": format!("deltas={deltas} delay={delay}") });
        if let Some((202, answer)) = try_post(daemon.base_url(), TURN, &body).await {
            acknowledged.push((session_id.clone(), text(&answer["data"]["turnId"])));
        }
    }
    acknowledged
}

/// Asserts that a turn ends within 30 s.
async fn assert_ends(daemon: &Daemon, (session_id, turn_id): &Acknowledged) {
    let path = format!("{SESSIONS}/{session_id}/turns/{turn_id}?wait=30");
    let status = get(daemon, &path).await.data(200)["turn"]["status"].clone();
    let terminal = ["completed", "failed", "interrupted"];
    assert!(terminal.iter().any(|end| status == *end), "turn {turn_id} of {session_id} is {status}");
}

async fn run_turn_in_each(daemon: &Daemon, sessions: &[String]) {
    for session_id in sessions {
        wait_until_idle(daemon, session_id).await;
        start_turn(daemon, session_id, "hello").await;
        assert_eq!(wait_until_idle(daemon, session_id).await["lastTurnStatus"], "completed", "{session_id}");
    }
}

async fn known_sessions(daemon: &Daemon) -> Vec<String> {
    let list = get(daemon, SESSIONS).await.data(200)["sessions"].clone();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|session| text(&session["sessionId"])).collect();
    sorted(&names)
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

/// Returns the number of open file descriptors of the daemon without sockets, whose number varies.
fn open_files(daemon: &Daemon) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| !target.to_string_lossy().starts_with("socket:")).count()
}

/// Returns the resident memory of the daemon in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
fn print_summary(text: &str) {
    eprintln!("{text}");
}
