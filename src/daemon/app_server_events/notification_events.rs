//! The notifications of the app-server, as events.

use bytes::Bytes;
use memchr::{memchr, memchr2};
use serde_json::Value;

use crate::codex::protocol::delta::Delta;
use crate::codex::protocol::notifications::{
    self, CHANGING_RECORDS, ExecOutput, Notification, StartedThread, ThreadStatus, TurnDiff, TurnError,
    TurnParams, TurnPlan,
};
use crate::state::{DeltaText, NewEvent, NotificationEvent, PassedThrough, detail_parts, preview, unescaped};

/// The event of a notification; one that lacks what its event needs passes through like an unknown one.
pub(crate) fn notification(method: &str, params: &str) -> NewEvent {
    let event = match Notification::decode(method, params) {
        Notification::ThreadStarted(StartedThread { id, parent_thread_id }) => {
            NotificationEvent::ThreadStarted { thread_id: id, parent_thread_id }
        }
        Notification::ThreadStatusChanged(ThreadStatus { thread_id, status }) => {
            NotificationEvent::ThreadStatusChanged { status, thread_id }
        }
        Notification::TurnStarted(TurnParams { thread_id, turn }) => NotificationEvent::TurnStarted {
            status: turn.status,
            thread_id,
            // Codex 0.169.0 names the root of every turn; only that of a sub-agent's is another one.
            root_turn_id: turn.root_turn_id.filter(|root| *root != turn.id),
            turn_id: turn.id,
            read_from_thread: false,
            started_at: None,
            previous_turn_id: None,
        },
        Notification::TurnCompleted(TurnParams { thread_id, turn }, error) => {
            NotificationEvent::TurnCompleted { error, status: turn.status, thread_id, turn_id: turn.id }
        }
        Notification::TurnDiffUpdated(TurnDiff { thread_id, turn_id, diff }) => {
            NotificationEvent::TurnDiffUpdated { diff, thread_id, turn_id }
        }
        Notification::TurnPlanUpdated(TurnPlan { thread_id, turn_id, explanation, plan }) => {
            NotificationEvent::TurnPlanUpdated { explanation, plan, thread_id, turn_id }
        }
        Notification::AgentMessageDelta(delta) => {
            return try_message_delta(&delta).unwrap_or_else(|| passed_through(method, params));
        }
        Notification::PlanDelta(delta) => {
            return plan_delta(&delta).unwrap_or_else(|| passed_through(method, params));
        }
        Notification::TurnError(TurnError { error, thread_id, turn_id, will_retry }) => {
            let error = Some(error).filter(|error| !error.is_null());
            NotificationEvent::TurnError { error, thread_id, turn_id, will_retry }
        }
        Notification::ExecOutputDelta(ExecOutput { process_id, stream, delta_base64, cap_reached }) => {
            NotificationEvent::CommandOutputDelta { cap_reached, delta_base64, process_id, stream }
        }
        Notification::Other => return passed_through(method, params),
    };
    event.into()
}

/// The event of a notification without a separate event type.
fn passed_through(method: &str, params: &str) -> NewEvent {
    let message = format!("App-server notification {method}.");
    let method_json = Value::from(method).to_string();
    // One piece of memory: the parameters can have many MB.
    let mut json = String::with_capacity(method_json.len() + params.len() + 40);
    json.extend(["{\"notificationMethod\":", &method_json, ",\"params\":"]);
    push_compact(&mut json, params);
    json.push('}');
    // These are rare enough to be read.
    let params = CHANGING_RECORDS.contains(&method).then(|| serde_json::from_str(params).ok()).flatten();
    let change = params.map_or(PassedThrough::Nothing, |params| PassedThrough::of(method, params));
    NewEvent::with_text(NotificationEvent::Other(change), message, json)
}

/// Appends JSON without the space between its parts: an event is one line, and filters know its text without spaces.
fn push_compact(out: &mut String, json: &str) {
    let mut rest = json;
    while !rest.is_empty() {
        let (between, string) = rest.split_at(memchr(b'"', rest.as_bytes()).unwrap_or(rest.len()));
        out.extend(between.chars().filter(|part| !part.is_ascii_whitespace()));
        let (string, after) = string.split_at(string_len(string.as_bytes()));
        out.push_str(string);
        rest = after;
    }
}

