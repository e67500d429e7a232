//! The tools of the Model Context Protocol with the real app-server, over stdin and stdout and over HTTP.
//!
//! [`Client`] is `codexd mcp` with a client that speaks JSON-RPC itself, so that the messages can be looked at. The
//! clients of other people are in `clients`.

mod client;
mod clients;

use serde_json::{Value, json};

use super::Stage;
use crate::api::wait_for_event_type;
use crate::support::daemon::Daemon;
use crate::support::http::get;
use client::{Client, http_message};

/// A client whose user can fill in forms.
fn with_forms() -> Value {
    json!({ "elicitation": {} })
}

/// The arguments of a tool that runs a command for which Codex asks.
fn asking(prompt: &str) -> Value {
    json!({ "prompt": prompt, "approval-policy": "untrusted" })
}

/// The report in the result of a tool.
fn report(result: &Value) -> &Value {
    &result["structuredContent"]
}

/// The text in the result of a tool.
fn words(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn codex_and_codex_reply_have_the_shapes_of_the_removed_server() {
    let stage = Stage::start().await;
    let mut client = Client::start(&stage, json!({})).await;
    let tools = client.request("tools/list", json!({})).await["tools"].clone();
    let names: Vec<_> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let all = [
        "codex",
        "codex-reply",
        "codex-start",
        "codex-status",
        "codex-wait",
        "codex-interrupt",
        "codex-answer",
    ];
    assert_eq!(names, all);
    let arguments: Vec<_> = tools[0]["inputSchema"]["properties"].as_object().unwrap().keys().collect();
    let mut expected = [
        "approval-policy",
        "base-instructions",
        "compact-prompt",
        "config",
        "cwd",
        "developer-instructions",
        "model",
        "prompt",
        "sandbox",
    ];
    expected.sort_unstable();
    let mut arguments: Vec<_> = arguments.into_iter().map(String::as_str).collect();
    arguments.sort_unstable();
    assert_eq!(arguments, expected);
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["prompt"]));

    let first = client.call("codex", json!({ "prompt": "mock:text=[one]", "sandbox": "read-only" })).await;
    assert_eq!((words(&first), &report(&first)["content"]), ("one", &json!("one")), "{first}");
    let thread = report(&first)["threadId"].clone();
    let second = client.call("codex-reply", json!({ "prompt": "mock:text=[two]", "threadId": thread })).await;
    assert_eq!((words(&second), &report(&second)["threadId"]), ("two", &thread), "{second}");
    let third =
        client.call("codex-reply", json!({ "prompt": "mock:text=[three]", "conversationId": thread })).await;
    assert_eq!(words(&third), "three", "{third}");
    // The directory of the client is that of the session, as before.
    let session =
        get(&stage.daemon, &format!("/v1/codexd/sessions?threadId={}", thread.as_str().unwrap())).await;
    let session = &session.data(200)["sessions"][0];
    assert_eq!(session["cwd"], json!(stage.home.workspace()), "{session}");
    client.end().await;
}

#[tokio::test]
async fn form_answers_approval() {
    let stage = Stage::start().await;
    let mut client = Client::start(&stage, with_forms()).await;
    for (answer, runs) in [
        (json!({ "action": "accept", "content": { "decision": "accept" } }), true),
        (json!({ "action": "decline" }), false),
        (json!({ "action": "cancel" }), false),
    ] {
        let file = format!("file-{runs}");
        let call = client
            .send(
                "tools/call",
                json!({ "name": "codex",
            "arguments": asking(&format!("mock:shell=[touch {file}] mock:text=[after]")) }),
            )
            .await;
        let form = client.next_request().await;
        assert_eq!(form["method"], "elicitation/create");
        let message = form["params"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("touch {file}")), "{message}");
        let choices = &form["params"]["requestedSchema"]["properties"]["decision"]["enum"];
        assert!(choices.as_array().unwrap().contains(&json!("decline")), "{choices}");
        client.answer(&form, answer).await;
        let result = client.response(call).await;
        assert_eq!(words(&result), "after", "{result}");
        assert_eq!(stage.home.workspace().join(&file).exists(), runs, "{form}");
    }
    client.end().await;
}

