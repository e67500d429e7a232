//! The handle of a running turn, shared by the dispatcher that steers it and the thread that executes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::wire::locked;

/// A turn that is running or has run.
pub(super) struct Turn {
    pub(super) id: String,
    state: Mutex<TurnState>,
    changed: Condvar,
    /// Set with every steer and interrupt, so that a flood of deltas can check it without taking the lock.
    attention: AtomicBool,
}

/// The input of the dispatcher to the turn.
#[derive(Default)]
pub(super) struct TurnState {
    /// No further input is accepted.
    closed: bool,
    /// The last message of the turn has been written.
    finished: bool,
    interrupted: bool,
    steers: Vec<Input>,
    answers: HashMap<i64, Answer>,
}

/// The input of a user, with the id that the client assigned.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) content: Vec<Value>,
    pub(super) client_id: Value,
}

/// The response of the client to a server request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Result(Value),
    Error(Value),
}

/// Why a turn is interrupted in its current step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Call {
    Interrupt,
    Steer,
}

impl Turn {
    pub(super) fn new(id: String) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { id, state, changed, attention: AtomicBool::new(false) }
    }

    /// Adds input; `false` when the turn has ended. `answer` is called before the turn can see the input:
    /// the response to a steer comes before its effects.
    pub(super) fn steer(&self, input: Input, answer: impl FnOnce()) -> bool {
        let mut state = locked(&self.state);
        if state.closed || state.interrupted {
            return false;
        }
        state.steers.push(input);
        answer();
        self.attention.store(true, Ordering::Release);
        self.changed.notify_all();
        true
    }

    /// Ends the turn early; `false` when it has already ended. `answer` as in [`Turn::steer`].
    pub(super) fn interrupt(&self, answer: impl FnOnce()) -> bool {
        let mut state = locked(&self.state);
        if state.closed {
            return false;
        }
        state.interrupted = true;
        answer();
        self.attention.store(true, Ordering::Release);
        self.changed.notify_all();
        true
    }

    /// Delivers the response to the server request `id`.
    pub(super) fn deliver(&self, id: i64, answer: Answer) {
        locked(&self.state).answers.insert(id, answer);
        self.changed.notify_all();
    }

    /// Wakes all waiting threads, so that they check a condition outside this state again.
    pub(super) fn wake(&self) {
        // Under the lock, so that the wake cannot fall between the check and the wait.
        let _state = locked(&self.state);
        self.changed.notify_all();
    }

    /// The pending call to the turn, if there is one; cheap enough for every block of deltas.
    pub(super) fn called(&self) -> Option<Call> {
        if self.attention.load(Ordering::Acquire) { locked(&self.state).call() } else { None }
    }

    /// Waits for a call, or until `pause` is over.
    pub(super) fn pause(&self, pause: Duration) -> Option<Call> {
        let until = Instant::now() + pause;
        self.wait(Some(until), TurnState::call)
    }

    /// Waits for a call without a time limit.
    pub(super) fn wait_for_call(&self) -> Option<Call> {
        self.wait(None, TurnState::call)
    }

    /// Waits for the response to the server request `id`; `None` when an interrupt came first. Input that
    /// arrives in the meantime stays queued.
    pub(super) fn wait_for_answer(&self, id: i64) -> Option<Answer> {
        self.wait(
            None,
            |state| {
                if state.interrupted { Some(None) } else { state.answers.remove(&id).map(Some) }
            },
        )?
    }

    /// Waits until `done` returns true; `false` when an interrupt came first.
    pub(super) fn wait_until(&self, done: impl Fn() -> bool) -> bool {
        self.wait(None, |state| if state.interrupted { Some(false) } else { done().then_some(true) })
            .unwrap_or(false)
    }

    /// Takes the input since the last call.
    pub(super) fn take_steers(&self) -> Vec<Input> {
        let mut state = locked(&self.state);
        self.attention.store(state.interrupted, Ordering::Release);
        std::mem::take(&mut state.steers)
    }

    /// Closes the turn, unless accepted input is still queued.
    pub(super) fn close(&self) -> Option<Call> {
        let mut state = locked(&self.state);
        let call = state.call();
        state.closed = call.is_none();
        call
    }

    /// Closes the turn, even if input is queued.
    pub(super) fn close_now(&self) {
        locked(&self.state).closed = true;
    }

    /// Records that the last message of the turn has been written.
    pub(super) fn finish(&self) {
        locked(&self.state).finished = true;
        self.changed.notify_all();
    }

    /// Waits for [`Turn::finish`]; only a closed or interrupted turn reaches it soon.
    pub(super) fn wait_for_finish(&self) {
        let _: Option<()> = self.wait(None, |state| state.finished.then_some(()));
    }

    fn wait<T>(
        &self,
        until: Option<Instant>,
        mut look: impl FnMut(&mut TurnState) -> Option<T>,
    ) -> Option<T> {
        let mut state = locked(&self.state);
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            state = match until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl TurnState {
    fn call(&mut self) -> Option<Call> {
        if self.interrupted {
            Some(Call::Interrupt)
        } else {
            (!self.steers.is_empty()).then_some(Call::Steer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Input {
        Input { content: Vec::new(), client_id: Value::Null }
    }

    #[test]
    fn input_that_was_accepted_keeps_the_turn_open() {
        let turn = Turn::new("turn".to_owned());
        assert!(turn.steer(input(), || {}));
        assert_eq!(turn.close(), Some(Call::Steer));
        assert_eq!(turn.take_steers().len(), 1);
        assert!(turn.steer(input(), || {}), "still open");
        assert_eq!(turn.take_steers().len(), 1);
        assert_eq!(turn.called(), None);
        assert_eq!(turn.close(), None);
        assert!(!turn.steer(input(), || unreachable!("a closed turn accepts nothing")));
        assert!(!turn.interrupt(|| unreachable!("nor an interrupt")));
    }

    #[test]
    fn the_answer_comes_before_the_turn_can_look() {
        let turn = Turn::new("turn".to_owned());
        assert!(turn.steer(input(), || assert!(turn.state.try_lock().is_err())));
        assert!(turn.interrupt(|| assert!(turn.state.try_lock().is_err())));
        assert!(!turn.steer(input(), || unreachable!("the turn is about to end")));
        assert_eq!(turn.close(), Some(Call::Interrupt));
    }

    #[test]
    fn an_interrupt_ends_every_wait() {
        let turn = Turn::new("turn".to_owned());
        turn.deliver(3, Answer::Result(Value::Null));
        assert!(turn.wait_for_answer(3).is_some());
        assert_eq!(turn.pause(Duration::ZERO), None);
        assert!(turn.interrupt(|| {}));
        assert!(turn.wait_for_answer(4).is_none());
        assert!(!turn.wait_until(|| false));
        assert_eq!(turn.pause(Duration::from_secs(600)), Some(Call::Interrupt));
        assert_eq!(turn.wait_for_call(), Some(Call::Interrupt));
    }
}
