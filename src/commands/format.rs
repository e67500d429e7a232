//! One-line descriptions of items, events and requests of Codex.
//!
//! Text from Codex is inserted unchanged: the code that prints a line sanitizes it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::patch::{FileChange, patch_totals};
use super::terminal::sanitize_for_terminal;
use crate::codex::protocol::decisions::{self, ACCEPT, ACCEPT_FOR_SESSION, CANCEL, DECLINE};
use crate::codex::protocol::server_requests::{ServerRequestKind, WRITE_STDIN};
use crate::codex::protocol::{items, notifications, values};

/// Describes an item when it starts; `None` for items that are shown in another way or not at all.
pub(crate) fn item(item: &Value) -> Option<String> {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    Some(match item["type"].as_str()? {
        items::COMMAND_EXECUTION => format!("$ {}", text("command")),
        items::FILE_CHANGE => format!("file {}", changes(&item["changes"])),
        items::MCP_TOOL_CALL => format!("tool {}/{}", text("server"), text("tool")),
        items::WEB_SEARCH => format!("web search {}", text("query")),
        _ => return None,
    })
}

/// The same for a person: commands without the shell that Codex starts for them, and a patch in short.
pub(crate) fn item_for_person(item: &Value) -> Option<String> {
    Some(match item["type"].as_str()? {
        items::COMMAND_EXECUTION => command_for_person(&item["command"]),
        items::FILE_CHANGE => match patch_totals(&FileChange::all(&item["changes"])) {
            totals if totals.is_empty() => "changing files".to_owned(),
            totals => format!("changing {totals}"),
        },
        _ => self::item(item)?,
    })
}

/// The outcome of an item, if it is not the expected one.
pub(crate) fn item_outcome(item: &Value) -> Option<String> {
    self::item(item)?;
    let status = item["status"].as_str().unwrap_or(values::TURN_COMPLETED);
    match (status, item["exitCode"].as_i64()) {
        (_, Some(code)) if code != 0 => Some(format!("exit code {code}")),
        (values::TURN_COMPLETED | values::TURN_IN_PROGRESS, _) => None,
        (other, _) => Some(other.to_owned()),
    }
}

/// Lists the changes of a patch: `add a.txt, update b.txt`.
fn changes(changes: &Value) -> String {
    let change = |change: &Value| {
        let kind = change["kind"]["type"].as_str().or(change["kind"].as_str()).unwrap_or("change");
        format!("{kind} {}", change["path"].as_str().unwrap_or("?"))
    };
    changes.as_array().into_iter().flatten().map(change).collect::<Vec<_>>().join(", ")
}

/// Who is logged in, in one line.
pub(crate) fn account_text(account: &Value) -> String {
    let Some(kind) = account["type"].as_str() else {
        return if account["requiresOpenaiAuth"] == false { "none, and none is needed" } else { "-" }
            .to_owned();
    };
    let parts = [("email", ""), ("planType", "plan "), ("workspaceName", "workspace ")];
    let named = parts.iter().filter_map(|(name, label)| Some(format!("{label}{}", account[*name].as_str()?)));
    std::iter::once(kind.to_owned()).chain(named).collect::<Vec<_>>().join(", ")
}

