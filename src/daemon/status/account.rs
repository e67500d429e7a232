//! The account of Codex as `GET /v1/codexd/account` shows it: who is logged in, the limits, the usage.
//!
//! Nothing secret is in it: it is made of named fields of the app-server's answers, and its sentences are redacted.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::codex::protocol::account::{
    self, Credits, DayUsage, RateLimit, RateLimitWindow, RateLimitsRead, UsageRead, UsageSummary,
};
use crate::codex::protocol::methods;
use crate::codex::protocol::responses::AccountRead;
use crate::codex::protocol::versions::LOGIN_COMMAND;
use crate::codex::{CallError, Client, redact};
use crate::daemon::app_server::read_response::decode;
use crate::daemon::codex_health::watch::CodexMonitor;
use crate::daemon::codex_health::{CodexHealth, CodexState};
use crate::daemon::error::DaemonError;
use crate::daemon::services::Daemon;
use crate::timestamp::Timestamp;

/// How long each of the calls may take: for a login with ChatGPT, the app-server asks its servers.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether Codex is logged in; later versions may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LoginState {
    /// There is a login, and nothing is known against it.
    Present,
    /// The model needs no account of OpenAI, and there is none.
    NotNeeded,
    /// The model needs an account, and there is none.
    Missing,
    /// It is not accepted any more.
    Refused,
    /// Another login is on disk than the one that the app-server uses.
    Changed,
    /// The app-server did not report it.
    Unknown,
}

/// The login of Codex, and what to do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// Whether Codex is logged in.
    pub state: LoginState,
    /// As sentences.
    pub message: String,
    /// The command that renews it, where one is needed.
    pub command: Option<String>,
}

/// The account of Codex; a value that the app-server does not report is `null`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountReport {
    /// Its kind, such as `chatgpt` or `apiKey`; `null` when there is none or it is not known.
    pub r#type: Option<String>,
    /// Its plan.
    pub plan_type: Option<String>,
    /// The e-mail address of its person.
    pub email: Option<String>,
    /// The name of its workspace.
    pub workspace_name: Option<String>,
    /// Whether the model needs an account of OpenAI.
    pub requires_openai_auth: Option<bool>,
    /// Whether Codex is logged in.
    pub login: Login,
    /// Whether the account may use what its plan includes.
    pub ordinary_usage_allowed: Option<bool>,
    /// Its limits.
    pub rate_limits: Option<Vec<RateLimitView>>,
    /// Its usage.
    pub usage: Option<UsageView>,
    /// Why something is not known, each as a sentence.
    pub notes: Vec<String>,
}

/// A limit of the account.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitView {
    /// Its ID, such as `codex`.
    pub limit_id: Option<String>,
    /// Its name.
    pub limit_name: Option<String>,
    /// The plan that it belongs to.
    pub plan_type: Option<String>,
    /// The shorter window.
    pub primary: Option<WindowView>,
    /// The longer window.
    pub secondary: Option<WindowView>,
    /// The credits beside it.
    pub credits: Option<CreditsView>,
    /// Why it is reached, in the words of the app-server; `null` while it is not.
    pub reached: Option<String>,
}

/// A window of a limit.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowView {
    /// How much of it is used, in percent.
    #[schemars(extend("x-unit" = "percent"))]
    pub used_percent: i64,
    /// Its length.
    #[schemars(extend("x-unit" = "minutes"))]
    pub window_minutes: Option<i64>,
    /// When it begins again, RFC 3339, UTC, milliseconds.
    pub resets_at: Option<Timestamp>,
}

/// The credits of the account.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreditsView {
    /// Whether it has any.
    pub has_credits: bool,
    /// Whether they are not limited.
    pub unlimited: bool,
    /// How many, as a decimal number.
    pub balance: Option<String>,
}

/// What the account has used.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageView {
    /// The tokens in all.
    pub lifetime_tokens: Option<i64>,
    /// The most tokens on one day.
    pub peak_daily_tokens: Option<i64>,
    /// The longest turn.
    #[schemars(extend("x-unit" = "seconds"))]
    pub longest_turn_seconds: Option<i64>,
    /// The days in a row with usage, up to now.
    pub current_streak_days: Option<i64>,
    /// The most days in a row with usage.
    pub longest_streak_days: Option<i64>,
    /// The tokens of each day.
    pub days: Option<Vec<DayView>>,
}

/// The usage of a day.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DayView {
    /// The day, `YYYY-MM-DD`.
    pub date: String,
    /// The tokens.
    pub tokens: i64,
}

impl Daemon {
    /// The account, as the app-server reports it now.
    pub async fn account(&self) -> Result<AccountReport, DaemonError> {
        let codex = self.codex.clone();
        let core = self.core.clone();
        self.core.run(async move { Ok(read(&codex, &core.wait_for_client().await?).await) }).await
    }
}

