//! What the app-server said of itself, its account and its model since it was started.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::files::Stamp;
use crate::codex::redact;

/// How many refusals in a row have the app-server started again: one may be a slip of the API.
const REFUSALS: u32 = 2;

/// How long the end of a turn may come after its last error; it may have got lost.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Whether Codex has an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::daemon) enum Account {
    /// It did not say so yet.
    #[default]
    Unknown,
    /// Its model needs one, and it has none.
    Missing,
    /// It has one, or needs none.
    Enough,
}

/// That the app-server refused a call because of its configuration, which it reads again for each thread it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct RefusedCall {
    /// Codex's own words, which begin with file, line and column.
    reason: String,
    /// The state of the file as it was first seen after the refusal; `None` until then.
    seen: Option<Stamp>,
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Known {
    /// The app-server that it was heard from.
    pub(in crate::daemon) generation: u64,
    pub(in crate::daemon) version: Option<[u64; 3]>,
    pub(in crate::daemon) account: Account,
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

impl Known {
    /// Why it refuses its configuration, said at its start or in answer to a call.
    pub(in crate::daemon) fn refused_configuration(&self) -> Option<&str> {
        self.config.as_deref().or_else(|| self.refused_call.as_ref().map(|call| call.reason.as_str()))
    }
}

/// The same, shared.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Facts {
    known: Mutex<Known>,
    /// The turns that met an error and have not ended, and when they met the last one.
    ///
    /// The end comes some milliseconds after the error that it ends with, and must not be cut off.
    failing: Mutex<HashMap<String, Instant>>,
    /// Whether any trouble of a turn is known, so that the words of a turn that goes well cost nothing.
    in_trouble: AtomicBool,
}

impl Facts {
    pub(in crate::daemon) fn now(&self) -> Known {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The facts, without those that an older app-server said of itself.
    fn of(&self, generation: u64) -> MutexGuard<'_, Known> {
        let mut known = self.lock();
        if known.generation < generation {
            let before = std::mem::take(&mut *known);
            let Known { refused, refusals, was_restarted, offline, .. } = before;
            *known = Known { generation, refused, refusals, was_restarted, offline, ..Known::default() };
        }
        known
    }

    pub(in crate::daemon) fn connected(&self, generation: u64, info: &Value) {
        self.of(generation).version = version(info["userAgent"].as_str().unwrap_or_default());
    }

    /// Takes note of the answer to `account/read`; one that cannot be understood says nothing.
    pub(in crate::daemon) fn account(&self, generation: u64, answer: &Value) {
        self.of(generation).account =
            match (answer["account"].is_object(), answer["requiresOpenaiAuth"].as_bool()) {
                (true, _) | (_, Some(false)) => Account::Enough,
                (false, Some(true)) => Account::Missing,
                (false, None) => Account::Unknown,
            };
    }

    /// Takes note that a call was refused, for this reason about the configuration.
    pub(in crate::daemon) fn call_refused(&self, generation: u64, reason: &str) {
        self.of(generation).refused_call = Some(RefusedCall { reason: redact(reason), seen: None });
    }

    /// A call succeeded for which the configuration is read; returns whether it had been refused before.
    pub(in crate::daemon) fn config_was_read(&self, generation: u64) -> bool {
        self.of(generation).refused_call.take().is_some()
    }

    /// Whether a call was refused because of the configuration.
    pub(in crate::daemon) fn is_a_call_refused(&self) -> bool {
        self.lock().refused_call.is_some()
    }

    /// Takes note of the state of the configuration after a refused call; where it has changed since it was first
    /// seen, the next call decides.
    pub(in crate::daemon) fn config_seen(&self, stamp: Stamp) {
        let mut known = self.lock();
        let Some(call) = &mut known.refused_call else { return };
        if *call.seen.get_or_insert(stamp) != stamp {
            known.refused_call = None;
        }
    }

    /// The login is another one than that which was refused.
    pub(in crate::daemon) fn login_changed(&self) {
        let mut known = self.lock();
        known.refused = None;
        known.refusals = 0;
        known.was_restarted = false;
    }

    /// The account has to be asked for again.
    fn forget_account(&self, generation: u64) {
        self.of(generation).account = Account::Unknown;
    }

    /// Whether the app-server should be started again, because its login is refused as often as it is: it keeps the
    /// one that it had at its start (measured on 0.169.0 and 0.171.0).
    ///
    /// Once, until a turn succeeds: where the login is wrong in itself, another start changes nothing.
    pub(in crate::daemon) fn wants_restart(&self) -> bool {
        let known = self.lock();
        known.refusals >= REFUSALS && !known.was_restarted && known.account != Account::Missing
    }

    pub(in crate::daemon) fn restarted(&self) {
        self.lock().was_restarted = true;
    }

