//! A log that is lost or replaced by an older copy of itself, and clients that come back to it with their old cursors.

use std::fs;
use std::path::{Path, PathBuf};

use super::connection::{Connection, Kind, Told, read_all};
use super::record::{Filter, History, Run, Step, Texts};
use super::validators::{contradictions, unbroken};
use crate::api::{idle, session, turn};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::Target;
use crate::support::scratch;

/// What becomes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All its files are gone.
    Removed,
    /// Somebody brought back an older copy.
    Older,
}

#[tokio::test]
async fn cursors_of_a_lost_or_replaced_log_get_an_epoch_gap() {
    for loss in [Loss::Removed, Loss::Older] {
        let history = lose(loss, None).await;
        assert_eq!(contradictions(&history), [""; 0], "{loss:?}");
        let told: Vec<_> =
            history.runs.iter().filter_map(|run| unbroken(std::slice::from_ref(run)).err()).collect();
        // The two with an old cursor, by each of the three ways; those who begin anew are told nothing.
        assert_eq!(told.len(), 6, "{loss:?}: {told:?}");
        assert!(told.iter().all(|gap| gap.ends_with("epoch")), "{loss:?}: {told:?}");
    }
}

/// Everything that clients of a log got before and after its loss.
pub(super) async fn lose(loss: Loss, program: Option<(PathBuf, &str)>) -> History {
    let builder = || match &program {
        None => Daemon::builder(),
        Some((program, mutation)) => Daemon::builder().program(program).env("BAA_CODEXD_MUTATION", mutation),
    };
    let mut daemon = one_life(builder()).await;
    let copy = scratch::directory("test");
    copy_files(&daemon.logs_dir(), copy.path());
    daemon = one_life(builder().state_from(&daemon)).await;

    daemon = builder().state_from(&daemon).start().await;
    let texts = Texts::default();
    let all = read_all(daemon.base_url()).await;
    let (epoch, log) = (all.0, all.1.iter().map(|text| texts.seen(text)).collect::<Vec<_>>());
    let latest = log.last().unwrap().seq;
    let middle = log[log.len() - log.len() / 4].seq;
    let mut runs = Vec::new();
    for kind in [Kind::WebSocket, Kind::ServerSent, Kind::Pages] {
        for through in [middle, latest] {
            let mut run = Run {
                client: format!("{kind:?} to {through}"),
                epoch: epoch.clone(),
                filter: Filter::default(),
                steps: vec![],
            };
            read(&mut run, kind, &daemon, "0", through, &texts).await;
            runs.push((kind, run));
        }
    }
    assert!(daemon.stop().await.status.success());

    for file in fs::read_dir(daemon.logs_dir()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    if loss == Loss::Older {
        copy_files(copy.path(), &daemon.logs_dir());
    }
    daemon = builder().state_from(&daemon).start().await;
    let (epoch, log) = read_all(daemon.base_url()).await;
    let log: Vec<_> = log.iter().map(|text| texts.seen(text)).collect();
    let latest = log.last().unwrap().seq;
    for (kind, run) in &mut runs {
        let cursor = run.cursor();
        read(run, *kind, &daemon, &cursor, latest, &texts).await;
    }
    let mut runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
    let mut fresh =
        Run { client: "fresh".to_owned(), epoch: epoch.clone(), filter: Filter::default(), steps: vec![] };
    let oldest = format!("{}", log[0].seq - 1);
    read(&mut fresh, Kind::Pages, &daemon, &oldest, latest, &texts).await;
    runs.push(fresh);
    History { runs, promises: Vec::new(), epoch, log, sessions: Vec::new() }
}

/// A daemon that had a session with two turns and was stopped.
async fn one_life(builder: DaemonBuilder) -> Daemon {
    let mut daemon = builder.start().await;
    let session_id = session(&daemon).await;
    for _ in 0..2 {
        turn(&daemon, &session_id, "deltas=5").await;
        idle(&daemon, &session_id).await;
    }
    assert!(daemon.stop().await.status.success());
    daemon
}

/// One connection, through this number or up to a gap.
async fn read(run: &mut Run, kind: Kind, daemon: &Daemon, cursor: &str, through: u64, texts: &Texts) {
    let (_, seq) = cursor.rsplit_once('-').unwrap_or(("", cursor));
    run.steps.push(Step::Connected { after: seq.parse().unwrap() });
    let opened = Connection::open(kind, daemon.base_url(), Some(cursor), &run.filter, 7).await;
    let mut connection = opened.unwrap();
    loop {
        let told = tokio::time::timeout(crate::support::wait::DEADLINE, connection.next()).await;
        let step = match told.expect("nothing comes").expect("the connection ended") {
            Told::Hello { .. } | Told::Bookmark { .. } => continue,
            Told::Event { text, .. } => Step::Event(texts.seen(&text)),
            Told::Gap(reason) => Step::Gap(reason),
        };
        let is_last = step.reaches().is_none_or(|seq| seq >= through);
        run.steps.push(step);
        if is_last {
            return;
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