/// Describes an event, without its time and type.
pub(crate) fn event(event: &Value) -> String {
    let detail = &event["detail"];
    if event["type"] == "app-server.notification" {
        let item = &detail["params"]["item"];
        let verb = match detail["notificationMethod"].as_str() {
            Some(notifications::ITEM_STARTED) => "began",
            Some(notifications::ITEM_COMPLETED) => "ended",
            _ => "",
        };
        if !verb.is_empty() {
            let kind = || item["type"].as_str().unwrap_or("item").to_owned();
            let outcome = item_outcome(item).map_or_else(String::new, |outcome| format!(", {outcome}"));
            return format!("{verb}: {}{outcome}", self::item(item).unwrap_or_else(kind));
        }
    }
    if event["type"] == "request.opened" {
        let asked = &detail["request"];
        return format!("{} asks: {}", asked["requestId"].as_str().unwrap_or("?"), request(asked));
    }
    let message = event["message"].as_str().unwrap_or_default();
    // The message of this event has the end of the turn, its detail the status.
    match (event["type"].as_str(), detail["status"].as_str()) {
        (Some("app-server.turn.completed"), Some(status)) if status != values::TURN_COMPLETED => {
            let turn_id = detail["turnId"].as_str().unwrap_or_default();
            let reason = error(&detail["error"]).map_or_else(String::new, |reason| format!(": {reason}"));
            format!("App-server turn {turn_id} ended: {status}{reason}")
        }
        (Some("app-server.turn.error"), _) if detail["willRetry"] == true => {
            let turn_id = detail["turnId"].as_str().unwrap_or_default();
            let reason = error(&detail["error"]).unwrap_or_else(|| "no reason given".to_owned());
            format!("App-server turn {turn_id} continues after an error: {reason}")
        }
        _ => message.to_owned(),
    }
}

/// Describes a request of Codex.
pub(crate) fn request(request: &Value) -> String {
    request_with(request, command)
}

/// The same for a person: commands without the shell that Codex starts for them.
pub(crate) fn request_for_person(request: &Value) -> String {
    request_with(request, command_for_person)
}

fn request_with(request: &Value, command: fn(&Value) -> String) -> String {
    let params = &request["params"];
    let text = |name: &str| params[name].as_str();
    let reason = text("reason").map_or_else(String::new, |reason| format!(" ({reason})"));
    let method = request["method"].as_str().unwrap_or_default();
    match ServerRequestKind::of(method) {
        Some(ServerRequestKind::Command | ServerRequestKind::LegacyCommand) => {
            let what =
                if text("kind") == Some(WRITE_STDIN) { "write to a command that runs:" } else { "run" };
            format!("{what} {}{reason}", command(&params["command"]))
        }
        Some(ServerRequestKind::FileChange | ServerRequestKind::LegacyPatch) => match text("grantRoot") {
            Some(root) => format!("change files below {root}{reason}"),
            None => format!("change files{reason}"),
        },
        Some(ServerRequestKind::Permissions) => {
            format!("have more permissions: {}{reason}", params["permissions"])
        }
        Some(ServerRequestKind::UserInput) => {
            let questions = params["questions"].as_array().into_iter().flatten();
            let questions = questions.filter_map(|question| question["question"].as_str());
            format!("answer \"{}\"", questions.collect::<Vec<_>>().join(" "))
        }
        Some(ServerRequestKind::Elicitation) => {
            // The user has to open the URL before accepting.
            let address = text("url").map_or_else(String::new, |address| format!(" at {address}"));
            let server = text("serverName").map_or_else(String::new, |name| format!(", asked by {name}"));
            format!(
                "answer \"{}\"{address}{server}",
                text("message").unwrap_or("a question of an MCP server")
            )
        }
        None => method.to_owned(),
    }
}

/// Formats a command, which is a string or a list of arguments.
fn command(command: &Value) -> String {
    match command {
        Value::String(text) => text.clone(),
        Value::Array(arguments) => arguments.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => "a command".to_owned(),
    }
}

/// A command as a person would type it: without `bash -lc` and the quotes that this needs.
fn command_for_person(command: &Value) -> String {
    let arguments = match command {
        Value::Array(arguments) => {
            arguments.iter().map(|argument| argument.as_str().map(str::to_owned)).collect()
        }
        _ => command.as_str().and_then(shlex::split),
    };
    match arguments.as_deref() {
        Some([shell, flag, script]) if is_shell(shell) && ["-lc", "-c"].contains(&flag.as_str()) => {
            script.clone()
        }
        _ => self::command(command),
    }
}

fn is_shell(program: &str) -> bool {
    ["bash", "zsh", "sh"].contains(&program.rsplit('/').next().unwrap_or_default())
}