    /// Takes note of a notification; returns whether it changed anything.
    pub(in crate::daemon) fn heard(&self, generation: u64, method: &str, params: &str) -> bool {
        match method {
            "error" => self.turn_failed(generation, params),
            "item/agentMessage/delta" => self.well(),
            "turn/completed" => self.turn_ended(params),
            "account/updated" => {
                self.forget_account(generation);
                true
            }
            "configWarning" => match refused_configuration(params) {
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
            self.failing_turns().insert(turn_id.to_owned(), Instant::now());
        }
        let mut known = self.of(generation);
        match login_sign(error) {
            LoginSign::Refused(reason) => {
                known.refusals += 1;
                known.refused = Some(reason);
                known.offline = None;
            }
            LoginSign::Offline(reason) => known.offline = Some(reason),
            // An answer came, so there is a network.
            LoginSign::Other => known.offline = None,
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
        params["turn"]["status"] == "completed" && self.well() || was_failing
    }

    fn failing_turns(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the end of a turn is still to come that met an error.
    pub(in crate::daemon) fn is_a_turn_failing(&self) -> bool {
        let mut failing = self.failing_turns();
        failing.retain(|_, at| at.elapsed() < LAST_WORD);
        !failing.is_empty()
    }

    /// A turn gets an answer of its model.
    fn well(&self) -> bool {
        if !self.in_trouble.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.lock().offline = None;
        self.login_changed();
        true
    }
}

/// What an error of a turn says about login and network.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LoginSign {
    /// The login was refused, for this reason.
    Refused(String),
    /// The model could not be reached, for this reason.
    Offline(String),
    /// Neither.
    Other,
}

/// Reads the sign from an error of a turn, in the app-server's form.
fn login_sign(error: &Value) -> LoginSign {
    let info = &error["codexErrorInfo"];
    let text = |name: &str| error[name].as_str().unwrap_or_default();
    // While Codex tries again, the message says how often, and the details why.
    let reason = match text("additionalDetails") {
        "" => text("message"),
        details => details,
    };
    let kinds = info.as_object().into_iter().flatten();
    let status = kinds.clone().find_map(|(_, kind)| kind["httpStatusCode"].as_u64());
    if info == "unauthorized" || status == Some(401) {
        return LoginSign::Refused(redact(reason));
    }
    let is_connection = kinds.clone().any(|(kind, _)| {
        matches!(
            kind.as_str(),
            "responseStreamDisconnected" | "httpConnectionFailed" | "responseStreamConnectionFailed"
        )
    });
    // A stream that broke off also has no status.
    let words =
        ["waiting for network", "error sending request", "lookup address", "Connection failed", "dns error"];
    let says_so = words.iter().any(|word| text("message").contains(word) || reason.contains(word));
    if is_connection && status.is_none() && says_so {
        return LoginSign::Offline(redact(reason));
    }
    LoginSign::Other
}

/// Whether an error of a turn, in the app-server's form, says that the model could not be reached.
pub(crate) fn is_offline(error: &Value) -> bool {
    matches!(login_sign(error), LoginSign::Offline(_))
}

/// Why Codex does not use the configuration of its user; other warnings are about what it does use.
pub(crate) fn refused_configuration(params: &str) -> Option<String> {
    let params: Value = serde_json::from_str(params).ok()?;
    let summary = params["summary"].as_str()?;
    let details = params["details"].as_str()?;
    summary.starts_with("Invalid configuration").then(|| redact(details))
}

/// Why a call was refused because of a configuration, by the message of its error.
pub(in crate::daemon) fn reason_about_configuration(message: &str) -> Option<&str> {
    // Both measured on 0.171.0: of thread/start, and of config/read.
    let beginnings = ["failed to load configuration: ", "failed to read configuration layers: "];
    beginnings.iter().find_map(|beginning| message.strip_prefix(beginning))
}

/// Whether what an app-server printed last before it ended is about its configuration.
pub(in crate::daemon) fn is_about_configuration(reason: &str) -> bool {
    let Some((_, said)) = reason.split_once("It said last: ") else { return false };
    let said = said.to_lowercase();
    ["config", "remove this setting", "toml"].iter().any(|word| said.contains(word))
}

/// The version stands in the user agent, behind our own name: `name/0.169.0 (…) …`.
pub(crate) fn version(agent: &str) -> Option<[u64; 3]> {
    let version = agent.split_once('/').and_then(|(_, rest)| rest.split(' ').next())?;
    numbers(version)
}

/// The three numbers of a version, without what follows a dash.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let (numbers, _) = version.split_once(['-', '+']).unwrap_or((version, ""));
    let numbers: Vec<u64> = numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    numbers.try_into().ok()
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
    fn a_version_is_read_from_the_user_agent() {
        assert_eq!(version("codexd/0.169.0 (Debian 12; x86_64) dumb (codexd; 0.1.0)"), Some([0, 169, 0]));
        assert_eq!(version("codexd/0.1000.0-alpha.3 (x)"), Some([0, 1000, 0]));
        assert_eq!(version("codexd/new"), None);
        assert_eq!(version("codexd"), None);
    }

    #[test]
    fn a_refused_login_is_remembered_over_a_restart_until_a_turn_succeeds() {
        let facts = Facts::default();
        assert!(facts.heard(1, "error", &refusal()) && !facts.wants_restart());
        assert!(facts.heard(1, "error", &refusal()) && facts.wants_restart());
        assert!(facts.now().refused.unwrap().contains("sk-***"));
        facts.restarted();
        facts.connected(2, &json!({ "userAgent": "codexd/0.171.0 (x)" }));
        assert!(facts.now().refused.is_some());
        facts.heard(2, "error", &refusal());
        facts.heard(2, "error", &refusal());
        assert!(!facts.wants_restart(), "one more start changes nothing");
        assert!(facts.heard(2, "turn/completed", r#"{"turn":{"id":"u","status":"completed"}}"#));
        assert_eq!(facts.now().refused, None);
        assert!(!facts.heard(2, "turn/completed", r#"{"turn":{"id":"u","status":"completed"}}"#));
        facts.heard(2, "error", &refusal());
        facts.heard(2, "error", &refusal());
        assert!(facts.wants_restart());
    }

    #[test]
    fn only_a_connection_that_cannot_be_made_is_no_network() {
        let sign = |message: &str, kind: Value, details: Value| {
            login_sign(&json!({ "message": message, "codexErrorInfo": kind, "additionalDetails": details }))
        };
        let none = json!({ "responseStreamDisconnected": { "httpStatusCode": null } });
        let details = json!("Connection failed: error sending request");
        assert_eq!(
            sign("Reconnecting... waiting for network", none.clone(), details),
            LoginSign::Offline("Connection failed: error sending request".to_owned())
        );
        assert_eq!(sign("stream disconnected before completion", none, Value::Null), LoginSign::Other);
        let status = json!({ "httpConnectionFailed": { "httpStatusCode": 500 } });
        assert_eq!(sign("unexpected status 500", status, Value::Null), LoginSign::Other);
        assert_eq!(sign("no", json!("unauthorized"), Value::Null), LoginSign::Refused("no".to_owned()));
    }

    #[test]
    fn an_account_is_needed_where_the_model_needs_one() {
        let facts = Facts::default();
        for (answer, account) in [
            (json!({ "account": null, "requiresOpenaiAuth": true }), Account::Missing),
            (json!({ "account": null, "requiresOpenaiAuth": false }), Account::Enough),
            (json!({ "account": { "type": "apiKey" }, "requiresOpenaiAuth": true }), Account::Enough),
            (Value::Null, Account::Unknown),
        ] {
            facts.account(1, &answer);
            assert_eq!(facts.now().account, account, "{answer}");
        }
    }

    #[test]
    fn a_call_refused_because_of_the_configuration_is_remembered_until_one_succeeds_or_the_file_changes() {
        let facts = Facts::default();
        let line = "/h/config.toml:1:9: key with no value, expected `=`";
        let refusal = format!("failed to load configuration: {line}");
        assert_eq!(reason_about_configuration(&refusal), Some(line));
        assert_eq!(reason_about_configuration("no rollout found"), None);
        let (one, two) = (Some((1, 1, 1, 1)), Some((2, 1, 1, 1)));
        assert!(!facts.config_was_read(1));
        facts.call_refused(1, line);
        assert_eq!(facts.now().refused_configuration(), Some(line));
        facts.config_seen(one);
        facts.config_seen(one);
        assert!(facts.is_a_call_refused());
        facts.config_seen(two);
        assert_eq!(facts.now().refused_configuration(), None);
        // What was seen before the next refusal does not count.
        facts.call_refused(1, line);
        facts.config_seen(one);
        facts.call_refused(1, line);
        facts.config_seen(two);
        assert!(facts.is_a_call_refused() && facts.config_was_read(1) && !facts.is_a_call_refused());
        facts.call_refused(1, line);
        facts.connected(2, &json!({ "userAgent": "codexd/0.171.0 (x)" }));
        assert!(!facts.is_a_call_refused(), "another app-server has read it anew");
    }

    #[test]
    fn only_a_refusal_is_about_the_configuration() {
        let heard = |summary: &str, details: Value| {
            let facts = Facts::default();
            facts.heard(1, "configWarning", &json!({ "summary": summary, "details": details }).to_string());
            facts.now().config
        };
        let line = "/h/config.toml:1:19: unknown variant `bogus`";
        assert_eq!(heard("Invalid configuration; using defaults.", json!(line)).as_deref(), Some(line));
        assert_eq!(heard("Codex could not find bubblewrap on PATH.", Value::Null), None);
        assert!(is_about_configuration("It exited. It said last: Error: loading config.toml."));
        assert!(!is_about_configuration("It exited. It said last: Error: out of memory."));
        assert!(!is_about_configuration("The app-server of config.toml exited with code 1."));
    }
}
