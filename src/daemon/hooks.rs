//! The hooks of the daemon: the set of `crate::hooks` with the log, the recorder and the processes of this daemon.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::codex::{self, ProgramRunner};
use crate::config::Config;
use crate::daemon::app_server::plan::removed_environment;
use crate::daemon::core::Core;
use crate::daemon::error::DaemonError;
use crate::hooks::{self, Deliveries, FoundHooks, HookView, NewHook, Surroundings, TestResult};
use crate::ids::HookId;
use crate::state::HookEvent;
use crate::storage::Disk;

/// After how many bytes of events that do not concern a hook its cursor is written.
const SAVE_AFTER_BYTES: u64 = 1024 * 1024;
/// Which part of the log that is at most, so that a cursor on disk is never far from the end of what the log keeps.
const SAVE_AFTER_PART: u64 = 8;

/// The hooks of the daemon; cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    core: Arc<Core>,
    set: hooks::Hooks,
}

/// What a start knows about the hooks.
pub(super) struct HookSetup {
    pub(super) found: FoundHooks,
    pub(super) runner: ProgramRunner,
    pub(super) disk: Disk,
    /// The mark of the programs of this state directory.
    pub(super) owner: String,
}

impl Hooks {
    /// Starts the tasks of the hooks that were found.
    pub(super) fn start(core: &Arc<Core>, setup: HookSetup) -> Self {
        let (config, recorder) = (Arc::clone(&core.config), core.recorder.clone());
        let view = Arc::clone(recorder.view());
        let HookSetup { found, runner, disk, owner } = setup;
        let find_config = Arc::clone(&config);
        let surroundings = Surroundings {
            log: Arc::clone(&view.log),
            record: Arc::new(move |event: HookEvent| {
                let recorder = recorder.clone();
                Box::pin(async move { recorder.record_durably(|_| vec![event.into()]).await.is_ok() })
            }),
            thread_of: Arc::new(move |session_id| view.state().sessions.get(session_id)?.thread_id.clone()),
            deliveries: Deliveries {
                runner,
                find: Arc::new(move |command| find(&find_config, command)),
                directory: "/".into(),
                removed_environment: removed_environment(),
                owner,
            },
            disk,
            hooks_path: config.paths.hooks.clone(),
            cursors_path: config.paths.hook_cursors.clone(),
            save_after_bytes: SAVE_AFTER_BYTES.min(config.limits.event_log_bytes / SAVE_AFTER_PART),
        };
        Self { core: Arc::clone(core), set: hooks::Hooks::start(surroundings, found, &core.stopping) }
    }

    /// All hooks, in the order in which they were added.
    pub fn list(&self) -> Vec<HookView> {
        self.set.list()
    }

    /// Adds a hook that gets the events from now on.
    pub async fn add(&self, hook: NewHook) -> Result<HookView, DaemonError> {
        if let Some(session_id) = &hook.session_id {
            self.core.session(session_id)?;
        }
        let set = self.set.clone();
        self.core.run(async move { Ok(set.add(hook).await?) }).await
    }

    /// Removes a hook; a delivery that is under way is ended.
    pub async fn remove(&self, hook_id: HookId) -> Result<HookView, DaemonError> {
        let set = self.set.clone();
        self.core.run(async move { Ok(set.remove(&hook_id).await?) }).await
    }

    /// Delivers a test.
    pub async fn test(&self, hook_id: &HookId) -> Result<TestResult, DaemonError> {
        Ok(self.set.test(hook_id).await?)
    }

    /// Ends the deliveries that are under way.
    pub(super) async fn stop(&self) {
        self.set.stop().await;
    }
}

/// The mark of the programs of a state directory: it is locked, so no other daemon's programs have it. Blocks.
#[expect(clippy::disallowed_methods, reason = "nothing is served yet")]
pub(super) fn owner_of(state_dir: &Path) -> String {
    let path = std::fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    format!("{:x}", Sha256::digest(path.as_os_str().as_encoded_bytes()))
}

/// Ends the programs that an earlier daemon left in this state directory. Blocks.
pub(super) fn end_leftover(owner: &str) {
    match codex::end_leftover_programs(owner) {
        Ok(0) => {}
        Ok(ended) => tracing::warn!(ended, "ended programs of hooks that the previous run of codexd left"),
        Err(error) => {
            tracing::warn!(%error, "failed to list the programs of hooks that the previous run left")
        }
    }
}

fn find(config: &Config, command: &str) -> Result<std::path::PathBuf, String> {
    config
        .find_other_program(command)
        .map_err(|_| format!("the program {command:?} does not exist or cannot be executed"))
}
