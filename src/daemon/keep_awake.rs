//! Keeps the machine from going to sleep by itself while turns run, as long as the setting `--keep-awake` is `auto`.
//!
//! A program of the system does it: `caffeinate` on macOS, elsewhere `systemd-inhibit` and, for GNOME, which does not
//! consult the locks of systemd, `gnome-session-inhibit`. A lid that is closed, and a person who chooses to sleep, still
//! put the machine to sleep.
//!
//! Owned state: [`KeepAwakeView`], and the programs that run. The watch of the turns tells whether one runs.
//! Invariant: the programs end with this process, however it ends. `caffeinate` waits for its PID; the others run `cat`,
//! whose stdin ends with it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::codex::{OneProgram, ProgramRunner};
use crate::config::{Config, KeepAwake as Setting, Platform};
use crate::daemon::app_server::plan::removed_environment;

/// How long a turn must run first. The shortest time after which systems go to sleep by themselves is a minute, and most
/// turns of scripts are over before this one.
const START_DELAY: Duration = Duration::from_secs(3);
/// How long the machine is still kept awake after the last turn, so that a series of turns starts the programs once.
const HOLD_OVER: Duration = Duration::from_secs(60);

/// Whether codexd keeps the machine awake; later versions may have more states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KeepAwakeState {
    /// The setting says that it does not.
    Off,
    /// The system has no program for it.
    Unavailable,
    /// It will, once a turn runs.
    Idle,
    /// It does: a turn runs, or ended less than a minute ago.
    Active,
    /// It should, and the programs of the system failed.
    Failed,
}

/// Whether codexd keeps the machine awake, and by which programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeepAwakeView {
    /// The state.
    pub state: KeepAwakeState,
    /// The names of the programs that do it.
    pub programs: Vec<&'static str>,
    /// Why a program failed, when it was last tried.
    pub error: Option<String>,
}

/// A program that keeps the system awake as long as it runs.
#[derive(Debug, Clone)]
struct Inhibitor {
    name: &'static str,
    arguments: Vec<String>,
}

/// Keeps the machine awake; cheap to clone.
#[derive(Clone)]
pub(super) struct KeepAwake {
    shared: Arc<Shared>,
}

struct Shared {
    view: RwLock<KeepAwakeView>,
    stopped: CancellationToken,
    task: TaskTracker,
    runner: ProgramRunner,
    config: Arc<Config>,
}

impl KeepAwake {
    /// Starts the task, unless there is nothing for it to do; `turns_run` is whether a turn runs.
    pub(super) fn start(
        config: &Arc<Config>,
        runner: ProgramRunner,
        turns_run: watch::Receiver<bool>,
    ) -> Self {
        let inhibitors: Vec<_> =
            inhibitors().into_iter().filter(|one| config.find_other_program(one.name).is_ok()).collect();
        // The turns of the demo take no time.
        let is_off = config.keep_awake == Setting::Off || config.server.demo;
        let state = match (is_off, inhibitors.is_empty()) {
            (true, _) => KeepAwakeState::Off,
            (false, true) => KeepAwakeState::Unavailable,
            (false, false) => KeepAwakeState::Idle,
        };
        let programs = inhibitors.iter().filter(|_| !is_off).map(|one| one.name).collect();
        let view = RwLock::new(KeepAwakeView { state, programs, error: None });
        let (config, stopped) = (Arc::clone(config), CancellationToken::new());
        let (task, task_stopped) = (TaskTracker::new(), stopped.clone());
        let shared = Arc::new(Shared { view, stopped, task, runner, config });
        if state == KeepAwakeState::Idle {
            let task_shared = Arc::clone(&shared);
            let hold = move |released| Arc::clone(&task_shared).hold(inhibitors.clone(), released);
            shared.task.spawn(hold_while(turns_run, task_stopped, hold));
        }
        shared.task.close();
        Self { shared }
    }

    /// The current state.
    pub(super) fn view(&self) -> KeepAwakeView {
        self.shared.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the programs that run; turns that run from now on do not keep the machine awake.
    pub(super) async fn stop(&self) {
        self.shared.stopped.cancel();
        self.shared.task.wait().await;
    }
}

impl Shared {
    /// Runs the programs until `released`, or until all of them have failed.
    async fn hold(self: Arc<Self>, inhibitors: Vec<Inhibitor>, released: CancellationToken) {
        self.set(KeepAwakeState::Active, &[]);
        let mut running = JoinSet::new();
        for Inhibitor { name, arguments } in inhibitors {
            let (shared, released) = (Arc::clone(&self), released.clone());
            running.spawn(async move {
                let config = Arc::clone(&shared.config);
                let program = OneProgram {
                    find: Box::new(move || {
                        config.find_other_program(name).map_err(|error| error.to_string())
                    }),
                    arguments,
                    directory: "/".into(),
                    removed_environment: removed_environment(),
                    owner: String::new(),
                    limit: Duration::MAX,
                };
                let ended = shared.runner.hold(program, &released).await;
                (name, ended.err().unwrap_or_else(|| "it exited".to_owned()))
            });
        }
        let mut failures = Vec::new();
        while let Some(ended) = running.join_next().await {
            if released.is_cancelled() {
                continue;
            }
            let Ok((name, reason)) = ended else { continue };
            // Systems without a session of the user, such as servers, refuse it each time.
            tracing::info!(program = name, reason, "a program does not keep the machine awake");
            failures.push(format!("{name} failed: {reason}"));
            let state = if running.is_empty() { KeepAwakeState::Failed } else { KeepAwakeState::Active };
            self.set(state, &failures);
        }
        if released.is_cancelled() {
            self.set(KeepAwakeState::Idle, &failures);
        }
    }

