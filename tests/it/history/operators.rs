//! Changes that users and programs make to the files of a daemon while clients read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::clients::Clients;
use super::connection::{Transport, read_kept};
use super::random::{SeededRandom, seed};
use super::record::{Acknowledgement, Filter, History, Step};
use super::validators::{contradictions, unbroken};
use super::workers::Acknowledgements;
use crate::api::{SESSIONS, STATUS};
use crate::files::remove_directory;
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::scratch;
use crate::support::skip::runs_long_part;
use crate::support::wait::{wait_until, wait_until_async};

/// The number of clients that create turns.
const WORKERS: u64 = 2;

/// A change of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// The logs directory is removed while the daemon runs.
    RemoveDirectory,
    /// The active segment is removed while the daemon runs.
    RemoveFile,
    /// An older copy replaces the active segment while the daemon runs.
    Replace,
    /// The active segment is truncated in the middle while the daemon runs.
    Truncate,
    /// Some lines are removed from a sealed segment while the daemon runs.
    CutOut,
    /// A sealed segment is removed while the daemon runs.
    RemoveSegment,
    /// Both directories are removed while the daemon runs.
    Wipe,
    /// Older copies replace both directories of the stopped daemon.
    Restore,
    /// Like `Restore`, but the contents of the copies are written into the existing files.
    Overwrite,
}

