//! Why the app-server cannot be called now, and when it is started again.

use std::time::Duration;

use jiff::Timestamp;

use crate::codex::{Availability, Waiting};
use crate::time;

/// Why the app-server cannot be called, as sentences; `None` when it can.
pub(crate) fn unavailable_reason(now: &Availability) -> Option<String> {
    Some(match now {
        Availability::Ready(_) => return None,
        Availability::Starting { reason: None } => "The app-server is being started.".to_owned(),
        Availability::Starting { reason: Some(cause) } => format!("{cause} It is being started again."),
        Availability::Waiting(Waiting { reason, until: None, .. }) => reason.clone(),
        Availability::Waiting(Waiting { reason, until: Some(until), failures, crash_loop, .. }) => {
            let seconds = whole_seconds(time::time_left(*until, Timestamp::now()));
            match crash_loop {
                false => format!("{reason} The next try is in {seconds} s."),
                true => format!(
                    "{reason} It failed {failures} times in a row, so it is tried once a minute; the next try is in \
                     {seconds} s."
                ),
            }
        }
        Availability::Stopped { reason } => reason.clone(),
    })
}

/// How long until the app-server is started again, where that is known.
pub(crate) fn time_until_next_start(now: &Availability) -> Option<Duration> {
    match now {
        Availability::Waiting(Waiting { until: Some(until), .. }) => {
            Some(time::time_left(*until, Timestamp::now()))
        }
        _ => None,
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codex;

    fn waiting(until: Option<Timestamp>, crash_loop: bool) -> Availability {
        let (reason, stderr_tail) = ("It exited.".to_owned(), Vec::new());
        let failure = codex::Failure::Ended;
        let waiting = Waiting { reason, until, failures: 7, crash_loop, stderr_tail, failure, generation: 1 };
        Availability::Waiting(waiting)
    }

    #[test]
    fn unavailable_reason_names_the_next_start() {
        let soon = Some(time::after(Duration::from_millis(1900)));
        assert_eq!(unavailable_reason(&waiting(None, false)).unwrap(), "It exited.");
        assert_eq!(unavailable_reason(&waiting(soon, false)).unwrap(), "It exited. The next try is in 2 s.");
        let reason = unavailable_reason(&waiting(soon, true)).unwrap();
        assert!(reason.contains("7 times") && reason.contains("once a minute") && reason.ends_with("2 s."));
        let left = time_until_next_start(&waiting(soon, true)).unwrap();
        assert!(left > Duration::from_secs(1) && left <= Duration::from_millis(1900), "{left:?}");
        let passed = Some(Timestamp::now() - Duration::from_secs(5));
        assert_eq!(
            unavailable_reason(&waiting(passed, false)).unwrap(),
            "It exited. The next try is in 1 s."
        );
        assert_eq!(time_until_next_start(&waiting(passed, false)), Some(Duration::ZERO));
    }
}
