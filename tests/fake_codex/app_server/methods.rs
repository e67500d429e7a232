//! The handlers of the requests about threads and turns.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::control::Input;
use super::items;
use super::params::{Refusal, check_settings, input, present, string, text_of, thread_id};
use super::script::Script;
use super::server::Server;
use super::threads::{Record, Settings, Thread, ThreadState};
use super::turn::TurnRunner;
use super::wire::locked;

const DEPRECATED_HISTORY: &str = "Full-history hydration is deprecated for paginated threads; use `excludeTurns: true`, then page with \
     `thread/turns/list` and `thread/items/list`.";

impl Server {
    /// `thread/start`: sends the response, then `thread/started` with the same thread.
    pub(super) fn thread_start(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        check_settings(params)?;
        let mut settings = Settings::new();
        settings.apply(params);
        let mut record = Record::new(settings);
        record.ephemeral = flag(params, "ephemeral");
        std::thread::sleep(self.shared.startup.thread_start_delay);
        let thread = self.shared.threads.add(record);
        self.respond_with_thread(id, &thread);
        Ok(())
    }

    /// `thread/fork`: copies a thread under a new ID; a running turn is interrupted in the copy.
    pub(super) fn thread_fork(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        let source_id = thread_id(params, "thread")?;
        check_settings(params)?;
        let mut record = match self.shared.threads.get(&source_id) {
            Some(thread) => locked(&thread.state).record.clone(),
            None => self.shared.threads.stored(&source_id)?,
        };
        record.interrupt_open_turns();
        let fresh = Record::new(record.settings.clone());
        record.id = fresh.id;
        record.created_at = fresh.created_at;
        record.updated_at = fresh.updated_at;
        record.forked_from = Some(source_id);
        record.ephemeral = flag(params, "ephemeral");
        record.settings.apply(params);
        let thread = self.shared.threads.add(record);
        self.save(&mut locked(&thread.state));
        self.respond_with_thread(id, &thread);
        Ok(())
    }

    /// `thread/resume`: loads the thread if needed, applies the settings, and responds with the history
    /// unless `excludeTurns` is set.
    pub(super) fn thread_resume(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        let thread_id = thread_id(params, "session")?;
        check_settings(params)?;
        let exclude_turns = flag(params, "excludeTurns");
        let wire = &self.shared.wire;
        let (thread, was_loaded) = match self.shared.threads.get(&thread_id) {
            Some(thread) => (thread, true),
            None => (self.shared.threads.load(&thread_id)?, false),
        };
        if !exclude_turns {
            wire.notify("deprecationNotice", json!({ "summary": DEPRECATED_HISTORY, "details": null }));
        }
        let mut state = locked(&thread.state);
        state.record.settings.apply(params);
        thread.subscribed.store(true, Ordering::Release);
        if !was_loaded {
            let params = json!({ "threadId": thread_id, "status": state.status() });
            wire.notify("thread/status/changed", params);
        }
        let object = self.thread_object(&state, if exclude_turns { None } else { Some("full") });
        let mut result = items::thread_response(&state.record, &object);
        let model = &state.record.settings.model;
        let multi_agent_mode = result["multiAgentMode"].take();
        if let Some(fields) = result.as_object_mut() {
            fields.shift_remove("multiAgentMode");
        }
        result["collaborationMode"] = json!({
            "mode": "default",
            "settings": { "model": model, "reasoning_effort": null, "developer_instructions": null },
        });
        result["multiAgentMode"] = multi_agent_mode;
        for field in ["initialTurnsPage", "turnsBackwardsCursor", "itemsBackwardsCursor"] {
            result[field] = Value::Null;
        }
        self.respond(id, &result);
        if let Some(turn) = state.record.turns.last()
            && !exclude_turns
        {
            let usage = items::token_usage(&state.record, 0);
            let params = json!({ "threadId": thread_id, "turnId": turn.id, "tokenUsage": usage });
            wire.notify("thread/tokenUsage/updated", params);
        }
        wire.notify("thread/goal/cleared", json!({ "threadId": thread_id }));
        Ok(())
    }

