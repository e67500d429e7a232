//! The request bodies of every route, declared once: the handlers parse with these tables, and the OpenAPI document is
//! generated from them. Stateless.
//!
//! Invariant: a handler takes every field that its schema has, or forwards it ([`ParsedBody::settings`] asserts this).

use serde_json::{Map, Value};

use super::body::Fields;
use super::error::ApiError;
use crate::codex::protocol::values as protocol;
use crate::http::values::{self, NO_INPUT, StringEnum};

/// The schema of a request body: an object. Unknown fields are ignored; `null` and empty strings count as absent.
#[derive(Debug)]
pub(super) struct BodySchema {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
    pub(super) rule: Rule,
}

/// One field of a body.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) description: &'static str,
    pub(super) required: bool,
    /// Whether the field is forwarded to the app-server under the same name.
    passed: bool,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Enum(StringEnum),
    /// A string, or an object in the format of the app-server.
    ApprovalPolicy,
    /// The absolute path of an existing directory.
    Directory,
    Object,
    /// A value that only the app-server can judge.
    Any,
    Flag,
    /// A boolean, or this string.
    FlagOr(&'static str),
    /// A whole number of seconds, at most a day.
    Seconds,
    /// An object of strings.
    Labels,
    /// A string, or a list of items.
    Input,
}

/// A constraint between fields.
#[derive(Debug)]
pub(super) enum Rule {
    None,
    /// One of them is required; the first present one is used, and the others are ignored.
    FirstOf {
        names: &'static [&'static str],
        none: &'static str,
    },
    /// At most one of them may be present.
    NotBoth {
        names: [&'static str; 2],
        both: &'static str,
    },
    /// Exactly one of them is required.
    ExactlyOne {
        names: [&'static str; 2],
        none: &'static str,
        both: &'static str,
    },
}

const fn field(name: &'static str, kind: Kind, description: &'static str) -> Field {
    Field { name, kind, description, required: false, passed: false }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn passed(self) -> Self {
        Self { passed: true, ..self }
    }

    /// Checks the value of this field; the error is a sentence.
    fn check(&self, value: Value) -> Result<Value, String> {
        let name = self.name;
        match (self.kind, value) {
            (Kind::Text, value @ Value::String(_)) => Ok(value),
            (Kind::Enum(variants), Value::String(value)) => variants.find(name, &value).map(Value::from),
            (Kind::Directory, Value::String(text)) => values::directory(name, text),
            (Kind::Text | Kind::Enum(_) | Kind::Directory, _) => Err(format!("{name} must be a string.")),
            (Kind::ApprovalPolicy, value) => values::approval_policy(name, value),
            (Kind::Object, value @ Value::Object(_)) => Ok(value),
            (Kind::Object, _) => Err(format!("{name} must be an object.")),
            (Kind::Any, value) => Ok(value),
            (Kind::Flag, value @ Value::Bool(_)) => Ok(value),
            (Kind::Flag, _) => Err(format!("{name} must be true or false.")),
            (Kind::FlagOr(_), value @ Value::Bool(_)) => Ok(value),
            (Kind::FlagOr(word), value) if value == word => Ok(value),
            (Kind::FlagOr(word), _) => Err(format!("{name} must be true, false or \"{word}\".")),
            (Kind::Seconds, value) => values::seconds(name, &value),
            (Kind::Labels, value) => values::labels(name, value),
            (Kind::Input, value) => values::input(value),
        }
    }
}

/// The fields of a body, checked against its schema.
#[derive(Debug)]
pub(super) struct ParsedBody {
    schema: &'static BodySchema,
    values: Map<String, Value>,
    ignored: Vec<String>,
}

impl BodySchema {
    /// Parses and checks the fields of this schema.
    pub(super) fn read(&'static self, mut fields: Fields) -> Result<ParsedBody, ApiError> {
        let mut values = Map::new();
        let mut unread = Vec::new();
        if let Rule::FirstOf { names, .. } = self.rule {
            let mut names = names.iter();
            if names.any(|name| fields.has(name)) {
                unread.extend(names.filter_map(|name| fields.any(name).map(|_| (*name).to_owned())));
            }
        }
        for field in self.fields {
            let value = match field.kind {
                Kind::Directory => fields.path(field.name),
                _ => fields.any(field.name),
            };
            match value {
                Some(value) => {
                    let value = field.check(value).map_err(ApiError::bad_request)?;
                    values.insert(field.name.to_owned(), value);
                }
                None if field.required => {
                    let message = format!("{} must be a non-empty string.", field.name);
                    return Err(ApiError::bad_request(message));
                }
                None => {}
            }
        }
        let count = |names: &[&str]| names.iter().filter(|name| values.contains_key(**name)).count();
        let broken = match self.rule {
            Rule::FirstOf { names, none } => (count(names) == 0).then_some(none),
            Rule::NotBoth { names, both } => (count(&names) == 2).then_some(both),
            Rule::ExactlyOne { names, none, both } => match count(&names) {
                0 => Some(none),
                1 => None,
                _ => Some(both),
            },
            Rule::None => None,
        };
        match broken {
            Some(sentence) => Err(ApiError::bad_request(sentence)),
            None => {
                unread.extend(fields.left());
                Ok(ParsedBody { schema: self, values, ignored: unread })
            }
        }
    }
}

impl ParsedBody {
    /// Takes the names of the fields that were ignored.
    pub(super) fn ignored(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ignored)
    }

    /// Takes the value of a field.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        debug_assert!(
            self.schema.fields.iter().any(|field| field.name == name),
            "the schema has no field {name}"
        );
        self.values.shift_remove(name)
    }

    /// Takes the value of a string field.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes the fields that are forwarded to the app-server; absent ones are omitted, not sent as `null`.
    ///
    /// Call it last: in debug builds it asserts that no field of the schema was forgotten.
    pub(super) fn settings(mut self) -> Map<String, Value> {
        let mut settings = Map::new();
        for field in self.schema.fields.iter().filter(|field| field.passed) {
            if let Some(value) = self.values.shift_remove(field.name) {
                settings.insert(field.name.to_owned(), value);
            }
        }
        debug_assert!(self.values.is_empty(), "fields were not taken: {:?}", self.values);
        settings
    }
}

