//! The JSON objects inside the messages: threads, turns and items, with the fields and the key order of Codex.

use serde_json::{Value, json};
use uuid::Uuid;

use super::threads::{Record, TurnRecord};

/// A new ID of a thread, a turn or a user's item.
pub(super) fn new_id() -> String {
    Uuid::new_v4().to_string()
}

/// The `thread` object.
pub(super) fn thread(record: &Record, status: &Value, path: Option<&str>, turns: &[Value]) -> Value {
    let cwd = &record.settings.cwd;
    json!({
        "id": record.id,
        "environments": [{ "environmentId": "local", "cwd": cwd, "runtimeWorkspaceRoots": [cwd] }],
        "extra": null,
        "sessionId": record.id,
        "forkedFromId": record.forked_from,
        "attachedToThreadId": null,
        "parentThreadId": null,
        "preview": record.preview,
        "ephemeral": record.ephemeral,
        "section": null,
        "sectionEnteredAt": null,
        "projectId": null,
        "historyMode": "paginated",
        "modelProvider": record.settings.model_provider,
        "model": record.settings.model,
        "reasoningEffort": record.settings.reasoning_effort,
        "createdAt": record.created_at,
        "updatedAt": record.updated_at,
        "recencyAt": record.updated_at,
        "status": status,
        "path": path,
        "cwd": cwd,
        "cliVersion": env!("CARGO_PKG_VERSION"),
        "originator": "codexd",
        "source": record.source,
        "canAcceptDirectInput": true,
        "threadSource": null,
        "agentNickname": null,
        "agentRole": null,
        "gitInfo": null,
        "name": null,
        "daybreakEnabled": null,
        "turns": turns,
    })
}

/// The response to `thread/start`; those to `thread/resume` and `thread/fork` have a few more fields.
pub(super) fn thread_response(record: &Record, thread: &Value) -> Value {
    let settings = &record.settings;
    json!({
        "thread": thread,
        "model": settings.model,
        "modelProvider": settings.model_provider,
        "serviceTier": settings.service_tier,
        "disabledPluginIds": [],
        "cwd": settings.cwd,
        "runtimeWorkspaceRoots": [settings.cwd],
        "instructionSources": [],
        "approvalPolicy": settings.approval_policy,
        "approvalsReviewer": "user",
        "sandbox": settings.sandbox,
        "activePermissionProfile": null,
        "reasoningEffort": settings.reasoning_effort,
        "multiAgentMode": "explicitRequestOnly",
    })
}

/// The `turn` object that has no items yet; `started_at` is null in responses.
pub(super) fn open_turn(id: &str, started_at: Option<u64>) -> Value {
    turn(id, &[], "notLoaded", "inProgress", &Value::Null, (started_at, None, None))
}

/// A recorded turn with the items that `view` (`full`, `summary`, `notLoaded`) includes.
pub(super) fn recorded_turn(record: &TurnRecord, view: &str) -> Value {
    let is = |item: &Value, kind: &str| item.get("type").and_then(Value::as_str) == Some(kind);
    let items: Vec<Value> = match view {
        "full" => record.items.clone(),
        "summary" => {
            let first = record.items.iter().find(|item| is(item, "userMessage"));
            let last = record.items.iter().rev().find(|item| is(item, "agentMessage"));
            first.into_iter().chain(last).cloned().collect()
        }
        _ => Vec::new(),
    };
    let times = (Some(record.started_at), record.completed_at, record.duration_ms);
    turn(&record.id, &items, view, &record.status, &record.error, times)
}

/// The `turn` object of `turn/completed`, which shows the final message only.
pub(super) fn completed_turn(record: &TurnRecord, final_message: Option<&Value>) -> Value {
    let items: Vec<Value> = final_message.cloned().into_iter().collect();
    let view = if items.is_empty() { "notLoaded" } else { "summary" };
    let times = (Some(record.started_at), record.completed_at, record.duration_ms);
    turn(&record.id, &items, view, &record.status, &record.error, times)
}

type Times = (Option<u64>, Option<u64>, Option<u64>);