/// Formats a decision: its name and parameters.
pub(crate) fn decision(decision: &Value) -> String {
    match decision {
        Value::String(name) => name.clone(),
        Value::Object(object) => {
            let parts = object.iter().map(|(name, parameters)| match parameters {
                Value::Null => name.clone(),
                parameters => format!("{name} {parameters}"),
            });
            parts.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// Formats a decision and its consequences in words, for the user who has to decide.
pub(crate) fn decision_in_words(decision: &Value) -> String {
    match (decision.as_str(), decisions::policy_arguments(decision)) {
        (Some(ACCEPT), _) => "yes".to_owned(),
        (Some(ACCEPT_FOR_SESSION), _) => "yes, and do not ask again in this session".to_owned(),
        (Some(DECLINE), _) => "no, and go on without it".to_owned(),
        (Some(CANCEL), _) => "no, and end the turn".to_owned(),
        (_, Some(start)) => {
            format!(
                "yes, and do not ask again for commands that begin with \"{}\"",
                command_for_person(start)
            )
        }
        _ => self::decision(decision),
    }
}

/// The decisions that a request offers, in order.
pub(crate) fn decisions(request: &Value) -> Vec<Value> {
    let mut decisions = request["decisions"].as_array().cloned().unwrap_or_default();
    // The plain "no" comes before the one that ends the turn too.
    decisions.sort_by_key(|decision| decision == CANCEL);
    decisions
}

/// Formats the error of a turn.
pub(crate) fn error(error: &Value) -> Option<String> {
    let message = error["message"].as_str()?;
    Some(match error["additionalDetails"].as_str() {
        Some(more) => sanitize_for_terminal(&format!("{message} ({more})")),
        None => sanitize_for_terminal(message),
    })
}

/// Formats the time since a timestamp, such as `5m`; `-` if it is none.
pub(crate) fn age(time: &Value, now: Timestamp) -> String {
    let Some(time) = time.as_str().and_then(|time| time.parse::<Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a duration in whole seconds, such as `1 min 12 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Formats how long something has run, with as few digits as that takes.
pub(crate) fn uptime(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        _ => duration(time),
    }
}

/// Formats a number with its digits in groups, such as `42,150`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let place = |at: usize| digits.len() - at;
    let grouped = digits.char_indices().flat_map(|(at, digit)| {
        let comma = (at > 0 && place(at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    grouped.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn age_formats_one_unit() {
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-11-20T11:59:01.5Z", "59s"),
            ("2026-11-20T11:59:00Z", "1m"),
            ("2026-11-20T10:59:00Z", "1h"),
            ("2026-11-17T12:00:00Z", "3d"),
            ("2026-11-20T12:00:09Z", "0s"),
            ("soon", "-"),
        ] {
            assert_eq!(age(&time.into(), now), expected, "{time}");
        }
    }

    #[test]
    fn request_describes_every_method() {
        for (method, params, expected) in [
            (
                "item/commandExecution/requestApproval",
                json!({"command": "ls", "reason": "why"}),
                "run ls (why)",
            ),
            (
                "item/commandExecution/requestApproval",
                json!({"command": "yes", "kind": "writeStdin"}),
                "write to a command that runs: yes",
            ),
            ("execCommandApproval", json!({"command": ["ls", "-l"]}), "run ls -l"),
            ("item/fileChange/requestApproval", json!({"grantRoot": "/a"}), "change files below /a"),
            (
                "item/permissions/requestApproval",
                json!({"permissions": {"a": 1}}),
                "have more permissions: {\"a\":1}",
            ),
            (
                "item/tool/requestUserInput",
                json!({"questions": [{"question": "Which?"}]}),
                "answer \"Which?\"",
            ),
            ("mcpServer/elicitation/request", json!({"message": "Who?"}), "answer \"Who?\""),
            (
                "mcpServer/elicitation/request",
                json!({"message": "Log in.", "mode": "url", "url": "https://a.test/b", "serverName": "files"}),
                "answer \"Log in.\" at https://a.test/b, asked by files",
            ),
            ("new/one", json!({}), "new/one"),
        ] {
            assert_eq!(request(&json!({ "method": method, "params": params })), expected);
        }
    }

    #[test]
    fn event_describes_how_turn_ended() {
        let ended = |status: &str, error: Value| {
            let detail = json!({ "turnId": "t", "status": status, "error": error });
            let message = "App-server turn t completed.";
            event(&json!({ "type": "app-server.turn.completed", "message": message, "detail": detail }))
        };
        assert_eq!(ended("completed", Value::Null), "App-server turn t completed.");
        assert_eq!(ended("interrupted", Value::Null), "App-server turn t ended: interrupted");
        assert_eq!(ended("failed", json!({ "message": "no" })), "App-server turn t ended: failed: no");
        let detail =
            json!({ "turnId": "t", "willRetry": true, "error": { "message": "Reconnecting... 1/5" } });
        let retried = json!({ "type": "app-server.turn.error", "message": "App-server turn t failed: x", "detail": detail });
        assert_eq!(event(&retried), "App-server turn t continues after an error: Reconnecting... 1/5");
    }

    #[test]
    fn item_describes_action_and_unexpected_outcome() {
        let command = json!({"type": "commandExecution", "command": "ls", "status": "failed", "exitCode": 2});
        assert_eq!(item(&command).unwrap(), "$ ls");
        assert_eq!(item_outcome(&command).unwrap(), "exit code 2");
        let patch = json!({"type": "fileChange", "status": "declined", "changes": [
            {"path": "a", "kind": {"type": "add"}}, {"path": "b", "kind": {"type": "update"}}]});
        assert_eq!(item(&patch).unwrap(), "file add a, update b");
        assert_eq!(item_outcome(&patch).unwrap(), "declined");
        assert_eq!(
            item_outcome(&json!({"type": "commandExecution", "status": "completed", "exitCode": 0})),
            None
        );
        assert_eq!(item(&json!({"type": "reasoning"})), None);
        let amendment = json!({"acceptWithExecpolicyAmendment": {"execpolicy_amendment": ["ls"]}});
        assert_eq!(decision(&amendment), "acceptWithExecpolicyAmendment {\"execpolicy_amendment\":[\"ls\"]}");
    }

    #[test]
    fn account_is_described_with_what_is_known() {
        let account = json!({ "type": "chatgpt", "email": "me@example.org", "planType": "plus" });
        assert_eq!(account_text(&account), "chatgpt, me@example.org, plan plus");
        assert_eq!(account_text(&json!({ "requiresOpenaiAuth": false })), "none, and none is needed");
        assert_eq!(account_text(&json!({ "type": null, "requiresOpenaiAuth": true })), "-");
    }

    #[test]
    fn commands_are_shown_without_the_shell_around_them() {
        let shown = |command: Value| {
            item_for_person(&json!({ "type": "commandExecution", "command": command })).unwrap()
        };
        assert_eq!(shown(json!("/bin/bash -lc 'cargo test'")), "cargo test");
        assert_eq!(shown(json!(r#"bash -lc "echo '\$(a)'""#)), "echo '$(a)'");
        assert_eq!(shown(json!(["zsh", "-c", "ls"])), "ls");
        // Whatever is more than a shell and its script is shown whole.
        for command in ["/bin/bash -lc 'a' b", "ls -l", "python -c 'x'", "bash -lc 'a"] {
            assert_eq!(shown(json!(command)), command);
        }
    }

    #[test]
    fn durations_and_numbers_are_short() {
        for (seconds, expected) in [(0, "0 s"), (72, "1 min 12 s"), (3720, "1 h 2 min"), (93_600, "1 d 2 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        let numbers = [7, 999, 1000, 42_150, 1_234_567].map(grouped);
        assert_eq!(numbers, ["7", "999", "1,000", "42,150", "1,234,567"]);
    }
}
