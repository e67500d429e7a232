//! The events of a turn as JSON lines, in the form of `codex exec --json`.
//!
//! Names are in snake case, as there; fields that Codex adds to an item pass through. What `codex exec` does not have is
//! `session_id`, `turn_id` and `request.opened`.

use serde_json::{Map, Value, json};

use crate::codex::protocol::items;
use crate::codex::protocol::notifications::{ITEM_COMPLETED, ITEM_STARTED, TOKEN_USAGE_UPDATED};
use crate::commands::ask::outcome::TurnOutcome;

/// The lines of one turn.
#[derive(Debug, Default)]
pub(super) struct JsonLines {
    /// The tokens of the thread before the turn, and now.
    usage: Option<(Value, Value)>,
    has_plan: bool,
}

/// The first line.
pub(super) fn thread_started(session: &Value) -> Value {
    json!({ "type": "thread.started", "thread_id": session["threadId"], "session_id": session["sessionId"] })
}

/// The line of a turn that has begun.
pub(super) fn turn_started(turn_id: &str) -> Value {
    json!({ "type": "turn.started", "turn_id": turn_id })
}

impl JsonLines {
    /// The line for an event of the turn; `None` if it has none.
    pub(super) fn line(&mut self, event: &Value) -> Option<Value> {
        let detail = &event["detail"];
        match event["type"].as_str()? {
            "app-server.notification" => {
                let params = &detail["params"];
                let kind = match detail["notificationMethod"].as_str()? {
                    ITEM_STARTED => "item.started",
                    ITEM_COMPLETED => "item.completed",
                    TOKEN_USAGE_UPDATED => {
                        self.set_usage(&params["tokenUsage"]);
                        return None;
                    }
                    _ => return None,
                };
                let item = &params["item"];
                // Codex announces only what takes time.
                let is_announced = !item["status"].is_null() || kind == "item.completed";
                let is_shown = is_announced && !items::is_user_message(item);
                is_shown.then(|| json!({ "type": kind, "item": snake_case_item(item) }))
            }
            "app-server.turn.plan.updated" => {
                let kind =
                    if std::mem::replace(&mut self.has_plan, true) { "item.updated" } else { "item.started" };
                let steps = detail["plan"].as_array().into_iter().flatten();
                let steps = steps
                    .map(|step| json!({ "text": step["step"], "completed": step["status"] == "completed" }));
                let item = json!({ "id": "plan", "type": "todo_list", "items": steps.collect::<Vec<_>>() });
                Some(json!({ "type": kind, "item": item }))
            }
            "app-server.turn.error" => {
                Some(json!({ "type": "error", "message": detail["error"]["message"] }))
            }
            "request.opened" => Some(json!({ "type": "request.opened", "request": detail["request"] })),
            _ => None,
        }
    }

    fn set_usage(&mut self, usage: &Value) {
        let before = match self.usage.take() {
            Some((before, _)) => before,
            None => difference(&usage["total"], &usage["last"]),
        };
        self.usage = Some((before, usage["total"].clone()));
    }

    /// The last line.
    pub(super) fn end(&self, outcome: &TurnOutcome) -> Value {
        let usage = self.usage.as_ref().map(|(before, total)| snake_case(&difference(total, before)));
        match outcome {
            TurnOutcome::Completed => json!({ "type": "turn.completed", "usage": usage }),
            TurnOutcome::Failed(reason) => json!({ "type": "turn.failed", "error": { "message": reason } }),
            TurnOutcome::Interrupted => json!({ "type": "turn.interrupted", "usage": usage }),
            TurnOutcome::Withdrawn => json!({ "type": "turn.withdrawn" }),
        }
    }
}

/// The fields of `total` less those of `part`.
fn difference(total: &Value, part: &Value) -> Value {
    let fields = total.as_object().into_iter().flatten();
    let less = fields.map(|(name, value)| {
        let [total, part] = [value, &part[name]].map(|value| value.as_u64().unwrap_or(0));
        (name.clone(), total.saturating_sub(part).into())
    });
    Value::Object(less.collect())
}

fn snake_case_item(item: &Value) -> Value {
    let mut shown = snake_case(item);
    for name in ["type", "status"] {
        if let Some(text) = shown[name].as_str().map(snake_case_word) {
            shown[name] = text.into();
        }
    }
    match item["type"].as_str() {
        Some(items::COMMAND_EXECUTION) if shown["aggregated_output"].is_null() => {
            shown["aggregated_output"] = "".into();
        }
        Some(items::FILE_CHANGE) => {
            let changes = item["changes"].as_array().into_iter().flatten();
            let change = |change: &Value| {
                let kind = if change["kind"].is_string() { &change["kind"] } else { &change["kind"]["type"] };
                json!({ "path": change["path"], "kind": kind })
            };
            shown["changes"] = changes.map(change).collect();
        }
        Some(items::REASONING) => {
            let parts = item["summary"].as_array().into_iter().flatten().filter_map(Value::as_str);
            shown = json!({ "id": item["id"], "type": "reasoning", "text": parts.collect::<Vec<_>>().join("\n\n") });
        }
        _ => {}
    }
    shown
}

/// The object with its names in snake case.
fn snake_case(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    Value::Object(fields.map(|(name, value)| (snake_case_word(name), value.clone())).collect::<Map<_, _>>())
}

fn snake_case_word(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(method: &str, params: Value) -> Value {
        json!({ "type": "app-server.notification", "detail": { "notificationMethod": method, "params": params } })
    }

    #[test]
    fn lines_have_the_form_of_codex_exec() {
        let mut lines = JsonLines::default();
        let command = json!({ "type": "commandExecution", "id": "c", "command": "ls", "aggregatedOutput": null,
                              "exitCode": null, "status": "inProgress" });
        assert_eq!(
            lines.line(&notification("item/started", json!({ "item": command }))),
            Some(
                json!({ "type": "item.started", "item": { "type": "command_execution", "id": "c", "command": "ls",
                         "aggregated_output": "", "exit_code": null, "status": "in_progress" } })
            )
        );
        let patch = json!({ "type": "fileChange", "id": "f", "status": "completed",
                            "changes": [{ "path": "a", "kind": { "type": "add" }, "diff": "x" }] });
        assert_eq!(
            lines.line(&notification("item/completed", json!({ "item": patch }))).unwrap()["item"],
            json!({ "type": "file_change", "id": "f", "status": "completed",
                    "changes": [{ "path": "a", "kind": "add" }] })
        );
        let message = json!({ "type": "agentMessage", "id": "m", "text": "hi" });
        assert_eq!(lines.line(&notification("item/started", json!({ "item": message }))), None);
        let shown = lines.line(&notification("item/completed", json!({ "item": message }))).unwrap();
        assert_eq!(shown["item"], json!({ "type": "agent_message", "id": "m", "text": "hi" }));
        let user = json!({ "type": "userMessage", "id": "u" });
        assert_eq!(lines.line(&notification("item/completed", json!({ "item": user }))), None);
        for (total, last) in [(30, 10), (45, 15)] {
            let usage = json!({ "total": { "inputTokens": total }, "last": { "inputTokens": last } });
            assert_eq!(
                lines.line(&notification("thread/tokenUsage/updated", json!({ "tokenUsage": usage }))),
                None
            );
        }
        assert_eq!(
            lines.end(&TurnOutcome::Completed),
            json!({ "type": "turn.completed", "usage": { "input_tokens": 25 } })
        );
        let failed = lines.end(&TurnOutcome::Failed(Some("no".to_owned())));
        assert_eq!(failed, json!({ "type": "turn.failed", "error": { "message": "no" } }));
    }
}