#[tokio::test]
async fn approval_without_forms_is_reported_and_answered_by_a_tool() {
    let stage = Stage::start().await;
    let mut client = Client::start(&stage, json!({})).await;
    let asked = client.call("codex", asking("mock:shell=[touch asked] mock:text=[after]")).await;
    assert_eq!(report(&asked)["status"], "needsAnswer", "{asked}");
    let request = &report(&asked)["requests"][0];
    assert!(words(&asked).contains("touch asked") && words(&asked).contains("codex-answer"), "{asked}");
    let answer = json!({ "requestId": request["requestId"], "decision": "accept" });
    let answered = client.call("codex-answer", answer.clone()).await;
    assert_eq!(report(&answered)["threadId"], report(&asked)["threadId"], "{answered}");
    let thread = json!({ "threadId": report(&asked)["threadId"] });
    let ended = client.call("codex-wait", thread.clone()).await;
    assert_eq!((words(&ended), &report(&ended)["status"]), ("after", &json!("completed")), "{ended}");
    assert!(stage.home.workspace().join("asked").exists());
    // The second answer is told who was first.
    let late = client.call("codex-answer", answer).await;
    assert!(late["isError"] == true && words(&late).contains("already resolved"), "{late}");
    client.end().await;
}

#[tokio::test]
async fn job_runs_without_its_client_and_is_interrupted_by_a_tool() {
    let stage = Stage::start().await;
    let mut client = Client::start(&stage, json!({})).await;
    let started = client.call("codex-start", json!({ "prompt": "mock:hang" })).await;
    assert_eq!(report(&started)["status"], "running", "{started}");
    let thread = report(&started)["threadId"].clone();
    client.end().await;

    let mut client = Client::start(&stage, json!({})).await;
    let busy = client.call("codex-reply", json!({ "prompt": "more", "threadId": thread })).await;
    assert!(busy["isError"] == true && words(&busy).contains("is busy with turn"), "{busy}");
    let waited = client.call("codex-wait", json!({ "threadId": thread, "timeoutSeconds": 0 })).await;
    assert_eq!(report(&waited)["status"], "running", "{waited}");
    let queued = json!({ "prompt": "mock:text=[next]", "threadId": thread, "when-busy": "queue" });
    let queued = client.call("codex-start", queued).await;
    assert_eq!(report(&queued)["status"], "queued", "{queued}");
    let named = json!({ "threadId": thread, "queueId": report(&queued)["queueId"] });
    let waiting = client.call("codex-status", named.clone()).await;
    assert_eq!(report(&waiting)["status"], "queued", "{waiting}");
    let unknown = client.call("codex-status", json!({ "threadId": thread, "queueId": "queued-x" })).await;
    assert!(words(&unknown).contains("has no queued turn \"queued-x\""), "{unknown}");
    let interrupted = client.call("codex-interrupt", json!({ "threadId": thread })).await;
    assert_eq!(report(&interrupted)["status"], "interrupted", "{interrupted}");
    // It keeps its ID when it has started.
    for _ in 0..2 {
        let ended = client.call("codex-wait", named.clone()).await;
        assert_eq!((words(&ended), &report(&ended)["status"]), ("next", &json!("completed")), "{ended}");
    }
    client.end().await;
}

#[tokio::test]
async fn cancelled_call_interrupts_its_turn() {
    let stage = Stage::start().await;
    let mut client = Client::start(&stage, json!({})).await;
    let call =
        client.send("tools/call", json!({ "name": "codex", "arguments": { "prompt": "mock:hang" } })).await;
    let accepted = wait_for_event_type(&stage.daemon, "turn.accepted").await;
    client.notify("notifications/cancelled", json!({ "requestId": call, "reason": "test" })).await;
    let completed = wait_for_event_type(&stage.daemon, "app-server.turn.completed").await;
    assert_eq!(completed["detail"]["turnId"], accepted["detail"]["turnId"]);
    assert_eq!(completed["detail"]["status"], "interrupted");
    client.end().await;
}