/// The length of the JSON string with its quotes at the beginning of a text.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if text[at + found] == b'"' {
            return at + found + 1;
        }
        at += found + 2;
    }
    text.len()
}

/// The detail of a delta's event; the texts go into it exactly as they came.
fn delta_detail(delta: &Delta<'_>) -> String {
    let Delta { delta, item_id, thread_id, turn_id } = delta;
    let parts = detail_parts(delta.as_bytes(), item_id.as_bytes(), thread_id.as_bytes(), turn_id.as_bytes());
    String::from_utf8_lossy(&parts.concat()).into_owned()
}

/// The event of a piece of an answer, which was read from `line`.
pub(crate) fn message_delta(line: &Bytes, delta: &Delta<'_>) -> NewEvent {
    let event = DeltaText::new(line, delta).map(NewEvent::Delta);
    event
        .or_else(|| try_message_delta(delta))
        .unwrap_or_else(|| passed_through(notifications::AGENT_MESSAGE_DELTA, &delta_detail(delta)))
}

fn try_message_delta(delta: &Delta<'_>) -> Option<NewEvent> {
    let (turn_id, text) = (unescaped(delta.turn_id)?, unescaped(delta.delta)?);
    let message = format!("App-server emitted delta for turn {turn_id}: {}", preview(&text));
    Some(NewEvent::with_text(NotificationEvent::MessageDelta {}, message, delta_detail(delta)))
}

fn plan_delta(delta: &Delta<'_>) -> Option<NewEvent> {
    let message = format!("App-server emitted plan delta for turn {}.", unescaped(delta.turn_id)?);
    Some(NewEvent::with_text(NotificationEvent::PlanDelta {}, message, delta_detail(delta)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(method: &str, params: Value) -> (NewEvent, Value) {
        let event = notification(method, &params.to_string());
        let detail = event.json().map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
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
            assert_eq!(event.detail().event_type(), event_type, "{method}");
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
            event.json().unwrap(),
            format!("{{\"notificationMethod\":\"brand/new\",\"params\":{compact}}}")
        );
    }

    /// The event of a delta, which is not copied, is the one of the notification with its parameters.
    #[test]
    fn event_of_a_delta_has_the_texts_of_its_notification() {
        let long = "a".repeat(200);
        let texts = ["a", "", " a  b ", "é\u{1F600}", "a \"b\"\\\n", "\u{2028}", &long];
        for (text, turn_id) in texts.into_iter().flat_map(|text| [(text, "u"), (text, "u\"")]) {
            let params =
                json!({"threadId": "t", "turnId": turn_id, "itemId": "i", "delta": text}).to_string();
            let line = Bytes::from(format!("{{\"method\":\"item/agentMessage/delta\",\"params\":{params}}}"));
            let delta = Delta::of_agent_message(&line).unwrap();
            let event = message_delta(&line, &delta);
            assert_eq!(matches!(event, NewEvent::Delta(_)), turn_id == "u");
            let expected = notification(notifications::AGENT_MESSAGE_DELTA, &params);
            assert!(matches!(expected, NewEvent::Other(_)));
            assert_eq!((event.message(), event.json()), (expected.message(), expected.json()));
            assert_eq!(event.detail(), expected.detail());
        }
        // Thousands of them can wait.
        assert!(size_of::<NewEvent>() <= 96);
    }

    #[test]
    fn delta_event_keeps_the_text_and_quotes_it_in_its_message() {
        let tricky = "a \"quoted\"\n\\ line \u{1F600}";
        let params = json!({"threadId": "t", "turnId": "u", "itemId": "i", "delta": tricky});
        let (event, detail) = event("item/agentMessage/delta", params);
        assert_eq!(detail["delta"], tricky);
        assert_eq!(event.message(), "App-server emitted delta for turn u: a \"quoted\" \\ line \u{1F600}");
    }
}
