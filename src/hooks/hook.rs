//! What a hook is, and which are valid.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::signature;
use super::url::HookUrl;
use crate::ids::{HookId, SessionId};
use crate::state::EventDetail;
use crate::timestamp::Timestamp;

/// How long a delivery may take by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest name of a hook, in characters.
const MAX_NAME_CHARS: usize = 64;
/// The longest command, in bytes of all arguments.
const MAX_COMMAND_BYTES: usize = 16 * 1024;
/// The largest number of type prefixes.
const MAX_PREFIXES: usize = 64;
/// The beginning of the types that no hook gets: a hook could cause itself to run.
const OWN_PREFIX: &str = "hook.";

/// A hook, as it is in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// Its ID.
    pub hook_id: HookId,
    /// Its name, which no other hook has.
    pub name: String,
    /// The prefixes of the types of its events.
    pub on: Vec<String>,
    /// The session to which it is limited.
    pub session_id: Option<SessionId>,
    /// What gets the events.
    pub target: Target,
    /// How long a delivery may take, in seconds.
    pub timeout_seconds: u64,
    /// Whether events are delivered as they are in the log, with prompts and answers.
    pub detail: bool,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What gets the events of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// A program and its arguments.
    Command(Vec<String>),
    /// A URL that events are posted to.
    Url {
        /// The URL.
        url: String,
        /// The secret of the signatures.
        secret: Option<String>,
    },
}

/// What may be known about a target: arguments and paths of URLs can be secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetView {
    /// The program, and the number of its arguments.
    Command(String, usize),
    /// The scheme and the host of the URL, and whether deliveries are signed.
    Url(String, bool),
}

/// A hook to add.
#[derive(Debug, Clone, Default)]
pub struct NewHook {
    /// See [`Hook::name`].
    pub name: String,
    /// See [`Hook::on`].
    pub on: Vec<String>,
    /// See [`Hook::session_id`].
    pub session_id: Option<SessionId>,
    /// A program and its arguments.
    pub command: Option<Vec<String>>,
    /// A URL.
    pub url: Option<String>,
    /// The secret of the signatures.
    pub secret: Option<String>,
    /// See [`Hook::timeout_seconds`].
    pub timeout_seconds: Option<u64>,
    /// See [`Hook::detail`].
    pub detail: bool,
}

impl NewHook {
    /// The hook, or a sentence that says what is wrong.
    pub(super) fn check(self, now: Timestamp) -> Result<Hook, String> {
        check_name(&self.name)?;
        check_prefixes(&self.on)?;
        let target = match (self.command, self.url) {
            (Some(command), None) if self.secret.is_none() => command_target(command)?,
            (Some(_), None) => return Err("secret is for hooks with a url.".to_owned()),
            (None, Some(url)) => {
                HookUrl::parse(&url)?;
                self.secret.as_deref().map(signature::key).transpose()?;
                Target::Url { url, secret: self.secret }
            }
            _ => return Err("A hook needs either command or url.".to_owned()),
        };
        Ok(Hook {
            hook_id: HookId::new(uuid::Uuid::new_v4().to_string()),
            name: self.name,
            on: self.on,
            session_id: self.session_id,
            target,
            timeout_seconds: self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT.as_secs()),
            detail: self.detail,
            created_at: now,
        })
    }
}

impl Hook {
    /// Whether it gets events of this type, whatever they are about; the notification `method` distinguishes those that are
    /// passed through.
    ///
    /// The pieces of texts are so many that only the full name of their type selects them.
    pub(super) fn selects(&self, event_type: &[u8], is_piece: impl FnOnce() -> bool) -> bool {
        if event_type.starts_with(OWN_PREFIX.as_bytes()) {
            return false;
        }
        self.on.iter().any(|prefix| prefix.as_bytes() == event_type)
            || self.on.iter().any(|prefix| event_type.starts_with(prefix.as_bytes())) && !is_piece()
    }

    /// What may be known about its target.
    pub(super) fn target_view(&self) -> TargetView {
        match &self.target {
            Target::Command(command) => TargetView::Command(
                command.first().cloned().unwrap_or_default(),
                command.len().saturating_sub(1),
            ),
            Target::Url { url, secret } => {
                let origin = HookUrl::parse(url).map(|url| url.origin());
                TargetView::Url(origin.unwrap_or_default(), secret.is_some())
            }
        }
    }

    /// A text without what may be a secret of this hook.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let secrets: Vec<&str> = match &self.target {
            Target::Command(command) => command.iter().skip(1).map(String::as_str).collect(),
            Target::Url { url, secret } => {
                let path = url.splitn(4, '/').nth(3).unwrap_or_default();
                let parts = path.split(['/', '?', '&', '=']);
                std::iter::once(path).chain(parts).chain(secret.as_deref()).collect()
            }
        };
        let mut shown = text.to_owned();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET_BYTES) {
            shown = shown.replace(secret, "***");
        }
        shown
    }
}

/// The shortest text that can be a secret, in bytes.
const MIN_SECRET_BYTES: usize = 8;

fn check_name(name: &str) -> Result<(), String> {
    // It is a label of metrics and a word of the command line.
    let is_plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    match name.chars().count() {
        1..=MAX_NAME_CHARS if name.chars().all(is_plain) => Ok(()),
        _ => Err(format!(
            "name must have 1 to {MAX_NAME_CHARS} characters: letters, digits, \"-\", \"_\" and \".\"."
        )),
    }
}

fn check_prefixes(on: &[String]) -> Result<(), String> {
    if on.is_empty() || on.len() > MAX_PREFIXES {
        return Err(format!("on must list 1 to {MAX_PREFIXES} event types or prefixes of them."));
    }
    for prefix in on {
        if prefix.starts_with(OWN_PREFIX) {
            return Err(format!("on: {prefix:?} selects events of hooks, which no hook gets."));
        }
        if prefix.is_empty() || !EventDetail::types().any(|name| name.starts_with(prefix.as_str())) {
            return Err(format!("on: no event type begins with {prefix:?}; docs/api.md lists the types."));
        }
    }
    Ok(())
}

fn command_target(command: Vec<String>) -> Result<Target, String> {
    if command.first().is_none_or(|program| program.trim().is_empty()) {
        return Err("command must list a program and its arguments.".to_owned());
    }
    if command.first().is_some_and(|program| program.contains('/') && !program.starts_with('/')) {
        return Err(
            "command must have an absolute path, or a name that is found in PATH, as its program.".to_owned()
        );
    }
    if command.iter().any(|argument| argument.contains('\0')) {
        return Err("command must not contain a zero byte.".to_owned());
    }
    if command.iter().map(String::len).sum::<usize>() > MAX_COMMAND_BYTES {
        return Err(format!("command is longer than {MAX_COMMAND_BYTES} bytes."));
    }
    Ok(Target::Command(command))
}
