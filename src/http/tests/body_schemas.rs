//! Tests of the body schemas.

use serde_json::{Value, json};

use crate::http::bodies::{ANSWER_REQUEST, BodySchema, CREATE_SESSION, INTERRUPT_TURN, SUBMIT_TURN};
use crate::http::body::Fields;
use crate::http::error::ApiError;
use crate::state::Purpose;

fn fields(body: Value) -> Fields {
    let Value::Object(body) = body else { panic!("{body} is not an object") };
    Fields::from(body)
}

fn error_message(schema: &'static BodySchema, body: Value) -> String {
    let shown = body.to_string();
    let error: Result<_, ApiError> = schema.parse(fields(body));
    let Err(error) = error else { panic!("{shown} is valid") };
    error.to_json()["message"].as_str().unwrap().to_owned()
}

#[test]
fn body_schema_errors_are_one_sentence() {
    let turn = |name: &str, value: Value| {
        let mut body = json!({ "sessionId": "s", "input": "hello" });
        body[name] = value;
        error_message(&SUBMIT_TURN, body)
    };
    let create = |name: &str, value: Value| error_message(&CREATE_SESSION, json!({ name: value }));
    for (message, expected) in [
        (create("model", json!(1)), "model must be a string."),
        (create("ephemeral", json!("yes")), "ephemeral must be true or false."),
        (create("config", json!([])), "config must be an object."),
        (create("metadata", json!({ "a": 1 })), "metadata must be an object of non-empty strings."),
        (create("requests", json!("x")), "requests must be one of ask and decline."),
        (
            create("purpose", json!("batch")),
            "Unsupported session purpose \"batch\"; it is one of duplex, worker and smoke.",
        ),
        (
            create("personality", json!("x")),
            "personality must be one of none, friendly, pragmatic; \"x\" is not.",
        ),
        (
            create("requestTimeoutSeconds", json!(0)),
            "requestTimeoutSeconds must be a whole number of seconds from 1 to 86400.",
        ),
        (create("cwd", json!("here")), "cwd must be an absolute path; \"here\" is not."),
        (turn("sessionId", json!(" ")), "sessionId must be a non-empty string."),
        (turn("whenBusy", json!("x")), "whenBusy must be one of refuse, steer and queue."),
        (turn("approvalPolicy", json!(5)), "approvalPolicy must be a string or an object."),
        (turn("input", json!(1)), "turn requires input as a string or item array."),
        (turn("input", json!(" ")), "turn input must be a non-empty string or a non-empty array of items."),
        (turn("input", json!([{ "type": "text", "text": "" }])), "input[0].text must be a non-empty string."),
        (error_message(&INTERRUPT_TURN, json!({})), "sessionId must be a non-empty string."),
        (
            error_message(&CREATE_SESSION, json!({ "threadId": "t", "forkFrom": "s" })),
            "Give either threadId or forkFrom, not both.",
        ),
        (
            error_message(&ANSWER_REQUEST, json!({ "decision": "accept", "result": {} })),
            "Give either decision or result, not both.",
        ),
        (
            error_message(&ANSWER_REQUEST, json!({ "decision": null })),
            "An answer needs decision, one of those offered, or a complete result.",
        ),
        (error_message(&ANSWER_REQUEST, json!({ "result": "x" })), "result must be an object."),
    ] {
        assert_eq!(message, expected);
    }
}

#[test]
fn submit_turn_prefers_input_and_ignores_prompt() {
    let mut body =
        SUBMIT_TURN.parse(fields(json!({ "sessionId": " s ", "input": " a ", "prompt": 5 }))).unwrap();
    assert_eq!(body.take_text("sessionId").as_deref(), Some("s"));
    assert_eq!((body.take("input"), body.take("prompt")), (Some(json!("a")), None));
    let mut body =
        SUBMIT_TURN.parse(fields(json!({ "sessionId": "s", "input": "", "prompt": "b" }))).unwrap();
    assert_eq!((body.take("input"), body.take("prompt")), (None, Some(json!("b"))));
}

#[test]
fn body_schema_forwards_only_present_fields() {
    let mut body = CREATE_SESSION
        .parse(fields(
            json!({ "model": " m ", "serviceTier": "", "config": null, "metadata": { " a ": " b " } }),
        ))
        .unwrap();
    assert_eq!(body.take("metadata"), Some(json!({ "a": "b" })));
    assert_eq!(Value::Object(body.into_settings()), json!({ "model": "m" }));
}

#[test]
fn create_session_purposes_match_the_purpose_type() {
    for purpose in ["duplex", "worker", "smoke"] {
        let mut body = CREATE_SESSION.parse(fields(json!({ "purpose": purpose }))).unwrap();
        let taken = body.take_text("purpose").and_then(|purpose| Purpose::from_name(&purpose));
        assert_eq!(taken.map(Purpose::as_str), Some(purpose));
    }
}
