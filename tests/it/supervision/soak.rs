//! Kills: the app-server and the daemon are ended with SIGKILL again and again while turns run.

use std::fs;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::{assert_no_strangers, child, generation, signal};
use crate::api::{SESSIONS, TURN, assert_no_survivors, create, idle, ready, text, try_post, turn};
use crate::history::random::{Dice, seed};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::fake_codex::fake_codex;
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::skip::repetitions;

/// The number of kills in a run with the long tests; `CODEXD_SUPERVISION_KILLS` overrides it.
const KILLS: u64 = 20;
/// The number of kills otherwise: several of each kind.
const SHORT_KILLS: u64 = 8;
/// How many sessions take turns at once.
const SESSIONS_AT_WORK: usize = 5;
/// After how many kills of the app-server in one life the daemon is next: more of them end in a crash loop.
const DEATHS: u64 = 2;

/// A turn that was acknowledged: its session and its name.
type Acknowledged = (String, String);

/// `CODEXD_SUPERVISION_KILLS=200` makes it the long one; see `docs/testing.md`.
#[tokio::test]
async fn turns_end_and_sessions_continue_under_random_kills() {
    let kills = repetitions("CODEXD_SUPERVISION_KILLS", "kills", SHORT_KILLS, KILLS);
    let mut dice = Dice::new(seed());
    let began = Instant::now();
    let store = scratch::directory("soak");
    let mut daemon = builder(&store).start().await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS_AT_WORK {
        sessions.push(text(&create(&daemon, json!({})).await["sessionId"]));
    }
    all_take_a_turn(&daemon, &sessions).await;
    let (files, before) = (open_files(&daemon), memory(&daemon));

    let (mut turns, mut deaths) = (0, 0);
    for _ in 0..kills {
        let acknowledged = begin_turns(&daemon, &sessions, &mut dice).await;
        turns += acknowledged.len();
        tokio::time::sleep(dice.milliseconds(0, 40)).await;
        if deaths < DEATHS && dice.happens(60) {
            deaths += 1;
            let victim = child(&daemon).await;
            signal(&victim["pid"], Signal::KILL);
            generation(&daemon, victim["generation"].as_u64().unwrap() + 1).await;
        } else {
            deaths = 0;
            daemon.kill().await;
            daemon = builder(&store).state_from(&daemon).start().await;
            ready(&daemon).await;
        }
        for turn in &acknowledged {
            assert_ends(&daemon, turn).await;
        }
    }

    assert_eq!(known_sessions(&daemon).await, sorted(&sessions), "the names of the sessions have changed");
    all_take_a_turn(&daemon, &sessions).await;
    assert!(turns as u64 >= kills, "only {turns} turns in {kills} lives: the soak does not soak");
    assert_no_strangers(&daemon, &child(&daemon).await);
    assert_eq!(open_files(&daemon), files, "file descriptors are left over");
    let now = memory(&daemon);
    assert!(now < 3 * before, "{before} KiB at first, {now} KiB after {kills} kills");
    say(&format!(
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

/// Asks for a turn in each session; those that were acknowledged.
async fn begin_turns(daemon: &Daemon, sessions: &[String], dice: &mut Dice) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for session_id in sessions {
        let (deltas, delay) = (1 + dice.below(12), dice.below(6));
        let body = json!({ "sessionId": session_id, "input": format!("deltas={deltas} delay={delay}") });
        if let Some((202, answer)) = try_post(daemon.base_url(), TURN, &body).await {
            acknowledged.push((session_id.clone(), text(&answer["data"]["turnId"])));
        }
    }
    acknowledged
}

/// Asserts that a turn has ended, or ends.
async fn assert_ends(daemon: &Daemon, (session_id, turn_id): &Acknowledged) {
    let path = format!("{SESSIONS}/{session_id}/turns/{turn_id}?wait=30");
    let status = get(daemon, &path).await.data(200)["turn"]["status"].clone();
    let terminal = ["completed", "failed", "interrupted"];
    assert!(terminal.iter().any(|end| status == *end), "turn {turn_id} of {session_id} is {status}");
}

async fn all_take_a_turn(daemon: &Daemon, sessions: &[String]) {
    for session_id in sessions {
        idle(daemon, session_id).await;
        turn(daemon, session_id, "hello").await;
        assert_eq!(idle(daemon, session_id).await["lastTurnStatus"], "completed", "{session_id}");
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

/// How many files and pipes the daemon has open; connections of clients come and go.
fn open_files(daemon: &Daemon) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| !target.to_string_lossy().starts_with("socket:")).count()
}

/// What the daemon has in memory, in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[expect(clippy::print_stderr, reason = "the test runner shows this with the failure of the test")]
fn say(text: &str) {
    eprintln!("{text}");
}
