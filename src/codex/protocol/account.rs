//! What the app-server answers about the account, its limits and its usage.
//!
//! `account/read` exists since 0.140.0, and so do `account/rateLimits/read` and `account/usage/read`; the latter two need a
//! login with ChatGPT, and read from its servers (measured on 0.140.0 to 0.171.0).

use std::collections::BTreeMap;

use serde::Deserialize;

/// The kind of account that has limits and usage.
pub const CHATGPT: &str = "chatgpt";

/// The answer to `account/rateLimits/read`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitsRead {
    /// The limit that old clients know.
    rate_limits: RateLimit,
    /// All limits, by their IDs.
    #[serde(default)]
    rate_limits_by_limit_id: Option<BTreeMap<String, RateLimit>>,
    /// Whether the account may use what its plan includes (0.160.1 and newer).
    #[serde(default)]
    pub ordinary_usage_allowed: Option<bool>,
}

impl RateLimitsRead {
    /// All limits, in the order of their IDs.
    pub fn limits(self) -> Vec<RateLimit> {
        match self.rate_limits_by_limit_id {
            Some(all) if !all.is_empty() => all.into_values().collect(),
            _ => vec![self.rate_limits],
        }
    }
}

/// A limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimit {
    /// Its ID, such as `codex`.
    #[serde(default)]
    pub limit_id: Option<String>,
    /// Its name.
    #[serde(default)]
    pub limit_name: Option<String>,
    /// The plan that it belongs to.
    #[serde(default)]
    pub plan_type: Option<String>,
    /// The shorter window.
    #[serde(default)]
    pub primary: Option<RateLimitWindow>,
    /// The longer window.
    #[serde(default)]
    pub secondary: Option<RateLimitWindow>,
    /// The credits.
    #[serde(default)]
    pub credits: Option<Credits>,
    /// Why it is reached, in Codex's words.
    #[serde(default)]
    pub rate_limit_reached_type: Option<String>,
}

/// A window of a limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitWindow {
    /// How much of it is used, in percent.
    pub used_percent: i64,
    /// Its length in minutes.
    #[serde(default)]
    pub window_duration_mins: Option<i64>,
    /// When it is reset, in seconds since 1970.
    #[serde(default)]
    pub resets_at: Option<i64>,
}

/// The credits of an account.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credits {
    /// Whether it has any.
    pub has_credits: bool,
    /// Whether they are not limited.
    pub unlimited: bool,
    /// How many, as a decimal number.
    #[serde(default)]
    pub balance: Option<String>,
}

/// The answer to `account/usage/read`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRead {
    /// The sums.
    pub summary: UsageSummary,
    /// The days.
    #[serde(default)]
    pub daily_usage_buckets: Option<Vec<DayUsage>>,
}

/// The usage over all days.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageSummary {
    /// The tokens in all.
    #[serde(default)]
    pub lifetime_tokens: Option<i64>,
    /// The most tokens on one day.
    #[serde(default)]
    pub peak_daily_tokens: Option<i64>,
    /// The longest turn, in seconds.
    #[serde(default)]
    pub longest_running_turn_sec: Option<i64>,
    /// Days in a row up to now.
    #[serde(default)]
    pub current_streak_days: Option<i64>,
    /// The most days in a row.
    #[serde(default)]
    pub longest_streak_days: Option<i64>,
}

/// The usage of a day.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DayUsage {
    /// The day, `YYYY-MM-DD`.
    pub start_date: String,
    /// Its tokens.
    pub tokens: i64,
}

/// Whether the error of one of these calls means that the login is not accepted any more (measured on 0.140.0 and 0.171.0:
/// `… failed: 401 Unauthorized; …`, and `Your access token could not be refreshed. Please log out and sign in again.`).
pub fn is_login_refused(message: &str) -> bool {
    message.contains("401 Unauthorized") || message.contains("sign in again")
}

/// The message of an error of one of these calls without the body of the response that it quotes, which can contain anything.
pub fn without_body(message: &str) -> &str {
    message.split_once("; content-type=").map_or(message, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_of_old_and_new_answers_are_read() {
        let window = json!({ "usedPercent": 42, "windowDurationMins": 300, "resetsAt": 7 });
        let limit = json!({ "limitId": "codex", "primary": window });
        let old: RateLimitsRead = serde_json::from_value(json!({ "rateLimits": limit })).unwrap();
        assert_eq!(old.ordinary_usage_allowed, None);
        let limits = old.limits();
        assert_eq!(limits.len(), 1);
        assert_eq!(limits.first().unwrap().primary.as_ref().unwrap().resets_at, Some(7));
        let new =
            json!({ "rateLimits": limit, "rateLimitsByLimitId": { "a": limit, "b": { "limitId": "b" } } });
        let new: RateLimitsRead = serde_json::from_value(new).unwrap();
        let ids: Vec<_> = new.limits().into_iter().map(|limit| limit.limit_id.unwrap()).collect();
        assert_eq!(ids, ["codex", "b"]);
    }

    #[test]
    fn errors_about_the_login_are_distinguished() {
        let expired = "failed to fetch codex rate limits: GET http://h/usage failed: 401 Unauthorized; content-type=a; body={\"t\":1}";
        assert!(is_login_refused(expired));
        assert_eq!(
            without_body(expired),
            "failed to fetch codex rate limits: GET http://h/usage failed: 401 Unauthorized"
        );
        let renewal = "Your access token could not be refreshed. Please log out and sign in again.";
        assert!(is_login_refused(renewal) && without_body(renewal) == renewal);
        assert!(!is_login_refused("chatgpt authentication required to read rate limits"));
    }
}
