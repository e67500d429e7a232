//! How long a failed delivery waits for its next attempt.

use std::time::Duration;

/// The delay after the first failure; each later one is twice as long.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(60 * 60);
/// For how long one event is tried: the sum of the delays.
const TOTAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The delay after this many failures of one event, or `None` when it has been tried for a day.
///
/// The delays depend on the number of failures only, so that no change of the clock and no restart makes a day shorter.
pub(super) fn delay(failures: u32) -> Option<Duration> {
    let waited: Duration = (1..failures).map(delay_after).sum();
    (waited < TOTAL).then(|| delay_after(failures).min(TOTAL - waited))
}

fn delay_after(failures: u32) -> Duration {
    let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_DELAY.saturating_mul(doubled).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_tried_for_a_day() {
        let delays: Vec<_> = (1..).map_while(delay).collect();
        assert_eq!(delays[..4], [1, 2, 4, 8].map(Duration::from_secs));
        assert_eq!(delays.iter().sum::<Duration>(), TOTAL);
        assert!(delays.iter().all(|delay| *delay <= LONGEST_DELAY));
        assert_eq!(delay(u32::MAX / 1_000_000), None);
    }
}
