//! Callers that create sessions and take turns, and write down what they were promised.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::random::Dice;
use super::readers::Scene;
use super::record::Promise;
use crate::api::{SESSIONS, TURN, try_post};

/// What was promised so far, to anybody.
#[derive(Debug, Clone, Default)]
pub(super) struct Promises(Arc<Mutex<Vec<Promise>>>);

impl Promises {
    pub(super) fn all(&self) -> Vec<Promise> {
        self.0.lock().unwrap().clone()
    }

    /// How many of them are turns.
    pub(super) fn turns(&self) -> u64 {
        let promises = self.0.lock().unwrap();
        promises.iter().filter(|promise| matches!(promise, Promise::Turn { .. })).count() as u64
    }

    /// What was promised since the last time.
    pub(super) fn take(&self) -> Vec<Promise> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn write_down(&self, promise: Promise) {
        self.0.lock().unwrap().push(promise);
    }
}

/// One caller.
pub(super) struct Worker {
    pub(super) dice: Dice,
    pub(super) promises: Promises,
    pub(super) scene: watch::Receiver<Scene>,
}

impl Worker {
    /// Works until the last scene.
    pub(super) fn start(self) -> JoinHandle<()> {
        tokio::spawn(self.work())
    }

    async fn work(mut self) {
        let mut threads: Vec<String> = Vec::new();
        loop {
            let scene = self.scene.wait_for(|scene| *scene != Scene::Away).await.unwrap().clone();
            let Scene::Up(base) = scene else { return };
            // A thread of an earlier life is resumed, as a client would that wants to go on.
            let resumed = threads.last().filter(|_| self.dice.happens(30));
            let wishes = resumed.map_or_else(|| json!({}), |thread_id| json!({ "threadId": thread_id }));
            let Some(session) = answer(try_post(&base, SESSIONS, &wishes).await, 201) else {
                threads.pop();
                tokio::time::sleep(self.dice.milliseconds(2, 20)).await;
                continue;
            };
            let id = |name: &str| session["session"][name].as_str().unwrap().to_owned();
            let (session_id, thread_id) = (id("sessionId"), id("threadId"));
            threads.push(thread_id.clone());
            self.promises.write_down(Promise::Session { session_id: session_id.clone(), thread_id });
            self.take_turns(&base, &session_id).await;
        }
    }

    /// Takes turns in a session until something goes wrong.
    async fn take_turns(&mut self, base: &str, session_id: &str) {
        while *self.scene.borrow() == Scene::Up(base.to_owned()) && !self.dice.happens(10) {
            let (deltas, delay, chars) = (self.dice.below(12), self.dice.below(4), 1 + self.dice.below(120));
            let prompt = format!("deltas={deltas} delay={delay} chars={chars}");
            let body = json!({ "sessionId": session_id, "input": prompt });
            match try_post(base, TURN, &body).await {
                // The turn before still runs.
                Some((409, _)) => tokio::time::sleep(Duration::from_millis(8)).await,
                other => {
                    let Some(turn) = answer(other, 202) else { return };
                    let turn_id = turn["turnId"].as_str().unwrap().to_owned();
                    self.promises.write_down(Promise::Turn { session_id: session_id.to_owned(), turn_id });
                }
            }
        }
    }
}

/// The data of an answer with this status; a daemon that dies or that cannot is none, a daemon that errs is a failure.
fn answer(answer: Option<(u16, Value)>, wanted: u16) -> Option<Value> {
    let (status, body) = answer?;
    assert_ne!(status, 500, "{body}");
    (status == wanted).then(|| body["data"].clone())
}
