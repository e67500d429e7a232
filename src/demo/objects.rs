//! The JSON objects of the protocol, with the fields of 0.171.0 in their order.

use std::env::consts::{ARCH, FAMILY, OS};
use std::path::Path;

use serde_json::{Value, json};
use uuid::Uuid;

/// The version of Codex whose objects these are.
const VERSION: &str = "0.171.0";

/// The result of `initialize`.
pub(super) fn server(client: &Value, store: Option<&Path>) -> Value {
    let [name, version] = ["name", "version"].map(|field| client[field].as_str().unwrap_or_default());
    json!({
        "userAgent": format!("{name}/{VERSION} ({OS}; {ARCH}) codexd-demo ({name}; {version})"),
        "codexHome": store.unwrap_or(Path::new("/nonexistent")), "platformFamily": FAMILY, "platformOs": OS,
    })
}

/// The result of `thread/start` for a new thread with default settings; `thread` in it is the `Thread` object.
pub(super) fn new_thread(id: &str, now: u64, cwd: &Path, ephemeral: bool, path: Option<&Path>) -> Value {
    let thread = json!({
        "id": id, "environments": [{ "environmentId": "local", "cwd": cwd, "runtimeWorkspaceRoots": [cwd] }],
        "extra": null, "sessionId": id, "forkedFromId": null, "attachedToThreadId": null, "parentThreadId": null,
        "preview": "", "ephemeral": ephemeral, "section": null, "sectionEnteredAt": null, "projectId": null,
        "historyMode": "paginated", "modelProvider": "demo", "model": "demo", "reasoningEffort": null,
        "createdAt": now, "updatedAt": now, "recencyAt": now, "status": { "type": "idle" }, "path": path, "cwd": cwd,
        "cliVersion": VERSION, "originator": "codexd", "source": "vscode", "canAcceptDirectInput": true,
        "threadSource": null, "agentNickname": null, "agentRole": null, "gitInfo": null, "name": null,
        "daybreakEnabled": null, "turns": [],
    });
    json!({ "thread": thread, "model": "demo", "modelProvider": "demo", "serviceTier": null, "disabledPluginIds": [],
            "cwd": cwd, "runtimeWorkspaceRoots": [cwd], "instructionSources": [], "approvalPolicy": "on-request",
            "approvalsReviewer": "user", "sandbox": sandbox("read-only"), "activePermissionProfile": null,
            "reasoningEffort": null, "multiAgentMode": "explicitRequestOnly" })
}

/// The result of `thread/resume`, from that of `thread/start` and the `Thread` object.
pub(super) fn resumed(start: &Value, thread: Value) -> Value {
    let mut result = start.clone();
    result["thread"] = thread;
    result["collaborationMode"] = json!({ "mode": "default", "settings": {
        "model": start["model"], "reasoning_effort": null, "developer_instructions": null } });
    for field in ["initialTurnsPage", "turnsBackwardsCursor", "itemsBackwardsCursor"] {
        result[field] = Value::Null;
    }
    result
}

/// The sandbox policy for a mode of `thread/start`, or for the type of a policy of `turn/start`.
pub(super) fn sandbox(mode: &str) -> Value {
    match mode {
        "read-only" | "readOnly" => json!({ "type": "readOnly", "networkAccess": false }),
        "workspace-write" | "workspaceWrite" => json!({ "type": "workspaceWrite", "writableRoots": [],
            "networkAccess": false, "excludeTmpdirEnvVar": false, "excludeSlashTmp": false }),
        _ => json!({ "type": "dangerFullAccess" }),
    }
}

/// A `Turn` that has just started.
pub(super) fn new_turn(id: &str, started_at: Option<u64>) -> Value {
    json!({ "id": id, "rootTurnId": id, "items": [], "itemsView": "notLoaded", "status": "inProgress", "error": null,
            "startedAt": started_at, "completedAt": null, "durationMs": null })
}

