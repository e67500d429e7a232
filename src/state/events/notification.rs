//! The events of the app-server's notifications.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::codex::protocol::notifications;
use crate::codex::protocol::values::STREAM_STDERR;
use crate::ids::{ThreadId, TurnId};
use crate::state::Level::{self, Error, Info, Warn};
use crate::timestamp::Timestamp;

event_types! {
    /// The events of the app-server's notifications.
    ///
    /// Those with `schemars(with)` are so frequent that their message and detail are made as text, see
    /// [`NewEvent::with_text`](crate::state::NewEvent::with_text).
    enum NotificationEvent {
        /// A thread was started.
        "app-server.thread.started" => ThreadStarted {
            /// The thread.
            thread_id: ThreadId,
            /// The thread that it descends from, when a sub-agent works in it.
            parent_thread_id: Option<ThreadId> = default skip_serializing_if,
        } => Info, format!("App-server thread {thread_id} started.");
        /// A thread changed between idle and active.
        "app-server.thread.status.changed" => ThreadStatusChanged {
            /// Its status, in the app-server's form.
            status: Value = default,
            /// The thread.
            thread_id: ThreadId,
        } => Info, format!("App-server thread {thread_id} changed status.");
        /// A turn runs.
        "app-server.turn.started" => TurnStarted {
            /// Its status, as the app-server reports it; normally `inProgress`.
            status: String = default,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
            /// The turn at the root, when this is the turn of a sub-agent.
            root_turn_id: Option<TurnId> = default skip_serializing_if,
            /// Whether it was read from its thread, because codexd was not connected when the turn began.
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            read_from_thread: bool = default,
            /// When it began, where it was read from its thread.
            started_at: Option<Timestamp> = default skip_serializing_if,
            /// The turn before it in its thread, where it was read from there.
            previous_turn_id: Option<TurnId> = default skip_serializing_if,
        } => Info, match read_from_thread {
            false => format!("App-server turn {turn_id} started."),
            true => format!("App-server turn {turn_id} started, as its thread reports: it was not heard of."),
        };
        /// A turn ended.
        "app-server.turn.completed" => TurnCompleted {
            /// Why it failed, in the app-server's form.
            error: Option<Value> = default,
            /// `completed`, `interrupted`, `failed`, or a status of a later version.
            status: String,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
        } => Info, format!("App-server turn {turn_id} completed.");
        /// A turn met an error.
        "app-server.turn.error" => TurnError {
            /// The error, in the app-server's form.
            error: Option<Value> = default,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
            /// Whether the app-server retries by itself.
            will_retry: bool = default,
        } => Error, {
            let reason = error.as_ref().and_then(|error| error.get("message")?.as_str());
            format!("App-server turn {turn_id} failed: {}", reason.unwrap_or("no reason given"))
        };
        /// The changes of a turn to files.
        "app-server.turn.diff.updated" => TurnDiffUpdated {
            /// The diff, in the app-server's form.
            diff: Value,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
        } => Info, format!("App-server diff updated for turn {turn_id}.");
        /// The plan of a turn.
        "app-server.turn.plan.updated" => TurnPlanUpdated {
            /// The explanation, in the app-server's form.
            explanation: Value,
            /// The steps, in the app-server's form.
            plan: Value,
            /// The thread.
            thread_id: ThreadId,
            /// The turn.
            turn_id: TurnId,
        } => Info, format!("App-server plan updated for turn {turn_id}.");
        /// A piece of a message of the agent.
        #[schemars(with = "DeltaDetail<String>")]
        "app-server.turn.message.delta" => MessageDelta {} => Info, String::new();
        /// A piece of a plan that the agent proposes.
        #[schemars(with = "DeltaDetail<Value>")]
        "app-server.turn.plan.delta" => PlanDelta {} => Info, String::new();
        /// A piece of the output of a command that a client runs.
        "app-server.command.output.delta" => CommandOutputDelta {
            /// Whether the rest of the output is omitted.
            cap_reached: bool,
            /// The output, in Base64.
            delta_base64: String,
            /// The process, by the name that its client gave it.
            process_id: String,
            /// `stdout` or `stderr`.
            stream: String,
        } => if stream == STREAM_STDERR { Warn } else { Info }, {
            format!("App-server command {process_id} emitted {stream} output.")
        };
        /// Any other notification.
        #[schemars(with = "OtherDetail")]
        "app-server.notification" => Other(change: PassedThrough) => Info, String::new();
    }
}

/// A piece of a text.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[expect(dead_code, reason = "it describes a detail that is made as text")]
struct DeltaDetail<T> {
    /// The piece.
    delta: T,
    /// The item.
    item_id: Value,
    /// The thread.
    thread_id: Value,
    /// The turn.
    turn_id: TurnId,
}

/// A notification that is passed through.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
#[expect(dead_code, reason = "it describes a detail that is made as text")]
struct OtherDetail {
    /// The method.
    notification_method: String,
    /// The parameters, as the app-server sent them.
    params: Value,
}

/// What a notification without a separate event type changes.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub enum PassedThrough {
    /// Nothing.
    #[default]
    Nothing,
    /// An item of a turn is complete.
    ItemCompleted {
        /// The thread.
        thread_id: ThreadId,
        /// The turn.
        turn_id: TurnId,
        /// The item, in the app-server's form.
        item: Value,
    },
    /// A turn used tokens.
    TokensUsed {
        /// The thread.
        thread_id: ThreadId,
        /// The turn.
        turn_id: TurnId,
        /// The usage, in the app-server's form.
        usage: Value,
    },
    /// How much of the account's limits is used, in the app-server's form.
    RateLimits(Value),
    /// The account of the app-server.
    Account {
        /// How it is logged in, such as `chatgpt` or `apikey`.
        auth_mode: Option<String>,
        /// Its plan.
        plan_type: Option<String>,
    },
}

impl PassedThrough {
    /// Reads the detail of an `app-server.notification`.
    pub fn read(mut detail: Value) -> Self {
        let Some(params) = detail.get_mut("params").map(Value::take) else { return Self::Nothing };
        detail["notificationMethod"].as_str().map_or(Self::Nothing, |method| Self::of(method, params))
    }

    /// What a notification with these parameters changes.
    pub fn of(method: &str, params: Value) -> Self {
        Self::try_of(method, params).unwrap_or_default()
    }

    fn try_of(method: &str, mut params: Value) -> Option<Self> {
        // Not copied: an item can have many MB.
        let mut take = |key: &str| params.get_mut(key).map(Value::take);
        match method {
            notifications::ITEM_COMPLETED => Some(Self::ItemCompleted {
                item: take("item")?,
                thread_id: ThreadId::new(params["threadId"].as_str()?),
                turn_id: TurnId::new(params["turnId"].as_str()?),
            }),
            notifications::RATE_LIMITS_UPDATED => take("rateLimits").map(Self::RateLimits),
            notifications::ACCOUNT_UPDATED => {
                let text = |key: &str| params[key].as_str().map(str::to_owned);
                Some(Self::Account { auth_mode: text("authMode"), plan_type: text("planType") })
            }
            notifications::TOKEN_USAGE_UPDATED => Some(Self::TokensUsed {
                usage: take("tokenUsage")?,
                thread_id: ThreadId::new(params["threadId"].as_str()?),
                turn_id: TurnId::new(params["turnId"].as_str()?),
            }),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for PassedThrough {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::read)
    }
}
