//! The result of one check of `codexd doctor`.

use serde::Serialize;

/// The severity of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckStatus {
    /// Nothing to do.
    Ok,
    /// codexd works, but something should be checked.
    Warn,
    /// codexd does not work, or will stop working.
    Fail,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) status: CheckStatus,
    /// What was found, as a sentence.
    pub(super) detail: String,
    /// What to do, as a sentence.
    pub(super) advice: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Ok, detail: detail.into(), advice: None }
    }

    pub(super) fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: CheckStatus::Warn, detail: detail.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { status: CheckStatus::Fail, ..Self::warn(name, detail, advice) }
    }
}