/// A stored `Turn` with the items that `view` (`full`, `summary`, `notLoaded`) selects.
pub(super) fn turn_view(turn: &Value, view: &str) -> Value {
    let all = turn["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let input = all.iter().find(|item| item["type"] == "userMessage");
    let output = all.iter().rfind(|item| item["type"] == "agentMessage");
    let items: Vec<&Value> = match view {
        "full" => all.iter().collect(),
        "summary" => input.into_iter().chain(output).collect(),
        _ => Vec::new(),
    };
    let mut shown = turn.clone();
    shown["items"] = json!(items);
    shown["itemsView"] = json!(view);
    shown
}

fn item_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

/// The message of the user.
pub(super) fn user_message(client_id: &Value, content: &Value) -> Value {
    json!({ "type": "userMessage", "id": Uuid::new_v4().to_string(), "clientId": client_id, "content": content })
}

/// The agent's message, still empty.
pub(super) fn message() -> Value {
    json!({ "type": "agentMessage", "moderation": null, "id": item_id("msg"), "text": "", "phase": null,
            "memoryCitation": null, "delivery": null, "questions": null })
}

pub(super) fn reasoning() -> Value {
    json!({ "type": "reasoning", "id": item_id("rs"), "summary": [], "content": [] })
}

/// A command that has not run.
pub(super) fn command(command: &str, cwd: &Value) -> Value {
    json!({ "type": "commandExecution", "id": item_id("call"), "pluginId": null, "scriptPath": null,
            "command": format!("/bin/bash -lc '{command}'"), "cwd": cwd, "processId": null, "source": "agent",
            "status": "inProgress", "commandActions": [{ "type": "unknown", "command": command }],
            "aggregatedOutput": null, "exitCode": null, "durationMs": null })
}

/// A patch that adds a file with this text.
pub(super) fn file_change(path: &str, text: &str) -> Value {
    let changes = json!([{ "path": path, "kind": { "type": "add" }, "diff": text }]);
    json!({ "type": "fileChange", "id": item_id("call"), "changes": changes, "status": "inProgress" })
}

/// The input and output tokens of a thread and of its last turn.
pub(super) fn token_usage(total: [u64; 2], last: [u64; 2]) -> Value {
    let usage = |[input, output]: [u64; 2]| {
        json!({ "totalTokens": input + output, "inputTokens": input, "cachedInputTokens": 0,
                "cacheWriteInputTokens": 0, "outputTokens": output, "reasoningOutputTokens": 0 })
    };
    json!({ "total": usage(total), "last": usage(last), "modelContextWindow": 258_400 })
}

/// The goal of a thread.
pub(super) fn goal(params: &Value, now: u64) -> Value {
    json!({ "threadId": params["threadId"], "objective": params["objective"], "status": "active", "tokenBudget": null,
            "tokensUsed": 0, "timeUsedSeconds": 0, "createdAt": now, "updatedAt": now })
}

/// The result of `config/read`: every directory is trusted, since nothing in it is read or run.
pub(super) fn config(cwd: &str) -> Value {
    let config = json!({ "approval_policy": null, "sandbox_mode": null, "model": "demo",
                         "projects": { cwd: { "trust_level": "trusted" } } });
    json!({ "config": config, "origins": {}, "layers": [] })
}

/// The result of `account/read`: there is no account, and none is needed.
pub(super) fn account() -> Value {
    json!({ "account": null, "userId": null, "requiresOpenaiAuth": false, "workspaceRouting": null })
}

/// The one entry of `model/list`.
pub(super) fn model() -> Value {
    let efforts = json!([{ "reasoningEffort": "low", "description": "The only one" }]);
    json!({ "id": "demo", "model": "demo", "upgrade": null, "upgradeInfo": null, "availabilityNux": null,
            "displayName": "Demo", "description": "Prepared answers; no model is involved.", "modelSpecialty": null,
            "hidden": false, "supportedReasoningEfforts": efforts, "defaultReasoningEffort": "low",
            "inputModalities": ["text"], "supportsPersonality": false, "multiAgentVersion": null,
            "additionalSpeedTiers": [], "serviceTiers": [], "defaultServiceTier": null,
            "availableAccessPrograms": null, "isDefault": true })
}
