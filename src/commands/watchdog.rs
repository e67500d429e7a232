//! Aborts the process if its runtime hangs, so that the service manager restarts it.

use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::logging::Log;

/// How many steps the runtime may take to respond.
const STALL_STEPS: u32 = 30;
/// How many steps lie between two checks.
const INTERVAL_STEPS: u32 = 10;
/// The length of a step. Time is counted in steps, so that a machine that slept or a process that was stopped loses one
/// step and not the whole time.
const STEP_LENGTH: Duration = Duration::from_secs(1);

/// Watches a runtime for the lifetime of the process; `log` is flushed before the abort.
pub(crate) fn start(runtime: Handle, log: Log) -> std::io::Result<()> {
    let abort = move || {
        tracing::error!(seconds = STALL_STEPS, "the runtime hangs; aborting, so that codexd is restarted");
        log.flush();
        std::process::abort();
    };
    let watch = move || {
        while is_responsive(&runtime, STEP_LENGTH, STALL_STEPS) {
            std::thread::sleep(STEP_LENGTH * INTERVAL_STEPS);
        }
        abort();
    };
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch).map(drop)
}

/// Whether the runtime runs a small task within this many steps.
fn is_responsive(runtime: &Handle, step: Duration, steps: u32) -> bool {
    let (done, waiting) = mpsc::channel();
    runtime.spawn(async move { done.send(()) });
    // A runtime that was shut down drops the task, which counts as a response: there is nothing to abort.
    (0..steps).any(|_| waiting.recv_timeout(step) != Err(mpsc::RecvTimeoutError::Timeout))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::*;

    #[test]
    fn watchdog_detects_blocked_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let step = Duration::from_millis(20);
        assert!(is_responsive(runtime.handle(), Duration::from_secs(10), 1));
        let (blocked, free) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        for _ in 0..2 {
            let (blocked, free) = (Arc::clone(&blocked), Arc::clone(&free));
            runtime.spawn(async move {
                blocked.wait();
                free.wait();
            });
        }
        blocked.wait();
        assert!(!is_responsive(runtime.handle(), step, 5));
        free.wait();
        assert!(is_responsive(runtime.handle(), Duration::from_secs(10), 1));
    }

    #[test]
    fn watchdog_ignores_runtime_that_was_shut_down() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        assert!(is_responsive(&handle, Duration::from_secs(10), 1));
    }
}
