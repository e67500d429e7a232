//! The questions of `item/tool/requestUserInput` and their answers.

use serde_json::{Map, Value, json};

use crate::codex::protocol::server_requests::USER_INPUT;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    id: String,
    /// The text of the question.
    pub(crate) text: String,
    /// The options: label and description.
    pub(crate) options: Vec<(String, String)>,
    /// Whether the answer must not be shown.
    pub(crate) is_secret: bool,
}

impl Question {
    /// Converts typed text to an answer: the number of an option selects it, any other text is the answer.
    pub(crate) fn answer(&self, typed: &str) -> String {
        by_number(typed, &self.options).map_or_else(|| typed.to_owned(), |(label, _)| label.clone())
    }
}

/// The choice with this number, counted from 1.
pub(crate) fn by_number<'a, T>(typed: &str, choices: &'a [T]) -> Option<&'a T> {
    choices.get(typed.parse::<usize>().ok()?.checked_sub(1)?)
}

/// The questions of a request, in order; empty if it asks for a decision.
pub(crate) fn of(request: &Value) -> Vec<Question> {
    if request["method"] != USER_INPUT {
        return Vec::new();
    }
    let all = request["params"]["questions"].as_array().into_iter().flatten();
    all.map(|question| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let options = question["options"].as_array().into_iter().flatten();
        Question {
            id: text(&question["id"]),
            text: text(&question["question"]),
            options: options.map(|option| (text(&option["label"]), text(&option["description"]))).collect(),
            is_secret: question["isSecret"] == true,
        }
    })
    .collect()
}

/// The request body that answers the questions.
pub(crate) fn result(questions: &[Question], answers: &[String]) -> Value {
    let answers = questions
        .iter()
        .zip(answers)
        .map(|(question, answer)| (question.id.clone(), json!({ "answers": [answer] })));
    json!({ "result": { "answers": answers.collect::<Map<_, _>>() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_answer_is_option_number_or_text() {
        let request = json!({ "method": "item/tool/requestUserInput", "params": { "questions": [
            { "id": "a", "question": "Which?", "options": [{ "label": "red", "description": "The first" }] },
            { "id": "b", "question": "How many?", "options": null, "isSecret": true },
        ]}});
        let questions = of(&request);
        let meant = ["1", "red", "2", "0", "blue"].map(|typed| questions[0].answer(typed));
        assert_eq!(meant, ["red", "red", "2", "0", "blue"]);
        assert_eq!(questions[1].answer("1"), "1");
        assert_eq!((questions[0].is_secret, questions[1].is_secret), (false, true));
        assert_eq!(
            result(&questions, &["red".to_owned(), "1".to_owned()]),
            json!({ "result": { "answers": { "a": { "answers": ["red"] }, "b": { "answers": ["1"] } } } })
        );
        assert_eq!(of(&json!({ "method": "execCommandApproval" })), []);
    }
}
