//! With real processes, where they can be told apart for certain.

use std::process::{Child, Command, Stdio};

use super::super::*;
use super::seen;

/// A process that is ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(instance: &str) -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("300").env(INSTANCE, instance).stdin(Stdio::null()).spawn().unwrap())
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
fn a_sweep_ends_what_is_marked_and_nobody_else() {
    let instance = uuid::Uuid::new_v4().to_string();
    let (mut ours_to_end, mut foreign) = (Sleeper::start(&instance), Sleeper::start("another"));
    let ours = Ours::marked(&instance);
    assert_eq!(sweep(&ours, SWEEP).unwrap(), (1, 0));
    assert!(!ours_to_end.is_running() && foreign.is_running());
    assert_eq!(sweep(&ours, SWEEP).unwrap(), (0, 0));
}

#[test]
fn only_exactly_the_process_that_was_seen_is_ended() {
    let mut sleeper = Sleeper::start("x");
    let pid = pid_of(sleeper.id()).unwrap();
    let mut stranger = seen(pid.as_raw_nonzero().get(), 1, true);
    stranger.started = "1".to_owned();
    end_all(std::slice::from_ref(&stranger));
    let identity = Identity::of(sleeper.id()).unwrap();
    assert!(identity.is_running());
    for other in [
        Identity { start_time: "1".to_owned(), ..identity.clone() },
        Identity { executable: "/bin/other".into(), ..identity.clone() },
    ] {
        assert_eq!(end_leftover(&other, &uuid::Uuid::new_v4().to_string(), Duration::ZERO).unwrap(), 0);
    }
    assert!(sleeper.is_running());
    assert_eq!(end_leftover(&identity, &uuid::Uuid::new_v4().to_string(), Duration::ZERO).unwrap(), 1);
    sleeper.0.wait().unwrap();
    assert!(!identity.is_running());
    assert_eq!(Identity::of(sleeper.id()), None);
}
