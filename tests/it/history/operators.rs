//! What a person or a program may do to the files of a daemon, and clients that read meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::connection::{Kind, read_kept};
use super::random::{Dice, seed};
use super::readers::{Reader, Scene};
use super::record::{Filter, History, Promise, Step, Texts};
use super::validators::{contradictions, unbroken};
use super::workers::{Promises, Worker};
use crate::api::{SESSIONS, STATUS};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::{Target, get};
use crate::support::skip::runs_long_part;
use crate::support::wait::wait_until;

/// What is done to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// The logs directory is removed under the running daemon.
    RemoveDirectory,
    /// The file that is written is removed under the running daemon.
    RemoveFile,
    /// The file that is written is replaced by an older copy of it under the running daemon.
    Replace,
    /// The file that is written is cut off in the middle under the running daemon.
    Truncate,
    /// Some lines are cut out of an older file under the running daemon.
    CutOut,
    /// An older file is removed under the running daemon.
    RemoveSegment,
    /// State and logs are removed under the running daemon.
    Wipe,
    /// State and logs of the stopped daemon are replaced by older copies.
    Restore,
    /// The same with the contents of the copies written into the files that are there.
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
        // What was cut out, removed or overwritten is not kept, and must have been told.
        found.retain(|contradiction| {
            !contradiction.starts_with("kept") && !contradiction.starts_with("promised")
        });
        assert_eq!(found, [""; 0], "{operator:?} with the seed {seed}");
        let told = |event_type: &str| {
            let name = format!("\"type\":\"{event_type}\"");
            history.log.iter().filter(|seen| seen.text.contains(&name)).count()
        };
        let (recovered, damaged) = (told("storage.recovered"), told("log.damaged"));
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
                    "{operator:?}: all lines were there to be written again"
                );
            }
            Truncate => assert_eq!(recovered, 1, "{operator:?}"),
            RemoveDirectory | Wipe => assert_eq!(recovered, 1, "{operator:?}"),
            CutOut | RemoveSegment => assert_eq!((recovered, damaged), (0, 1), "{operator:?}"),
            Restore | Overwrite => {
                assert!(old.count() > 0, "{operator:?}: no client was told of another log")
            }
        }
        if !matches!(operator, Restore | Overwrite) {
            let is_there = |id: &str| history.sessions.iter().any(|session| session["sessionId"] == id);
            for promise in &history.promises {
                let (Promise::Session { session_id, .. } | Promise::Turn { session_id, .. }) = promise;
                assert!(is_there(session_id), "{operator:?}: {promise:?}");
            }
        }
    }
}

