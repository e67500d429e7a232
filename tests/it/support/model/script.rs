//! The markers of a prompt and the items of the response.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// The default width of a text delta in characters.
pub(super) const DELTA_WIDTH: usize = 12;

/// The tool that spawns a sub-agent.
const SPAWN_TOOL: &str = "spawn_agent";

/// Creates IDs that are unique within one model.
#[derive(Clone, Default)]
pub(super) struct Ids(Arc<AtomicU64>);

impl Ids {
    /// Returns a new ID, such as `msg_000007`.
    pub(super) fn next(&self, prefix: &str) -> String {
        format!("{prefix}_{:06}", self.0.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The part of a request that selects the response.
pub(super) struct Prompt {
    /// The text of the newest user message.
    text: String,
    /// Whether the output of a tool follows that message.
    has_tool_output: bool,
    /// Type and name of each offered tool.
    tools: Vec<(String, String)>,
    /// The namespace of the tool that spawns sub-agents, if it has one.
    spawn_namespace: Option<Value>,
}

impl Prompt {
    pub(super) fn read(body: &Value) -> Self {
        let items = match &body["input"] {
            Value::String(text) => vec![json!({ "type": "message", "role": "user", "content": text })],
            input => input.as_array().cloned().unwrap_or_default(),
        };
        let newest = items.iter().rposition(is_from_user);
        let after = newest.map_or(&[][..], |index| items.get(index + 1..).unwrap_or_default());
        let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            text: newest.and_then(|index| items.get(index)).map(item_text).unwrap_or_default(),
            has_tool_output: after.iter().any(|item| string(&item["type"]).ends_with("_output")),
            tools: tools.iter().map(|tool| (string(&tool["type"]), tool_name(tool))).collect(),
            spawn_namespace: tools
                .iter()
                .find(|tool| {
                    let inner = tool["tools"].as_array().into_iter().flatten();
                    inner.map(tool_name).any(|name| name == SPAWN_TOOL)
                })
                .map(|tool| tool["name"].clone()),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.marker(name).is_some()
    }

    /// Whether the model sends nothing more after the start of this response.
    pub(super) fn hangs(&self) -> bool {
        self.has("hang") && (self.has_tool_output || !self.has("spawn"))
    }

    /// The value of `mock:NAME=VALUE` or `mock:NAME=[VALUE]`; empty for a bare `mock:NAME`.
    pub(super) fn marker(&self, name: &str) -> Option<&str> {
        let needle = format!("mock:{name}");
        let mut text = self.text.as_str();
        while let Some((_, after)) = text.split_once(needle.as_str()) {
            let (value, tail) = marker_value(after);
            // `mock:fail` must not be found in `mock:failed`.
            if !tail.starts_with(|next: char| next.is_alphanumeric() || "_-".contains(next)) {
                return Some(value);
            }
            text = after;
        }
        None
    }

    pub(super) fn number<N: FromStr>(&self, name: &str, default: N) -> N {
        self.marker(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// The tool calls before the text; none if a tool has returned its output.
    pub(super) fn calls(&self, ids: &Ids) -> Vec<Value> {
        if self.has_tool_output {
            return Vec::new();
        }
        let mut calls = Vec::new();
        for (name, escalate) in [("shell", false), ("escalate", true)] {
            if let Some(command) = self.marker(name) {
                calls.push(self.shell_call(ids, non_empty(command, "echo mock"), escalate));
            }
        }
        if let Some(path) = self.marker("patch") {
            calls.push(self.patch_call(ids, non_empty(path, "mock.txt")));
        }
        if let Some(prompt) = self.marker("spawn") {
            let prompt = prompt.replace('%', "mock:").replace('(', "[").replace(')', "]");
            let mut call = function_call(ids, SPAWN_TOOL, &json!({ "message": prompt }));
            if let Some(namespace) = &self.spawn_namespace {
                call["namespace"] = namespace.clone();
            }
            calls.push(call);
        }
        if let Some(name) = self.marker("tool") {
            calls.push(function_call(ids, name, &json!({})));
        }
        if self.has("plan") {
            let arguments = json!({ "explanation": "mock plan", "plan": [
                { "step": "first", "status": "in_progress" },
                { "step": "second", "status": "pending" },
            ] });
            calls.push(function_call(ids, "update_plan", &arguments));
        }
        calls
    }

    /// The deltas of the response text.
    pub(super) fn text_deltas(&self) -> Vec<String> {
        if let Some(text) = self.marker("text") {
            return vec![text.to_owned()];
        }
        let width = self.number("chars", DELTA_WIDTH);
        (0..self.number("deltas", 8)).map(|index| text_delta(index, width)).collect()
    }

    fn shell_call(&self, ids: &Ids, command: &str, escalate: bool) -> Value {
        let offered = |name: &str| self.tools.iter().any(|(_, tool)| tool == name);
        if self.tools.iter().any(|(kind, _)| kind == "local_shell") {
            return json!({
                "type": "local_shell_call", "id": ids.next("lsh"), "call_id": ids.next("call"), "status": "completed",
                "action": { "type": "exec", "command": ["bash", "-lc", command] },
            });
        }
        let (name, mut arguments) = if offered("exec_command") {
            ("exec_command", json!({ "cmd": command, "yield_time_ms": 5000 }))
        } else if offered("shell_command") {
            ("shell_command", json!({ "command": command, "timeout_ms": 10000 }))
        } else {
            ("shell", json!({ "command": ["bash", "-lc", command], "timeout_ms": 10000 }))
        };
        if escalate {
            // Two names of the same argument; the shell tools have used both.
            arguments["sandbox_permissions"] = json!("require_escalated");
            arguments["with_escalated_permissions"] = json!(true);
            arguments["justification"] = json!("the mock model requests more permissions");
        }
        function_call(ids, name, &arguments)
    }

    fn patch_call(&self, ids: &Ids, path: &str) -> Value {
        let patch = format!("*** Begin Patch\n*** Add File: {path}\n+hello from mock-model\n*** End Patch\n");
        match self.tools.iter().find(|(_, name)| name == "apply_patch") {
            Some((kind, _)) if kind == "custom" => json!({
                "type": "custom_tool_call", "id": ids.next("ctc"), "call_id": ids.next("call"),
                "name": "apply_patch", "input": patch, "status": "completed",
            }),
            Some(_) => function_call(ids, "apply_patch", &json!({ "input": patch })),
            None => self.shell_call(ids, &format!("apply_patch <<'EOF'\n{patch}EOF\n"), false),
        }
    }
}

/// The complete text of `mock:deltas=N` with deltas of `width` characters.
pub(super) fn text_of(deltas: usize, width: usize) -> String {
    (0..deltas).map(|index| text_delta(index, width)).collect()
}

fn text_delta(index: usize, width: usize) -> String {
    const WORDS: [&str; 12] = [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
    ];
    let word = WORDS[index % WORDS.len()];
    format!("{word}-{index} ").chars().chain(std::iter::repeat('.')).take(width.max(1)).collect()
}

fn function_call(ids: &Ids, name: &str, arguments: &Value) -> Value {
    json!({
        "type": "function_call", "id": ids.next("fc"), "name": name, "call_id": ids.next("call"),
        "arguments": arguments.to_string(), "status": "completed",
    })
}

/// Splits the text after a marker's name into its value and the rest.
fn marker_value(after: &str) -> (&str, &str) {
    let Some(value) = after.strip_prefix('=') else { return ("", after) };
    if let Some(bracketed) = value.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return bracketed;
    }
    let end = value.find(|next: char| next.is_whitespace() || "\"']".contains(next)).unwrap_or(value.len());
    value.split_at(end)
}

/// Whether the user wrote this message; the app-server adds context as user messages too.
fn is_from_user(item: &Value) -> bool {
    const ADDED: [&str; 4] = ["<environment_context", "<user_instructions", "# AGENTS.md", "<permissions"];
    let text = item_text(item);
    item.get("type").is_none_or(|kind| kind == "message")
        && item["role"] == "user"
        && !ADDED.iter().any(|start| text.trim_start().starts_with(start))
}

fn item_text(item: &Value) -> String {
    match &item["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(|part| string(&part["text"])).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

fn tool_name(tool: &Value) -> String {
    let name = string(&tool["name"]);
    if name.is_empty() { string(&tool["function"]["name"]) } else { name }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn non_empty<'a>(value: &'a str, default: &'a str) -> &'a str {
    if value.is_empty() { default } else { value }
}
