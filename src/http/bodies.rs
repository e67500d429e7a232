//! The request bodies of every route, one struct each: the handlers parse them, and the OpenAPI document describes them by
//! the documentation of their fields. Stateless.
//!
//! Invariant: a field that is serialized is forwarded to the app-server under the same name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::values::{
    AbsolutePath, ApprovalPolicy, Input, LabelChanges, Labels, MAX_SECONDS, Moment, Personality,
    ReasoningSummary, SandboxMode, Title, Trust, WholeNumber,
};
use crate::daemon::WhenBusy;
use crate::ids::{SessionId, ThreadId, TurnId};
use crate::state::{OnUsageLimit, Purpose};

/// The fields of a body that are forwarded to the app-server; absent ones are omitted, not sent as `null`.
pub(super) fn forwarded(body: &impl Serialize) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(body) else { return Map::new() };
    fields.retain(|_, value| !value.is_null());
    fields
}

/// How the requests of the app-server are handled.
#[derive(Debug, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RequestHandling {
    /// They wait for a client.
    Ask,
    /// They are declined at once.
    Decline,
}

/// The body of `POST /v1/codexd/sessions`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateSession {
    /// The purpose of the session; default: duplex.
    #[serde(skip_serializing)]
    pub(super) purpose: Option<Purpose>,
    /// When the app-server asks for approval.
    approval_policy: Option<ApprovalPolicy>,
    /// What commands may access.
    sandbox: Option<SandboxMode>,
    /// The tone of the model.
    personality: Option<Personality>,
    /// The working directory: the absolute path of an existing directory.
    cwd: Option<AbsolutePath>,
    /// Replaces the base instructions of the model.
    base_instructions: Option<String>,
    /// Additional developer instructions.
    developer_instructions: Option<String>,
    /// The model; GET /v1/codexd/models lists them.
    model: Option<String>,
    /// The provider of the model.
    model_provider: Option<String>,
    /// The service tier.
    service_tier: Option<String>,
    /// Codex configuration for this thread, by the keys of the app-server.
    config: Option<Map<String, Value>>,
    /// How requests of the app-server are handled: ask (the default) waits for a client, decline declines them at once.
    #[serde(skip_serializing)]
    pub(super) requests: Option<RequestHandling>,
    /// After how many seconds an unanswered request is declined.
    #[serde(skip_serializing)]
    #[schemars(extend("x-unit" = "seconds"))]
    pub(super) request_timeout_seconds: Option<WholeNumber<1, MAX_SECONDS>>,
    /// Resumes this thread; not together with forkFrom.
    #[serde(skip_serializing)]
    pub(super) thread_id: Option<ThreadId>,
    /// Starts with a copy of the history of this session.
    #[serde(skip_serializing)]
    pub(super) fork_from: Option<SessionId>,
    /// Does not persist the thread; ignored for a resumed thread.
    ephemeral: Option<bool>,
    /// Whether the app-server may use the .codex directory of a working directory whose trust is undecided: its MCP servers and hooks run outside of the sandbox. Default: false. "ask" uses the last decision about the directory, and fails with trust_undecided if a .codex directory exists and there was no decision.
    #[serde(skip_serializing)]
    pub(super) trust: Option<Trust>,
    /// The reviewer of approvals, in the format of the app-server.
    approvals_reviewer: Option<Value>,
    /// The service that uses the thread; the app-server reports it.
    service_name: Option<Value>,
    /// In the format of the app-server.
    session_start_source: Option<Value>,
    /// In the format of the app-server.
    thread_source: Option<Value>,
    /// With forkFrom: the last turn of the copy.
    last_turn_id: Option<TurnId>,
    /// The caller's own labels; keys and values are non-empty strings.
    #[serde(skip_serializing)]
    pub(super) metadata: Option<Labels>,
}

/// The body of `PATCH /v1/codexd/sessions/{session_id}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateSession {
    /// The name of its thread, which Codex and all sessions of the thread show.
    pub(super) title: Option<Title>,
    /// Whether its thread is archived: an archived one cannot be opened.
    pub(super) archived: Option<bool>,
    /// Changes of the caller's own labels (RFC 7396): a string sets one, null removes it, and the others stay.
    pub(super) metadata: Option<LabelChanges>,
}

