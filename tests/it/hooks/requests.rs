//! The routes of hooks: what they accept, refuse and show.

use hyper::Method;
use serde_json::{Value, json};

use super::{HOOKS, Sink, add_hook, hooks};
use crate::api::{start_daemon, text};
use crate::support::daemon::Daemon;
use crate::support::http::{get, post, request};

#[tokio::test]
async fn hook_is_listed_without_secrets_and_survives_a_restart() {
    let mut daemon = start_daemon().await;
    let command = json!(["curl", "--header", "Authorization: Bearer CANARY", "https://example.org/CANARY"]);
    let fields = json!({ "on": ["request.opened"], "command": command, "timeoutSeconds": 5, "odd": 1 });
    let mut body = json!({ "name": "notify" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let added = post(&daemon, HOOKS, &body).await;
    assert_eq!(added.data(201)["ignored"], json!(["odd"]));
    let hook = &added.data(201)["hook"];
    assert_eq!((&hook["program"], &hook["arguments"]), (&json!("curl"), &json!(3)));
    assert_eq!(
        (&hook["name"], &hook["state"], &hook["failing"]),
        (&json!("notify"), &json!("idle"), &json!(false))
    );
    assert_eq!(
        (&hook["timeoutSeconds"], &hook["detail"], &hook["sessionId"]),
        (&json!(5), &json!(false), &Value::Null)
    );
    assert!(!added.text.contains("CANARY"), "{}", added.text);
    assert!(daemon.stop().await.status.success());
    daemon = Daemon::builder().state_from(&daemon).start().await;
    let listed = get(&daemon, HOOKS).await;
    assert_eq!(listed.data(200)["hooks"][0]["hookId"], hook["hookId"]);
    assert!(!listed.text.contains("CANARY"), "{}", listed.text);
    let log = json!(daemon.events_on_disk()).to_string();
    assert!(log.contains("hook.added") && !log.contains("CANARY") && !daemon.stderr().contains("CANARY"));
    let path = format!("{HOOKS}/{}", text(&hook["hookId"]));
    assert_eq!(request(&daemon, Method::DELETE, &path, &[], "").await.data(200)["hook"]["name"], "notify");
    request(&daemon, Method::DELETE, &path, &[], "").await.error(404, "not_found");
    post(&daemon, &format!("{path}/test"), &json!({})).await.error(404, "not_found");
    assert_eq!(hooks(&daemon).await, [Value::Null; 0]);
}

#[tokio::test]
async fn invalid_hooks_are_refused_with_a_reason() {
    let daemon = start_daemon().await;
    let sink = Sink::new();
    let valid = json!({ "name": "a", "on": ["request"], "command": sink.command() });
    for (field, value, reason) in [
        ("name", Value::Null, "name must be a non-empty string"),
        ("name", json!("a b"), "1 to 64 characters"),
        ("name", json!("a\"b"), "1 to 64 characters"),
        ("name", json!("x".repeat(65)), "1 to 64 characters"),
        ("on", json!([]), "on must list 1 to 64"),
        ("on", json!(["request.opend"]), "no event type begins with \"request.opend\""),
        ("on", json!(["hook.failing"]), "which no hook gets"),
        ("on", json!([""]), "no event type begins with"),
        ("on", json!("request"), "on must be a list"),
        ("command", Value::Null, "either command or url"),
        ("command", json!([]), "command must list a program"),
        ("command", json!(["a\u{0}b"]), "zero byte"),
        ("command", json!(["bin/notify"]), "an absolute path"),
        ("command", json!(["x", "y".repeat(17_000)]), "longer than"),
        ("url", json!("https://example.org/"), "either command or url"),
        ("secret", json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "secret is for hooks with a url"),
        ("timeoutSeconds", json!(0), "a whole number of seconds from 1 to 600"),
        ("detail", json!("yes"), "true or false"),
    ] {
        let mut body = valid.clone();
        body[field] = value;
        let answer = post(&daemon, HOOKS, &body).await;
        let message = answer.error(400, "bad_request");
        assert!(message.contains(reason), "{body}: {message}");
    }
    let mut body = valid.clone();
    body["sessionId"] = json!("none");
    post(&daemon, HOOKS, &body).await.error(404, "not_found");
    assert_eq!(hooks(&daemon).await, [Value::Null; 0]);
}

#[tokio::test]
async fn names_are_unique_and_there_are_at_most_32_hooks() {
    let daemon = start_daemon().await;
    let hook = |number: usize| json!({ "name": number.to_string(), "on": ["request"], "command": ["true"] });
    for number in 0..32 {
        add_hook(&daemon, hook(number)).await;
    }
    post(&daemon, HOOKS, &hook(31)).await.error(409, "hook_exists");
    post(&daemon, HOOKS, &hook(32)).await.error(409, "too_many_hooks");
    let listed = hooks(&daemon).await;
    assert_eq!(listed.len(), 32);
    let path = format!("{HOOKS}/{}", text(&listed[7]["hookId"]));
    request(&daemon, Method::DELETE, &path, &[], "").await.data(200);
    add_hook(&daemon, hook(32)).await;
}

#[tokio::test]
async fn test_of_a_hook_reports_how_it_failed() {
    let daemon = start_daemon().await;
    let hook =
        add_hook(&daemon, json!({ "on": ["request"], "command": ["no-such-program-of-a-hook"] })).await;
    let path = format!("{HOOKS}/{}/test", text(&hook["hookId"]));
    let tested = post(&daemon, &path, &json!({})).await.data(200).clone();
    assert_eq!(tested["succeeded"], false);
    let error = "the program \"no-such-program-of-a-hook\" does not exist or cannot be executed";
    assert_eq!(tested["error"], error);
    assert_eq!(hooks(&daemon).await[0]["failures"], 0, "a test does not count");
}