/// Everything that clients and callers got before and after the operator.
async fn operate(operator: Operator, seed: u64) -> History {
    let builder = || Daemon::builder().arg("--event-segment-bytes").arg("20000");
    let mut dice = Dice::new(seed);
    let (scenes, scene) = watch::channel(Scene::Away);
    let (promises, texts) = (Promises::default(), Arc::new(Texts::default()));
    let mut daemon = builder().start().await;
    let readers: Vec<_> =
        [Kind::WebSocket, Kind::ServerSent, Kind::Pages, Kind::WebSocket, Kind::ServerSent, Kind::Pages]
            .into_iter()
            .zip(0..)
            .map(|(kind, number)| {
                let name = format!("{kind:?} {number}");
                let (filter, dice) = (Filter::default(), dice.of(number));
                Reader { name, kind, filter, dice, texts: Arc::clone(&texts), scene: scene.clone() }.start()
            })
            .collect();
    let workers: Vec<_> = (0..2)
        .map(|number| {
            let dice = dice.of(1000 + number);
            Worker { dice, promises: promises.clone(), scene: scene.clone() }.start()
        })
        .collect();
    scenes.send_replace(Scene::Up(daemon.base_url().to_owned()));
    let copy = crate::support::scratch::directory("copy");
    more_turns(&promises, 4).await;
    copy_directories(&daemon, copy.path());
    more_turns(&promises, 4).await;
    wait_until("some older files", || (older_files(&daemon).len() > 3).then_some(())).await;

    if matches!(operator, Restore | Overwrite) {
        assert!(daemon.stop().await.status.success());
        scenes.send_replace(Scene::Away);
        restore(&daemon, copy.path(), operator);
        daemon = restart(builder(), &daemon).await;
        scenes.send_replace(Scene::Up(daemon.base_url().to_owned()));
    } else {
        apply(operator, &daemon, copy.path(), &mut dice);
    }
    // Callers are refused for a moment where the log is to be written again, and then go on.
    more_turns(&promises, 6).await;

    let (epoch, log) = read_kept(daemon.base_url()).await;
    let latest = log.iter().map(|text| texts.seen(text).seq).max().unwrap();
    scenes.send_replace(Scene::Last { base: daemon.base_url().to_owned(), epoch, latest });
    let mut runs = Vec::new();
    for reader in readers {
        runs.extend(reader.await.unwrap());
    }
    for worker in workers {
        worker.await.unwrap();
    }
    if matches!(operator, CutOut | RemoveSegment) {
        wait_until("the damage to be told", || {
            daemon.events_on_disk().iter().any(|event| event["type"] == "log.damaged").then_some(())
        })
        .await;
    }
    let (epoch, log) = read_kept(daemon.base_url()).await;
    let log = log.iter().map(|text| texts.seen(text)).collect();
    let sessions = get(&daemon, SESSIONS).await.data(200)["sessions"].as_array().unwrap().clone();
    // A start on what is there now knows the same sessions.
    assert_eq!(get(&daemon, STATUS).await.data(200)["service"]["ready"], Value::Bool(true), "{operator:?}");
    if operator == Wipe {
        // What the log in memory no longer had is in the registry alone, which is written within a second.
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
    History { runs, promises: promises.all(), epoch, log, sessions }
}

async fn restart(builder: DaemonBuilder, daemon: &Daemon) -> Daemon {
    builder.state_from(daemon).start().await
}

async fn more_turns(promises: &Promises, count: u64) {
    let wanted = promises.turns() + count;
    wait_until("turns to be promised", || (promises.turns() >= wanted).then_some(())).await;
}

/// The files of the log that are no longer written, oldest first.
fn older_files(daemon: &Daemon) -> Vec<PathBuf> {
    let files = fs::read_dir(daemon.logs_dir()).unwrap().map(|file| file.unwrap().path());
    let is_older = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("events-");
    let mut older: Vec<_> = files.filter(is_older).collect();
    older.sort();
    older
}

/// Does it to the files of a running daemon.
fn apply(operator: Operator, daemon: &Daemon, copy: &Path, dice: &mut Dice) {
    let active = daemon.logs_dir().join("events.jsonl");
    let older = older_files(daemon);
    // Not the oldest: the log may begin anywhere.
    let middle = &older[1 + usize::try_from(dice.below(older.len() as u64 - 1)).unwrap()];
    match operator {
        RemoveDirectory => remove(&daemon.logs_dir()),
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
            remove(&daemon.logs_dir());
            remove(&daemon.state_dir());
        }
        Restore | Overwrite => unreachable!("the daemon runs"),
    }
}

/// Removes a directory in which files are made meanwhile.
fn remove(directory: &Path) {
    let removed = directory.with_extension("removed");
    fs::rename(directory, &removed).unwrap();
    fs::remove_dir_all(removed).unwrap();
}

fn copy_directories(daemon: &Daemon, to: &Path) {
    for (name, from) in [("state", daemon.state_dir()), ("logs", daemon.logs_dir())] {
        fs::create_dir(to.join(name)).unwrap();
        copy_files(&from, &to.join(name));
    }
}

/// Copies what is there; files come and go meanwhile.
fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let _ = fs::copy(file.path(), to.join(file.file_name()));
    }
}

/// Puts older copies in the place of the directories, or their contents into the files.
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