const PERSONALITY: StringEnum = StringEnum::of_codex(protocol::PERSONALITIES);

/// `POST /v1/codexd/sessions`.
pub(super) const CREATE_SESSION: BodySchema = BodySchema {
    name: "CreateSession",
    fields: &[
        field(
            "purpose",
            Kind::Enum(StringEnum::purposes(&["duplex", "worker", "smoke"])),
            "The purpose of the session; default: duplex.",
        ),
        field("approvalPolicy", Kind::ApprovalPolicy, "When the app-server asks for approval.").passed(),
        field(
            "sandbox",
            Kind::Enum(StringEnum::of_codex(protocol::SANDBOX_MODES)),
            "What commands may access.",
        )
        .passed(),
        field("personality", Kind::Enum(PERSONALITY), "The tone of the model.").passed(),
        field("cwd", Kind::Directory, "The working directory: the absolute path of an existing directory.")
            .passed(),
        field("baseInstructions", Kind::Text, "Replaces the base instructions of the model.").passed(),
        field("developerInstructions", Kind::Text, "Additional developer instructions.").passed(),
        field("model", Kind::Text, "The model; GET /v1/codexd/models lists them.").passed(),
        field("modelProvider", Kind::Text, "The provider of the model.").passed(),
        field("serviceTier", Kind::Text, "The service tier.").passed(),
        field("config", Kind::Object, "Codex configuration for this thread, by the keys of the app-server.")
            .passed(),
        field(
            "requests",
            Kind::Enum(StringEnum::own(&["ask", "decline"])),
            "How requests of the app-server are handled: ask (the default) waits for a client, decline declines \
             them at once.",
        ),
        field(
            "requestTimeoutSeconds",
            Kind::Seconds,
            "After how many seconds an unanswered request is declined.",
        ),
        field("threadId", Kind::Text, "Resumes this thread."),
        field("forkFrom", Kind::Text, "Starts with a copy of the history of this session."),
        field("ephemeral", Kind::Flag, "Does not persist the thread; ignored for a resumed thread."),
        field(
            "trust",
            Kind::FlagOr("ask"),
            "Whether the app-server may use the .codex directory of a working directory whose trust is undecided: its MCP \
             servers and hooks run outside of the sandbox. Default: false. \"ask\" uses the last decision about the \
             directory, and fails with trust_undecided if a .codex directory exists and there was no decision.",
        ),
        field("approvalsReviewer", Kind::Any, "Who reviews approvals, in the format of the app-server.")
            .passed(),
        field("serviceName", Kind::Any, "The service that uses the thread; the app-server reports it.")
            .passed(),
        field("sessionStartSource", Kind::Any, "In the format of the app-server.").passed(),
        field("threadSource", Kind::Any, "In the format of the app-server.").passed(),
        field("lastTurnId", Kind::Text, "With forkFrom: the last turn of the copy."),
        field("metadata", Kind::Labels, "The caller's own labels; keys and values are non-empty strings."),
    ],
    rule: Rule::NotBoth {
        names: ["threadId", "forkFrom"],
        both: "Give either threadId or forkFrom, not both.",
    },
};

