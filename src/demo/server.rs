//! The connection: reads requests, responds to them and starts turns.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uuid::Uuid;

use super::objects;
use super::shared::Shared;
use super::threads::{SharedThread, Signal, Thread, lock, now_ms, stored};
use super::turn::TurnRun;

/// An error is the message of the error response.
type Outcome = Result<(), String>;

const NO_ROLLOUT: &str = "no rollout found for thread id";

impl Shared {
    /// Handles a request.
    fn call(self: &Arc<Self>, id: &Value, method: &str, params: &Value) -> Outcome {
        let respond = |result: Value| self.send(&json!({ "id": id, "result": result }));
        let thread_id = params["threadId"].as_str().unwrap_or_default();
        let thread = lock(&self.threads).get(thread_id).cloned();
        let found = |error: &str| thread.as_ref().ok_or_else(|| format!("{error} {thread_id}"));
        match method {
            "initialize" => respond(objects::server(&params["clientInfo"], self.store.as_deref())),
            "thread/start" => {
                let thread = Thread::new(params, self.store.as_deref());
                let object = thread.object(None);
                respond(thread.start.clone());
                let id = object["id"].as_str().unwrap_or_default().to_owned();
                lock(&self.threads).insert(id, Arc::new(Mutex::new(thread)));
                self.notify("thread/started", &json!({ "thread": object }));
            }
            "thread/resume" => {
                let mut thread = lock(found(NO_ROLLOUT)?);
                thread.apply(params);
                let object = thread.object((params["excludeTurns"] != true).then_some("full"));
                respond(objects::resumed(&thread.start, object));
            }
            "thread/read" => {
                let view = (params["includeTurns"] == true).then_some("full");
                respond(json!({ "thread": lock(found(NO_ROLLOUT)?).object(view) }));
            }
            "thread/turns/list" => {
                let view = params["itemsView"].as_str().unwrap_or("summary");
                respond(page(lock(found(NO_ROLLOUT)?).object(Some(view))["turns"].take(), params));
            }
            "thread/loaded/list" => {
                let ids: Vec<String> = lock(&self.threads).keys().cloned().collect();
                respond(json!({ "data": ids, "nextCursor": null }));
            }
            "thread/list" => respond(page(self.listed(params), params)),
            "thread/name/set" => {
                let mut thread = lock(found(NO_ROLLOUT)?);
                thread.start["thread"]["name"] = params["name"].clone();
                thread.save();
                respond(json!({}));
                let renamed = json!({ "threadId": thread_id, "threadName": params["name"] });
                self.notify("thread/name/updated", &renamed);
            }
            "thread/goal/get" => respond(json!({ "goal": lock(found(NO_ROLLOUT)?).goal })),
            "thread/goal/set" => {
                let mut thread = lock(found(NO_ROLLOUT)?);
                thread.goal = objects::goal(params, now_ms() / 1000);
                thread.save();
                respond(json!({ "goal": thread.goal }));
            }
            "thread/goal/clear" => {
                let mut thread = lock(found(NO_ROLLOUT)?);
                let cleared = !thread.goal.take().is_null();
                thread.save();
                respond(json!({ "cleared": cleared }));
            }
            "thread/unsubscribe" => respond(json!({ "status": "unsubscribed" })),
            "thread/backgroundTerminals/clean" => respond(json!({})),
            "config/read" => respond(objects::config(params["cwd"].as_str().unwrap_or_default())),
            "model/list" => respond(json!({ "data": [objects::model()], "nextCursor": null })),
            "account/read" => respond(objects::account()),
            "turn/start" | "turn/steer" | "turn/interrupt" => {
                return self.turn(id, method, params, found("thread not found:")?);
            }
            // The words in the middle are Codex's own, by which clients know that it has no such method.
            other => {
                return Err(format!(
                    "The demo does not have it: unknown variant `{other}`, expected one of `initialize`"
                ));
            }
        }
        Ok(())
    }

    /// The stored threads that a request selects, the last used ones last; none is ever archived.
    fn listed(&self, params: &Value) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let search = text(&params["searchTerm"]);
        let is_wanted = |thread: &Value| {
            let is_found =
                [&thread["name"], &thread["preview"]].iter().any(|title| text(title).contains(&search));
            let is_here = params["cwd"].is_null() || params["cwd"] == thread["cwd"];
            is_found
                && is_here
                && params["archived"] != true
                && thread["preview"] != ""
                && thread["path"].is_string()
        };
        let threads: Vec<SharedThread> = lock(&self.threads).values().cloned().collect();
        let mut objects: Vec<Value> = threads.iter().map(|thread| lock(thread).object(None)).collect();
        objects.retain(is_wanted);
        objects.sort_by_key(|thread| thread["updatedAt"].as_u64());
        json!(objects)
    }

    /// Handles a request about a turn. The thread stays locked until the response, so that the turn ends after it.
    fn turn(self: &Arc<Self>, id: &Value, method: &str, params: &Value, thread: &SharedThread) -> Outcome {
        let respond = |result: Value| self.send(&json!({ "id": id, "result": result }));
        let no_turn = || Err(format!("no active turn to {}", method.trim_start_matches("turn/")));
        let mut state = lock(thread);
        let item = objects::user_message(&params["clientUserMessageId"], &params["input"]);
        let Some((turn_id, signals)) = &state.running else {
            if method != "turn/start" {
                return no_turn();
            }
            state.apply(params);
            let turn_id = Uuid::new_v4().to_string();
            let run = TurnRun::new(self, thread, [params["threadId"].clone(), json!(turn_id)], item);
            state.turns.push(objects::new_turn(&turn_id, Some(now_ms() / 1000)));
            respond(json!({ "turn": objects::new_turn(&turn_id, None) }));
            state.running = Some((turn_id, run.sender.clone()));
            std::thread::spawn(move || run.run());
            return Ok(());
        };
        let steer = Signal::Steer(item);
        let (result, signal) = match method {
            // Like Codex, it steers the running turn.
            "turn/start" => (json!({ "turn": objects::new_turn(turn_id, None) }), steer),
            "turn/steer" if params["expectedTurnId"] == **turn_id => (json!({ "turnId": turn_id }), steer),
            "turn/interrupt" if params["turnId"] == **turn_id => (json!({}), Signal::Interrupt),
            _ => return no_turn(),
        };
        respond(result);
        let _ = signals.send(signal);
        Ok(())
    }
}

/// A page of a list, the newest first unless `sortDirection` is `asc`; a cursor is how many entries precede the page.
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
    let (out, requests) = (Mutex::new(out), Mutex::default());
    let shared = Arc::new(Shared { out, store, threads, requests });
    for line in input.lines().map_while(Result::ok) {
        let Ok(mut message) = serde_json::from_str::<Value>(&line) else { continue };
        let id = message["id"].take();
        if let Some(method) = message["method"].as_str().filter(|_| !id.is_null()) {
            if let Err(reason) = shared.call(&id, method, &message["params"]) {
                // Codex uses this code for all of these errors.
                shared.send(&json!({ "error": { "code": -32600, "message": reason }, "id": id }));
            }
        } else if let Some(index) = id.as_u64().and_then(|id| usize::try_from(id).ok())
            && let Some(signals) = lock(&shared.requests).get(index)
        {
            let _ = signals.send(Signal::Response(message["result"].take()));
        }
    }
}
