//! The notifications of the app-server, as events.

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::codex::protocol::notifications::{
    CHANGING_RECORDS, Delta, ExecOutput, Notification, StartedThread, ThreadStatus, TurnDiff, TurnError,
    TurnParams, TurnPlan,
};
use crate::codex::protocol::values::STREAM_STDERR;
use crate::daemon::events::preview;
use crate::state::{Change, Level, NewEvent, event_type};

/// The event of a notification; one that lacks what its event needs passes through like an unknown one.
pub(crate) fn notification(method: &str, params: &str) -> NewEvent {
    let event = match Notification::decode(method, params) {
        Notification::ThreadStarted(thread) => Some(thread_started(thread)),
        Notification::ThreadStatusChanged(status) => Some(thread_status_changed(&status)),
        Notification::TurnStarted(params) => Some(turn_started(params)),
        Notification::TurnCompleted(params, error) => Some(turn_completed(&params, error.as_ref())),
        Notification::TurnDiffUpdated(diff) => Some(turn_diff_updated(&diff)),
        Notification::TurnPlanUpdated(plan) => Some(turn_plan_updated(&plan)),
        Notification::AgentMessageDelta(delta) => message_delta(&delta),
        Notification::PlanDelta(delta) => plan_delta(&delta),
        Notification::TurnError(error) => Some(turn_error(&error)),
        Notification::ExecOutputDelta(output) => Some(exec_output_delta(&output)),
        Notification::Other => None,
    };
    event.unwrap_or_else(|| {
        let message = format!("App-server notification {method}.");
        let detail =
            format!("{{\"notificationMethod\":{},\"params\":{}}}", Value::from(method), compact(params));
        // These are rare enough to be read.
        let changes = CHANGING_RECORDS.contains(&method);
        let parsed = changes.then(|| serde_json::from_str(&detail).ok()).flatten();
        let change =
            parsed.map_or(Change::None, |detail| Change::read(event_type::NOTIFICATION, &message, &detail));
        NewEvent {
            level: Level::Info,
            event_type: event_type::NOTIFICATION,
            message,
            detail: Some(detail),
            change,
        }
    })
}

/// JSON without the space between its parts: an event is one line, and filters know its text without spaces.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_part = |&part: &char| {
        let is_space = !in_string && part.is_ascii_whitespace();
        in_string ^= part == '"' && !escaped;
        escaped = in_string && part == '\\' && !escaped;
        !is_space
    };
    json.chars().filter(is_part).collect()
}

fn thread_started(thread: StartedThread) -> NewEvent {
    let message = format!("App-server thread {} started.", thread.id);
    let mut detail = json!({ "threadId": thread.id });
    if let Some(parent) = thread.parent_thread_id {
        detail["parentThreadId"] = parent.into();
    }
    NewEvent::with_state_change(Level::Info, event_type::THREAD_STARTED, message, detail)
}

fn thread_status_changed(ThreadStatus { thread_id, status }: &ThreadStatus) -> NewEvent {
    let message = format!("App-server thread {thread_id} changed status.");
    let detail = json!({ "status": status, "threadId": thread_id });
    NewEvent::with_state_change(Level::Info, event_type::THREAD_STATUS_CHANGED, message, detail)
}

fn turn_started(TurnParams { thread_id, turn }: TurnParams) -> NewEvent {
    let message = format!("App-server turn {} started.", turn.id);
    let mut detail = json!({ "status": turn.status, "threadId": thread_id, "turnId": turn.id });
    // Codex 0.169.0 names the root of every turn; only that of a sub-agent's is another one.
    if let Some(root) = turn.root_turn_id.filter(|root| *root != turn.id) {
        detail["rootTurnId"] = root.into();
    }
    NewEvent::with_state_change(Level::Info, event_type::TURN_STARTED, message, detail)
}