#[tokio::test]
async fn wait_goes_on_across_a_restart_of_the_daemon() {
    let mut stage = Stage::start().await;
    let mut client = Client::start(&stage, with_forms()).await;
    let started = client.call("codex-start", asking("mock:shell=[true] mock:text=[after]")).await;
    let thread = report(&started)["threadId"].clone();
    let wait = json!({ "name": "codex-wait", "arguments": { "threadId": thread, "timeoutSeconds": 3600 },
                       "_meta": { "progressToken": "wait" } });
    let call = client.send("tools/call", wait).await;
    assert_eq!(client.next_request().await["method"], "elicitation/create");
    stage.daemon.kill().await;
    loop {
        let progress = client.next_notification("notifications/progress").await;
        assert_eq!(progress["params"]["progressToken"], "wait");
        if progress["params"]["message"].as_str().unwrap().contains("connection to codexd was lost") {
            break;
        }
    }

    let builder = Daemon::builder().real(&stage.home);
    let daemon = builder.state_from(&stage.daemon).address_of(&stage.daemon).start().await;
    // The app-server ended with its daemon, and the turn with it; its thread says later that it was interrupted.
    let ended = client.response(call).await;
    assert!(["failed", "interrupted"].contains(&report(&ended)["status"].as_str().unwrap()), "{ended}");
    let reply =
        client.call("codex-reply", json!({ "prompt": "mock:text=[again]", "threadId": thread })).await;
    assert_eq!(words(&reply), "again", "{reply}");
    client.end().await;
    drop(daemon);
}

#[tokio::test]
async fn tool_says_that_the_daemon_does_not_run() {
    let mut stage = Stage::start().await;
    let mut client = Client::start(&stage, json!({})).await;
    stage.daemon.stop().await;
    let refused = client.call("codex", json!({ "prompt": "x" })).await;
    assert!(refused["isError"] == true && words(&refused).contains("codexd start"), "{refused}");
    client.end().await;
}

#[tokio::test]
async fn http_has_the_same_tools_behind_the_request_guard() {
    let stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let (status, session_header, initialized) =
        http_message(&stage.daemon, None, &client::initialize(json!({}))).await;
    assert_eq!(
        (status, &initialized["result"]["serverInfo"]["name"]),
        (200, &json!("codexd")),
        "{initialized}"
    );
    let header = session_header.unwrap();
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(http_message(&stage.daemon, Some(&header), &notification).await.0, 202);
    let call = |name: &str, arguments: Value| {
        json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
                "params": { "name": name, "arguments": arguments } })
    };
    let reply =
        call("codex-reply", json!({ "prompt": "mock:text=[over HTTP]", "threadId": session["threadId"] }));
    let (_, _, reply) = http_message(&stage.daemon, Some(&header), &reply).await;
    assert_eq!(words(&reply["result"]), "over HTTP", "{reply}");
    // The directory of the client is not known.
    let relative = call("codex", json!({ "prompt": "x", "cwd": "here" }));
    let (_, _, relative) = http_message(&stage.daemon, Some(&header), &relative).await;
    assert!(words(&relative["result"]).contains("cwd"), "{relative}");
    for (tool, arguments, reason) in [
        ("codex-status", json!({ "threadId": " " }), "threadId must not be empty"),
        ("codex-interrupt", json!({ "threadId": "" }), "threadId must not be empty"),
        ("codex-reply", json!({ "prompt": "x", "threadId": "" }), "threadId must not be empty"),
        ("codex-start", json!({ "prompt": "x", "threadId": "" }), "threadId must not be empty"),
        (
            "codex-start",
            json!({ "prompt": "x", "threadId": session["threadId"], "sandbox": "read-only" }),
            "sandbox is for a new thread",
        ),
    ] {
        let (_, _, refused) = http_message(&stage.daemon, Some(&header), &call(tool, arguments)).await;
        assert!(words(&refused["result"]).contains(reason), "{tool}: {refused}");
    }
    let unknown = call("codex-status", json!({ "threadId": session["threadId"], "turn": 1 }));
    let (_, _, unknown) = http_message(&stage.daemon, Some(&header), &unknown).await;
    assert!(words(&unknown["result"]).contains("no argument \"turn\""), "{unknown}");
}
