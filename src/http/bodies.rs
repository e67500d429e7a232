//! What each request may carry, once: the parsers read by these tables, and the OpenAPI document is made from them.

use serde_json::{Map, Value};

use super::body::Fields;
use super::error::ApiError;
use crate::codex::protocol::values as protocol;
use crate::http::values::{self, StringEnum};

/// A turn that says nothing.
pub(super) const NO_INPUT: &str = "turn input must be a non-empty string or a non-empty array of items.";

/// The body of a request: an object; unknown fields are ignored, and `null` or an empty string is the same as absent.
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
    /// Whether it goes to the app-server under the same name.
    passed: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    Enum(StringEnum),
    /// A word, or an object in the app-server's own schema.
    ApprovalPolicy,
    /// The absolute path of a directory that exists.
    Directory,
    Object,
    /// What only the app-server can judge.
    Any,
    Flag,
    /// The same, or this word.
    FlagOr(&'static str),
    /// A whole number of seconds, a day at most.
    Seconds,
    /// An object of texts.
    Labels,
    /// A text, or a list of items.
    Input,
}

/// What holds between fields.
#[derive(Debug)]
pub(super) enum Rule {
    None,
    /// One of them must be there; the first that is there is taken, and the others are ignored.
    FirstOf {
        names: &'static [&'static str],
        none: &'static str,
    },
    /// Not both may be there.
    NotBoth {
        names: [&'static str; 2],
        both: &'static str,
    },
    /// One of them must be there, and not both.
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

    /// Looks at the value of this field; the error is a sentence.
    fn check(&self, value: Value) -> Result<Value, String> {
        let name = self.name;
        match (self.kind, value) {
            (Kind::Text, value @ Value::String(_)) => Ok(value),
            (Kind::Enum(words), Value::String(word)) => words.find(name, &word).map(Value::from),
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

/// The fields that a request has, each of the kind that its form says.
#[derive(Debug)]
pub(super) struct ParsedBody {
    schema: &'static BodySchema,
    values: Map<String, Value>,
    ignored: Vec<String>,
}

impl BodySchema {
    /// Takes out of a body what this form has, and refuses what is wrong.
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
    /// Takes the names of the fields that the body had and that are not read.
    pub(super) fn ignored(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ignored)
    }

    /// Takes the value of a field.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        debug_assert!(self.schema.fields.iter().any(|field| field.name == name), "the form has no {name}");
        self.values.shift_remove(name)
    }

    /// Takes the text of a field that holds one.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// Takes the fields that go to the app-server as they are; absent ones are left out, not sent as `null`.
    ///
    /// They come last, so that no field of a form can be forgotten.
    pub(super) fn settings(mut self) -> Map<String, Value> {
        let mut settings = Map::new();
        for field in self.schema.fields.iter().filter(|field| field.passed) {
            if let Some(value) = self.values.shift_remove(field.name) {
                settings.insert(field.name.to_owned(), value);
            }
        }
        debug_assert!(self.values.is_empty(), "nobody took {:?}", self.values);
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
            "What the session is for; duplex when nothing is said.",
        ),
        field("approvalPolicy", Kind::ApprovalPolicy, "When the app-server asks before it acts.").passed(),
        field(
            "sandbox",
            Kind::Enum(StringEnum::of_codex(protocol::SANDBOX_MODES)),
            "What commands may touch.",
        )
        .passed(),
        field("personality", Kind::Enum(PERSONALITY), "How the model speaks.").passed(),
        field("cwd", Kind::Directory, "The working directory: the absolute path of a directory that exists.")
            .passed(),
        field("baseInstructions", Kind::Text, "Replaces the instructions that the model begins with.")
            .passed(),
        field("developerInstructions", Kind::Text, "Instructions beside them.").passed(),
        field("model", Kind::Text, "The model; GET /v1/codexd/models lists them.").passed(),
        field("modelProvider", Kind::Text, "The provider of the model.").passed(),
        field("serviceTier", Kind::Text, "The service tier.").passed(),
        field("config", Kind::Object, "Settings of the app-server for this thread, by its own names.")
            .passed(),
        field(
            "requests",
            Kind::Enum(StringEnum::own(&["ask", "decline"])),
            "What becomes of the app-server's requests: they wait for a client, as when nothing is said, or are \
             declined at once.",
        ),
        field(
            "requestTimeoutSeconds",
            Kind::Seconds,
            "After how long a request is declined if nobody answers.",
        ),
        field("threadId", Kind::Text, "Resumes this thread."),
        field("forkFrom", Kind::Text, "Begins with a copy of what was said in this session."),
        field("ephemeral", Kind::Flag, "Leaves nothing of the thread on disk; ignored for a resumed one."),
        field(
            "trust",
            Kind::FlagOr("ask"),
            "Whether the app-server may use the .codex of a directory about which the user has not decided: its MCP \
             servers and hooks run outside of the sandbox. Not when nothing is said; \"ask\" takes what was last said \
             about the directory, and is refused with trust_undecided where there is a .codex and nothing was said.",
        ),
        field("approvalsReviewer", Kind::Any, "Who reviews approvals, in the app-server's words.").passed(),
        field("serviceName", Kind::Any, "The service that the thread is for; the app-server reports it.")
            .passed(),
        field("sessionStartSource", Kind::Any, "In the app-server's form.").passed(),
        field("threadSource", Kind::Any, "In the app-server's form.").passed(),
        field("lastTurnId", Kind::Text, "With forkFrom: the last turn that the copy has."),
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
            "What the user says: a text, or a list of items in the app-server's form.",
        ),
        field("prompt", Kind::Input, "Another name of input; ignored where input is there too."),
        field("approvalPolicy", Kind::ApprovalPolicy, "When the app-server asks before it acts.").passed(),
        field("personality", Kind::Enum(PERSONALITY), "How the model speaks.").passed(),
        field(
            "summary",
            Kind::Enum(StringEnum::of_codex(protocol::REASONING_SUMMARIES)),
            "How reasoning is summed up.",
        )
        .passed(),
        field("cwd", Kind::Directory, "The working directory: the absolute path of a directory that exists.")
            .passed(),
        field("collaborationMode", Kind::Any, "In the app-server's form.").passed(),
        field("outputSchema", Kind::Any, "A JSON Schema that the final answer follows.").passed(),
        field("sandboxPolicy", Kind::Any, "What commands may touch, in the app-server's form.").passed(),
        field("effort", Kind::Text, "How hard the model thinks.").passed(),
        field("model", Kind::Text, "The model; GET /v1/codexd/models lists them.").passed(),
        field("serviceTier", Kind::Text, "The service tier.").passed(),
        field("approvalsReviewer", Kind::Any, "Who reviews approvals, in the app-server's words.").passed(),
        field("disabledPluginIds", Kind::Any, "In the app-server's form.").passed(),
        field("parentTurnId", Kind::Any, "In the app-server's form.").passed(),
        field("rootTurnId", Kind::Any, "In the app-server's form.").passed(),
        field("serviceTierForTurn", Kind::Any, "The service tier of this turn alone.").passed(),
        field("toolOutput", Kind::Any, "In the app-server's form.").passed(),
        field("turnTrigger", Kind::Any, "In the app-server's form.").passed(),
        field("expectedTurnId", Kind::Text, "Adds to this turn, which must be the one under way."),
        field(
            "whenBusy",
            Kind::Enum(StringEnum::own(&["refuse", "steer", "queue"])),
            "What becomes of it while another turn is under way: it is refused, as when nothing is said, added to \
             that turn, or queued.",
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
        field("result", Kind::Object, "The whole result, in the app-server's form."),
    ],
    rule: Rule::ExactlyOne {
        names: ["decision", "result"],
        none: "An answer needs decision, one of those offered, or a whole result.",
        both: "Give either decision or result, not both.",
    },
};
