//! How long to wait before the app-server is restarted after a failure.
//!
//! Pure: the caller passes the time and the random number. The supervisor task owns one [`Backoff`].

use std::collections::VecDeque;
use std::time::Duration;

/// The first delay; each further failure in a row doubles it.
const INITIAL_DELAY: Duration = Duration::from_millis(500);
/// The longest delay outside a crash loop, before jitter.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// The largest deviation from the nominal delay, in percent.
const JITTER_PERCENT: u32 = 20;
/// An app-server that accepted calls for this long was healthy: its failure counts as the first again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// The time over which failures are counted.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// More failures than this in the window are a crash loop.
const MAX_FAILURES_IN_WINDOW: usize = 5;
/// The delay between two tries in a crash loop.
const CRASH_LOOP_DELAY: Duration = Duration::from_secs(60);

/// The longest start timeout, unless it is configured to be longer.
const MAX_START_TIMEOUT: Duration = Duration::from_secs(600);

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartDelay {
    /// How long to wait before the next start.
    pub(crate) delay: Duration,
    /// The number of failures in a row, including this one.
    pub(crate) failures: u32,
    /// Whether it is tried only once a minute, until a generation stays healthy.
    pub(crate) crash_loop: bool,
}

/// The failures so far.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    /// When the last failures were; at most [`MAX_FAILURES_IN_WINDOW`] and one more.
    recent: VecDeque<Duration>,
    crash_loop: bool,
}

impl Backoff {
    /// Records a failure at `now`, a monotonic time, of an app-server that accepted calls for `healthy`.
    ///
    /// Equal values of `random` give equal delays.
    pub(crate) fn record_failure(&mut self, now: Duration, healthy: Duration, random: u32) -> RestartDelay {
        if healthy >= HEALTHY_AFTER {
            *self = Self::default();
        }
        self.failures = self.failures.saturating_add(1);
        self.recent.push_back(now);
        while self.recent.len() > MAX_FAILURES_IN_WINDOW + 1 {
            self.recent.pop_front();
        }
        self.recent.retain(|&failure| now.saturating_sub(failure) < FAILURE_WINDOW);
        // Only health ends a crash loop: the tries are so far apart that the count alone would end it.
        self.crash_loop |= self.recent.len() > MAX_FAILURES_IN_WINDOW;
        let delay =
            if self.crash_loop { CRASH_LOOP_DELAY } else { jittered(nominal_delay(self.failures), random) };
        RestartDelay { delay, failures: self.failures, crash_loop: self.crash_loop }
    }
}

/// The start timeout after a start that took longer than `start_timeout`.
///
/// A start that is cut off begins from scratch the next time, for example the upgrade of a database.
pub(crate) fn next_start_timeout(start_timeout: Duration) -> Duration {
    (start_timeout * 2).min(MAX_START_TIMEOUT.max(start_timeout))
}

/// The delay after this many failures in a row, without jitter.
fn nominal_delay(failures: u32) -> Duration {
    // Six doublings already exceed the longest delay.
    let doublings = failures.saturating_sub(1).min(16);
    INITIAL_DELAY.saturating_mul(1 << doublings).min(MAX_DELAY)
}

/// The delay, lengthened or shortened by up to [`JITTER_PERCENT`] percent.
fn jittered(delay: Duration, random: u32) -> Duration {
    let percent = 100 - JITTER_PERCENT + random % (2 * JITTER_PERCENT + 1);
    delay * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Failures: how long each app-server was ready, how much later it failed, and a random number.
    fn any_failures() -> impl Strategy<Value = Vec<(Duration, Duration, u32)>> {
        let seconds = prop_oneof![Just(0), 0..5000u64, 59_000..61_000u64, 0..200_000u64];
        let failure = (seconds.clone(), seconds, any::<u32>());
        let failure = failure.prop_map(|(healthy, later, random)| {
            (Duration::from_millis(healthy), Duration::from_millis(later), random)
        });
        prop::collection::vec(failure, 1..40)
    }

    /// The time of each failure and the delay after it; each delay is waited out.
    fn run(failures: &[(Duration, Duration, u32)]) -> Vec<(Duration, RestartDelay)> {
        let (mut backoff, mut now) = (Backoff::default(), Duration::ZERO);
        let step = |&(healthy, later, random)| {
            now += healthy + later;
            let restart = backoff.record_failure(now, healthy, random);
            let failed_at = now;
            now += restart.delay;
            (failed_at, restart)
        };
        failures.iter().map(step).collect()
    }

    proptest! {
        #[test]
        fn restart_delay_stays_within_jitter_of_its_nominal_value(failures in any_failures()) {
            for (_, restart) in run(&failures) {
                if restart.crash_loop {
                    prop_assert_eq!(restart.delay, Duration::from_secs(60));
                    continue;
                }
                let nominal_delay = 0.5 * 2f64.powi(restart.failures.min(30) as i32 - 1);
                let (nominal_delay, delay) = (nominal_delay.min(30.0), restart.delay.as_secs_f64());
                prop_assert!(delay >= nominal_delay * 0.799 && delay <= nominal_delay * 1.201, "{restart:?}");
            }
        }

        #[test]
        fn backoff_is_reset_only_by_a_healthy_run(failures in any_failures()) {
            let mut expected = 0;
            for ((_, restart), (healthy, _, _)) in run(&failures).into_iter().zip(&failures) {
                expected = if *healthy >= Duration::from_secs(60) { 1 } else { expected + 1 };
                prop_assert_eq!(restart.failures, expected);
                prop_assert!(expected > 1 || !restart.crash_loop);
            }
        }

        #[test]
        fn crash_loop_begins_with_the_sixth_failure_in_a_minute_and_ends_with_a_healthy_run(failures in any_failures()) {
            let results = run(&failures);
            let mut in_loop = false;
            for (index, (failed_at, restart)) in results.iter().enumerate() {
                let since_health = index + 1 - restart.failures as usize;
                let recent = results[since_health..=index].iter();
                let recent = recent.filter(|(earlier, _)| *failed_at - *earlier < Duration::from_secs(60)).count();
                in_loop = recent > 5 || (in_loop && restart.failures > 1);
                prop_assert_eq!(restart.crash_loop, in_loop, "failure {}", index);
            }
        }

        #[test]
        fn jitter_changes_only_the_delay(failures in any_failures(), other in any::<u32>()) {
            let (mut one, mut two) = (Backoff::default(), Backoff::default());
            let mut now = Duration::ZERO;
            for (healthy, later, random) in failures {
                now += healthy + later;
                let (one, two) = (one.record_failure(now, healthy, random), two.record_failure(now, healthy, other));
                prop_assert_eq!((one.failures, one.crash_loop), (two.failures, two.crash_loop));
            }
        }
    }

    #[test]
    fn immediate_failures_are_retried_with_backoff_and_then_once_a_minute() {
        // With the random number 20 the jitter is zero.
        let results = run(&[(Duration::ZERO, Duration::ZERO, 20); 8]);
        let delays: Vec<_> = results.iter().map(|(_, restart)| restart.delay.as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 60_000, 60_000, 60_000]);
        assert_eq!(results[5].0, Duration::from_millis(15_500));
    }

    #[test]
    fn jitter_reaches_both_limits() {
        let delays: Vec<_> =
            (0..41).map(|random| jittered(Duration::from_secs(10), random).as_secs()).collect();
        assert_eq!((delays.iter().min(), delays.iter().max()), (Some(&8), Some(&12)));
    }
}