    /// `thread/read`: the current state of a thread, loaded or stored.
    pub(super) fn thread_read(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        let thread_id = thread_id(params, "thread")?;
        let view = flag(params, "includeTurns").then_some("full");
        let object = match self.shared.threads.get(&thread_id) {
            Some(thread) => self.thread_object(&locked(&thread.state), view),
            None => {
                let record = self.stored(&thread_id)?;
                let turns = turns_of(&record, view);
                let path = self.shared.threads.path_of(&record);
                items::thread(&record, &json!({ "type": "notLoaded" }), path.as_deref(), &turns)
            }
        };
        self.respond(id, &json!({ "thread": object }));
        Ok(())
    }

    /// `thread/turns/list`: pages of turns, the newest first unless `sortDirection` is `asc`.
    pub(super) fn turns_list(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        let thread_id = thread_id(params, "thread")?;
        let record = match self.shared.threads.get(&thread_id) {
            Some(thread) => locked(&thread.state).record.clone(),
            None => self.stored(&thread_id)?,
        };
        let view = present(params, "itemsView").and_then(Value::as_str).unwrap_or("summary");
        let mut turns = turns_of(&record, Some(view));
        if present(params, "sortDirection").and_then(Value::as_str) != Some("asc") {
            turns.reverse();
        }
        let cursor = present(params, "cursor").and_then(Value::as_str);
        let start: usize = match cursor.map(str::parse) {
            None => 0,
            Some(Ok(start)) => start,
            Some(Err(_)) => return Err(Refusal::invalid("invalid cursor")),
        };
        let limit = present(params, "limit").and_then(Value::as_u64).unwrap_or(25);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let page: Vec<&Value> = turns.iter().skip(start).take(limit).collect();
        let next = start.saturating_add(page.len());
        let next_cursor = (next < turns.len()).then(|| next.to_string());
        let result = json!({ "data": page, "nextCursor": next_cursor, "backwardsCursor": null });
        self.respond(id, &result);
        Ok(())
    }

    /// `thread/unsubscribe`: its turns continue without notifications; the thread stays loaded.
    pub(super) fn thread_unsubscribe(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        let thread_id = thread_id(params, "thread")?;
        let status = match self.shared.threads.get(&thread_id) {
            None => "notLoaded",
            Some(thread) if thread.subscribed.swap(false, Ordering::AcqRel) => "unsubscribed",
            Some(_) => "notSubscribed",
        };
        self.respond(id, &json!({ "status": status }));
        Ok(())
    }

    /// `thread/backgroundTerminals/clean`: ends the processes that turns of the thread started.
    pub(super) fn clean_terminals(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        if !self.experimental {
            let message = "thread/backgroundTerminals/clean requires experimentalApi capability";
            return Err(Refusal::invalid(message));
        }
        let thread = self.loaded(params)?;
        self.shared.processes.kill(Some(&thread.id));
        self.respond(id, &json!({}));
        Ok(())
    }