    fn set(&self, state: KeepAwakeState, failures: &[String]) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        (view.state, view.error) = (state, (!failures.is_empty()).then(|| failures.join("; ")));
    }
}

/// Calls `hold` each time that turns begin to run, and cancels its token some time after the last one has ended, or when
/// `stopped`; returns once that call has returned.
async fn hold_while<F: Future<Output = ()> + Send + 'static>(
    mut turns_run: watch::Receiver<bool>,
    stopped: CancellationToken,
    hold: impl Fn(CancellationToken) -> F,
) {
    while !stopped.is_cancelled() {
        tokio::select! {
            run = turns_run.wait_for(|&run| run) => if run.is_err() { return },
            () = stopped.cancelled() => return,
        }
        tokio::select! {
            _ = turns_run.wait_for(|&run| !run) => continue,
            () = tokio::time::sleep(START_DELAY) => {}
            () = stopped.cancelled() => return,
        }
        let released = CancellationToken::new();
        let holding = tokio::spawn(hold(released.clone()));
        tokio::select! {
            () = idle_for(HOLD_OVER, &mut turns_run) => {}
            () = stopped.cancelled() => {}
        }
        released.cancel();
        if let Err(error) = holding.await {
            tracing::error!(%error, "the task that keeps the machine awake failed");
        }
        if turns_run.has_changed().is_err() {
            return;
        }
    }
}

/// Waits until no turn has run for so long, or the daemon is gone.
async fn idle_for(time: Duration, turns_run: &mut watch::Receiver<bool>) {
    while turns_run.wait_for(|&run| !run).await.is_ok() {
        tokio::select! {
            run = turns_run.wait_for(|&run| run) => if run.is_err() { return },
            () = tokio::time::sleep(time) => return,
        }
    }
}

/// The programs of this system, of which not all need be installed.
fn inhibitors() -> Vec<Inhibitor> {
    const WHY: &str = "A turn of Codex is running";
    let inhibitor = |name, arguments: &[&str]| Inhibitor {
        name,
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
    };
    match Platform::current() {
        // -i: no idle sleep. The display may go off.
        Platform::MacOs => {
            let pid = std::process::id().to_string();
            vec![inhibitor("/usr/bin/caffeinate", &["-i", "-w", &pid])]
        }
        Platform::Xdg => vec![
            // A lock of the kind "sleep" would also refuse a person who chooses to sleep.
            inhibitor(
                "systemd-inhibit",
                &["--what=idle", "--who=codexd", &format!("--why={WHY}"), "--mode=block", "cat"],
            ),
            // "idle" would keep the screen on; "suspend" is what the timer of GNOME looks at.
            inhibitor(
                "gnome-session-inhibit",
                &["--app-id", "codexd", "--reason", WHY, "--inhibit", "suspend", "cat"],
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How many holds have begun and ended.
    #[derive(Default)]
    struct Holds(AtomicUsize, AtomicUsize);

    impl Holds {
        fn counts(&self) -> (usize, usize) {
            (self.0.load(Ordering::Relaxed), self.1.load(Ordering::Relaxed))
        }
    }

    fn start() -> (watch::Sender<bool>, Arc<Holds>) {
        let (turns_run, receiver) = watch::channel(false);
        let holds = Arc::new(Holds::default());
        let counted = Arc::clone(&holds);
        tokio::spawn(hold_while(receiver, CancellationToken::new(), move |released| {
            let counted = Arc::clone(&counted);
            async move {
                counted.0.fetch_add(1, Ordering::Relaxed);
                released.cancelled().await;
                counted.1.fetch_add(1, Ordering::Relaxed);
            }
        }));
        (turns_run, holds)
    }

    /// Lets the paused clock advance.
    async fn pass(seconds: f32) {
        tokio::time::sleep(Duration::from_secs_f32(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn short_turn_starts_no_program() {
        let (turns_run, holds) = start();
        turns_run.send_replace(true);
        pass(2.0).await;
        turns_run.send_replace(false);
        pass(1000.0).await;
        assert_eq!(holds.counts(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn series_of_turns_is_one_hold_that_ends_a_minute_after_the_last() {
        let (turns_run, holds) = start();
        for _ in 0..3 {
            turns_run.send_replace(true);
            pass(10.0).await;
            assert_eq!(holds.counts(), (1, 0));
            turns_run.send_replace(false);
            pass(59.0).await;
            assert_eq!(holds.counts(), (1, 0));
        }
        pass(2.0).await;
        assert_eq!(holds.counts(), (1, 1));
        turns_run.send_replace(true);
        pass(10.0).await;
        assert_eq!(holds.counts(), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn end_of_the_daemon_ends_the_hold() {
        let (turns_run, holds) = start();
        turns_run.send_replace(true);
        pass(10.0).await;
        drop(turns_run);
        pass(1.0).await;
        assert_eq!(holds.counts(), (1, 1));
    }
}
