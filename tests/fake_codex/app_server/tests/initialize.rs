//! Tests of `initialize`, of lines that are not requests, and of startup directives.

use serde_json::json;

use super::{Client, Stopped, turn_params};

#[test]
fn server_requires_exactly_one_initialize() {
    let mut client = Client::new("", None);
    assert_eq!(client.call("thread/start", &json!({})).unwrap_err(), "Not initialized");
    client.initialize(&json!(null));
    let info = json!({ "clientInfo": { "name": "x", "version": "0" } });
    assert_eq!(client.call("initialize", &info).unwrap_err(), "Already initialized");
}

#[test]
fn responses_have_the_shape_of_codex() {
    let mut client = Client::ready("", None);
    client.send(&json!({ "id": "text", "method": "no/such" }));
    let message = client.message();
    assert_eq!(message["id"], "text");
    assert_eq!(message["error"]["code"], -32600);
    let error = message["error"]["message"].as_str().unwrap();
    assert!(error.starts_with("Invalid request: unknown variant `no/such`, expected one of `initialize`, "));
    assert!(message.get("jsonrpc").is_none());
    client.send(&json!({ "id": 7, "method": "turn/start" }));
    assert_eq!(client.message()["error"]["message"], "Invalid request: missing field `params`");
    let models = client.call("model/list", &json!({})).unwrap();
    assert_eq!(models["data"].as_array().unwrap().len(), 2);
    assert_eq!(client.call("account/read", &json!({})).unwrap()["account"], json!(null));
    assert_eq!(client.call("account/rateLimits/read", &json!({})).unwrap()["rateLimits"]["limitId"], "codex");
}

#[test]
fn server_ignores_lines_that_are_not_requests() {
    let mut client = Client::ready("", None);
    client.send_bytes(b"no json\n\xff\xfe\n[1,2]\n\n{\"id\":77,\"result\":{}}\n{\"method\":\"foo/bar\"}\n");
    client.send_bytes(b"{\"id\":null,\"method\":\"thread/loaded/list\"}\n{}\n");
    client.request("thread/loaded/list", &json!({}));
    assert_eq!(client.message(), json!({ "id": 2, "result": { "data": [], "nextCursor": null } }));
}

#[test]
fn initialize_opts_out_of_notifications() {
    let mut client = Client::new("", None);
    client.initialize(&json!({ "optOutNotificationMethods": ["warning", "item/agentMessage/delta"] }));
    let thread = client.thread();
    client.request("turn/start", &turn_params(&thread, "x"));
    let messages = client.all_until("turn/completed");
    assert!(messages.iter().any(|message| message["method"] == "turn/started"));
    assert!(messages.iter().all(|message| message["method"] != "item/agentMessage/delta"));
    assert!(messages.iter().all(|message| message["method"] != "warning"));
}

#[test]
fn experimental_methods_require_the_capability() {
    let mut client = Client::new("", None);
    client.initialize(&json!({}));
    let thread = client.thread();
    let params = json!({ "threadId": thread });
    assert_eq!(
        client.call("thread/backgroundTerminals/clean", &params).unwrap_err(),
        "thread/backgroundTerminals/clean requires experimentalApi capability"
    );
    let mut params = turn_params(&thread, "x");
    params["collaborationMode"] = json!({ "mode": "default" });
    assert_eq!(
        client.call("turn/start", &params).unwrap_err(),
        "turn/start.collaborationMode requires experimentalApi capability"
    );
}

#[test]
fn startup_directives_change_initialize_and_the_first_lines() {
    let info = json!({ "clientInfo": { "name": "x", "version": "0" } });
    let mut client = Client::new("refuse-initialize", None);
    assert!(client.call("initialize", &info).unwrap_err().contains("refused"));

    let mut client = Client::new("hang-initialize", None);
    client.request("initialize", &info);
    assert_eq!(client.end_input(), Stopped::EndOfInput);
    assert!(client.lines.recv().is_err(), "no response before the end");

    let mut client = Client::new("exit-after-initialize=4", None);
    client.call("initialize", &info).unwrap();
    assert_eq!(client.endings.recv().unwrap(), super::Ending::Exit(4));

    let mut client = Client::new("stdout=LINE stderr=TEXT", None);
    client.request("initialize", &info);
    assert_eq!(client.line(), b"LINE\n");
    assert_eq!(*client.log.lock().unwrap(), b"fake app-server ready\nTEXT\n");

    let mut client = Client::new("stop-reading", None);
    client.call("initialize", &info).unwrap();
    assert_eq!(client.stopped.recv().unwrap(), Stopped::StopReading);
}

#[test]
fn foreign_thread_directive_starts_a_thread_and_a_turn() {
    let mut client = Client::ready("foreign-thread", None);
    let started = client.until_method("thread/started");
    let completed = client.until_method("turn/completed");
    assert_eq!(completed["params"]["threadId"], started["params"]["thread"]["id"]);
}

#[test]
fn flood_directive_sends_deltas_without_end() {
    let mut client = Client::new("flood", None);
    client.request("initialize", &json!({ "clientInfo": { "name": "x", "version": "0" } }));
    client.message();
    for _ in 0..1000 {
        assert_eq!(client.message()["method"], "item/agentMessage/delta");
    }
}

#[test]
fn delayed_responses_keep_their_order() {
    let mut client = Client::new("answer-late=5", None);
    client.initialize(&json!(null));
    let ids: Vec<i64> = (0..20).map(|_| client.request("thread/loaded/list", &json!({}))).collect();
    for id in ids {
        assert_eq!(client.message()["id"], id);
    }
}