/// The body of `POST /v1/codexd/turn`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SubmitTurn {
    /// The session.
    #[serde(skip_serializing)]
    #[schemars(extend("pattern" = "\\S"))]
    pub(super) session_id: SessionId,
    /// The input, which is required: a string, or a list of items in the format of the app-server.
    #[serde(skip_serializing)]
    pub(super) input: Option<Input>,
    /// An alias of input; ignored if input is present.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<Input>")]
    pub(super) prompt: Option<Value>,
    /// When the app-server asks for approval.
    approval_policy: Option<ApprovalPolicy>,
    /// The tone of the model.
    personality: Option<Personality>,
    /// How reasoning is summarized.
    summary: Option<ReasoningSummary>,
    /// The working directory: the absolute path of an existing directory.
    cwd: Option<AbsolutePath>,
    /// In the format of the app-server.
    collaboration_mode: Option<Value>,
    /// A JSON Schema for the final answer.
    output_schema: Option<Value>,
    /// What commands may access, in the format of the app-server.
    sandbox_policy: Option<Value>,
    /// The reasoning effort of the model.
    effort: Option<String>,
    /// The model; GET /v1/codexd/models lists them.
    model: Option<String>,
    /// The service tier.
    service_tier: Option<String>,
    /// The reviewer of approvals, in the format of the app-server.
    approvals_reviewer: Option<Value>,
    /// In the format of the app-server.
    disabled_plugin_ids: Option<Value>,
    /// In the format of the app-server.
    parent_turn_id: Option<Value>,
    /// In the format of the app-server.
    root_turn_id: Option<Value>,
    /// The service tier of this turn only.
    service_tier_for_turn: Option<Value>,
    /// In the format of the app-server.
    tool_output: Option<Value>,
    /// In the format of the app-server.
    turn_trigger: Option<Value>,
    /// Adds the input to this turn, which must be the one in progress.
    #[serde(skip_serializing)]
    pub(super) expected_turn_id: Option<TurnId>,
    /// What to do while another turn is in progress: refuse (the default), steer (add the input to that turn), or queue.
    #[serde(skip_serializing)]
    pub(super) when_busy: Option<WhenBusy>,
    /// The time before which the turn does not start, RFC 3339. The turn is queued, also if the session is idle, and holds no turn behind it until then; not together with expectedTurnId, or with a whenBusy other than queue.
    #[serde(skip_serializing)]
    pub(super) not_before: Option<Moment>,
    /// What follows if the turn reaches the usage limit, after which it is not sent again: hold (the default; queued turns wait until the limit ends), continue (the same, and then one new turn asks Codex to continue), or fail (the next queued turn starts).
    #[serde(skip_serializing)]
    pub(super) on_usage_limit: Option<OnUsageLimit>,
}

/// The body of `POST /v1/codexd/sessions/{session_id}/queue/resume`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResumeQueue {
    /// A queued turn that waits for its notBefore: it waits for no time any more.
    pub(super) queue_id: Option<String>,
}

/// The body of `POST /v1/codexd/turn/interrupt`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct InterruptTurn {
    /// The session.
    #[schemars(extend("pattern" = "\\S"))]
    pub(super) session_id: SessionId,
    /// Interrupts only this turn.
    pub(super) turn_id: Option<TurnId>,
}

/// The body of `POST /v1/codexd/app-server/restart`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RestartAppServer {
    /// How many seconds new turns wait, so that those in progress can end; by default --drain-timeout. With 0 no turn waits,
    /// and the restart happens when none is in progress.
    pub(super) drain_seconds: Option<WholeNumber<0, MAX_SECONDS>>,
    /// Whether the turns that are in progress after that time are cut off; otherwise the restart waits for them.
    pub(super) force: Option<bool>,
}

/// The body of `POST /v1/codexd/app-server/call`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallAppServer {
    /// The method, such as thread/list.
    #[schemars(extend("pattern" = "\\S"))]
    pub(super) method: String,
    /// Its parameters, in the format of the app-server; default: none.
    pub(super) params: Option<Map<String, Value>>,
    /// The session whose thread the call is about; params.threadId is filled in.
    pub(super) session_id: Option<SessionId>,
}

/// The body of `POST /v1/codexd/hooks`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [{ "required": ["command"] }, { "required": ["url"] }]))]
pub(super) struct AddHook {
    /// The name, which no other hook has.
    #[schemars(extend("pattern" = "\\S"))]
    pub(super) name: String,
    /// The types of the events, or prefixes of them. Types that end with .delta, and app-server.notification for the
    /// notifications whose methods end with delta, must be named in full.
    #[schemars(length(min = 1))]
    pub(super) on: Vec<String>,
    /// Only events of this session.
    pub(super) session_id: Option<SessionId>,
    /// The program and its arguments. It gets the JSON of one event on stdin, and must exit with 0.
    pub(super) command: Option<Vec<String>>,
    /// What `codexd hooks add` sends with a command where the system does not report the user of a connection.
    pub(super) proof: Option<String>,
    /// The URL to which the JSON of one event is posted, and which must answer with 2xx: https, or http to this machine. Redirects are not followed.
    pub(super) url: Option<String>,
    /// The secret with which deliveries to the URL are signed (Standard Webhooks): 24 to 64 bytes in base64, optionally after whsec_. It is never returned.
    pub(super) secret: Option<String>,
    /// How long a delivery may take; default: 30.
    #[schemars(extend("x-unit" = "seconds"))]
    pub(super) timeout_seconds: Option<WholeNumber<1, 600>>,
    /// Whether prompts, answers and outputs are delivered too; default: false.
    pub(super) detail: Option<bool>,
}

/// The body of `POST /v1/codexd/requests/{request_id}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub(super) struct AnswerRequest {
    /// One of the entries of `decisions` of the request, unchanged: a string such as accept, acceptForSession, decline or
    /// cancel, or an object.
    pub(super) decision: Option<Value>,
    /// Instead of decision: the complete result, in the format of the app-server. For `item/tool/requestUserInput` it has the answers to each question by the ID of the question: {"answers": {"QUESTION_ID": {"answers": ["TEXT"]}}}.
    pub(super) result: Option<Map<String, Value>>,
}
