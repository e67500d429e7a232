//! What is known of the app-server, its account and its model since it was started.
//!
//! [`SharedFacts`] owns it; the event handler and the watch task update it, and the health is derived from it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::files::Stamp;
use crate::codex::protocol::errors::{self, ConnectionError};
use crate::codex::protocol::responses::{self, Account, AccountRead};
use crate::codex::protocol::{notifications, values, versions};
use crate::codex::{ERROR_OUTPUT_LABEL, redact};
use crate::ids::TurnId;

/// After how many refused logins in a row the app-server is restarted: one may be a fault of the API.
const REFUSALS_BEFORE_RESTART: u32 = 2;

/// How long the end of a turn is awaited after its last error; it may be lost.
const TURN_END_WAIT: Duration = Duration::from_secs(5);

/// That the app-server refused a call because of its configuration, which it reads again for each thread it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct RefusedCall {
    /// Codex's text, which begins with file, line and column.
    reason: String,
    /// The state of the file as it was first seen after the refusal; `None` until then.
    seen: Option<Stamp>,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Facts {
    /// The generation that reported it.
    pub(in crate::daemon) generation: u64,
    /// Whether codexd started it.
    pub(in crate::daemon) is_ours: bool,
    /// Its user agent, which has its version.
    pub(in crate::daemon) user_agent: Option<String>,
    pub(in crate::daemon) account: Account,
    /// The answer to `account/read`.
    pub(in crate::daemon) account_read: Option<AccountRead>,
    /// Why it refuses its configuration.
    pub(in crate::daemon) config: Option<String>,
    /// The last call that it refused because of its configuration, until such a call succeeds or the file changes.
    pub(in crate::daemon) refused_call: Option<RefusedCall>,
    /// Why its login was refused; it outlives a restart, until a turn succeeds or the login changes.
    pub(in crate::daemon) refused: Option<String>,
    /// How often in a row.
    pub(in crate::daemon) refusals: u32,
    /// Whether it was started again because of these.
    pub(in crate::daemon) was_restarted: bool,
    /// Why it does not reach its model.
    pub(in crate::daemon) offline: Option<String>,
}

impl Facts {
    /// Its version as it reports it.
    pub(in crate::daemon) fn version(&self) -> Option<&str> {
        versions::in_user_agent(self.user_agent.as_deref()?)
    }

    /// The numbers of its version.
    pub(in crate::daemon) fn version_numbers(&self) -> Option<[u64; 3]> {
        versions::numbers(self.version()?)
    }

    /// Why it refuses its configuration, reported at its start or in the answer to a call.
    pub(in crate::daemon) fn refused_configuration(&self) -> Option<&str> {
        self.config.as_deref().or_else(|| self.refused_call.as_ref().map(|call| call.reason.as_str()))
    }
}

/// The same, shared.
#[derive(Debug, Default)]
pub(in crate::daemon) struct SharedFacts {
    known: Mutex<Facts>,
    /// The turns that met an error and have not ended, and when they met the last one.
    ///
    /// The end comes some milliseconds after the error that it ends with, and must not be cut off.
    failing: Mutex<HashMap<TurnId, Instant>>,
    /// Whether a refused login or a missing network is known; while it is not, the messages of a turn cost nothing.
    in_trouble: AtomicBool,
    /// Whether an app-server has been asked for its account.
    account_known: watch::Sender<bool>,
}

impl SharedFacts {
    pub(in crate::daemon) fn now(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts of a generation; those that an older app-server reported about itself are dropped.
    fn of(&self, generation: u64) -> MutexGuard<'_, Facts> {
        let mut known = self.lock();
        if known.generation < generation {
            let before = std::mem::take(&mut *known);
            let Facts { refused, refusals, was_restarted, offline, .. } = before;
            *known = Facts { generation, refused, refusals, was_restarted, offline, ..Facts::default() };
        }
        known
    }

    pub(in crate::daemon) fn joined(&self, generation: u64, is_ours: bool) {
        self.of(generation).is_ours = is_ours;
    }

    pub(in crate::daemon) fn connected(&self, generation: u64, info: &Value) {
        let agent = responses::user_agent(info);
        self.of(generation).user_agent = (!agent.is_empty()).then(|| agent.to_owned());
    }

    /// Stores the answer to `account/read`.
    pub(in crate::daemon) fn account(&self, generation: u64, answer: &Value) {
        let mut known = self.of(generation);
        known.account = Account::read(answer);
        known.account_read = AccountRead::read(answer);
        self.account_known.send_replace(true);
    }

    /// Returns when an app-server has been asked for its account.
    pub(in crate::daemon) async fn account_known(&self) {
        // Never fails: the sender is in `self`.
        let _ = self.account_known.subscribe().wait_for(|&known| known).await;
    }