async fn read(codex: &CodexMonitor, client: &Client) -> AccountReport {
    let (account, limits, usage) = tokio::join!(
        call::<Value>(client, methods::ACCOUNT_READ, json!({ "refreshToken": false })),
        call::<RateLimitsRead>(client, methods::ACCOUNT_RATE_LIMITS_READ, Value::Null),
        call::<UsageRead>(client, methods::ACCOUNT_USAGE_READ, Value::Null),
    );
    let refused = [account.as_ref().err(), limits.as_ref().err(), usage.as_ref().err()]
        .into_iter()
        .flatten()
        .find(|error| account::is_login_refused(error))
        .cloned();
    let mut notes = Vec::new();
    let mut note = |what: &str, error: &str| notes.push(format!("Codex did not report the {what}: {error}."));
    let account = account.inspect_err(|error| note("account", error)).ok();
    let account = account.as_ref().and_then(AccountRead::read);
    let has_limits =
        account.as_ref().is_none_or(|account| account.r#type.as_deref() == Some(account::CHATGPT));
    if !has_limits {
        // The app-server refuses these calls then.
        note("limits and the usage", "it does so for a login with ChatGPT only");
    }
    let limits = limits
        .inspect_err(|error| {
            if has_limits {
                note("limits", error)
            }
        })
        .ok();
    let usage = usage
        .inspect_err(|error| {
            if has_limits {
                note("usage", error)
            }
        })
        .ok();
    let login = login(codex, account.as_ref(), refused.as_deref()).await;
    let AccountRead { r#type, plan_type, email, workspace_name, requires_openai_auth } =
        account.unwrap_or_default();
    AccountReport {
        r#type,
        plan_type,
        email,
        workspace_name,
        requires_openai_auth,
        login,
        ordinary_usage_allowed: limits.as_ref().and_then(|limits| limits.ordinary_usage_allowed),
        rate_limits: limits.map(|limits| limits.limits().into_iter().map(RateLimitView::from).collect()),
        usage: usage.map(UsageView::from),
        notes,
    }
}

/// Calls the method; the error has no secrets and no full stop.
async fn call<T: DeserializeOwned>(
    client: &Client,
    method: &'static str,
    params: Value,
) -> Result<T, String> {
    let answer = client.call(method, &params, CALL_TIMEOUT).await;
    let error = match answer.and_then(|answer| decode(method, &answer)) {
        Ok(answer) => return Ok(answer),
        Err(CallError::Refused { error, .. }) => account::without_body(&error.message).to_owned(),
        Err(error) => error.to_string(),
    };
    Err(redact(error.trim_end_matches('.')))
}

/// The login; `refused` is why one of the calls was refused because of it.
async fn login(codex: &CodexMonitor, account: Option<&AccountRead>, refused: Option<&str>) -> Login {
    let CodexHealth { state, message, command, .. } = codex.core.codex_health();
    let known = match state {
        CodexState::NoAccount => Some(LoginState::Missing),
        CodexState::LoginRefused => Some(LoginState::Refused),
        _ => None,
    };
    if let Some(state) = known {
        return Login { state, message, command };
    }
    if codex.changes().await.account {
        let what = if codex.owns_app_server() {
            "codexd restarts the app-server for it before the next turn"
        } else {
            "the app-server has other clients, so restart it yourself: codexd app-server restart"
        };
        let message = format!("The login has changed since the app-server was started; {what}.");
        return Login { state: LoginState::Changed, message, command: None };
    }
    if let Some(reason) = refused {
        let message = codex.core.codex.login_message(&format!("The login of Codex is refused: {reason}."));
        return Login { state: LoginState::Refused, message, command: Some(LOGIN_COMMAND.to_owned()) };
    }
    let (state, message) = match account {
        None => (LoginState::Unknown, "Codex did not report its login."),
        Some(AccountRead { r#type: Some(_), .. }) => (LoginState::Present, "Codex is logged in."),
        Some(AccountRead { requires_openai_auth: Some(false), .. }) => {
            (LoginState::NotNeeded, "The model needs no account of OpenAI.")
        }
        Some(_) => {
            let message = "Codex has no account, so turns fail.".to_owned();
            return Login { state: LoginState::Missing, message, command: Some(LOGIN_COMMAND.to_owned()) };
        }
    };
    Login { state, message: message.to_owned(), command: None }
}

impl From<RateLimit> for RateLimitView {
    fn from(limit: RateLimit) -> Self {
        let RateLimit {
            limit_id,
            limit_name,
            plan_type,
            primary,
            secondary,
            credits,
            rate_limit_reached_type: reached,
        } = limit;
        let (primary, secondary) = (primary.map(WindowView::from), secondary.map(WindowView::from));
        let credits = credits.map(|Credits { has_credits, unlimited, balance }| CreditsView {
            has_credits,
            unlimited,
            balance,
        });
        Self { limit_id, limit_name, plan_type, primary, secondary, credits, reached }
    }
}

impl From<RateLimitWindow> for WindowView {
    fn from(window: RateLimitWindow) -> Self {
        let RateLimitWindow { used_percent, window_duration_mins: window_minutes, resets_at } = window;
        let resets_at = resets_at.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        Self { used_percent, window_minutes, resets_at: resets_at.map(Timestamp::from) }
    }
}

impl From<UsageRead> for UsageView {
    fn from(read: UsageRead) -> Self {
        let UsageSummary {
            lifetime_tokens,
            peak_daily_tokens,
            longest_running_turn_sec: longest_turn_seconds,
            current_streak_days,
            longest_streak_days,
        } = read.summary;
        let day = |DayUsage { start_date: date, tokens }| DayView { date, tokens };
        let days = read.daily_usage_buckets.map(|days| days.into_iter().map(day).collect());
        Self {
            lifetime_tokens,
            peak_daily_tokens,
            longest_turn_seconds,
            current_streak_days,
            longest_streak_days,
            days,
        }
    }
}