fn turn_completed(TurnParams { thread_id, turn }: &TurnParams, error: Option<&Value>) -> NewEvent {
    let message = format!("App-server turn {} completed.", turn.id);
    let detail = json!({ "error": error, "status": turn.status, "threadId": thread_id, "turnId": turn.id });
    NewEvent::with_state_change(Level::Info, event_type::TURN_COMPLETED, message, detail)
}

fn turn_error(TurnError { error, thread_id, turn_id, will_retry }: &TurnError) -> NewEvent {
    let reason = error.get("message").and_then(Value::as_str).unwrap_or("no reason given");
    let message = format!("App-server turn {turn_id} failed: {reason}");
    let detail = json!({ "error": error, "threadId": thread_id, "turnId": turn_id, "willRetry": will_retry });
    NewEvent::with_state_change(Level::Error, event_type::TURN_ERROR, message, detail)
}

fn turn_diff_updated(TurnDiff { thread_id, turn_id, diff }: &TurnDiff) -> NewEvent {
    let message = format!("App-server diff updated for turn {turn_id}.");
    let detail = json!({ "diff": diff, "threadId": thread_id, "turnId": turn_id });
    NewEvent::without_state_change(Level::Info, "app-server.turn.diff.updated", message, detail)
}

fn turn_plan_updated(TurnPlan { thread_id, turn_id, explanation, plan }: &TurnPlan) -> NewEvent {
    let message = format!("App-server plan updated for turn {turn_id}.");
    let detail =
        json!({ "explanation": explanation, "plan": plan, "threadId": thread_id, "turnId": turn_id });
    NewEvent::without_state_change(Level::Info, "app-server.turn.plan.updated", message, detail)
}

/// The detail of a delta's event; the texts go into it exactly as they came.
fn delta_detail(delta: &Delta<'_>) -> String {
    let parts = [
        "{\"delta\":",
        delta.delta.get(),
        ",\"itemId\":",
        delta.item_id.get(),
        ",\"threadId\":",
        delta.thread_id.get(),
        ",\"turnId\":",
        delta.turn_id.get(),
        "}",
    ];
    parts.concat()
}

fn message_delta(delta: &Delta<'_>) -> Option<NewEvent> {
    let turn_id: std::borrow::Cow<'_, str> = text(delta.turn_id)?;
    let message =
        ["App-server emitted delta for turn ", &turn_id, ": ", &preview(&text(delta.delta)?)].concat();
    Some(NewEvent {
        level: Level::Info,
        event_type: "app-server.turn.message.delta",
        message,
        detail: Some(delta_detail(delta)),
        change: Change::None,
    })
}

fn plan_delta(delta: &Delta<'_>) -> Option<NewEvent> {
    Some(NewEvent {
        level: Level::Info,
        event_type: "app-server.turn.plan.delta",
        message: format!("App-server emitted plan delta for turn {}.", text(delta.turn_id)?),
        detail: Some(delta_detail(delta)),
        change: Change::None,
    })
}

fn exec_output_delta(output: &ExecOutput) -> NewEvent {
    let ExecOutput { process_id, stream, delta_base64, cap_reached } = output;
    let level = if stream == STREAM_STDERR { Level::Warn } else { Level::Info };
    let message = format!("App-server command {process_id} emitted {stream} output.");
    let detail = json!({
        "capReached": cap_reached, "deltaBase64": delta_base64, "processId": process_id, "stream": stream,
    });
    NewEvent::without_state_change(level, "app-server.command.output.delta", message, detail)
}