    /// Stores that a call was refused because of the configuration.
    pub(in crate::daemon) fn call_refused(&self, generation: u64, reason: &str) {
        self.of(generation).refused_call = Some(RefusedCall { reason: redact(reason), seen: None });
    }

    /// A call succeeded for which the configuration is read; returns whether it had been refused before.
    pub(in crate::daemon) fn config_was_read(&self, generation: u64) -> bool {
        self.of(generation).refused_call.take().is_some()
    }

    /// Whether a call was refused because of the configuration.
    pub(in crate::daemon) fn has_refused_call(&self) -> bool {
        self.lock().refused_call.is_some()
    }

    /// Stores the state of the configuration file after a refused call; where it has changed since it was first
    /// seen, the next call decides.
    pub(in crate::daemon) fn config_seen(&self, stamp: Stamp) {
        let mut known = self.lock();
        let Some(call) = &mut known.refused_call else { return };
        if *call.seen.get_or_insert(stamp) != stamp {
            known.refused_call = None;
        }
    }

    /// Clears the refused login: there is another one.
    pub(in crate::daemon) fn login_changed(&self) {
        let mut known = self.lock();
        known.refused = None;
        known.refusals = 0;
        known.was_restarted = false;
    }

    /// Forgets the account until it is read again.
    fn forget_account(&self, generation: u64) {
        let mut known = self.of(generation);
        known.account = Account::Unknown;
        known.account_read = None;
    }

    /// Whether the app-server should be started again, because its login is refused as often as it is: it keeps the
    /// one that it had at its start (measured on 0.169.0 and 0.171.0).
    ///
    /// Once, until a turn succeeds: where the login is wrong in itself, another start changes nothing.
    pub(in crate::daemon) fn needs_restart(&self) -> bool {
        let known = self.lock();
        known.refusals >= REFUSALS_BEFORE_RESTART && !known.was_restarted && known.account != Account::Missing
    }

    pub(in crate::daemon) fn restarted(&self) {
        self.lock().was_restarted = true;
    }

    /// Handles a notification; returns whether it changed anything.
    pub(in crate::daemon) fn handle_notification(&self, generation: u64, method: &str, params: &str) -> bool {
        match method {
            notifications::ERROR => self.turn_failed(generation, params),
            notifications::AGENT_MESSAGE_DELTA => self.clear_trouble(),
            notifications::TURN_COMPLETED => self.turn_ended(params),
            notifications::ACCOUNT_UPDATED => {
                self.forget_account(generation);
                true
            }
            notifications::CONFIG_WARNING => match refused_configuration(params) {
                Some(reason) => {
                    self.of(generation).config = Some(reason);
                    true
                }
                None => false,
            },
            _ => false,
        }
    }

    fn turn_failed(&self, generation: u64, params: &str) -> bool {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let error = &params["error"];
        if let Some(turn_id) = params["turnId"].as_str() {
            self.failing_turns().insert(TurnId::new(turn_id), Instant::now());
        }
        let mut known = self.of(generation);
        match ConnectionError::of(error) {
            ConnectionError::LoginRefused(reason) => {
                known.refusals += 1;
                known.refused = Some(redact(reason));
                known.offline = None;
            }
            ConnectionError::Offline(reason) => known.offline = Some(redact(reason)),
            // An answer came, so there is a network.
            ConnectionError::Other => known.offline = None,
        }
        self.in_trouble.store(known.refused.is_some() || known.offline.is_some(), Ordering::Relaxed);
        true
    }

    fn turn_ended(&self, params: &str) -> bool {
        let mut failing = self.failing_turns();
        if failing.is_empty() && !self.in_trouble.load(Ordering::Relaxed) {
            return false;
        }
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let was_failing =
            params["turn"]["id"].as_str().is_some_and(|turn_id| failing.remove(turn_id).is_some());
        drop(failing);
        params["turn"]["status"] == values::TURN_COMPLETED && self.clear_trouble() || was_failing
    }

    fn failing_turns(&self) -> MutexGuard<'_, HashMap<TurnId, Instant>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of a turn is still to come that met an error.
    pub(in crate::daemon) fn has_failing_turn(&self) -> bool {
        let mut failing = self.failing_turns();
        failing.retain(|_, at| at.elapsed() < TURN_END_WAIT);
        !failing.is_empty()
    }

    /// Clears refused login and missing network: a turn received an answer of its model.
    fn clear_trouble(&self) -> bool {
        if !self.in_trouble.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.lock().offline = None;
        self.login_changed();
        true
    }
}

