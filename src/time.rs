//! The wall clock: deadlines that clients see, and times between them.
//!
//! The timers of the runtime stop while the machine sleeps (`CLOCK_MONOTONIC` on Linux, `mach_absolute_time` on macOS) and
//! ignore changes of the clock, so a wait for a published time checks the wall clock again and again; a wait that may take
//! days is an [`Alarm`].

mod alarm;

use std::time::Duration;

pub use alarm::{Alarm, Clock, SystemClock};
use jiff::Timestamp;

use crate::timestamp;

/// How often the wall clock is checked; the longest delay after which a deadline that passed during sleep is noticed.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time until `deadline` as of `now`; zero when it has passed.
pub fn time_left(deadline: Timestamp, now: Timestamp) -> Duration {
    deadline.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

/// The wall-clock time after `delay`.
pub fn after(delay: Duration) -> Timestamp {
    Timestamp::now().checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The current time, RFC 3339 in UTC with milliseconds.
pub fn rfc3339_now() -> timestamp::Timestamp {
    Timestamp::now().into()
}

/// The time `delay` from now, RFC 3339 in UTC with milliseconds.
pub fn rfc3339_after(delay: Duration) -> timestamp::Timestamp {
    after(delay).into()
}

/// The time this many seconds after 1970, RFC 3339 in UTC with milliseconds.
pub fn rfc3339_of_seconds(seconds: i64) -> String {
    format!("{:.3}", Timestamp::from_second(seconds).unwrap_or_default())
}

/// Waits until `clock` has reached `deadline`; `clock` is [`Timestamp::now`] outside tests.
pub async fn reached(deadline: Timestamp, clock: impl Fn() -> Timestamp) {
    loop {
        let left = time_left(deadline, clock());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const HOUR: i64 = 60 * 60;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_passes_while_the_machine_sleeps_is_noticed_when_it_wakes() {
        let clock = AtomicI64::new(0);
        let wait = reached(at(HOUR), || at(clock.load(Ordering::Relaxed)));
        let mut wait = std::pin::pin!(wait);
        let early = tokio::time::timeout(Duration::from_secs(10), &mut wait).await;
        assert!(early.is_err(), "the wall clock has not moved");
        clock.store(HOUR, Ordering::Relaxed);
        let began = tokio::time::Instant::now();
        wait.await;
        assert!(began.elapsed() <= CLOCK_CHECK_INTERVAL, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_puts_the_deadline_off() {
        let clock = AtomicI64::new(HOUR - 5);
        let wait = reached(at(HOUR), || at(clock.load(Ordering::Relaxed)));
        let mut wait = std::pin::pin!(wait);
        clock.store(0, Ordering::Relaxed);
        let early = tokio::time::timeout(Duration::from_secs(60), &mut wait).await;
        assert!(early.is_err(), "the user is shown a time in the future");
        clock.store(2 * HOUR, Ordering::Relaxed);
        wait.await;
    }

    #[test]
    fn no_time_is_left_after_a_deadline() {
        assert_eq!(time_left(at(10), at(4)), Duration::from_secs(6));
        assert_eq!(time_left(at(10), at(10)), Duration::ZERO);
        assert_eq!(time_left(at(10), at(11)), Duration::ZERO);
        assert!(after(Duration::MAX) == Timestamp::MAX);
    }
}