/// `POST /v1/codexd/turn`.
pub(super) const SUBMIT_TURN: BodySchema = BodySchema {
    name: "SubmitTurn",
    fields: &[
        field("sessionId", Kind::Text, "The session.").required(),
        field(
            "input",
            Kind::Input,
            "The input: a string, or a list of items in the format of the app-server.",
        ),
        field("prompt", Kind::Input, "An alias of input; ignored if input is present."),
        field("approvalPolicy", Kind::ApprovalPolicy, "When the app-server asks for approval.").passed(),
        field("personality", Kind::Enum(PERSONALITY), "The tone of the model.").passed(),
        field(
            "summary",
            Kind::Enum(StringEnum::of_codex(protocol::REASONING_SUMMARIES)),
            "How reasoning is summarized.",
        )
        .passed(),
        field("cwd", Kind::Directory, "The working directory: the absolute path of an existing directory.")
            .passed(),
        field("collaborationMode", Kind::Any, "In the format of the app-server.").passed(),
        field("outputSchema", Kind::Any, "A JSON Schema for the final answer.").passed(),
        field("sandboxPolicy", Kind::Any, "What commands may access, in the format of the app-server.")
            .passed(),
        field("effort", Kind::Text, "The reasoning effort of the model.").passed(),
        field("model", Kind::Text, "The model; GET /v1/codexd/models lists them.").passed(),
        field("serviceTier", Kind::Text, "The service tier.").passed(),
        field("approvalsReviewer", Kind::Any, "Who reviews approvals, in the format of the app-server.")
            .passed(),
        field("disabledPluginIds", Kind::Any, "In the format of the app-server.").passed(),
        field("parentTurnId", Kind::Any, "In the format of the app-server.").passed(),
        field("rootTurnId", Kind::Any, "In the format of the app-server.").passed(),
        field("serviceTierForTurn", Kind::Any, "The service tier of this turn only.").passed(),
        field("toolOutput", Kind::Any, "In the format of the app-server.").passed(),
        field("turnTrigger", Kind::Any, "In the format of the app-server.").passed(),
        field(
            "expectedTurnId",
            Kind::Text,
            "Adds the input to this turn, which must be the one in progress.",
        ),
        field(
            "whenBusy",
            Kind::Enum(StringEnum::own(&["refuse", "steer", "queue"])),
            "What to do while another turn is in progress: refuse (the default), steer (add the input to that \
             turn), or queue.",
        ),
    ],
    rule: Rule::FirstOf { names: &["input", "prompt"], none: NO_INPUT },
};

/// `POST /v1/codexd/turn/interrupt`.
pub(super) const INTERRUPT_TURN: BodySchema = BodySchema {
    name: "InterruptTurn",
    fields: &[
        field("sessionId", Kind::Text, "The session.").required(),
        field("turnId", Kind::Text, "Interrupts only this turn."),
    ],
    rule: Rule::None,
};

/// `POST /v1/codexd/requests/{request_id}`.
pub(super) const ANSWER_REQUEST: BodySchema = BodySchema {
    name: "AnswerRequest",
    fields: &[
        field("decision", Kind::Any, "One of the decisions that the request offers."),
        field("result", Kind::Object, "The complete result, in the format of the app-server."),
    ],
    rule: Rule::ExactlyOne {
        names: ["decision", "result"],
        none: "An answer needs decision, one of those offered, or a complete result.",
        both: "Give either decision or result, not both.",
    },
};
