//! The items of a turn: their types, and what codexd reads from them.

use serde_json::{Value, json};

use super::values::INPUT_TEXT;
use crate::ids::ThreadId;

/// A message of the user.
pub const USER_MESSAGE: &str = "userMessage";
/// A message of the agent.
pub const AGENT_MESSAGE: &str = "agentMessage";
/// A plan that the agent proposes.
pub const PLAN: &str = "plan";
/// What the model thought.
pub const REASONING: &str = "reasoning";
/// A command.
pub const COMMAND_EXECUTION: &str = "commandExecution";
/// A patch.
pub const FILE_CHANGE: &str = "fileChange";
/// A call of an MCP server's tool.
pub const MCP_TOOL_CALL: &str = "mcpToolCall";
/// A search of the web.
pub const WEB_SEARCH: &str = "webSearch";
/// A call upon sub-agents.
pub const COLLAB_AGENT_TOOL_CALL: &str = "collabAgentToolCall";
/// What a sub-agent does.
pub const SUB_AGENT_ACTIVITY: &str = "subAgentActivity";

/// The types that codexd knows; others pass through.
pub const ALL: &[&str] = &[
    USER_MESSAGE,
    AGENT_MESSAGE,
    PLAN,
    REASONING,
    COMMAND_EXECUTION,
    FILE_CHANGE,
    MCP_TOOL_CALL,
    WEB_SEARCH,
    COLLAB_AGENT_TOOL_CALL,
    SUB_AGENT_ACTIVITY,
];

/// A text as an item of the input of a turn.
pub fn text_input(text: &str) -> Value {
    json!({ "type": INPUT_TEXT, "text": text, "text_elements": [] })
}

/// Whether an item is a message of the agent.
pub fn is_agent_message(item: &Value) -> bool {
    item["type"] == AGENT_MESSAGE
}

/// The text of an item that is a message of the agent.
pub fn agent_message(item: &Value) -> Option<&str> {
    if is_agent_message(item) { item["text"].as_str() } else { None }
}

/// Whether an item is a message of the user.
pub fn is_user_message(item: &Value) -> bool {
    item["type"] == USER_MESSAGE
}

/// The text of a message of the user; other parts are named.
pub fn user_text(item: &Value) -> String {
    let part = |part: &Value| {
        let text = |name: &str| part[name].as_str();
        let named = || {
            let what = text("path").or(text("name")).unwrap_or_default();
            format!("[{}] {what}", text("type").unwrap_or("?")).trim_end().to_owned()
        };
        text("text").map_or_else(named, str::to_owned)
    };
    item["content"].as_array().into_iter().flatten().map(part).collect::<Vec<_>>().join("\n")
}

/// Whether an item is the message of the user that was sent with this `clientUserMessageId`.
pub fn is_user_message_of(item: &Value, client_message_id: &str) -> bool {
    item["type"] == USER_MESSAGE && item["clientId"] == client_message_id
}

/// The threads of sub-agents in an item: the thread that called them, and their threads.
pub fn called_sub_agents(thread_id: &ThreadId, item: &Value) -> Option<(ThreadId, Vec<ThreadId>)> {
    let id = |value: &Value| value.as_str().map(ThreadId::new);
    match item["type"].as_str()? {
        COLLAB_AGENT_TOOL_CALL => {
            let sender = id(&item["senderThreadId"]).unwrap_or_else(|| thread_id.clone());
            let receivers = item["receiverThreadIds"].as_array()?.iter().filter_map(id).collect();
            Some((sender, receivers))
        }
        SUB_AGENT_ACTIVITY => Some((thread_id.clone(), vec![id(&item["agentThreadId"])?])),
        _ => None,
    }
}
