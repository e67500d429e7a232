//! Requests to the client and the ways in which it answers them.

use serde_json::{Value, json};

use super::{Client, gists, turn_params};

/// Plays a turn that asks, answers with `answer`, and gives back what came after the request.
fn after_answer(ask: &str, answer: &Value) -> Vec<Value> {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.turn(&thread, &format!("deltas=1 ask={ask}"));
    let request = client.until(|message| message.get("id").is_some());
    assert_eq!(request["id"], 0);
    let mut message = json!({ "id": 0 });
    for (key, value) in answer.as_object().unwrap() {
        message[key] = value.clone();
    }
    client.send(&message);
    client.all_until("turn/completed")
}

fn decision(decision: &str) -> Value {
    json!({ "result": { "decision": decision } })
}

#[test]
fn a_command_approval_looks_like_the_recorded_one() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    client.request("turn/start", &turn_params(&thread, "ask=command"));
    let messages = client.all_until("item/commandExecution/requestApproval");
    assert_eq!(
        gists(&messages)[6..],
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
fn an_accepted_command_runs() {
    let with_rules = json!({ "result": { "decision": { "acceptWithExecpolicyAmendment": {} } } });
    for answer in [decision("accept"), decision("acceptForSession"), with_rules] {
        assert_eq!(
            gists(&after_answer("command", &answer))[..4],
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
fn a_declined_command_ends_declined_and_the_turn_goes_on() {
    let gists = gists(&after_answer("command", &decision("decline")));
    assert_eq!(
        gists[..4],
        [
            "serverRequest/resolved",
            "item/completed commandExecution declined",
            "thread/status/changed active",
            "item/started agentMessage",
        ]
    );
    assert_eq!(gists.last().unwrap(), "turn/completed completed");
}

#[test]
fn a_cancelled_command_takes_the_turn_with_it() {
    assert_eq!(
        gists(&after_answer("command", &decision("cancel"))),
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
fn an_error_answer_fails_the_item_and_the_turn_goes_on() {
    let error = json!({ "error": { "code": -32601, "message": "not supported" } });
    let gists = gists(&after_answer("command", &error));
    assert_eq!(gists[1], "item/completed commandExecution failed");
    assert_eq!(gists.last().unwrap(), "turn/completed completed");
}

#[test]
fn a_patch_is_asked_for_and_shown_as_a_diff() {
    assert_eq!(
        gists(&after_answer("file", &decision("accept")))[..4],
        [
            "serverRequest/resolved",
            "thread/status/changed active",
            "item/completed fileChange completed",
            "turn/diff/updated",
        ]
    );
    assert_eq!(gists(&after_answer("file", &decision("decline")))[1], "item/completed fileChange declined");
}

#[test]
fn requests_without_an_item_go_on_after_any_answer() {
    for ask in ["permissions", "input", "questions", "leave", "form", "unknown"] {
        let gists = gists(&after_answer(ask, &json!({ "result": {} })));
        assert_eq!(gists[..2], ["serverRequest/resolved", "thread/status/changed active"]);
        assert_eq!(gists.last().unwrap(), "turn/completed completed");
    }
}

#[test]
fn several_requests_come_one_after_the_other() {
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
fn an_interrupt_resolves_the_open_request() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "ask=command");
    client.until_method("item/commandExecution/requestApproval");
    client.request("turn/interrupt", &json!({ "threadId": thread, "turnId": turn }));
    let messages = client.all_until("serverRequest/resolved");
    assert_eq!(
        gists(&messages),
        ["answer", "thread/status/changed idle", "turn/completed interrupted", "serverRequest/resolved"]
    );
    // An answer that comes too late is dropped.
    client.send(&json!({ "id": 0, "result": { "decision": "accept" } }));
    client.turn(&thread, "x");
    client.until_method("turn/completed");
}

#[test]
fn a_steer_waits_for_the_answer() {
    let mut client = Client::ready("", None);
    let thread = client.thread();
    let turn = client.turn(&thread, "ask=command");
    client.until_method("item/commandExecution/requestApproval");
    assert_eq!(client.turn(&thread, "text=steered"), turn);
    client.send(&json!({ "id": 0, "result": { "decision": "decline" } }));
    let gists = gists(&client.all_until("turn/completed"));
    assert_eq!(gists[3], "item/started userMessage");
    assert_eq!(gists[6], "item/agentMessage/delta steered");
}
