//! Tests of the structs of bodies and queries: their errors, and what is forwarded.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::http::bodies::{self, AnswerRequest, CreateSession, InterruptTurn, SubmitTurn, UpdateSession};
use crate::http::body::Fields;
use crate::http::parse;
use crate::http::queries::{CloseQuery, SessionQuery, WaitQuery};

fn parse_body<T: DeserializeOwned + schemars::JsonSchema + 'static>(
    body: Value,
) -> Result<(T, Vec<String>), String> {
    let Value::Object(body) = body else { panic!("{body} is not an object") };
    Fields::from(body).parse().map_err(|error| error.message().to_owned())
}

fn error_message<T: DeserializeOwned + schemars::JsonSchema + 'static>(body: Value) -> String {
    let shown = body.to_string();
    parse_body::<T>(body).map(|_| ()).expect_err(&shown)
}

#[test]
fn body_schema_errors_are_one_sentence() {
    let turn = |name: &str, value: Value| {
        let mut body = json!({ "sessionId": "s", "input": "hello" });
        body[name] = value;
        error_message::<SubmitTurn>(body)
    };
    let create = |name: &str, value: Value| error_message::<CreateSession>(json!({ name: value }));
    let update = |name: &str, value: Value| error_message::<UpdateSession>(json!({ name: value }));
    for (message, expected) in [
        (create("model", json!(1)), "model must be a string."),
        (create("ephemeral", json!("yes")), "ephemeral must be true or false."),
        (create("config", json!([])), "config must be an object."),
        (create("metadata", json!({ "a": 1 })), "metadata must be an object of non-empty strings."),
        (
            update("metadata", json!({ "a": null, "b": 1 })),
            "metadata must be an object of non-empty strings, or null to remove one.",
        ),
        (
            create("metadata", json!({ "a": "x".repeat(16 * 1024) })),
            "metadata has 16385 bytes of keys and values; at most 16384 are allowed.",
        ),
        (create("requests", json!("x")), "requests must be one of ask and decline; \"x\" is not."),
        (
            create("purpose", json!("batch")),
            "purpose must be one of duplex, worker and smoke; \"batch\" is not.",
        ),
        (
            create("personality", json!("x")),
            "personality must be one of none, friendly and pragmatic; \"x\" is not.",
        ),
        (
            create("requestTimeoutSeconds", json!(0)),
            "requestTimeoutSeconds must be a whole number of seconds from 1 to 86400.",
        ),
        (create("purpose", json!(1)), "purpose must be one of duplex, worker and smoke."),
        (create("sandbox", json!(1)), "sandbox must be a string."),
        (create("trust", json!("maybe")), "trust must be one of true, false and ask; \"maybe\" is not."),
        (create("cwd", json!("here")), "cwd must be an absolute path; \"here\" is not."),
        (turn("sessionId", json!(" ")), "sessionId must be a non-empty string."),
        (turn("whenBusy", json!("x")), "whenBusy must be one of refuse, steer and queue; \"x\" is not."),
        (turn("approvalPolicy", json!(5)), "approvalPolicy must be a string or an object."),
        (turn("input", json!(1)), "input must be a non-empty string or a non-empty array of items."),
        (turn("input", json!([{ "type": "text", "text": "" }])), "input[0].text must be a non-empty string."),
        (error_message::<InterruptTurn>(json!({})), "sessionId must be a non-empty string."),
        (error_message::<AnswerRequest>(json!({ "result": "x" })), "result must be an object."),
    ] {
        assert_eq!(message, expected);
    }
}

#[test]
fn parsed_body_has_only_present_values_to_forward_and_names_unknown_ones() {
    let (body, ignored) = parse_body::<CreateSession>(json!({
        "model": " m ", "serviceTier": " ", "config": null, "cwd": "/a ", "metadata": { " a ": " b " },
        "purpose": " worker ", "x": 1, "y": null, "z": "", "Model": "n",
    }))
    .unwrap();
    assert_eq!(ignored, ["x", "Model"]);
    assert_eq!(Value::Object(bodies::forwarded(&body)), json!({ "model": "m", "cwd": "/a " }));
    assert_eq!(body.metadata.unwrap().0.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "b".to_owned())]);
}

#[test]
fn forwarded_numbers_keep_their_notation() {
    let text = r#"{"config":{"a":[0.00001,1000000000000000000000000000000000000000000,-0,-0.0,1.50,1e+400,{"b":1e+2}]}}"#;
    let Value::Object(body) = serde_json::from_str(text).unwrap() else { panic!("not an object") };
    let (body, _) = Fields::from(body).parse::<CreateSession>().unwrap();
    assert_eq!(Value::Object(bodies::forwarded(&body)).to_string(), text);
}

#[test]
fn query_error_names_the_parameter() {
    let wait = |text: &str| parse::query::<WaitQuery>(text).map(|query| query.wait.map(|seconds| seconds.0));
    assert_eq!(wait("wait=1&wait=+7+&x=y"), Ok(Some(7)));
    assert_eq!(wait("wait="), Ok(None));
    assert_eq!(wait("wait=x"), Err("wait must be a whole number of seconds from 0 to 3600.".to_owned()));
    for (text, message) in [
        ("status=x", "status must be one of active and closed; \"x\" is not."),
        ("order=new", "order must be one of newest and oldest; \"new\" is not."),
        ("limit=0", "limit must be a whole number from 1 to 10000."),
    ] {
        assert_eq!(parse::query::<SessionQuery>(text).map(|_| ()), Err(message.to_owned()));
    }
    let interrupt = |text: &str| parse::query::<CloseQuery>(text).map(|query| query.interrupt);
    assert_eq!(interrupt("interrupt=true"), Ok(Some(true)));
    assert_eq!(interrupt("interrupt=false"), Ok(Some(false)));
    assert_eq!(interrupt("interrupt="), Ok(None));
    assert_eq!(interrupt("interrupt=perhaps"), Err("interrupt must be true or false.".to_owned()));
    let query = parse::query::<SessionQuery>("metadata=x&metadata.a=1&metadata.b.c=2&metadata.d=&metadata=y")
        .unwrap();
    let labels: Vec<_> = query.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["a=1", "b.c=2", "d="]);
}
