//! What Codex asks, in words and as a form, and the body that answers it.
//!
//! Stateless; `jobs` reads the requests of the daemon with it.

use serde_json::{Map, Value, json};

use super::tools::{OpenRequest, Question};
use crate::codex::protocol::server_requests;

/// How many characters of a command, reason or path a message has.
const MAX_TEXT_CHARS: usize = 2000;
/// The field of a form that has the decision.
const DECISION: &str = "decision";

/// The record of a request, as the daemon returns it.
pub(super) fn of_record(record: &Value) -> OpenRequest {
    let params = &record["params"];
    let asked = params["questions"].as_array().into_iter().flatten();
    let is_question = record["method"] == server_requests::USER_INPUT;
    OpenRequest {
        request_id: text(&record["requestId"]),
        message: message(record),
        decisions: record["decisions"].as_array().cloned().unwrap_or_default(),
        questions: asked.filter(|_| is_question).map(question).collect(),
    }
}

fn question(question: &Value) -> Question {
    let options = question["options"].as_array().into_iter().flatten();
    Question {
        id: text(&question["id"]),
        text: text(&question["question"]),
        options: options.map(|option| text(&option["label"])).collect(),
        is_secret: question["isSecret"] == true,
    }
}

/// One paragraph for a person: what Codex wants to do, and why.
fn message(record: &Value) -> String {
    let params = &record["params"];
    let mut lines = Vec::new();
    match &params["command"] {
        Value::String(command) => lines.push(format!("Codex asks to run: {}", bounded(command))),
        Value::Array(words) => {
            let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
            lines.push(format!("Codex asks to run: {}", bounded(&words.join(" "))));
        }
        _ => lines.push(match record["method"].as_str().unwrap_or_default() {
            server_requests::USER_INPUT => "Codex has a question.".to_owned(),
            server_requests::FILE_CHANGE_APPROVAL | server_requests::LEGACY_PATCH_APPROVAL => {
                "Codex asks to change files.".to_owned()
            }
            server_requests::PERMISSIONS_APPROVAL => "Codex asks for permissions.".to_owned(),
            method => format!("Codex asks for an answer ({method})."),
        }),
    }
    for (name, label) in [
        ("cwd", "Directory"),
        ("grantRoot", "Permission to write below"),
        ("reason", "Reason"),
        ("message", "Message"),
    ] {
        if let Some(value) = params[name].as_str().filter(|value| !value.is_empty()) {
            lines.push(format!("{label}: {}", bounded(value)));
        }
    }
    for question in params["questions"].as_array().into_iter().flatten() {
        lines.push(bounded(question["question"].as_str().unwrap_or_default()));
    }
    lines.join("\n")
}

/// The form that a client shows for a request: the names and their JSON Schema; `None` if a form cannot answer it.
pub(super) fn form(request: &OpenRequest) -> Option<Value> {
    let mut properties = Map::new();
    if request.questions.is_empty() {
        let names: Vec<_> = request.decisions.iter().filter(|decision| decision.is_string()).collect();
        if names.is_empty() {
            return None;
        }
        properties
            .insert(DECISION.to_owned(), json!({ "type": "string", "title": "Decision", "enum": names }));
    }
    for question in &request.questions {
        // The specification forbids forms for secrets.
        if question.is_secret {
            return None;
        }
        let mut field = json!({ "type": "string", "title": bounded(&question.text) });
        if !question.options.is_empty() {
            field["description"] = format!("Suggested: {}", question.options.join(", ")).into();
        }
        properties.insert(question.id.clone(), field);
    }
    let required: Vec<_> = properties.keys().cloned().collect();
    Some(json!({ "type": "object", "properties": properties, "required": required }))
}

/// The body that answers a request with a form that a person has filled in; `None` if a field is missing.
pub(super) fn answer_of_form(request: &OpenRequest, form: &Value) -> Option<Value> {
    if request.questions.is_empty() {
        return Some(json!({ "decision": form[DECISION].as_str()? }));
    }
    let answers: Map<_, _> = request
        .questions
        .iter()
        .map(|question| Some((question.id.clone(), form[&question.id].as_str()?.into())))
        .collect::<Option<_>>()?;
    Some(answer_of(&answers))
}

/// The body that declines a request; `None` if Codex does not offer that.
pub(super) fn decline(request: &OpenRequest) -> Option<Value> {
    let decline = Value::from(crate::codex::protocol::decisions::DECLINE);
    request.decisions.contains(&decline).then(|| json!({ "decision": decline }))
}

/// The body that answers questions by their IDs.
pub(super) fn answer_of(answers: &Map<String, Value>) -> Value {
    let answers = answers.iter().map(|(id, answer)| {
        let answers = match answer {
            Value::Array(answers) => answers.clone(),
            answer => vec![answer.clone()],
        };
        (id.clone(), json!({ "answers": answers }))
    });
    json!({ "result": { "answers": answers.collect::<Map<_, _>>() } })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn bounded(text: &str) -> String {
    let mut bounded: String = text.chars().take(MAX_TEXT_CHARS).collect();
    if bounded.len() < text.len() {
        bounded.push_str(" …");
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_offers_named_decisions_only() {
        let record = json!({
            "requestId": "r", "method": "item/commandExecution/requestApproval",
            "decisions": ["accept", { "acceptWithExecpolicyAmendment": {} }, "cancel", "decline"],
            "params": { "command": "rm -r target", "cwd": "/home/me", "reason": null },
        });
        let request = of_record(&record);
        assert_eq!(request.message, "Codex asks to run: rm -r target\nDirectory: /home/me");
        let form = form(&request).unwrap();
        assert_eq!(form["properties"]["decision"]["enum"], json!(["accept", "cancel", "decline"]));
        assert_eq!(
            answer_of_form(&request, &json!({ "decision": "accept" })),
            Some(json!({ "decision": "accept" }))
        );
        assert_eq!(answer_of_form(&request, &json!({})), None);
        assert_eq!(decline(&request), Some(json!({ "decision": "decline" })));
    }

    #[test]
    fn form_asks_questions_but_no_secrets() {
        let record = |is_secret: bool| {
            json!({
                "requestId": "r", "method": "item/tool/requestUserInput", "decisions": ["decline"],
                "params": { "questions": [
                    { "id": "a", "question": "Which?", "options": [{ "label": "red" }], "isSecret": is_secret },
                ] },
            })
        };
        let request = of_record(&record(false));
        assert_eq!(form(&request).unwrap()["required"], json!(["a"]));
        assert_eq!(
            answer_of_form(&request, &json!({ "a": "red" })),
            Some(json!({ "result": { "answers": { "a": { "answers": ["red"] } } } }))
        );
        assert!(form(&of_record(&record(true))).is_none());
    }
}
