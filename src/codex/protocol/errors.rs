//! What the errors of Codex mean, wherever a decision of codexd depends on one.
//!
//! Codex gives nearly every error of a call the same code, so only the text distinguishes them.
//! The errors of turns have a `codexErrorInfo`, a string or an object with one key.

use serde_json::Value;

use super::versions;

/// The code of an app-server that has too much to do: try again later.
pub const OVERLOADED: i64 = -32001;
/// The code of nearly everything that the app-server refuses.
pub const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: there is no method of that name.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The code of the rest that the app-server refuses.
pub const INVALID_PARAMS: i64 = -32602;

/// Whether an app-server that ends after its turns refused a call, by the data of the error (measured on 0.169.0 and
/// 0.171.0), or its message, because 0.160.1 sends no data.
pub fn is_shutting_down(message: &str, data: Option<&Value>) -> bool {
    data.is_some_and(|data| data["reason"] == "serverShuttingDown")
        || message == "Server is draining; retry after reconnecting"
}

/// Whether a thread has no history to open, as one that never had a turn (measured).
pub fn is_no_history(message: &str) -> bool {
    message.contains("no rollout found")
}

/// Whether a thread is archived.
pub fn is_archived(message: &str) -> bool {
    message.contains("is archived")
}

/// Whether a thread cannot be unarchived because it is not archived (measured on 0.171.0).
pub fn is_not_archived(message: &str) -> bool {
    message.contains("no archived rollout found")
}

/// Whether another process writes the thread, or is about to end writing it.
pub fn is_thread_locked(message: &str) -> bool {
    message.contains("active writer") || message.contains("is closing")
}

/// Whether the app-server does not have the thread in memory (measured on 0.169.0 and 0.171.0).
pub fn is_thread_unloaded(message: &str) -> bool {
    message.contains("thread not found")
}

/// Whether the turn to steer has ended (measured on 0.169.0).
pub fn is_nothing_to_steer(message: &str) -> bool {
    message.contains("no active turn to steer")
}

/// Whether the turn to interrupt did not start yet, or is over (measured).
pub fn is_nothing_to_interrupt(message: &str) -> bool {
    message.contains("no active turn to interrupt")
}

/// Whether the app-server does not have the method that was called (measured on 0.105.0 to 0.171.0: the message lists all
/// methods that it has).
pub fn is_unknown_method(method: &str, code: i64, message: &str) -> bool {
    code == METHOD_NOT_FOUND
        || message.contains(&format!("unknown variant `{method}`, expected one of `initialize`"))
}

/// What a person is told about a method that the app-server does not have, by the message of its error: another Codex may
/// have it, and the demo never has.
pub fn unknown_method(method: &str, message: &str) -> String {
    if message.starts_with("The demo ") {
        return format!(
            "The demo does not have the method {method}; start codexd without --demo to use Codex."
        );
    }
    let minimum = versions::text(versions::MINIMUM);
    let install = versions::UPGRADE_COMMAND;
    format!("Codex does not have the method {method}; install version {minimum} or newer with \"{install}\".")
}

/// Why a call was refused because of a configuration, by the message of its error.
pub fn refused_configuration_of_call(message: &str) -> Option<&str> {
    // Both measured on 0.171.0: of thread/start, and of config/read.
    let prefixes = ["failed to load configuration: ", "failed to read configuration layers: "];
    prefixes.iter().find_map(|prefix| message.strip_prefix(prefix))
}

/// Whether what an app-server printed before it ended is about its configuration.
pub fn is_about_configuration(stderr: &str) -> bool {
    let stderr = stderr.to_lowercase();
    ["config", "remove this setting", "toml"].iter().any(|text| stderr.contains(text))
}

/// What an error of a turn means for the turns after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastingError {
    /// The usage limit of the account is reached.
    UsageLimit,
    /// The login was refused.
    Unauthorized,
    /// The model cannot be reached or has no capacity.
    ModelUnavailable,
}

impl LastingError {
    /// Reads the error of a turn; `None` if it has no meaning for the next turn.
    ///
    /// The names are those of `CodexErrorInfo` in codex 0.140.0 to 0.171.0; an unknown one has no meaning.
    pub fn of(error: &Value) -> Option<Self> {
        let info = &error["codexErrorInfo"];
        if let Some(name) = info.as_str() {
            return match name {
                USAGE_LIMIT_EXCEEDED | RATE_LIMIT_EXCEEDED | "sessionBudgetExceeded" => {
                    Some(Self::UsageLimit)
                }
                UNAUTHORIZED => Some(Self::Unauthorized),
                "serverOverloaded"
                | "flexUnavailable"
                | "policyCapacityUnavailable"
                | "modelNotFound"
                | "internalServerError" => Some(Self::ModelUnavailable),
                _ => None,
            };
        }
        // What a provider answered when Codex had tried as often as it is set to. The one about a connection that was
        // lost in the middle of an answer is not among them: the next turn may well get through.
        let failed = [HTTP_FAILED, STREAM_FAILED, "responseTooManyFailedAttempts"];
        let failed = failed.iter().find_map(|name| info.get(name))?;
        Some(match failed["httpStatusCode"].as_u64() {
            Some(401 | 403) => Self::Unauthorized,
            _ => Self::ModelUnavailable,
        })
    }
}

/// Whether an error of a turn is about a limit of the account, which ends by itself; the budget of a session does not.
pub fn is_account_limit(error: &Value) -> bool {
    [USAGE_LIMIT_EXCEEDED, RATE_LIMIT_EXCEEDED].iter().any(|name| error["codexErrorInfo"] == *name)
}