use Operator::{
    CutOut, Overwrite, RemoveDirectory, RemoveFile, RemoveSegment, Replace, Restore, Truncate, Wipe,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_log_files_never_skip_events_without_a_gap() {
    let seed = seed();
    let mut operators = vec![RemoveFile, CutOut, Wipe, Restore];
    if runs_long_part("the other five changes of the files") {
        operators.extend([RemoveDirectory, Replace, Truncate, RemoveSegment, Overwrite]);
    }
    for operator in operators {
        let history = operate(operator, seed).await;
        let mut found = contradictions(&history);
        // Removed or overwritten events are not kept; the daemon must have reported their loss.
        found.retain(|contradiction| {
            !contradiction.starts_with("kept") && !contradiction.starts_with("acknowledged")
        });
        assert_eq!(found, [""; 0], "{operator:?} with the seed {seed}");
        let count = |event_type: &str| {
            let name = format!("\"type\":\"{event_type}\"");
            history.log.iter().filter(|event| event.text.contains(&name)).count()
        };
        let (recovered, damaged) = (count("storage.recovered"), count("log.damaged"));
        let old = history
            .runs
            .iter()
            .filter(|run| matches!(run.steps.last(), Some(Step::Gap(why)) if why == "epoch"));
        match operator {
            RemoveFile | Replace => {
                assert_eq!((recovered, damaged), (1, 0), "{operator:?}");
                assert_eq!(
                    unbroken(&history.runs),
                    Ok(()),
                    "{operator:?}: all lines were available for the rewrite"
                );
            }
            Truncate => assert_eq!(recovered, 1, "{operator:?}"),
            RemoveDirectory | Wipe => assert_eq!(recovered, 1, "{operator:?}"),
            CutOut | RemoveSegment => assert_eq!((recovered, damaged), (0, 1), "{operator:?}"),
            Restore | Overwrite => {
                assert!(old.count() > 0, "{operator:?}: no client received an epoch gap")
            }
        }
        if !matches!(operator, Restore | Overwrite) {
            let is_there = |id: &str| history.sessions.iter().any(|session| session["sessionId"] == id);
            for acknowledgement in &history.acknowledgements {
                let (Acknowledgement::Session { session_id, .. } | Acknowledgement::Turn { session_id, .. }) =
                    acknowledgement;
                assert!(is_there(session_id), "{operator:?}: {acknowledgement:?}");
            }
        }
    }
}

/// Applies `operator` and returns everything that clients received before and after it.
async fn operate(operator: Operator, seed: u64) -> History {
    let builder = || Daemon::builder().arg("--event-segment-bytes").arg("20000");
    let mut random = SeededRandom::new(seed);
    let mut daemon = builder().start().await;
    let transports = [Transport::WebSocket, Transport::Sse, Transport::Pages].repeat(2);
    let readers = transports.into_iter().map(|transport| (transport, Filter::default()));
    let mut clients = Clients::start(&random, readers, WORKERS);
    let (acknowledgements, texts) = (clients.acknowledgements.clone(), Arc::clone(&clients.texts));
    clients.daemon_started(&daemon);
    let copy = scratch::directory("copy");
    more_turns(&acknowledgements, 4).await;
    copy_directories(&daemon, copy.path());
    more_turns(&acknowledgements, 4).await;
    wait_until("sealed segments", || (older_files(&daemon).len() > 3).then_some(())).await;

    if matches!(operator, Restore | Overwrite) {
        assert!(daemon.stop().await.status.success());
        clients.daemon_ended();
        restore(&daemon, copy.path(), operator);
        daemon = restart(builder(), &daemon).await;
        clients.daemon_started(&daemon);
    } else {
        apply(operator, &daemon, copy.path(), &mut random);
    }
    // While the log is rewritten, requests fail briefly; clients retry.
    more_turns(&acknowledgements, 6).await;

    let (epoch, log) = read_kept(daemon.base_url()).await;
    let latest = log.iter().map(|text| texts.intern(text).seq).max().unwrap();
    let runs = clients.finish(&daemon, &epoch, latest).await;
    if matches!(operator, CutOut | RemoveSegment) {
        wait_until_async("the log.damaged event", async || {
            let (_, log) = read_kept(daemon.base_url()).await;
            log.iter().any(|text| text.contains("\"log.damaged\"")).then_some(())
        })
        .await;
    }
    let (epoch, log) = read_kept(daemon.base_url()).await;
    let log = log.iter().map(|text| texts.intern(text)).collect();
    let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
    // A start on these files must load the same sessions.
    assert_eq!(get(&daemon, STATUS).await.data(200)["service"]["ready"], Value::Bool(true), "{operator:?}");
    if matches!(operator, RemoveDirectory | CutOut | RemoveSegment | Wipe) {
        // Sessions whose events were removed are only in the registry, which is written within a second.
        let registry = daemon.state_dir().join("session-registry.json");
        wait_until("the registry", || {
            let text = fs::read(&registry).ok()?;
            let registry: Value = serde_json::from_slice(&text).ok()?;
            (registry["sessions"].as_array()?.len() == sessions.len()).then_some(())
        })
        .await;
    }
    daemon.kill().await;
    let again = restart(builder(), &daemon).await;
    let known = get(&again, SESSIONS).await.data(200)["sessions"].as_array().unwrap().len();
    assert_eq!(known, sessions.len(), "{operator:?}: after a kill");
    History { runs, acknowledgements: acknowledgements.all(), epoch, log, sessions }
}

async fn restart(builder: DaemonBuilder, daemon: &Daemon) -> Daemon {
    builder.state_from(daemon).start().await
}

async fn more_turns(acknowledgements: &Acknowledgements, count: u64) {
    let expected = acknowledgements.turns() + count;
    wait_until("acknowledged turns", || (acknowledgements.turns() >= expected).then_some(())).await;
}

/// The sealed segments of the log, oldest first.
fn older_files(daemon: &Daemon) -> Vec<PathBuf> {
    let files = fs::read_dir(daemon.logs_dir()).unwrap().map(|file| file.unwrap().path());
    let is_older = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("events-");
    let mut older: Vec<_> = files.filter(is_older).collect();
    older.sort();
    older
}

/// Applies the change to the files of a running daemon.
fn apply(operator: Operator, daemon: &Daemon, copy: &Path, random: &mut SeededRandom) {
    let active = daemon.logs_dir().join("events.jsonl");
    let older = older_files(daemon);
    // Not the oldest segment: the log may start at any sequence number.
    let middle = &older[1 + usize::try_from(random.below(older.len() as u64 - 1)).unwrap()];
    match operator {
        RemoveDirectory => remove_directory(&daemon.logs_dir()),
        RemoveFile => fs::remove_file(active).unwrap(),
        Replace => {
            let beside = active.with_extension("older");
            fs::copy(copy.join("logs/events.jsonl"), &beside).unwrap();
            fs::rename(beside, active).unwrap();
        }
        Truncate => {
            let file = fs::OpenOptions::new().write(true).open(active).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
        CutOut => {
            let text = fs::read_to_string(middle).unwrap();
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            let (third, most) = (lines.len() / 3, lines.len() / 3 + 31);
            fs::write(middle, lines[..third].concat() + &lines[most.min(lines.len() - 1)..].concat())
                .unwrap();
        }
        RemoveSegment => fs::remove_file(middle).unwrap(),
        Wipe => {
            remove_directory(&daemon.logs_dir());
            remove_directory(&daemon.state_dir());
        }
        Restore | Overwrite => unreachable!("the daemon runs"),
    }
}

fn copy_directories(daemon: &Daemon, to: &Path) {
    for (name, from) in [("state", daemon.state_dir()), ("logs", daemon.logs_dir())] {
        fs::create_dir(to.join(name)).unwrap();
        copy_files(&from, &to.join(name));
    }
}

/// Copies the existing files; the daemon creates and removes files concurrently.
fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let _ = fs::copy(file.path(), to.join(file.file_name()));
    }
}

/// Replaces the directories with older copies, or overwrites the existing files with their contents.
fn restore(daemon: &Daemon, copy: &Path, operator: Operator) {
    for (name, directory) in [("state", daemon.state_dir()), ("logs", daemon.logs_dir())] {
        for file in fs::read_dir(&directory).unwrap() {
            let path = file.unwrap().path();
            let is_in_copy = copy.join(name).join(path.file_name().unwrap()).exists();
            if operator == Restore || !is_in_copy {
                fs::remove_file(path).unwrap();
            }
        }
        copy_files(&copy.join(name), &directory);
    }
}
