//! A log that is removed or replaced by an older copy, and clients that reconnect with cursors of the lost log.

use std::fs;
use std::path::{Path, PathBuf};

use super::connection::{Connection, Received, Transport, read_all};
use super::record::{Filter, History, Run, Step, Texts};
use super::validators::{contradictions, unbroken};
use crate::api::{new_session, start_turn, wait_until_idle};
use crate::support::daemon::{Daemon, DaemonBuilder};
use crate::support::http::Target;
use crate::support::scratch;

/// How the log is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All files are removed.
    Removed,
    /// An older copy replaces the log.
    Older,
}

#[tokio::test]
async fn cursors_of_a_lost_or_replaced_log_get_an_epoch_gap() {
    for loss in [Loss::Removed, Loss::Older] {
        let history = history_with_loss(loss, None).await;
        assert_eq!(contradictions(&history), [""; 0], "{loss:?}");
        let gaps: Vec<_> =
            history.runs.iter().filter_map(|run| unbroken(std::slice::from_ref(run)).err()).collect();
        // Two clients with an old cursor for each of the three transports; clients without a cursor get no gap.
        assert_eq!(gaps.len(), 6, "{loss:?}: {gaps:?}");
        assert!(gaps.iter().all(|gap| gap.ends_with("epoch")), "{loss:?}: {gaps:?}");
    }
}

/// Returns all events that clients received before and after the loss of the log.
pub(super) async fn history_with_loss(loss: Loss, program: Option<(PathBuf, &str)>) -> History {
    let builder = || match &program {
        None => Daemon::builder(),
        Some((program, mutation)) => Daemon::builder().program(program).env("BAA_CODEXD_MUTATION", mutation),
    };
    let mut daemon = run_and_stop(builder()).await;
    let copy = scratch::directory("test");
    copy_files(&daemon.logs_dir(), copy.path());
    daemon = run_and_stop(builder().state_from(&daemon)).await;

    daemon = builder().state_from(&daemon).start().await;
    let texts = Texts::default();
    let all = read_all(daemon.base_url()).await;
    let (epoch, log) = (all.0, all.1.iter().map(|text| texts.intern(text)).collect::<Vec<_>>());
    let latest = log.last().unwrap().seq;
    let middle = log[log.len() - log.len() / 4].seq;
    let mut runs = Vec::new();
    for transport in [Transport::WebSocket, Transport::Sse, Transport::Pages] {
        for through in [middle, latest] {
            let mut run = Run {
                client: format!("{transport:?} to {through}"),
                epoch: epoch.clone(),
                filter: Filter::default(),
                steps: vec![],
            };
            read(&mut run, transport, &daemon, "0", through, &texts).await;
            runs.push((transport, run));
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
    let log: Vec<_> = log.iter().map(|text| texts.intern(text)).collect();
    let latest = log.last().unwrap().seq;
    for (transport, run) in &mut runs {
        let cursor = run.cursor();
        read(run, *transport, &daemon, &cursor, latest, &texts).await;
    }
    let mut runs: Vec<Run> = runs.into_iter().map(|(_, run)| run).collect();
    let mut fresh =
        Run { client: "fresh".to_owned(), epoch: epoch.clone(), filter: Filter::default(), steps: vec![] };
    let oldest = format!("{}", log[0].seq - 1);
    read(&mut fresh, Transport::Pages, &daemon, &oldest, latest, &texts).await;
    runs.push(fresh);
    History { runs, acknowledgements: Vec::new(), epoch, log, sessions: Vec::new() }
}

/// Starts a daemon, runs two turns in one session and stops the daemon.
async fn run_and_stop(builder: DaemonBuilder) -> Daemon {
    let mut daemon = builder.start().await;
    let session_id = new_session(&daemon).await;
    for _ in 0..2 {
        start_turn(&daemon, &session_id, "deltas=5").await;
        wait_until_idle(&daemon, &session_id).await;
    }
    assert!(daemon.stop().await.status.success());
    daemon
}

/// Reads one connection through sequence number `through`, or up to a gap.
async fn read(
    run: &mut Run,
    transport: Transport,
    daemon: &Daemon,
    cursor: &str,
    through: u64,
    texts: &Texts,
) {
    let (_, seq) = cursor.rsplit_once('-').unwrap_or(("", cursor));
    run.steps.push(Step::Connected { after: seq.parse().unwrap() });
    let opened = Connection::open(transport, daemon.base_url(), Some(cursor), &run.filter, 7).await;
    let mut connection = opened.unwrap();
    loop {
        let received = tokio::time::timeout(crate::support::wait::DEADLINE, connection.next()).await;
        let step = match received.expect("no message arrives").expect("the connection ended") {
            Received::Hello { .. } | Received::Bookmark { .. } => continue,
            Received::Event { text, .. } => Step::Event(texts.intern(&text)),
            Received::Gap(reason) => Step::Gap(reason),
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
