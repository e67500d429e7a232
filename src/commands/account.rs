//! `codexd account`: shows who is logged in, the limits of the account and its usage.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::Value;

use super::api::list;
use super::failure::Failure;
use super::format::account_text;
use super::output;
use super::status::codex_status_text;
use crate::commands::context::CommandContext;

const MINUTES_OF_AN_HOUR: i64 = 60;
const MINUTES_OF_A_DAY: i64 = 24 * MINUTES_OF_AN_HOUR;

/// The path of the account.
const ACCOUNT_PATH: &str = "/v1/codexd/account";

pub(crate) async fn run(context: &CommandContext) -> Result<ExitCode, Failure> {
    let answer = context.client.get(ACCOUNT_PATH).await?;
    let account = &answer["account"];
    let login = &account["login"];
    let mut rows = vec![("account", account_text(account)), ("login", codex_status_text(login))];
    rows.extend(list(account, "rateLimits").iter().map(|limit| ("limit", limit_text(limit))));
    if let Some(usage) = usage_text(&account["usage"]) {
        rows.push(("usage", usage));
    }
    rows.extend(
        list(account, "notes").iter().filter_map(Value::as_str).map(|note| ("note", note.to_owned())),
    );
    context.print(&answer, &output::table(&rows))?;
    Ok(match login["state"].as_str() {
        Some("missing" | "refused") => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn limit_text(limit: &Value) -> String {
    let name = limit["limitName"].as_str().or(limit["limitId"].as_str()).unwrap_or("unnamed");
    let windows = ["primary", "secondary"].iter().filter_map(|name| window_text(&limit[*name]));
    let credits = &limit["credits"];
    let credits = match (credits["unlimited"].as_bool(), credits["balance"].as_str()) {
        (Some(true), _) => Some("credits unlimited".to_owned()),
        (_, Some(balance)) if credits["hasCredits"] == true => Some(format!("credits {balance}")),
        _ => None,
    };
    let reached = limit["reached"].as_str().map(|reached| format!("reached: {reached}"));
    let parts: Vec<_> = windows.chain(credits).chain(reached).collect();
    format!("{name}: {}", if parts.is_empty() { "-".to_owned() } else { parts.join("; ") })
}

fn window_text(window: &Value) -> Option<String> {
    let used = window["usedPercent"].as_i64()?;
    let length = window["windowMinutes"].as_i64().map(|minutes| match minutes {
        days if days >= MINUTES_OF_A_DAY && days % MINUTES_OF_A_DAY == 0 => {
            format!(" of {} d", days / MINUTES_OF_A_DAY)
        }
        hours if hours >= MINUTES_OF_AN_HOUR && hours % MINUTES_OF_AN_HOUR == 0 => {
            format!(" of {} h", hours / MINUTES_OF_AN_HOUR)
        }
        minutes => format!(" of {minutes} min"),
    });
    let reset = window["resetsAt"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let reset = reset.map(|at| format!(", until {}", at.strftime("%Y-%m-%dT%H:%M:%SZ")));
    Some(format!("{used} % used{}{}", length.unwrap_or_default(), reset.unwrap_or_default()))
}

fn usage_text(usage: &Value) -> Option<String> {
    let tokens = |name: &str, label: &str| Some(format!("{} tokens {label}", usage[name].as_i64()?));
    let parts: Vec<_> =
        [tokens("lifetimeTokens", "in all"), tokens("peakDailyTokens", "on the day with the most")]
            .into_iter()
            .flatten()
            .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_shown_with_their_windows_and_resets() {
        let limit = json!({
            "limitId": "codex", "limitName": null,
            "primary": { "usedPercent": 42, "windowMinutes": 300, "resetsAt": "2026-11-29T14:00:00.000Z" },
            "secondary": { "usedPercent": 100, "windowMinutes": 10_080, "resetsAt": null },
            "credits": { "hasCredits": true, "unlimited": false, "balance": "12.5" },
            "reached": "rate_limit_reached",
        });
        assert_eq!(
            limit_text(&limit),
            "codex: 42 % used of 5 h, until 2026-11-29T14:00:00Z; 100 % used of 7 d; credits 12.5; reached: \
             rate_limit_reached"
        );
        assert_eq!(limit_text(&json!({})), "unnamed: -");
        assert_eq!(
            window_text(&json!({ "usedPercent": 1, "windowMinutes": 90 })).unwrap(),
            "1 % used of 90 min"
        );
    }

    #[test]
    fn usage_is_shown_where_it_is_known() {
        assert_eq!(usage_text(&json!({ "lifetimeTokens": 5 })).unwrap(), "5 tokens in all");
        assert_eq!(usage_text(&Value::Null), None);
    }
}