/// The error of a turn that reached the usage limit, as Codex reports it.
#[cfg(test)]
pub fn usage_limit_exceeded(message: &str) -> Value {
    serde_json::json!({ "codexErrorInfo": USAGE_LIMIT_EXCEEDED, "message": message })
}

const USAGE_LIMIT_EXCEEDED: &str = "usageLimitExceeded";
const RATE_LIMIT_EXCEEDED: &str = "rateLimitExceeded";
const UNAUTHORIZED: &str = "unauthorized";
const HTTP_FAILED: &str = "httpConnectionFailed";
const STREAM_FAILED: &str = "responseStreamConnectionFailed";
const STREAM_DISCONNECTED: &str = "responseStreamDisconnected";
/// In the text of every error that has a `codexErrorInfo`.
pub const ERROR_INFO_KEY: &str = "\"codexErrorInfo\"";

/// What an error of a turn means for login and network; the reasons are Codex's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionError<'a> {
    /// The login was refused.
    LoginRefused(&'a str),
    /// The model could not be reached.
    Offline(&'a str),
    /// Neither.
    Other,
}

impl<'a> ConnectionError<'a> {
    /// Reads the error of a turn.
    pub fn of(error: &'a Value) -> Self {
        let info = &error["codexErrorInfo"];
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        // While Codex retries, the message has the number of attempts, and the details have the reason.
        let reason = match text("additionalDetails") {
            "" => text("message"),
            details => details,
        };
        let kinds = info.as_object().into_iter().flatten();
        let status = kinds.clone().find_map(|(_, kind)| kind["httpStatusCode"].as_u64());
        if info == UNAUTHORIZED || status == Some(401) {
            return Self::LoginRefused(reason);
        }
        let is_connection = kinds
            .clone()
            .any(|(kind, _)| [STREAM_DISCONNECTED, HTTP_FAILED, STREAM_FAILED].contains(&kind.as_str()));
        // A stream that broke off also has no status.
        let phrases = [
            "waiting for network",
            "error sending request",
            "lookup address",
            "Connection failed",
            "dns error",
        ];
        let has_phrase =
            phrases.iter().any(|phrase| text("message").contains(phrase) || reason.contains(phrase));
        if is_connection && status.is_none() && has_phrase {
            return Self::Offline(reason);
        }
        Self::Other
    }
}

/// Whether an error of a turn means that the model could not be reached.
pub fn is_offline(error: &Value) -> bool {
    matches!(ConnectionError::of(error), ConnectionError::Offline(_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lasting_error_is_one_that_fails_the_next_turn_too() {
        for (info, meaning) in [
            (json!("usageLimitExceeded"), Some(LastingError::UsageLimit)),
            (json!("rateLimitExceeded"), Some(LastingError::UsageLimit)),
            (json!("unauthorized"), Some(LastingError::Unauthorized)),
            (json!("serverOverloaded"), Some(LastingError::ModelUnavailable)),
            (json!("internalServerError"), Some(LastingError::ModelUnavailable)),
            (json!({"httpConnectionFailed": {"httpStatusCode": 401}}), Some(LastingError::Unauthorized)),
            (json!({"httpConnectionFailed": {"httpStatusCode": null}}), Some(LastingError::ModelUnavailable)),
            (
                json!({"responseTooManyFailedAttempts": {"httpStatusCode": 429}}),
                Some(LastingError::ModelUnavailable),
            ),
            (json!({"responseStreamDisconnected": {"httpStatusCode": null}}), None),
            (json!("contextWindowExceeded"), None),
            (json!("badRequest"), None),
            (json!("sandboxError"), None),
            (json!("other"), None),
            (json!("a name of a later Codex"), None),
            (json!({"a form of a later Codex": {}}), None),
            (Value::Null, None),
        ] {
            assert_eq!(LastingError::of(&json!({ "codexErrorInfo": info })), meaning, "{info}");
        }
        assert_eq!(LastingError::of(&Value::Null), None);
    }

    #[test]
    fn connection_error_is_offline_only_when_no_connection_can_be_made() {
        let of = |message: &str, kind: Value, details: Value| json!({ "message": message, "codexErrorInfo": kind, "additionalDetails": details });
        let none = json!({ "responseStreamDisconnected": { "httpStatusCode": null } });
        let details = json!("Connection failed: error sending request");
        assert_eq!(
            ConnectionError::of(&of("Reconnecting... waiting for network", none.clone(), details)),
            ConnectionError::Offline("Connection failed: error sending request")
        );
        assert_eq!(
            ConnectionError::of(&of("stream disconnected before completion", none, Value::Null)),
            ConnectionError::Other
        );
        let status = json!({ "httpConnectionFailed": { "httpStatusCode": 500 } });
        assert_eq!(
            ConnectionError::of(&of("unexpected status 500", status, Value::Null)),
            ConnectionError::Other
        );
        assert_eq!(
            ConnectionError::of(&of("no", json!("unauthorized"), Value::Null)),
            ConnectionError::LoginRefused("no")
        );
    }

    #[test]
    fn refused_configuration_of_call_is_the_text_after_the_prefix() {
        let line = "/h/config.toml:1:9: key with no value, expected `=`";
        let refusal = format!("failed to load configuration: {line}");
        assert_eq!(refused_configuration_of_call(&refusal), Some(line));
        assert_eq!(refused_configuration_of_call("no rollout found"), None);
    }
}
