//! Deadlines that people are shown: times of the wall clock.
//!
//! The timers of the runtime stand still while the machine sleeps (`CLOCK_MONOTONIC` on Linux, `mach_absolute_time` on
//! macOS), and know nothing of a clock that is set.
//! So a wait for a time that was told to somebody looks at the wall clock again and again.

use std::time::Duration;

use jiff::Timestamp;

/// How often the wall clock is looked at: a deadline that passed during a sleep is noticed this long after it at most.
const STEP: Duration = Duration::from_secs(1);

/// How long until `deadline`, as of `now`; zero when it has passed.
pub fn time_left(deadline: Timestamp, now: Timestamp) -> Duration {
    deadline.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

/// The time of the wall clock after `delay` from now on.
pub fn after(delay: Duration) -> Timestamp {
    Timestamp::now().checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// The current time, RFC 3339 in UTC with milliseconds.
pub fn rfc3339_now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// The time `delay` from now, RFC 3339 in UTC with milliseconds.
pub fn rfc3339_after(delay: Duration) -> String {
    format!("{:.3}", after(delay))
}

/// Waits until `clock`, which is [`Timestamp::now`] outside of tests, has reached `deadline`.
pub async fn reached(deadline: Timestamp, clock: impl Fn() -> Timestamp) {
    loop {
        let left = time_left(deadline, clock());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
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
        assert!(began.elapsed() <= STEP, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_puts_the_deadline_off() {
        let clock = AtomicI64::new(HOUR - 5);
        let wait = reached(at(HOUR), || at(clock.load(Ordering::Relaxed)));
        let mut wait = std::pin::pin!(wait);
        clock.store(0, Ordering::Relaxed);
        let early = tokio::time::timeout(Duration::from_secs(60), &mut wait).await;
        assert!(early.is_err(), "people are shown a time that has not come");
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
