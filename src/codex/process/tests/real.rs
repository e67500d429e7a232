//! With real processes, where they can be identified for certain.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::descendants;
use super::super::filter::{INSTANCE_VARIABLE, ProcessFilter};
use super::super::identity::Identity;
use super::super::info::{KnownProcess, pid_of};
use super::super::limits::SIGTERM_GRACE;
use super::super::platform;
use super::super::sweep::{SWEEP_LIMIT, end_leftover, sweep};
use super::seen;

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(instance: &str) -> Self {
        let mut command = Command::new("sleep");
        let child = command.arg("300").env(INSTANCE_VARIABLE, instance).stdin(Stdio::null()).spawn().unwrap();
        // The parent goes on before the environment can be read.
        let (pid, mark) = (pid_of(child.id()).unwrap(), format!("{INSTANCE_VARIABLE}={instance}"));
        while cfg!(target_os = "linux") && !platform::carries(pid, &mark) {
            std::thread::yield_now();
        }
        Self(child)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sweep_ends_marked_processes_only() {
    let instance = uuid::Uuid::new_v4().to_string();
    let (mut ours_to_end, mut foreign) = (Sleeper::start(&instance), Sleeper::start("another"));
    let ours = ProcessFilter::marked(&instance);
    assert_eq!(sweep(&ours, &[], SWEEP_LIMIT, || false).unwrap(), (1, 0));
    assert!(!ours_to_end.is_running() && foreign.is_running());
    assert_eq!(sweep(&ours, &[], SWEEP_LIMIT, || false).unwrap(), (0, 0));
}

#[test]
fn process_is_ended_only_if_its_identity_matches() {
    let mut sleeper = Sleeper::start("x");
    let pid = pid_of(sleeper.id()).unwrap();
    let mut other_process = seen(pid.as_raw_nonzero().get(), 1, true);
    other_process.start_time = "1".to_owned();
    assert_eq!(
        sweep(&ProcessFilter::marked("y"), &[KnownProcess::of(&other_process)], SWEEP_LIMIT, || false)
            .unwrap(),
        (0, 0)
    );
    let identity = Identity::of(sleeper.id()).unwrap();
    assert!(identity.is_running());
    let of_other_executable = Identity { executable: "/bin/other".into(), ..identity.clone() };
    let others = [Identity { start_time: "1".to_owned(), ..identity.clone() }];
    for other in others.into_iter().chain(platform::HAS_EXECUTABLE.then_some(of_other_executable)) {
        assert_eq!(end_leftover(&other, &uuid::Uuid::new_v4().to_string(), &[], Duration::ZERO).unwrap(), 0);
    }
    assert!(sleeper.is_running());
    assert_eq!(end_leftover(&identity, &uuid::Uuid::new_v4().to_string(), &[], Duration::ZERO).unwrap(), 1);
    sleeper.0.wait().unwrap();
    assert!(!identity.is_running());
    assert_eq!(Identity::of(sleeper.id()), None);
}

#[test]
fn process_that_ignores_sigterm_gets_sigkill_after_grace() {
    let instance = uuid::Uuid::new_v4().to_string();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' TERM; echo; while :; do sleep 300; done"]).env(INSTANCE_VARIABLE, &instance);
    let mut stubborn = Sleeper(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = [0];
    std::io::Read::read_exact(stubborn.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    let began = Instant::now();
    let (_, left) = sweep(&ProcessFilter::marked(&instance), &[], SWEEP_LIMIT, || false).unwrap();
    assert_eq!((left, stubborn.is_running()), (0, false));
    assert!(began.elapsed() >= SIGTERM_GRACE, "{:?}", began.elapsed());
}

#[test]
fn known_process_is_ended_without_a_mark() {
    let mut sleeper = Sleeper::start("another instance");
    let pid = pid_of(sleeper.id()).unwrap();
    let all = platform::list("").unwrap();
    let known: Vec<_> = all.iter().filter(|one| one.pid == pid).map(KnownProcess::of).collect();
    let began = Instant::now();
    assert_eq!(sweep(&ProcessFilter::marked("y"), &known, SWEEP_LIMIT, || true).unwrap(), (1, 0));
    assert!(!sleeper.is_running() && began.elapsed() < SIGTERM_GRACE);
}

/// Without marks and without a subreaper, as on macOS, where the environment of a shell cannot be read.
#[test]
fn command_without_a_mark_is_ended_after_its_app_server() {
    // The app-server starts a command in a session of its own, which starts one more after the app-server has ended.
    let directory = tempfile::tempdir().unwrap();
    let (pids, go_on) = (directory.path().join("pids"), directory.path().join("go-on"));
    std::fs::write(&pids, "").unwrap();
    let command = format!(
        "echo $$ >> {pids}; until [ -e {go_on} ]; do sleep 0.02; done; (sleep 300 & echo $! >> {pids}); sleep 300",
        pids = pids.display(),
        go_on = go_on.display()
    );
    let mut app_server = Command::new("sh");
    app_server.args(["-c", "setsid sh -c \"$1\" & wait", "app-server", &command]).stdin(Stdio::null());
    let mut app_server = Sleeper(app_server.spawn().unwrap());
    let mut known = Vec::new();
    let read = || {
        let text = std::fs::read_to_string(&pids).unwrap();
        text.lines().map(|pid| pid.parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let wait_for = |count: usize| {
        let until = Instant::now() + Duration::from_secs(30);
        while read().len() < count {
            assert!(Instant::now() < until, "{:?}", read());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let filter = ProcessFilter::marked("hidden");
    wait_for(1);
    known = descendants::list(&filter, app_server.id(), &known).unwrap();
    assert!(known.iter().any(|one| one.pid == read()[0]), "{known:?}");
    app_server.0.kill().unwrap();
    app_server.0.wait().unwrap();
    std::fs::write(&go_on, "").unwrap();
    wait_for(2);
    let processes: Vec<_> = read().into_iter().map(|pid| Identity::of(pid).unwrap()).collect();
    assert_eq!(sweep(&filter, &known, SWEEP_LIMIT, || true).unwrap().1, 0);
    for process in processes {
        assert!(!process.is_running(), "{process:?}");
    }
}