    /// `turn/start`: starts a turn, or steers the running one.
    pub(super) fn turn_start(&mut self, id: &Value, params: &Value) -> Result<(), Refusal> {
        if present(params, "collaborationMode").is_some() && !self.experimental {
            let message = "turn/start.collaborationMode requires experimentalApi capability";
            return Err(Refusal::invalid(message));
        }
        thread_id(params, "thread")?;
        check_settings(params)?;
        let input = self.user_input(params)?;
        let thread = self.loaded(params)?;
        let refusals = &self.shared.overload;
        if refusals.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
            return Err(Refusal::overloaded());
        }
        let script = Script::parse(&text_of(&input.content));
        refusals.fetch_add(script.overload, Ordering::AcqRel);
        self.stop_reading |= script.stop_reading;
        let runner = loop {
            let mut state = locked(&thread.state);
            let Some(turn) = state.active.clone() else {
                state.record.settings.apply(params);
                thread.subscribed.store(true, Ordering::Release);
                break TurnRunner::begin(&self.shared, &thread, &mut state);
            };
            drop(state);
            let result = json!({ "turn": items::open_turn(&turn.id, None) });
            if turn.steer(input.clone(), || self.respond(id, &result)) {
                return Ok(());
            }
            // The turn accepts no more input. Its last messages are sent before the new turn begins.
            turn.wait_for_finish();
        };
        let warning = "The fake app-server runs the script in the prompt; no model is called.";
        runner.notify("warning", json!({ "threadId": thread.id, "message": warning }));
        let result = json!({ "turn": items::open_turn(&runner.turn.id, None) });
        let plan = script.response;
        if plan.unknown_id {
            self.respond(&json!("an unused id"), &result);
        }
        match plan.delay {
            _ if plan.never => {}
            Some(delay) => self.respond_after(delay, id, &result),
            None => self.respond(id, &result),
        }
        if plan.twice {
            self.respond(id, &result);
        }
        std::thread::spawn(move || runner.run(input));
        Ok(())
    }

    /// `turn/steer`: adds input to the running turn, whose ID is required.
    pub(super) fn turn_steer(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        thread_id(params, "thread")?;
        let expected = string(params, "expectedTurnId")?;
        let input = self.user_input(params)?;
        let thread = self.loaded(params)?;
        let none = || Refusal::invalid("no active turn to steer");
        let turn = locked(&thread.state).active.clone().ok_or_else(none)?;
        if turn.id != expected {
            let message = format!("expected active turn id `{expected}` but found `{}`", turn.id);
            return Err(Refusal::invalid(message));
        }
        let steered = turn.steer(input, || self.respond(id, &json!({ "turnId": turn.id })));
        if steered { Ok(()) } else { Err(none()) }
    }

    /// `turn/interrupt`: ends the running turn, whose ID is required.
    pub(super) fn turn_interrupt(&self, id: &Value, params: &Value) -> Result<(), Refusal> {
        thread_id(params, "thread")?;
        let expected = string(params, "turnId")?;
        let thread = self.loaded(params)?;
        let none = || Refusal::invalid("no active turn to interrupt");
        let turn = locked(&thread.state).active.clone().ok_or_else(none)?;
        if turn.id != expected {
            let message = format!("expected active turn id {expected} but found {}", turn.id);
            return Err(Refusal::invalid(message));
        }
        if turn.interrupt(|| self.respond(id, &json!({}))) { Ok(()) } else { Err(none()) }
    }

    fn respond_with_thread(&self, id: &Value, thread: &Thread) {
        let (object, result) = {
            let state = locked(&thread.state);
            let object = self.thread_object(&state, Some("full"));
            let result = items::thread_response(&state.record, &object);
            (object, result)
        };
        self.respond(id, &result);
        self.shared.wire.notify("thread/started", json!({ "thread": object }));
    }

    fn thread_object(&self, state: &ThreadState, view: Option<&str>) -> Value {
        let path = self.shared.threads.path_of(&state.record);
        items::thread(&state.record, &state.status(), path.as_deref(), &turns_of(&state.record, view))
    }

    fn loaded(&self, params: &Value) -> Result<Arc<Thread>, Refusal> {
        let id = thread_id(params, "thread")?;
        let missing = || Refusal::invalid(format!("thread not found: {id}"));
        self.shared.threads.get(&id).ok_or_else(missing)
    }

    fn stored(&self, id: &str) -> Result<Record, Refusal> {
        let missing = |_| Refusal::invalid(format!("thread not loaded: {id}"));
        self.shared.threads.stored(id).map_err(missing)
    }

    fn user_input(&self, params: &Value) -> Result<Input, Refusal> {
        let client_id = present(params, "clientUserMessageId").cloned().unwrap_or_default();
        // Codex stores the ID since 0.140.0.
        let version = self.shared.startup.version.as_deref();
        let stores_id = version.is_none_or(|version| !version.starts_with("0.13"));
        Ok(Input { content: input(params)?, client_id: if stores_id { client_id } else { Value::Null } })
    }

    fn save(&self, state: &mut ThreadState) {
        let id = state.record.id.clone();
        if let Err(error) = self.shared.threads.save(state) {
            self.shared.log(&format!("thread {id} is not stored: {error}"));
        }
    }
}

fn flag(params: &Value, field: &str) -> bool {
    params.get(field) == Some(&Value::Bool(true))
}

fn turns_of(record: &Record, view: Option<&str>) -> Vec<Value> {
    let Some(view) = view else { return Vec::new() };
    record.turns.iter().map(|turn| items::recorded_turn(turn, view)).collect()
}
