//! The connection: reads requests, answers them and starts turns.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use super::objects;
use super::shared::Shared;
use super::signal::{Input, Signal};
use super::threads::{Thread, lock, now_ms, stored};
use super::turn::TurnRun;

impl Shared {
    /// Answers a request, or returns why it is refused.
    fn call(self: &Arc<Self>, id: &Value, method: &str, params: &Value) -> Result<(), String> {
        let answer = |result: Value| self.send(&json!({ "id": id, "result": result }));
        let thread_id = params["threadId"].as_str().unwrap_or_default();
        let thread = lock(&self.threads).get(thread_id).cloned();
        let known = || thread.as_ref().ok_or_else(|| format!("no rollout found for thread id {thread_id}"));
        match method {
            "initialize" => answer(objects::server(&params["clientInfo"], self.store.as_deref())),
            "thread/start" => {
                let thread = Thread::new(params, self.store.as_deref());
                let object = thread.object(None);
                answer(thread.start.clone());
                let id = object["id"].as_str().unwrap_or_default().to_owned();
                lock(&self.threads).insert(id, Arc::new(Mutex::new(thread)));
                self.notify("thread/started", &json!({ "thread": object }));
            }
            "thread/resume" => {
                let mut thread = lock(known()?);
                thread.apply(params);
                if !thread.is_loaded() {
                    thread.start["thread"]["status"] = json!({ "type": "idle" });
                }
                let object = thread.object((params["excludeTurns"] != true).then_some("full"));
                answer(objects::resumed(&thread.start, object));
            }
            "thread/read" => {
                let view = (params["includeTurns"] == true).then_some("full");
                answer(json!({ "thread": lock(known()?).object(view) }));
            }
            "thread/turns/list" => {
                let view = params["itemsView"].as_str().unwrap_or("summary");
                answer(page(lock(known()?).object(Some(view))["turns"].take(), params));
            }
            "thread/list" => {
                let threads: Vec<Value> =
                    lock(&self.threads).values().map(|thread| lock(thread).object(None)).collect();
                answer(
                    json!({ "data": threads, "readStates": {}, "nextCursor": null, "backwardsCursor": null }),
                );
            }
            "thread/loaded/list" => {
                let threads = lock(&self.threads);
                let loaded = threads.iter().filter(|(_, thread)| lock(thread).is_loaded());
                answer(json!({ "data": loaded.map(|(id, _)| id).collect::<Vec<_>>(), "nextCursor": null }));
            }
            "thread/unsubscribe" => answer(json!({ "status": "unsubscribed" })),
            "thread/backgroundTerminals/clean" => answer(json!({})),
            "config/read" => answer(objects::config(params["cwd"].as_str().unwrap_or_default())),
            "model/list" => answer(json!({ "data": [objects::model()], "nextCursor": null })),
            "account/read" => answer(objects::account()),
            "turn/start" | "turn/steer" | "turn/interrupt" => match thread {
                Some(thread) if lock(&thread).is_loaded() => return self.turn(id, method, params, &thread),
                _ => return Err(format!("thread not found: {thread_id}")),
            },
            other => return Err(format!("Invalid request: unknown variant `{other}`")),
        }
        Ok(())
    }

    /// Answers a request about a turn; the thread stays locked until then, so the turn does not end in between.
    fn turn(
        self: &Arc<Self>,
        id: &Value,
        method: &str,
        params: &Value,
        shared: &Arc<Mutex<Thread>>,
    ) -> Result<(), String> {
        let answer = |result: Value| self.send(&json!({ "id": id, "result": result }));
        let mut thread = lock(shared);
        let input =
            Input { content: params["input"].clone(), client_id: params["clientUserMessageId"].clone() };
        match (method, &thread.running) {
            ("turn/start", None) => {
                thread.apply(params);
                let (turn_id, (sender, signals)) = (Uuid::new_v4().to_string(), channel());
                thread.turns.push(objects::new_turn(&turn_id, Some(now_ms() / 1000)));
                thread.running = Some((turn_id.clone(), sender.clone()));
                answer(json!({ "turn": objects::new_turn(&turn_id, None) }));
                let ids = [params["threadId"].clone(), json!(turn_id)];
                let (this, shared) = (Arc::clone(self), Arc::clone(shared));
                std::thread::spawn(move || {
                    let (input, request, started, output_tokens) = (vec![input], None, Instant::now(), 0);
                    TurnRun {
                        shared: this,
                        thread: shared,
                        ids,
                        sender,
                        signals,
                        input,
                        request,
                        started,
                        output_tokens,
                    }
                    .run();
                });
            }
            // Codex steers the running turn then.
            ("turn/start", Some((turn_id, sender))) => {
                answer(json!({ "turn": objects::new_turn(turn_id, None) }));
                let _ = sender.send(Signal::Steer(input));
            }
            ("turn/steer", Some((turn_id, sender))) if params["expectedTurnId"] == **turn_id => {
                answer(json!({ "turnId": turn_id }));
                let _ = sender.send(Signal::Steer(input));
            }
            ("turn/interrupt", Some((turn_id, sender))) if params["turnId"] == **turn_id => {
                answer(json!({}));
                let _ = sender.send(Signal::Interrupt);
            }
            ("turn/steer", _) => return Err("no active turn to steer".to_owned()),
            _ => return Err("no active turn to interrupt".to_owned()),
        }
        Ok(())
    }
}

/// A page of turns, the newest first unless `sortDirection` is `asc`; a cursor is the number of turns before it.
fn page(mut turns: Value, params: &Value) -> Value {
    let mut turns = turns.as_array_mut().map(std::mem::take).unwrap_or_default();
    if params["sortDirection"] != "asc" {
        turns.reverse();
    }
    let start = params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0_usize);
    let limit = params["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(25);
    let next = (start.saturating_add(limit) < turns.len()).then(|| (start + limit).to_string());
    let data: Vec<Value> = turns.into_iter().skip(start).take(limit).collect();
    json!({ "data": data, "nextCursor": next, "backwardsCursor": null })
}

/// Serves one client until its input ends.
pub(super) fn serve(input: impl BufRead, out: Box<dyn Write + Send>, store: Option<PathBuf>) {
    let threads = Mutex::new(store.as_deref().map(stored).unwrap_or_default());
    let (out, open, next_id) = (Mutex::new(out), Mutex::default(), AtomicI64::new(0));
    let shared = Arc::new(Shared { out, store, threads, open, next_id });
    for line in input.lines().map_while(Result::ok) {
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { continue };
        let id = message["id"].take();
        if let Some(method) = message["method"].as_str().filter(|_| !id.is_null()) {
            if let Err(reason) = shared.call(&id, method, &message["params"]) {
                // The code that Codex has for all of these.
                shared.send(&json!({ "error": { "code": -32600, "message": reason }, "id": id }));
            }
        } else if let Some(signals) = id.as_i64().and_then(|id| lock(&shared.open).remove(&id)) {
            let _ = signals.send(Signal::Answer(message["result"].take()));
        }
    }
}
