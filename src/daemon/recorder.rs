//! The recorder: the only owner of the event log and of the records.
//!
//! A dedicated thread takes all waiting inputs as one batch: it numbers and renders each line once, writes the
//! batch with one call, folds it into the records, and only then publishes it to readers.
//! Durable commits are synced by a second thread, so that neither the next batch nor a reader waits for the disk, and those
//! that arrive while it syncs share the next sync.
//! A third thread writes the state files: once a second, large records less often.

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "group commit has its own thread")]
pub(in crate::daemon) mod group_commit;
pub(in crate::daemon) mod handle;
pub(in crate::daemon) mod input;
#[expect(clippy::disallowed_methods, reason = "the recorder's thread writes it")]
mod output_log;
pub(in crate::daemon) mod recovery;
#[expect(clippy::disallowed_methods, reason = "the snapshot writer's thread writes it")]
mod registry_writer;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the snapshot writer has its own thread"
)]
mod snapshot_writer;
pub(in crate::daemon) mod turn_metrics;
pub(in crate::daemon) mod view;
mod worker;

use std::sync::{Arc, RwLock};

use tokio::sync::mpsc;

use crate::codex::Backlog;
use crate::config::Config;
use crate::daemon::attachments::Attachments;
use crate::daemon::recorder::group_commit::GroupCommit;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::Input;
use crate::daemon::recorder::output_log::OutputLog;
use crate::daemon::recorder::recovery::Opened;
use crate::daemon::recorder::snapshot_writer::SnapshotWriter;
use crate::daemon::recorder::turn_metrics::TurnMetrics;
use crate::daemon::recorder::view::View;
use crate::daemon::recorder::worker::Worker;

impl Recorder {
    /// Starts the threads with the opened files; the notices become the first events.
    pub(crate) fn start(config: &Config, opened: Opened) -> std::io::Result<Self> {
        let Opened { disk, identity, state, journal, hooks: _, notices, known_damage } = opened;
        let paths = &config.paths;
        let view = Arc::new(View {
            identity,
            recent: config.event_cache_size,
            log: journal.log(),
            turn_metrics: TurnMetrics::new(state.daemon.updated_at.clone()),
            state: RwLock::new(state),
            storage_error: RwLock::new(None),
        });
        let (inputs, waiting) = mpsc::unbounded_channel();
        let recorder = Self { inputs, backlog: Backlog::new(), view };
        let view = &recorder.view;
        let output = |path| OutputLog::open(disk.clone(), path, config.limits.output_log_bytes);
        let attachments = Attachments::new(disk.clone(), &paths.attachments);
        let worker = Worker {
            view: Arc::clone(view),
            backlog: Arc::clone(&recorder.backlog),
            group_commit: GroupCommit::start(journal.sync(), recorder.clone())?,
            snapshot_writer: SnapshotWriter::start(
                disk.clone(),
                config,
                journal.sync(),
                recorder.clone(),
                attachments.clone(),
            )?,
            attachments,
            stdout: output(&paths.stdout_log)?,
            stderr: output(&paths.stderr_log)?,
            closed_sessions: config.limits.closed_session_limit,
            tried: None,
            lost_at: None,
            journal,
        };
        recorder.send(Input::Events(notices));
        // A weak sender: the log holds it, and must not keep the recorder's channel open.
        let inputs = recorder.inputs.downgrade();
        recorder.view.log.watch(known_damage, move |damage| {
            if let Some(inputs) = inputs.upgrade() {
                // The recorder may have stopped.
                let _ = inputs.send(Input::Damaged(damage));
            }
        });
        std::thread::Builder::new().name("recorder".to_owned()).spawn(move || worker.work(waiting))?;
        Ok(recorder)
    }
}
