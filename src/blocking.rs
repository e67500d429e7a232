//! Bounded thread pools for calls that may block without end: files, processes, names.
//!
//! A file system that does not respond holds every thread that calls it, and a call cannot be taken back. So no such call
//! runs on a worker of the async runtime: it goes to a [`Pool`], and its caller waits for a limited time. Each kind of call
//! has its own pool, so that a hanging directory takes no thread from, say, the token file.
//!
//! A thread whose caller has given up no longer counts against the size of the pool; another thread replaces it, up to the
//! number of hung threads that the pool may have. Beyond that number, callers wait for a thread and get an error if none
//! becomes free in time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long an idle thread stays.
const THREAD_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The stack size of each thread in bytes; the calls are shallow.
const THREAD_STACK_BYTES: usize = 512 * 1024;

/// A call is waiting for a thread.
const WAITING: u8 = 0;
/// A thread runs it.
const RUNNING: u8 = 1;
/// A thread runs it, its caller has given up, and another thread may replace this one.
const GIVEN_UP: u8 = 2;
/// It has ended while its caller waited.
const DONE: u8 = 3;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The call began and did not end.
    #[error("did not answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// Earlier calls of the same kind hang, and no thread became free.
    #[error("could not be asked within {} s, because earlier calls of this kind hang", .0.as_secs_f32())]
    Busy(Duration),
    /// The call ended without a result, or no thread could be started for it.
    #[error("could not be asked: {0}")]
    Failed(String),
}