/// Why Codex does not use the configuration of its user, without secrets.
pub(crate) fn refused_configuration(params: &str) -> Option<String> {
    notifications::refused_configuration(params).map(|reason| redact(&reason))
}

/// Whether the error output in the reason of a termination is about the configuration.
pub(in crate::daemon) fn is_about_configuration(reason: &str) -> bool {
    reason.split_once(ERROR_OUTPUT_LABEL).is_some_and(|(_, stderr)| errors::is_about_configuration(stderr))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal() -> String {
        let error = json!({
            "message": "Reconnecting... 1/5",
            "codexErrorInfo": { "responseStreamDisconnected": { "httpStatusCode": 401 } },
            "additionalDetails": "unexpected status 401 Unauthorized: Incorrect API key provided: sk-abcdefghijk",
        });
        json!({ "error": error, "willRetry": true, "threadId": "t", "turnId": "u" }).to_string()
    }

    #[test]
    fn refused_login_is_kept_over_a_restart_until_a_turn_succeeds() {
        let facts = SharedFacts::default();
        assert!(facts.handle_notification(1, "error", &refusal()) && !facts.needs_restart());
        assert!(facts.handle_notification(1, "error", &refusal()) && facts.needs_restart());
        assert!(facts.now().refused.unwrap().contains("sk-***"));
        facts.restarted();
        facts.connected(2, &json!({ "userAgent": "codexd/0.171.0 (x)" }));
        assert!(facts.now().refused.is_some());
        facts.handle_notification(2, "error", &refusal());
        facts.handle_notification(2, "error", &refusal());
        assert!(!facts.needs_restart(), "one more start changes nothing");
        assert!(facts.handle_notification(
            2,
            "turn/completed",
            r#"{"turn":{"id":"u","status":"completed"}}"#
        ));
        assert_eq!(facts.now().refused, None);
        assert!(!facts.handle_notification(
            2,
            "turn/completed",
            r#"{"turn":{"id":"u","status":"completed"}}"#
        ));
        facts.handle_notification(2, "error", &refusal());
        facts.handle_notification(2, "error", &refusal());
        assert!(facts.needs_restart());
    }

    #[test]
    fn account_is_required_when_the_model_requires_one() {
        let facts = SharedFacts::default();
        for (answer, account) in [
            (json!({ "account": null, "requiresOpenaiAuth": true }), Account::Missing),
            (json!({ "account": null, "requiresOpenaiAuth": false }), Account::Sufficient),
            (json!({ "account": { "type": "apiKey" }, "requiresOpenaiAuth": true }), Account::Sufficient),
            (Value::Null, Account::Unknown),
        ] {
            facts.account(1, &answer);
            assert_eq!(facts.now().account, account, "{answer}");
        }
    }

    #[test]
    fn refused_call_is_kept_until_a_call_succeeds_or_the_file_changes() {
        let facts = SharedFacts::default();
        let line = "/h/config.toml:1:9: key with no value, expected `=`";
        let (one, two) = (Some((1, 1, 1, 1)), Some((2, 1, 1, 1)));
        assert!(!facts.config_was_read(1));
        facts.call_refused(1, line);
        assert_eq!(facts.now().refused_configuration(), Some(line));
        facts.config_seen(one);
        facts.config_seen(one);
        assert!(facts.has_refused_call());
        facts.config_seen(two);
        assert_eq!(facts.now().refused_configuration(), None);
        // What was seen before the next refusal does not count.
        facts.call_refused(1, line);
        facts.config_seen(one);
        facts.call_refused(1, line);
        facts.config_seen(two);
        assert!(facts.has_refused_call() && facts.config_was_read(1) && !facts.has_refused_call());
        facts.call_refused(1, line);
        facts.connected(2, &json!({ "userAgent": "codexd/0.171.0 (x)" }));
        assert!(!facts.has_refused_call(), "another app-server has read it again");
    }

    #[test]
    fn refused_configuration_is_distinguished_from_other_warnings() {
        let detail_of = |summary: &str, details: Value| {
            let facts = SharedFacts::default();
            facts.handle_notification(
                1,
                "configWarning",
                &json!({ "summary": summary, "details": details }).to_string(),
            );
            facts.now().config
        };
        let line = "/h/config.toml:1:19: unknown variant `bogus`";
        assert_eq!(detail_of("Invalid configuration; using defaults.", json!(line)).as_deref(), Some(line));
        assert_eq!(detail_of("Codex could not find bubblewrap on PATH.", Value::Null), None);
        assert!(is_about_configuration("It exited. Error output: Error: loading config.toml."));
        assert!(!is_about_configuration("It exited. Error output: Error: out of memory."));
        assert!(!is_about_configuration("The app-server of config.toml exited with code 1."));
    }
}