fn turn(id: &str, items: &[Value], view: &str, status: &str, error: &Value, times: Times) -> Value {
    let (started_at, completed_at, duration_ms) = times;
    json!({
        "id": id,
        "rootTurnId": id,
        "items": items,
        "itemsView": view,
        "status": status,
        "error": error,
        "startedAt": started_at,
        "completedAt": completed_at,
        "durationMs": duration_ms,
    })
}

/// The user's message as an item that has just started.
pub(super) fn user_message(client_id: &Value, content: &[Value]) -> Value {
    json!({ "type": "userMessage", "id": new_id(), "clientId": client_id, "content": content })
}

/// The model's message.
pub(super) fn agent_message(id: &str, text: &str) -> Value {
    json!({
        "type": "agentMessage",
        "moderation": null,
        "id": id,
        "text": text,
        "phase": null,
        "memoryCitation": null,
        "delivery": null,
        "questions": null,
    })
}

/// A summary of the reasoning of the model.
pub(super) fn reasoning(id: &str, summary: &[&str]) -> Value {
    json!({ "type": "reasoning", "id": id, "summary": summary, "content": [] })
}

/// A shell command that has not run; see [`command_ended`].
pub(super) fn command(id: &str, command: &str, cwd: &str, process_id: Option<String>) -> Value {
    json!({
        "type": "commandExecution",
        "id": id,
        "pluginId": null,
        "scriptPath": null,
        "command": shell_line(command),
        "cwd": cwd,
        "processId": process_id,
        "source": if process_id.is_some() { "unifiedExecStartup" } else { "agent" },
        "status": "inProgress",
        "commandActions": [{ "type": "unknown", "command": command }],
        "aggregatedOutput": null,
        "exitCode": null,
        "durationMs": null,
    })
}

/// Marks a command as completed: `output` and `exit_code` stay null for a command that never ran.
pub(super) fn command_ended(item: &mut Value, status: &str, output: Option<&str>, exit_code: Option<i32>) {
    item["status"] = json!(status);
    item["aggregatedOutput"] = json!(output);
    item["exitCode"] = json!(exit_code);
    item["durationMs"] = json!(exit_code.map(|_| 0));
}

/// The command line that Codex makes from a command before it runs it.
pub(super) fn shell_line(command: &str) -> String {
    format!("/bin/bash -lc '{command}'")
}

/// A patch that adds one file.
pub(super) fn file_change(id: &str, path: &str) -> Value {
    json!({
        "type": "fileChange",
        "id": id,
        "changes": [{ "path": path, "kind": { "type": "add" }, "diff": "hello\n" }],
        "status": "inProgress",
    })
}

/// The token counts of a thread and of its last turn.
pub(super) fn token_usage(record: &Record, last_output: u64) -> Value {
    let usage = |input: u64, output: u64| {
        json!({
            "totalTokens": input + output,
            "inputTokens": input,
            "cachedInputTokens": 0,
            "cacheWriteInputTokens": 0,
            "outputTokens": output,
            "reasoningOutputTokens": 0,
        })
    };
    json!({
        "total": usage(record.input_tokens, record.output_tokens),
        "last": usage(Record::INPUT_TOKENS_PER_TURN, last_output),
        "modelContextWindow": 258_400,
    })
}

/// The rate limits of an account that has none.
pub(super) fn rate_limits() -> Value {
    json!({
        "limitId": "codex",
        "limitName": null,
        "normalModelSlug": null,
        "primary": null,
        "secondary": null,
        "credits": null,
        "individualLimit": null,
        "spendControlReached": null,
        "planType": null,
        "rateLimitReachedType": null,
    })
}

/// One entry of `model/list`.
pub(super) fn model(name: &str, is_default: bool) -> Value {
    json!({
        "id": name,
        "model": name,
        "upgrade": null,
        "upgradeInfo": null,
        "availabilityNux": null,
        "displayName": name,
        "description": "Runs the script that the prompt contains.",
        "modelSpecialty": null,
        "hidden": false,
        "supportedReasoningEfforts": [
            { "reasoningEffort": "low", "description": "The same script" },
            { "reasoningEffort": "high", "description": "The same script" },
        ],
        "defaultReasoningEffort": "low",
        "inputModalities": ["text", "image"],
        "supportsPersonality": false,
        "additionalSpeedTiers": [],
        "isDefault": is_default,
    })
}