/// A bounded set of threads for one kind of blocking call.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    /// How many threads run at once, not counting those whose caller has given up.
    threads: usize,
    /// How many threads beyond those may hang.
    hung: usize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Job>,
    /// Idle threads.
    idle: usize,
    /// Threads that count against the size.
    working: usize,
    /// Threads whose caller has given up.
    hung: usize,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    progress: Arc<AtomicU8>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Job").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without threads; they are started on demand.
    ///
    /// `name` names its threads, `threads` is how many calls run at once, and `hung` is how many threads may hang beyond those.
    pub const fn new(name: &'static str, threads: usize, hung: usize) -> Self {
        let state = State { waiting: VecDeque::new(), idle: 0, working: 0, hung: 0 };
        Self { name, threads, hung, state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Runs `call` on a thread of the pool and returns its result, or an error after `limit`.
    ///
    /// A call that has begun continues when its caller gives up; one that waits for a thread is dropped.
    pub async fn run<T: Send + 'static>(
        &'static self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (done, result) = oneshot::channel();
        let progress = Arc::new(AtomicU8::new(WAITING));
        let ended = Arc::clone(&progress);
        let work = move || {
            let value = call();
            // Fails when the caller has given up.
            let _ = ended.compare_exchange(RUNNING, DONE, Ordering::AcqRel, Ordering::Acquire);
            let _ = done.send(value);
        };
        self.submit(work, &progress).map_err(|error| Unanswered::Failed(error.to_string()))?;
        let caller = Caller { pool: self, progress };
        match tokio::time::timeout(limit, result).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(Unanswered::Failed("the call failed".to_owned())),
            Err(_) => match caller.progress.load(Ordering::Acquire) {
                WAITING => Err(Unanswered::Busy(limit)),
                _ => Err(Unanswered::Late(limit)),
            },
        }
    }

    /// Runs a call without a result, such as dropping a file.
    pub fn spawn(&'static self, call: impl FnOnce() + Send + 'static) {
        // No caller can give it up: it counts against the size until it ends.
        if let Err(error) = self.submit(call, &Arc::new(AtomicU8::new(WAITING))) {
            tracing::warn!(pool = self.name, %error, "failed to start a thread");
        }
    }

    fn submit(
        &'static self,
        work: impl FnOnce() + Send + 'static,
        progress: &Arc<AtomicU8>,
    ) -> std::io::Result<()> {
        let job = Job { work: Box::new(work), progress: Arc::clone(progress) };
        let mut state = self.lock();
        state.waiting.push_back(job);
        let served = self.serve(&mut state);
        // If no thread could be started, a running one takes the call.
        served.or_else(|error| if state.working > 0 { Ok(()) } else { Err(error) })
    }

    /// Lets a thread take the next call, and starts one if the pool may grow.
    fn serve(&'static self, state: &mut State) -> std::io::Result<()> {
        if state.waiting.is_empty() || state.working >= self.threads {
            return Ok(());
        }
        if state.idle > 0 {
            self.wake.notify_one();
            return Ok(());
        }
        let thread = std::thread::Builder::new().name(self.name.to_owned()).stack_size(THREAD_STACK_BYTES);
        state.idle += 1;
        thread.spawn(move || self.work()).map(drop).inspect_err(|_| state.idle -= 1)
    }

    fn work(&'static self) {
        let mut state = self.lock();
        loop {
            let next = (state.working < self.threads).then(|| state.waiting.pop_front()).flatten();
            let Some(job) = next else {
                let waited = self
                    .wake
                    .wait_timeout(state, THREAD_IDLE_TIMEOUT)
                    .unwrap_or_else(PoisonError::into_inner);
                state = waited.0;
                if waited.1.timed_out() && (state.waiting.is_empty() || state.working >= self.threads) {
                    state.idle -= 1;
                    return;
                }
                continue;
            };
            state.idle -= 1;
            state.working += 1;
            job.progress.store(RUNNING, Ordering::Release);
            if !state.waiting.is_empty() {
                // Calls that arrive together get one thread each; if none can be started they wait for this one.
                let _ = self.serve(&mut state);
            }
            drop(state);
            (job.work)();
            state = self.lock();
            match job.progress.load(Ordering::Acquire) {
                GIVEN_UP => state.hung -= 1,
                _ => state.working -= 1,
            }
            state.idle += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caller that waits; dropping it gives the call up.
struct Caller {
    pool: &'static Pool,
    progress: Arc<AtomicU8>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        match self.progress.load(Ordering::Acquire) {
            WAITING => state.waiting.retain(|job| !Arc::ptr_eq(&job.progress, &self.progress)),
            RUNNING if state.hung < self.pool.hung => {
                let given_up =
                    self.progress.compare_exchange(RUNNING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
                if given_up.is_ok() {
                    state.working -= 1;
                    state.hung += 1;
                    // If no thread can be started, the next call tries again.
                    let _ = self.pool.serve(&mut state);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(30);

    /// A pool for one test, and the end of a channel that each hanging call waits for.
    fn pool(threads: usize, hung: usize) -> &'static Pool {
        Box::leak(Box::new(Pool::new("test", threads, hung)))
    }

    /// A call that hangs until the sender is dropped.
    fn hang() -> (mpsc::Sender<()>, impl FnOnce() + Send) {
        let (release, held) = mpsc::channel::<()>();
        (release, move || {
            let _ = held.recv();
        })
    }

    fn counts(pool: &Pool) -> (usize, usize) {
        let state = pool.lock();
        (state.working, state.hung)
    }

    #[tokio::test]
    async fn calls_return_what_they_return() {
        let pool = pool(2, 2);
        let calls = (0..50).map(|number| pool.run(LONG, move || number * 2));
        let results = futures_util::future::join_all(calls).await;
        let results: Vec<i32> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, (0..50).map(|number| number * 2).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn hung_calls_are_given_up_and_others_take_their_place_up_to_a_number() {
        let pool = pool(2, 3);
        let mut releases = Vec::new();
        for expected in 1..=3 {
            let (release, call) = hang();
            releases.push(release);
            assert!(matches!(pool.run(SOON, call).await, Err(Unanswered::Late(SOON))));
            assert_eq!(counts(pool), (0, expected));
            assert_eq!(pool.run(LONG, || 7).await.unwrap(), 7, "another thread takes the place");
        }
        // Two more keep the threads themselves.
        for _ in 0..2 {
            let (release, call) = hang();
            releases.push(release);
            assert!(matches!(pool.run(SOON, call).await, Err(Unanswered::Late(_))));
        }
        assert_eq!(counts(pool), (2, 3));
        let began = Arc::new(AtomicU8::new(0));
        let begins = Arc::clone(&began);
        let busy = pool.run(SOON, move || begins.store(1, Ordering::Release)).await.unwrap_err();
        assert!(matches!(busy, Unanswered::Busy(_)), "{busy}");
        releases.clear();
        assert_eq!(pool.run(LONG, || 8).await.unwrap(), 8, "threads that come back work on");
        assert_eq!(began.load(Ordering::Acquire), 0, "a call that was given up while it waited is not made");
    }

    #[tokio::test]
    async fn a_caller_that_leaves_gives_up_too() {
        let pool = pool(1, 1);
        let (release, call) = hang();
        let caller = tokio::spawn(pool.run(LONG, call));
        while counts(pool) != (1, 0) {
            tokio::task::yield_now().await;
        }
        caller.abort();
        let _ = caller.await;
        assert_eq!(counts(pool), (0, 1));
        assert_eq!(pool.run(LONG, || 9).await.unwrap(), 9);
        drop(release);
    }
}
