//! When an app-server that died is started again: the rule alone, without a clock and without chance of its own.

use std::collections::VecDeque;
use std::time::Duration;

/// The first pause; each further death in a row doubles it.
const FIRST: Duration = Duration::from_millis(500);
/// The longest pause outside of a crash loop, before the jitter.
const LONGEST: Duration = Duration::from_secs(30);
/// How far a pause is from its nominal length at most, in percent.
const JITTER: u32 = 20;
/// An app-server that could be called for so long was healthy: its death is the first one again.
const HEALTHY: Duration = Duration::from_secs(60);
/// The time in which deaths are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// More deaths than this in the window are a crash loop.
const DEATHS: usize = 5;
/// The pause between two tries in a crash loop.
const PROBE: Duration = Duration::from_secs(60);

/// The longest time that a slow start is given, unless it is set to more.
const LONGEST_START: Duration = Duration::from_secs(600);

/// What follows from a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How long to wait before the next start.
    pub(crate) delay: Duration,
    /// How many deaths there were in a row, this one included.
    pub(crate) deaths: u32,
    /// Whether it is tried once a minute only, until one lives long enough.
    pub(crate) crash_loop: bool,
}

/// The memory of the rule.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    deaths: u32,
    /// When the last deaths were, [`DEATHS`] and one more at most.
    recent: VecDeque<Duration>,
    crash_loop: bool,
}

impl Backoff {
    /// Takes note of a death at `now`, a time that never goes back, of an app-server that could be called for `healthy`.
    ///
    /// `chance` is any number; equal ones give equal pauses.
    pub(crate) fn died(&mut self, now: Duration, healthy: Duration, chance: u32) -> Pause {
        if healthy >= HEALTHY {
            *self = Self::default();
        }
        self.deaths = self.deaths.saturating_add(1);
        self.recent.push_back(now);
        while self.recent.len() > DEATHS + 1 {
            self.recent.pop_front();
        }
        self.recent.retain(|&death| now.saturating_sub(death) < WINDOW);
        // Once in it, only health ends it: the tries are so far apart that the count alone would.
        self.crash_loop |= self.recent.len() > DEATHS;
        let delay = if self.crash_loop { PROBE } else { jittered(nominal(self.deaths), chance) };
        Pause { delay, deaths: self.deaths, crash_loop: self.crash_loop }
    }
}

/// How long the next start may take after one that took longer than this.
///
/// A start that is cut off for being slow begins from the front the next time, such as the upgrade of a database.
pub(crate) fn longer(start_timeout: Duration) -> Duration {
    (start_timeout * 2).min(LONGEST_START.max(start_timeout))
}

/// The pause after this many deaths in a row, without jitter.
fn nominal(deaths: u32) -> Duration {
    // Six doublings are over the longest pause already.
    let doublings = deaths.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

/// The pause, lengthened or shortened by up to [`JITTER`] percent.
fn jittered(pause: Duration, chance: u32) -> Duration {
    let percent = 100 - JITTER + chance % (2 * JITTER + 1);
    pause * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Deaths as they come: how long each app-server was ready, how much later it died, and a chance.
    fn any_deaths() -> impl Strategy<Value = Vec<(Duration, Duration, u32)>> {
        let seconds = prop_oneof![Just(0), 0..5000u64, 59_000..61_000u64, 0..200_000u64];
        let death = (seconds.clone(), seconds, any::<u32>());
        let death = death.prop_map(|(healthy, later, chance)| {
            (Duration::from_millis(healthy), Duration::from_millis(later), chance)
        });
        prop::collection::vec(death, 1..40)
    }

    /// What the rule says to each of these deaths, and when each was; the pauses are kept.
    fn lives(deaths: &[(Duration, Duration, u32)]) -> Vec<(Duration, Pause)> {
        let (mut backoff, mut now) = (Backoff::default(), Duration::ZERO);
        let live = |&(healthy, later, chance)| {
            now += healthy + later;
            let pause = backoff.died(now, healthy, chance);
            let died = now;
            now += pause.delay;
            (died, pause)
        };
        deaths.iter().map(live).collect()
    }

    proptest! {
        #[test]
        fn a_pause_is_the_nominal_one_within_its_jitter(deaths in any_deaths()) {
            for (_, pause) in lives(&deaths) {
                if pause.crash_loop {
                    prop_assert_eq!(pause.delay, Duration::from_secs(60));
                    continue;
                }
                let nominal = 0.5 * 2f64.powi(pause.deaths.min(30) as i32 - 1);
                let (nominal, delay) = (nominal.min(30.0), pause.delay.as_secs_f64());
                prop_assert!(delay >= nominal * 0.799 && delay <= nominal * 1.201, "{pause:?}");
            }
        }

        #[test]
        fn health_and_nothing_else_begins_anew(deaths in any_deaths()) {
            let mut expected = 0;
            for ((_, pause), (healthy, _, _)) in lives(&deaths).into_iter().zip(&deaths) {
                expected = if *healthy >= Duration::from_secs(60) { 1 } else { expected + 1 };
                prop_assert_eq!(pause.deaths, expected);
                prop_assert!(expected > 1 || !pause.crash_loop);
            }
        }

        #[test]
        fn a_crash_loop_is_more_than_five_deaths_in_a_minute_and_lasts_until_health(deaths in any_deaths()) {
            let told = lives(&deaths);
            let mut in_loop = false;
            for (index, (died, pause)) in told.iter().enumerate() {
                let since_health = index + 1 - pause.deaths as usize;
                let recent = told[since_health..=index].iter();
                let recent = recent.filter(|(earlier, _)| *died - *earlier < Duration::from_secs(60)).count();
                in_loop = recent > 5 || (in_loop && pause.deaths > 1);
                prop_assert_eq!(pause.crash_loop, in_loop, "death {}", index);
            }
        }

        #[test]
        fn chance_moves_the_pause_and_nothing_else(deaths in any_deaths(), other in any::<u32>()) {
            let (mut one, mut two) = (Backoff::default(), Backoff::default());
            let mut now = Duration::ZERO;
            for (healthy, later, chance) in deaths {
                now += healthy + later;
                let (one, two) = (one.died(now, healthy, chance), two.died(now, healthy, other));
                prop_assert_eq!((one.deaths, one.crash_loop), (two.deaths, two.crash_loop));
            }
        }
    }

    #[test]
    fn what_dies_at_once_is_tried_six_times_in_a_quarter_of_a_minute_and_then_once_a_minute() {
        // 20 is the chance that changes nothing.
        let told = lives(&[(Duration::ZERO, Duration::ZERO, 20); 8]);
        let delays: Vec<_> = told.iter().map(|(_, pause)| pause.delay.as_millis()).collect();
        assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 60_000, 60_000, 60_000]);
        assert_eq!(told[5].0, Duration::from_millis(15_500));
    }

    #[test]
    fn the_jitter_reaches_both_its_ends() {
        let pauses: Vec<_> =
            (0..41).map(|chance| jittered(Duration::from_secs(10), chance).as_secs()).collect();
        assert_eq!((pauses.iter().min(), pauses.iter().max()), (Some(&8), Some(&12)));
    }
}
