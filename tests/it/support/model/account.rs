//! The part of ChatGPT's servers that reports an account: its workspace, its limits and its usage.

use serde_json::{Value, json};

/// When the shorter limit is reset, in seconds since 1970.
pub(crate) const RESETS_AT: i64 = 2_000_000_000;
/// The tokens that the account has used.
pub(crate) const LIFETIME_TOKENS: i64 = 123_456;
/// A text that no response of codexd may have.
pub(crate) const SECRET: &str = "not-for-clients";

/// The answer of a path; `None` where there is none.
pub(super) fn answer(path: &str) -> Option<Value> {
    Some(match path.strip_prefix("/backend-api/wham/")? {
        "accounts/check" => json!({ "accounts": [{
            "id": "acc-1", "account_routing_override": "NO_CONSTRAINT",
            "workspace_backend_origin": "https://chatgpt.com", "name": "A workspace",
        }] }),
        "usage" => {
            let window = |used: i64, seconds: i64, reset: i64| json!({ "used_percent": used, "limit_window_seconds": seconds, "reset_after_seconds": 600, "reset_at": reset });
            json!({
                "user_id": "user-1", "account_id": "acc-1", "email": "me@example.org", "plan_type": "plus",
                "rate_limit": {
                    "allowed": true, "limit_reached": false,
                    "primary_window": window(42, 18_000, RESETS_AT),
                    "secondary_window": window(5, 604_800, RESETS_AT + 1),
                },
                "credits": { "has_credits": true, "unlimited": false, "balance": "12.5" },
                "token": SECRET,
            })
        }
        "profiles/me" => json!({ "stats": {
            "lifetime_tokens": LIFETIME_TOKENS,
            "daily_usage_buckets": [{ "start_date": "2026-11-01", "tokens": 3 }],
        }, "token": SECRET }),
        _ => return None,
    })
}
