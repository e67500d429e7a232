//! [`Alarm`]: waits for a time of the wall clock, however far away, without a regular wake-up where the system can do that.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;

/// The longest wait without a look at the clock where the system has no timer that follows the wall clock: the most by
/// which something is late after sleep, or after the clock was set.
const RECHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A clock that people and NTP set, and that goes on while the machine sleeps.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Waits until the clock may have reached `at`, or was set; the caller looks at the clock again.
    fn wait(&self, at: Timestamp) -> impl Future<Output = ()> + Send;
}

/// The clock of the system.
///
/// On Linux a timer of `CLOCK_REALTIME` waits: it expires at once when the machine wakes after its time, and it ends when
/// the clock is set (timerfd_create(2)). macOS has no such timer for a program that is not woken by launchd, and the timers
/// of the runtime stand still while the machine sleeps, so the clock is looked at every [`RECHECK_INTERVAL`].
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn wait(&self, at: Timestamp) {
        #[cfg(target_os = "linux")]
        match timer::expires(at).await {
            Ok(()) => return,
            // Such as too many open files.
            Err(error) => {
                tracing::debug!(%error, "no timer of the wall clock; looking at it from time to time")
            }
        }
        let left = at.duration_since(self.now()).try_into().unwrap_or(Duration::ZERO);
        tokio::time::sleep(RECHECK_INTERVAL.min(left)).await;
    }
}

#[cfg(target_os = "linux")]
mod timer {
    use std::io;

    use jiff::Timestamp;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::net::unix::pipe::Receiver;

    /// Waits until the wall clock has reached `at` or was set.
    pub(super) async fn expires(at: Timestamp) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let never_again = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A timer that is set to zero does not run at all, and the kernel takes no time before 1970.
        let at = at.max(Timestamp::from_nanosecond(1).unwrap_or_default());
        let it_value = Timespec { tv_sec: at.as_second(), tv_nsec: at.subsec_nanosecond().into() };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &Itimerspec { it_interval: never_again, it_value })?;
        // All that is asked of it is to wait until the descriptor is readable, which `AsyncFd` offers as unsafe code only.
        Receiver::from_owned_fd_unchecked(timer)?.readable().await
    }
}

/// A wait that is under way.
type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits for one time of a clock, which can be changed.
pub struct Alarm<C> {
    clock: C,
    set: Option<(Timestamp, Wait)>,
}

impl<C: Clock> Alarm<C> {
    /// An alarm that is not set.
    pub fn new(clock: C) -> Self {
        Self { clock, set: None }
    }

    /// Sets it to a time, or to none; a wait for the same time goes on.
    pub fn set(&mut self, at: Option<Timestamp>) {
        if self.set.as_ref().map(|(at, _)| *at) != at {
            self.set = at.map(|at| {
                let clock = self.clock.clone();
                (at, Box::pin(async move { reached(&clock, at).await }) as Wait)
            });
        }
    }

    /// Waits until the clock has reached the time; forever while none is set. It is not set after that.
    pub async fn rings(&mut self) {
        match &mut self.set {
            Some((_, wait)) => wait.await,
            None => std::future::pending().await,
        }
        self.set = None;
    }
}

/// Waits until the clock has reached `at`.
async fn reached(clock: &impl Clock, at: Timestamp) {
    while clock.now() < at {
        clock.wait(at).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;

    /// A clock that a test moves.
    #[derive(Clone)]
    struct MovedClock {
        now: watch::Sender<Timestamp>,
        waits: Arc<Mutex<Vec<Timestamp>>>,
    }

    impl MovedClock {
        fn new() -> Self {
            Self { now: watch::Sender::new(at(0)), waits: Arc::default() }
        }
    }

    impl Clock for MovedClock {
        fn now(&self) -> Timestamp {
            *self.now.borrow()
        }

        async fn wait(&self, at: Timestamp) {
            self.waits.lock().unwrap().push(at);
            let mut now = self.now.subscribe();
            now.mark_unchanged();
            now.changed().await.unwrap();
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Whether the alarm rings as things are.
    async fn rings(alarm: &mut Alarm<MovedClock>) -> bool {
        timeout(Duration::from_millis(1), alarm.rings()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn alarm_rings_when_the_clock_has_reached_its_time_however_it_moves() {
        let clock = MovedClock::new();
        let mut alarm = Alarm::new(clock.clone());
        assert!(!rings(&mut alarm).await, "it is not set");
        alarm.set(Some(at(100)));
        for (now, is_reached) in [(0, false), (99, false), (40, false), (-40, false), (5000, true)] {
            clock.now.send_replace(at(now));
            assert_eq!(rings(&mut alarm).await, is_reached, "{now}");
        }
        assert!(!rings(&mut alarm).await, "it rings once");
        alarm.set(Some(at(100)));
        assert!(rings(&mut alarm).await, "the time is in the past");
    }

    #[tokio::test(start_paused = true)]
    async fn alarm_that_is_set_to_the_same_time_goes_on_waiting() {
        let clock = MovedClock::new();
        let mut alarm = Alarm::new(clock.clone());
        for time in [100, 100, 100, 70, 70] {
            alarm.set(Some(at(time)));
            assert!(!rings(&mut alarm).await);
        }
        assert_eq!(*clock.waits.lock().unwrap(), [at(100), at(70)], "each wait costs calls of the system");
        alarm.set(None);
        clock.now.send_replace(at(200));
        assert!(!rings(&mut alarm).await);
    }

    #[tokio::test]
    async fn system_clock_waits_until_its_time_and_not_longer() {
        let due = Timestamp::now().checked_add(Duration::from_millis(60)).unwrap();
        reached(&SystemClock, due).await;
        assert!(Timestamp::now() >= due);
        // A time in the past, or before 1970, is over at once.
        for past in [Timestamp::UNIX_EPOCH, Timestamp::MIN, at(1)] {
            timeout(Duration::from_secs(60), SystemClock.wait(past)).await.unwrap();
        }
        let far = timeout(Duration::from_millis(30), SystemClock.wait(Timestamp::MAX)).await;
        assert!(far.is_err(), "the time is far away");
    }
}
