//! The parameters that clients pass to the real Codex, and forks at a turn.

use std::collections::BTreeSet;
use std::fs;

use codexd::codex::protocol::{methods, parameters};
use serde_json::{Value, json};

use super::Stage;
use super::calls::schema_of;
use super::sessions::submit_with;
use crate::support::codex::{codex, codex_version};
use crate::support::http::post;

const SESSIONS: &str = "/v1/codexd/sessions";

/// The names of the properties of a schema.
fn properties(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

/// The stable parameters that this Codex has for a method.
fn parameters_of(schema: &std::path::Path, method: &str) -> BTreeSet<String> {
    let mut name = String::new();
    for part in method.split('/') {
        let (first, rest) = part.split_at(1);
        name.push_str(&first.to_uppercase());
        name.push_str(rest);
    }
    let text = fs::read(schema.join("v2").join(format!("{name}Params.json"))).unwrap();
    properties(&serde_json::from_slice(&text).unwrap())
}

#[test]
fn tables_have_every_stable_parameter_of_codex() {
    let (installed, newest) = (codex(), codex_version("0.171.0"));
    let (now, tested) = (schema_of(&installed.native, &[]), schema_of(&newest.native, &[]));
    for table in parameters::ALL {
        let known: BTreeSet<String> =
            table.passed.iter().chain(table.own).map(|&name| name.to_owned()).collect();
        let has = parameters_of(now.path(), table.method);
        let new: Vec<_> = has.difference(&known).collect();
        assert!(
            new.is_empty(),
            "{} of Codex {} has parameters that src/codex/protocol/parameters.rs lacks: {new:?}",
            table.method,
            installed.version
        );
        assert_eq!(parameters_of(tested.path(), table.method), known, "{} of Codex 0.171.0", table.method);
    }
}

#[test]
fn bodies_have_every_parameter_of_the_tables() {
    let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
    let body = |name: &str| properties(&document["components"]["schemas"][name]);
    for table in parameters::ALL {
        let is_turn = [methods::TURN_START, methods::TURN_STEER].contains(&table.method);
        let taken = body(if is_turn { "SubmitTurn" } else { "CreateSession" });
        let missing: Vec<_> = table.passed.iter().filter(|&&name| !taken.contains(name)).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", table.method);
    }
}

/// Codex checks what it gets, so a wrong value of a parameter is rejected if it was passed on.
#[tokio::test]
async fn parameters_reach_codex() {
    let mut stage = Stage::start_version("0.171.0").await;
    let right = json!({
        "approvalsReviewer": "user", "serviceName": "a-service", "sessionStartSource": "startup",
        "threadSource": "user", "baseInstructions": "Be short.", "developerInstructions": "Be shorter.",
    });
    let session = stage.session(&right).await;
    for name in ["approvalsReviewer", "serviceName", "sessionStartSource", "threadSource"] {
        let body = json!({ "cwd": stage.home.workspace(), name: { "wrong": true } });
        post(&stage.daemon, SESSIONS, &body).await.error(400, "app_server_rejected");
    }
    let right = json!({
        "approvalsReviewer": "user", "disabledPluginIds": [], "parentTurnId": "01a1f75b-eeb6-7381-8804-85c03f1acb17",
        "rootTurnId": "01a1f75b-eeb6-7381-8804-85c03f1acb17", "serviceTierForTurn": "default", "turnTrigger": "client",
    });
    let accepted = submit_with(&stage, &session, "mock:text=[hello]", right).await;
    let turn_id = accepted.data(202)["turnId"].as_str().unwrap().to_owned();
    assert!(accepted.data(202)["ignored"].is_null(), "{}", accepted.text);
    assert_eq!(stage.rest_of(&turn_id).await.status(), "completed");
    for name in [
        "approvalsReviewer",
        "disabledPluginIds",
        "parentTurnId",
        "rootTurnId",
        "serviceTierForTurn",
        "toolOutput",
        "turnTrigger",
    ] {
        let wrong = submit_with(&stage, &session, "mock:text=[hello]", json!({ name: 7 })).await;
        wrong.error(400, "app_server_rejected");
    }
    let fork = json!({ "forkFrom": session["sessionId"], "threadSource": { "wrong": true } });
    post(&stage.daemon, SESSIONS, &fork).await.error(400, "app_server_rejected");
    // A fork has no personality of its own, and a resumed thread no source.
    let ignored = |body: Value| {
        let daemon = &stage.daemon;
        async move { post(daemon, SESSIONS, &body).await.data(201)["ignored"].clone() }
    };
    let fork = json!({ "forkFrom": session["sessionId"], "personality": "friendly", "threadSource": "user" });
    assert_eq!(ignored(fork).await, json!(["personality"]));
    let resumed =
        json!({ "threadId": session["threadId"], "threadSource": "user", "personality": "friendly" });
    assert_eq!(ignored(resumed).await, json!(["threadSource"]));
    stage.stop().await;
}

#[tokio::test]
async fn fork_at_a_turn_is_refused_where_codex_copies_all() {
    let mut stage = Stage::start_version("0.140.0").await;
    let session = stage.session(&json!({})).await;
    let first = stage.start_turn(&session, "mock:text=[one]").await;
    stage.rest_of(&first).await;
    let at_turn = json!({ "forkFrom": session["sessionId"], "lastTurnId": first });
    post(&stage.daemon, SESSIONS, &at_turn).await.error(409, "codex_too_old");
    let whole = json!({ "forkFrom": session["sessionId"] });
    post(&stage.daemon, SESSIONS, &whole).await.data(201);
}

#[tokio::test]
async fn fork_ends_with_its_last_turn() {
    let mut stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let first = stage.start_turn(&session, "mock:text=[one]").await;
    stage.rest_of(&first).await;
    stage.turn(&session, "mock:text=[two] the second question").await;
    let source = session["sessionId"].clone();
    let fork = stage.session(&json!({ "forkFrom": source, "lastTurnId": first })).await;
    assert_eq!(
        (&fork["lastTurnStatus"], fork["threadId"] == session["threadId"]),
        (&json!("completed"), false)
    );
    stage.turn(&fork, "mock:text=[three] the third question").await;
    let asked = stage.model.requests().last().unwrap().to_string();
    assert!(asked.contains("mock:text=[one]") && !asked.contains("the second question"), "{asked}");

    let whole = stage.session(&json!({ "forkFrom": source })).await;
    stage.turn(&whole, "mock:text=[four]").await;
    assert!(stage.model.requests().last().unwrap().to_string().contains("the second question"));

    let unknown = json!({ "forkFrom": source, "lastTurnId": "01a1f75b-eeb6-7381-8804-85c03f1acb17" });
    post(&stage.daemon, SESSIONS, &unknown).await.error(400, "app_server_rejected");
    // A turn that is running cannot be the last one.
    let running = stage.start_turn(&session, "mock:hang").await;
    let early = json!({ "forkFrom": source, "lastTurnId": running });
    post(&stage.daemon, SESSIONS, &early).await.error(400, "app_server_rejected");
    let started = json!({ "cwd": stage.home.workspace(), "lastTurnId": first });
    assert_eq!(post(&stage.daemon, SESSIONS, &started).await.data(201)["ignored"], json!(["lastTurnId"]));
    stage.stop().await;
}
