//! The handle of a running turn.
//!
//! The dispatcher adds input, interrupts and responses; the thread that runs the turn takes them.
//! A response is written before the turn can see its effect.

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
    has_control: AtomicBool,
}

/// What the dispatcher has given to the turn.
#[derive(Default)]
pub(super) struct TurnState {
    /// No further input is accepted.
    closed: bool,
    /// The last message of the turn has been written.
    finished: bool,
    interrupted: bool,
    steers: Vec<Input>,
    responses: HashMap<i64, Response>,
}

/// The input of the user, with the ID that the client assigned.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) content: Vec<Value>,
    pub(super) client_id: Value,
}

/// The response of the client to a server request.
#[derive(Clone, Debug)]
pub(super) enum Response {
    Result(Value),
    Error(Value),
}

/// A request that ends the current step of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Control {
    Interrupt,
    Steer,
}

impl Turn {
    pub(super) fn new(id: String) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { id, state, changed, has_control: AtomicBool::new(false) }
    }

    /// Adds input; `false` when the turn has ended. `response` is called before the turn can see the input, so the
    /// response to a steer comes before its effects.
    pub(super) fn steer(&self, input: Input, response: impl FnOnce()) -> bool {
        let mut state = locked(&self.state);
        if state.closed || state.interrupted {
            return false;
        }
        state.steers.push(input);
        response();
        self.has_control.store(true, Ordering::Release);
        self.changed.notify_all();
        true
    }

    /// Ends the turn early; `false` when it has already ended. `response` as in [`Turn::steer`].
    pub(super) fn interrupt(&self, response: impl FnOnce()) -> bool {
        let mut state = locked(&self.state);
        if state.closed {
            return false;
        }
        state.interrupted = true;
        response();
        self.has_control.store(true, Ordering::Release);
        self.changed.notify_all();
        true
    }

    /// Delivers the response to the server request `id`.
    pub(super) fn deliver(&self, id: i64, response: Response) {
        locked(&self.state).responses.insert(id, response);
        self.changed.notify_all();
    }

    /// Wakes all waiting threads. They check a condition outside this state again.
    pub(super) fn wake(&self) {
        // The lock is held, so that the wake cannot fall between the check and the wait.
        let _state = locked(&self.state);
        self.changed.notify_all();
    }

    /// The pending interrupt or steer. It is cheap enough for every block of deltas.
    pub(super) fn pending_control(&self) -> Option<Control> {
        if self.has_control.load(Ordering::Acquire) { locked(&self.state).control() } else { None }
    }

    /// Waits for an interrupt or a steer, or until `pause` has passed.
    pub(super) fn pause(&self, pause: Duration) -> Option<Control> {
        let until = Instant::now() + pause;
        self.wait(Some(until), TurnState::control)
    }

    /// Waits for an interrupt or a steer without a time limit.
    pub(super) fn wait_for_control(&self) -> Option<Control> {
        self.wait(None, TurnState::control)
    }

    /// Waits for the response to the server request `id`; `None` when an interrupt came first. Input that arrives
    /// meanwhile stays queued.
    pub(super) fn wait_for_response(&self, id: i64) -> Option<Response> {
        self.wait(
            None,
            |state| {
                if state.interrupted { Some(None) } else { state.responses.remove(&id).map(Some) }
            },
        )?
    }

    /// Waits until `done` returns true; `false` when an interrupt came first.
    pub(super) fn wait_until(&self, done: impl Fn() -> bool) -> bool {
        self.wait(None, |state| if state.interrupted { Some(false) } else { done().then_some(true) })
            .unwrap_or(false)
    }

    /// Takes the input that arrived since the last call.
    pub(super) fn take_steers(&self) -> Vec<Input> {
        let mut state = locked(&self.state);
        self.has_control.store(state.interrupted, Ordering::Release);
        std::mem::take(&mut state.steers)
    }

    /// Closes the turn, unless accepted input is still queued.
    pub(super) fn close(&self) -> Option<Control> {
        let mut state = locked(&self.state);
        let control = state.control();
        state.closed = control.is_none();
        control
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
        mut inspect: impl FnMut(&mut TurnState) -> Option<T>,
    ) -> Option<T> {
        let mut state = locked(&self.state);
        loop {
            if let Some(found) = inspect(&mut state) {
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
    fn control(&mut self) -> Option<Control> {
        if self.interrupted {
            Some(Control::Interrupt)
        } else {
            (!self.steers.is_empty()).then_some(Control::Steer)
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
    fn close_fails_while_accepted_input_is_queued() {
        let turn = Turn::new("turn".to_owned());
        assert!(turn.steer(input(), || {}));
        assert_eq!(turn.close(), Some(Control::Steer));
        assert_eq!(turn.take_steers().len(), 1);
        assert!(turn.steer(input(), || {}), "still open");
        assert_eq!(turn.take_steers().len(), 1);
        assert_eq!(turn.pending_control(), None);
        assert_eq!(turn.close(), None);
        assert!(!turn.steer(input(), || unreachable!("a closed turn accepts nothing")));
        assert!(!turn.interrupt(|| unreachable!("nor an interrupt")));
    }

    #[test]
    fn steer_and_interrupt_respond_before_the_turn_sees_them() {
        let turn = Turn::new("turn".to_owned());
        assert!(turn.steer(input(), || assert!(turn.state.try_lock().is_err())));
        assert!(turn.interrupt(|| assert!(turn.state.try_lock().is_err())));
        assert!(!turn.steer(input(), || unreachable!("the turn is about to end")));
        assert_eq!(turn.close(), Some(Control::Interrupt));
    }

    #[test]
    fn interrupt_ends_every_wait() {
        let turn = Turn::new("turn".to_owned());
        turn.deliver(3, Response::Result(Value::Null));
        assert!(turn.wait_for_response(3).is_some());
        assert_eq!(turn.pause(Duration::ZERO), None);
        assert!(turn.interrupt(|| {}));
        assert!(turn.wait_for_response(4).is_none());
        assert!(!turn.wait_until(|| false));
        assert_eq!(turn.pause(Duration::from_secs(600)), Some(Control::Interrupt));
        assert_eq!(turn.wait_for_control(), Some(Control::Interrupt));
    }
}
