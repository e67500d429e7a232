//! The request bodies of every route, declared once: the handlers parse with these tables, and the OpenAPI document is
//! generated from them. Stateless.
//!
//! Invariant: a handler takes every field that its schema has, or forwards it ([`ParsedBody::into_settings`] asserts
//! this).

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
    pub(super) kind: FieldKind,
    pub(super) description: &'static str,
    pub(super) required: bool,
    /// Whether the field is forwarded to the app-server under the same name.
    is_forwarded: bool,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum FieldKind {
    Text,
    Enum(StringEnum),
    /// A string, or an object in the format of the app-server.
    ApprovalPolicy,
    /// The absolute path of an existing directory.
    Directory,
    Object,
    /// A value that only the app-server can check.
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
        missing_error: &'static str,
    },
    /// At most one of them may be present.
    NotBoth {
        names: [&'static str; 2],
        conflict_error: &'static str,
    },
    /// Exactly one of them is required.
    ExactlyOne {
        names: [&'static str; 2],
        missing_error: &'static str,
        conflict_error: &'static str,
    },
}

const fn field(name: &'static str, kind: FieldKind, description: &'static str) -> Field {
    Field { name, kind, description, required: false, is_forwarded: false }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn forwarded(self) -> Self {
        Self { is_forwarded: true, ..self }
    }

    /// Checks the value of this field; the error is a sentence.
    fn check(&self, value: Value) -> Result<Value, String> {
        let name = self.name;
        match (self.kind, value) {
            (FieldKind::Text, value @ Value::String(_)) => Ok(value),
            (FieldKind::Enum(variants), Value::String(value)) => variants.find(name, &value).map(Value::from),
            (FieldKind::Directory, Value::String(text)) => values::check_directory(name, text),
            (FieldKind::Text | FieldKind::Enum(_) | FieldKind::Directory, _) => {
                Err(format!("{name} must be a string."))
            }
            (FieldKind::ApprovalPolicy, value) => values::check_approval_policy(name, value),
            (FieldKind::Object, value @ Value::Object(_)) => Ok(value),
            (FieldKind::Object, _) => Err(format!("{name} must be an object.")),
            (FieldKind::Any, value) => Ok(value),
            (FieldKind::Flag, value @ Value::Bool(_)) => Ok(value),
            (FieldKind::Flag, _) => Err(format!("{name} must be true or false.")),
            (FieldKind::FlagOr(_), value @ Value::Bool(_)) => Ok(value),
            (FieldKind::FlagOr(alternative), value) if value == alternative => Ok(value),
            (FieldKind::FlagOr(alternative), _) => {
                Err(format!("{name} must be true, false or \"{alternative}\"."))
            }
            (FieldKind::Seconds, value) => values::check_seconds(name, &value),
            (FieldKind::Labels, value) => values::check_labels(name, value),
            (FieldKind::Input, value) => values::check_input(value),
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
    pub(super) fn parse(&'static self, mut fields: Fields) -> Result<ParsedBody, ApiError> {
        let mut values = Map::new();
        let mut ignored = Vec::new();
        if let Rule::FirstOf { names, .. } = self.rule {
            let mut names = names.iter();
            if names.any(|name| fields.has(name)) {
                ignored.extend(names.filter_map(|name| fields.take(name).map(|_| (*name).to_owned())));
            }
        }
        for field in self.fields {
            let value = match field.kind {
                FieldKind::Directory => fields.take_path(field.name),
                _ => fields.take(field.name),
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
        let violation = match self.rule {
            Rule::FirstOf { names, missing_error } => (count(names) == 0).then_some(missing_error),
            Rule::NotBoth { names, conflict_error } => (count(&names) == 2).then_some(conflict_error),
            Rule::ExactlyOne { names, missing_error, conflict_error } => match count(&names) {
                0 => Some(missing_error),
                1 => None,
                _ => Some(conflict_error),
            },
            Rule::None => None,
        };
        match violation {
            Some(message) => Err(ApiError::bad_request(message)),
            None => {
                ignored.extend(fields.remaining_names());
                Ok(ParsedBody { schema: self, values, ignored })
            }
        }
    }
}

impl ParsedBody {
    /// Takes the names of the fields that were ignored.
    pub(super) fn take_ignored(&mut self) -> Vec<String> {
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
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes the fields that are forwarded to the app-server; absent ones are omitted, not sent as `null`.
    ///
    /// Call it last: in debug builds it asserts that no field of the schema was forgotten.
    pub(super) fn into_settings(mut self) -> Map<String, Value> {
        let mut settings = Map::new();
        for field in self.schema.fields.iter().filter(|field| field.is_forwarded) {
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
            FieldKind::Enum(StringEnum::session_purposes(&["duplex", "worker", "smoke"])),
            "The purpose of the session; default: duplex.",
        ),
        field("approvalPolicy", FieldKind::ApprovalPolicy, "When the app-server asks for approval.")
            .forwarded(),
        field(
            "sandbox",
            FieldKind::Enum(StringEnum::of_codex(protocol::SANDBOX_MODES)),
            "What commands may access.",
        )
        .forwarded(),
        field("personality", FieldKind::Enum(PERSONALITY), "The tone of the model.").forwarded(),
        field(
            "cwd",
            FieldKind::Directory,
            "The working directory: the absolute path of an existing directory.",
        )
        .forwarded(),
        field("baseInstructions", FieldKind::Text, "Replaces the base instructions of the model.")
            .forwarded(),
        field("developerInstructions", FieldKind::Text, "Additional developer instructions.").forwarded(),
        field("model", FieldKind::Text, "The model; GET /v1/codexd/models lists them.").forwarded(),
        field("modelProvider", FieldKind::Text, "The provider of the model.").forwarded(),
        field("serviceTier", FieldKind::Text, "The service tier.").forwarded(),
        field(
            "config",
            FieldKind::Object,
            "Codex configuration for this thread, by the keys of the app-server.",
        )
        .forwarded(),
        field(
            "requests",
            FieldKind::Enum(StringEnum::of_codexd(&["ask", "decline"])),
            "How requests of the app-server are handled: ask (the default) waits for a client, decline declines \
             them at once.",
        ),
        field(
            "requestTimeoutSeconds",
            FieldKind::Seconds,
            "After how many seconds an unanswered request is declined.",
        ),
        field("threadId", FieldKind::Text, "Resumes this thread."),
        field("forkFrom", FieldKind::Text, "Starts with a copy of the history of this session."),
        field("ephemeral", FieldKind::Flag, "Does not persist the thread; ignored for a resumed thread."),
        field(
            "trust",
            FieldKind::FlagOr("ask"),
            "Whether the app-server may use the .codex directory of a working directory whose trust is undecided: its MCP \
             servers and hooks run outside of the sandbox. Default: false. \"ask\" uses the last decision about the \
             directory, and fails with trust_undecided if a .codex directory exists and there was no decision.",
        ),
        field(
            "approvalsReviewer",
            FieldKind::Any,
            "The reviewer of approvals, in the format of the app-server.",
        )
        .forwarded(),
        field("serviceName", FieldKind::Any, "The service that uses the thread; the app-server reports it.")
            .forwarded(),
        field("sessionStartSource", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("threadSource", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("lastTurnId", FieldKind::Text, "With forkFrom: the last turn of the copy."),
        field(
            "metadata",
            FieldKind::Labels,
            "The caller's own labels; keys and values are non-empty strings.",
        ),
    ],
    rule: Rule::NotBoth {
        names: ["threadId", "forkFrom"],
        conflict_error: "Give either threadId or forkFrom, not both.",
    },
};

/// `POST /v1/codexd/turn`.
pub(super) const SUBMIT_TURN: BodySchema = BodySchema {
    name: "SubmitTurn",
    fields: &[
        field("sessionId", FieldKind::Text, "The session.").required(),
        field(
            "input",
            FieldKind::Input,
            "The input: a string, or a list of items in the format of the app-server.",
        ),
        field("prompt", FieldKind::Input, "An alias of input; ignored if input is present."),
        field("approvalPolicy", FieldKind::ApprovalPolicy, "When the app-server asks for approval.")
            .forwarded(),
        field("personality", FieldKind::Enum(PERSONALITY), "The tone of the model.").forwarded(),
        field(
            "summary",
            FieldKind::Enum(StringEnum::of_codex(protocol::REASONING_SUMMARIES)),
            "How reasoning is summarized.",
        )
        .forwarded(),
        field(
            "cwd",
            FieldKind::Directory,
            "The working directory: the absolute path of an existing directory.",
        )
        .forwarded(),
        field("collaborationMode", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("outputSchema", FieldKind::Any, "A JSON Schema for the final answer.").forwarded(),
        field("sandboxPolicy", FieldKind::Any, "What commands may access, in the format of the app-server.")
            .forwarded(),
        field("effort", FieldKind::Text, "The reasoning effort of the model.").forwarded(),
        field("model", FieldKind::Text, "The model; GET /v1/codexd/models lists them.").forwarded(),
        field("serviceTier", FieldKind::Text, "The service tier.").forwarded(),
        field(
            "approvalsReviewer",
            FieldKind::Any,
            "The reviewer of approvals, in the format of the app-server.",
        )
        .forwarded(),
        field("disabledPluginIds", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("parentTurnId", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("rootTurnId", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("serviceTierForTurn", FieldKind::Any, "The service tier of this turn only.").forwarded(),
        field("toolOutput", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field("turnTrigger", FieldKind::Any, "In the format of the app-server.").forwarded(),
        field(
            "expectedTurnId",
            FieldKind::Text,
            "Adds the input to this turn, which must be the one in progress.",
        ),
        field(
            "whenBusy",
            FieldKind::Enum(StringEnum::of_codexd(&["refuse", "steer", "queue"])),
            "What to do while another turn is in progress: refuse (the default), steer (add the input to that \
             turn), or queue.",
        ),
    ],
    rule: Rule::FirstOf { names: &["input", "prompt"], missing_error: NO_INPUT },
};

/// `POST /v1/codexd/turn/interrupt`.
pub(super) const INTERRUPT_TURN: BodySchema = BodySchema {
    name: "InterruptTurn",
    fields: &[
        field("sessionId", FieldKind::Text, "The session.").required(),
        field("turnId", FieldKind::Text, "Interrupts only this turn."),
    ],
    rule: Rule::None,
};

/// `POST /v1/codexd/requests/{request_id}`.
pub(super) const ANSWER_REQUEST: BodySchema = BodySchema {
    name: "AnswerRequest",
    fields: &[
        field("decision", FieldKind::Any, "One of the decisions that the request offers."),
        field("result", FieldKind::Object, "The complete result, in the format of the app-server."),
    ],
    rule: Rule::ExactlyOne {
        names: ["decision", "result"],
        missing_error: "An answer needs decision, one of those offered, or a complete result.",
        conflict_error: "Give either decision or result, not both.",
    },
};
