//! Tests of the requests to the client and of its responses.

use serde_json::{Value, json};

use super::{Client, summaries, turn_params};

/// Runs a turn that sends a request, sends `response`, and returns the messages after the request.
fn after_response(ask: &str, response: &Value) -> Vec<Value> {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, &format!("deltas=1 ask={ask}"));
    let request = client.until(|message| message.get("id").is_some());
    assert_eq!(request["id"], 0);
    let mut message = json!({ "id": 0 });
    for (key, value) in response.as_object().unwrap() {
        message[key] = value.clone();
    }
    client.send(&message);
    client.all_until("turn/completed")
}

fn decision(decision: &str) -> Value {
    json!({ "result": { "decision": decision } })
}

#[test]
fn command_approval_has_the_recorded_messages() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.request("turn/start", &turn_params(&thread, "ask=command"));
    let messages = client.all_until("item/commandExecution/requestApproval");
    assert_eq!(
        summaries(&messages)[6..],
        [
            "thread/status/changed active waitingOnApproval",
            "item/started commandExecution inProgress",
            "item/commandExecution/requestApproval",
        ]
    );
    let request = messages.last().unwrap();
    assert_eq!(request["params"]["kind"], "command");
    assert_eq!(request["params"]["availableDecisions"][0], "accept");
    assert_eq!(request["params"]["availableDecisions"][2], "cancel");
    assert!(request.get("emittedAtMs").is_none());
}

#[test]
fn accepted_command_completes() {
    let with_rules = json!({ "result": { "decision": { "acceptWithExecpolicyAmendment": {} } } });
    for response in [decision("accept"), decision("acceptForSession"), with_rules] {
        assert_eq!(
            summaries(&after_response("command", &response))[..4],
            [
                "serverRequest/resolved",
                "thread/status/changed active",
                "item/completed commandExecution completed",
                "item/started agentMessage",
            ]
        );
    }
}

#[test]
fn declined_command_does_not_end_the_turn() {
    let summaries = summaries(&after_response("command", &decision("decline")));
    assert_eq!(
        summaries[..4],
        [
            "serverRequest/resolved",
            "item/completed commandExecution declined",
            "thread/status/changed active",
            "item/started agentMessage",
        ]
    );
    assert_eq!(summaries.last().unwrap(), "turn/completed completed");
}

#[test]
fn cancelled_command_interrupts_the_turn() {
    assert_eq!(
        summaries(&after_response("command", &decision("cancel"))),
        [
            "serverRequest/resolved",
            "item/completed commandExecution declined",
            "thread/status/changed active",
            "thread/status/changed idle",
            "turn/completed interrupted",
        ]
    );
}

#[test]
fn error_response_fails_the_item_and_not_the_turn() {
    let error = json!({ "error": { "code": -32601, "message": "not supported" } });
    let summaries = summaries(&after_response("command", &error));
    assert_eq!(summaries[1], "item/completed commandExecution failed");
    assert_eq!(summaries.last().unwrap(), "turn/completed completed");
}

#[test]
fn accepted_patch_is_sent_as_a_diff() {
    assert_eq!(
        summaries(&after_response("file", &decision("accept")))[..4],
        [
            "serverRequest/resolved",
            "thread/status/changed active",
            "item/completed fileChange completed",
            "turn/diff/updated",
        ]
    );
    assert_eq!(
        summaries(&after_response("file", &decision("decline")))[1],
        "item/completed fileChange declined"
    );
}

#[test]
fn turn_continues_after_any_response_to_a_request_without_item() {
    for ask in ["permissions", "input", "questions", "leave", "form", "unknown"] {
        let summaries = summaries(&after_response(ask, &json!({ "result": {} })));
        assert_eq!(summaries[..2], ["serverRequest/resolved", "thread/status/changed active"]);
        assert_eq!(summaries.last().unwrap(), "turn/completed completed");
    }
}

#[test]
fn requests_of_a_turn_are_sent_one_after_the_other() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, "ask=permissions ask=input ask=unknown");
    let methods =
        ["item/permissions/requestApproval", "item/tool/requestUserInput", "item/unheardOf/request"];
    for (id, method) in methods.into_iter().enumerate() {
        let request = client.until(|message| message.get("id").is_some());
        assert_eq!((&request["id"], &request["method"]), (&json!(id), &json!(method)));
        assert_eq!(request["params"]["threadId"], thread);
        client.send(&json!({ "id": id, "result": {} }));
    }
    client.until_method("turn/completed");
}

#[test]
fn interrupt_resolves_the_open_request() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "ask=command");
    client.until_method("item/commandExecution/requestApproval");
    client.request("turn/interrupt", &json!({ "threadId": thread, "turnId": turn }));
    let messages = client.all_until("serverRequest/resolved");
    assert_eq!(
        summaries(&messages),
        ["response", "thread/status/changed idle", "turn/completed interrupted", "serverRequest/resolved"]
    );
    // A response that comes too late is dropped.
    client.send(&json!({ "id": 0, "result": { "decision": "accept" } }));
    client.turn(&thread, "x");
    client.until_method("turn/completed");
}

#[test]
fn steer_takes_effect_after_the_response() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "ask=command");
    client.until_method("item/commandExecution/requestApproval");
    assert_eq!(client.turn(&thread, "text=steered"), turn);
    client.send(&json!({ "id": 0, "result": { "decision": "decline" } }));
    let summaries = summaries(&client.all_until("turn/completed"));
    assert_eq!(summaries[3], "item/started userMessage");
    assert_eq!(summaries[6], "item/agentMessage/delta steered");
}