/// A JSON string's text, without a copy when nothing in it is escaped.
fn text(raw: &RawValue) -> Option<std::borrow::Cow<'_, str>> {
    let quoted = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if quoted.contains('\\') {
        return serde_json::from_str::<String>(raw.get()).ok().map(Into::into);
    }
    Some(quoted.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(method: &str, params: Value) -> (NewEvent, Value) {
        let event = notification(method, &params.to_string());
        let detail = event.detail.as_deref().map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
        (event, detail)
    }

    #[test]
    fn notification_maps_to_the_event_type_of_the_contract() {
        let turn = json!({"id": "u", "status": "inProgress", "items": []});
        let on_turn = |more: Value| {
            let mut params = json!({"threadId": "t", "turnId": "u", "itemId": "i"});
            params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            params
        };
        for (method, params, event_type, keys) in [
            ("thread/started", json!({"thread": {"id": "t"}}), "app-server.thread.started", vec!["threadId"]),
            (
                "thread/status/changed",
                json!({"threadId": "t", "status": {"type": "idle"}}),
                "app-server.thread.status.changed",
                vec!["status", "threadId"],
            ),
            (
                "turn/started",
                json!({"threadId": "t", "turn": turn}),
                "app-server.turn.started",
                vec!["threadId", "turnId"],
            ),
            (
                "turn/completed",
                json!({"threadId": "t", "turn": turn}),
                "app-server.turn.completed",
                vec!["status", "threadId", "turnId"],
            ),
            (
                "turn/diff/updated",
                on_turn(json!({"diff": "+"})),
                "app-server.turn.diff.updated",
                vec!["diff", "threadId", "turnId"],
            ),
            (
                "turn/plan/updated",
                on_turn(json!({"explanation": null, "plan": []})),
                "app-server.turn.plan.updated",
                vec!["explanation", "plan", "threadId", "turnId"],
            ),
            (
                "item/agentMessage/delta",
                on_turn(json!({"delta": "a \"b\"\n"})),
                "app-server.turn.message.delta",
                vec!["delta", "itemId", "threadId", "turnId"],
            ),
            (
                "item/plan/delta",
                on_turn(json!({"delta": "x"})),
                "app-server.turn.plan.delta",
                vec!["delta", "itemId", "threadId", "turnId"],
            ),
            (
                "error",
                on_turn(json!({"error": {"message": "m"}, "willRetry": true})),
                "app-server.turn.error",
                vec!["error", "threadId", "turnId", "willRetry"],
            ),
            (
                "command/exec/outputDelta",
                json!({"processId": "p", "stream": "stderr", "deltaBase64": "eA==", "capReached": false}),
                "app-server.command.output.delta",
                vec!["capReached", "deltaBase64", "processId", "stream"],
            ),
            ("brand/new", json!({"x": 1}), "app-server.notification", vec!["notificationMethod", "params"]),
            (
                "turn/started",
                json!({"odd": 1}),
                "app-server.notification",
                vec!["notificationMethod", "params"],
            ),
            ("thread/closed", Value::Null, "app-server.notification", vec!["notificationMethod", "params"]),
        ] {
            let (event, detail) = event(method, params.clone());
            assert_eq!(event.event_type, event_type, "{method}");
            for key in keys {
                assert!(detail.get(key).is_some(), "{method} lacks {key}: {detail}");
            }
            if event_type == "app-server.notification" {
                assert_eq!(detail["params"], params);
            }
        }
    }

    #[test]
    fn notification_event_is_one_line_without_spaces_between_parts() {
        let params = "{\n\t\"threadId\" : \"t\", \r\n \"a b\": [ 1.50, \" \\\" \\\\\", {  } ] }";
        let event = notification("brand/new", params);
        let compact = "{\"threadId\":\"t\",\"a b\":[1.50,\" \\\" \\\\\",{}]}";
        assert_eq!(
            event.detail.unwrap(),
            format!("{{\"notificationMethod\":\"brand/new\",\"params\":{compact}}}")
        );
    }

    #[test]
    fn delta_event_keeps_the_text_and_quotes_it_in_its_message() {
        let tricky = "a \"quoted\"\n\\ line \u{1F600}";
        let params = json!({"threadId": "t", "turnId": "u", "itemId": "i", "delta": tricky});
        let (event, detail) = event("item/agentMessage/delta", params);
        assert_eq!(detail["delta"], tricky);
        assert_eq!(event.message, "App-server emitted delta for turn u: a \"quoted\" \\ line \u{1F600}");
    }
}
