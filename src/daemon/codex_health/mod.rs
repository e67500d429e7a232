//! The health of Codex: one state with a message, and a command where one helps.
//!
//! [`judge`] derives it from three things: whether the app-server can be called ([`Availability`]), what it reported since
//! it was started ([`facts`]), and the files that it reads at its start ([`files`]).
//! The commands, the HTTP responses, the page and the metrics all show this result.
//! The task in [`watch`] keeps it current: it reads the account after each start, restarts the app-server where only that
//! helps, and records each change as an event.

pub(in crate::daemon) mod facts;
#[expect(
    clippy::disallowed_methods,
    reason = "it is called on a thread of a pool, and by what starts the process on one"
)]
mod files;
mod installed;
mod installed_check;
pub(in crate::daemon) mod pending_restart;
pub(in crate::daemon) mod restart;
mod shared_login;
pub(in crate::daemon) mod watch;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch::Sender;
use tokio::sync::{Notify, RwLock};

use crate::codex::protocol::responses::Account;
use crate::codex::protocol::versions::{self, LOGIN_COMMAND, UPGRADE_COMMAND};
use crate::codex::protocol::{errors, methods, notifications};
use crate::codex::rpc::wire::RpcError;
use crate::codex::{Availability, Failure, Waiting};
use crate::daemon::app_server::availability;
use crate::daemon::directory_access::DirectoryAccess;
use crate::daemon::mcp_servers::FailedMcpServers;
use facts::SharedFacts;
pub(crate) use facts::refused_configuration;
use files::Files;
use installed::Installed;
use pending_restart::PendingRestart;
use shared_login::SharedLogin;

/// The state of Codex; later versions may have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CodexState {
    /// It is being started.
    Starting,
    /// Turns can be taken, and nothing is known that makes them fail.
    Ready,
    /// Its model needs an account, and it has none.
    NoAccount,
    /// The model's API refuses its login.
    LoginRefused,
    /// It reaches no network.
    Offline,
    /// It refuses its configuration.
    ConfigBroken,
    /// It is older than what codexd works with.
    TooOld,
    /// Its program cannot be started, such as one that is not installed.
    NotStarted,
    /// It runs and does not answer in time.
    SlowStart,
    /// Its connection was lost or it ended, and it is started again soon.
    Restarting,
    /// It ends again and again, so it is tried once a minute.
    CrashLoop,
    /// An app-server that runs elsewhere cannot be reached.
    Unreachable,
    /// codexd stops, or has stopped.
    Stopped,
}

impl CodexState {
    /// Every state, with its name.
    pub const ALL: [(&'static str, Self); 13] = [
        ("starting", Self::Starting),
        ("ready", Self::Ready),
        ("noAccount", Self::NoAccount),
        ("loginRefused", Self::LoginRefused),
        ("offline", Self::Offline),
        ("configBroken", Self::ConfigBroken),
        ("tooOld", Self::TooOld),
        ("notStarted", Self::NotStarted),
        ("slowStart", Self::SlowStart),
        ("restarting", Self::Restarting),
        ("crashLoop", Self::CrashLoop),
        ("unreachable", Self::Unreachable),
        ("stopped", Self::Stopped),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, state)| *state == self).map_or("unknown", |(name, _)| name)
    }

    /// Whether it is recorded as an event: the others show in the events of the process and its connection.
    fn has_event(self) -> bool {
        matches!(
            self,
            Self::NoAccount | Self::LoginRefused | Self::Offline | Self::ConfigBroken | Self::TooOld
        )
    }
}

/// What a new login needs besides the command, where codexd does not restart the app-server.
const SHARED_LOGIN: &str = "The app-server has other clients, so codexd does not restart it for a new login: after the login, send it \
     SIGTERM; it finishes its turns first.";

/// The health of Codex, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodexHealth {
    /// The state.
    pub state: CodexState,
    /// As sentences.
    pub message: String,
    /// The command that fixes it, where there is one.
    pub command: Option<String>,
    /// What else there is to know, each as a sentence, such as that another Codex is installed than the one that runs.
    pub notes: Vec<String>,
    /// True where the app-server is the demo and not Codex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub demo: Option<bool>,
}

impl CodexHealth {
    fn new(state: CodexState, message: impl Into<String>) -> Self {
        Self { state, message: message.into(), command: None, notes: Vec::new(), demo: None }
    }

    fn of_demo(mut self) -> Self {
        if self.state == CodexState::Ready {
            self.message = "This is the demo, not Codex: its answers are prepared.".to_owned();
        }
        self.demo = Some(true);
        self
    }

    fn with_command(self, command: &str) -> Self {
        Self { command: Some(command.to_owned()), ..self }
    }

    /// The message and the command.
    pub(crate) fn sentence(&self) -> String {
        match &self.command {
            Some(command) => format!("{} Type: {command}", self.message),
            None => self.message.clone(),
        }
    }
}

/// What is known of Codex besides its availability.
#[derive(Debug)]
pub(crate) struct Codex {
    facts: SharedFacts,
    files: Files,
    installed: Installed,
    shared_login: SharedLogin,
    pub(super) mcp_servers: FailedMcpServers,
    directory_access: DirectoryAccess,
    /// Held for reading by whatever calls the app-server and must not be cut, for writing while it is replaced.
    pub(super) gate: RwLock<()>,
    /// Notified when something changes that the watch task checks.
    changed: Notify,
    /// The restart that a client requested, until the app-server has ended.
    pub(super) restart: Sender<Option<PendingRestart>>,
    /// Whether the app-server is shared with Codex in a terminal.
    is_shared: bool,
    /// Whether the app-server is the demo.
    is_demo: bool,
}

impl Codex {
    /// Of an app-server that reads these files; none are checked without a directory.
    pub(super) fn new(codex_home: Option<std::path::PathBuf>, is_shared: bool, is_demo: bool) -> Self {
        Self {
            facts: SharedFacts::default(),
            files: Files::new(codex_home),
            installed: Installed::default(),
            shared_login: SharedLogin::default(),
            mcp_servers: FailedMcpServers::default(),
            directory_access: DirectoryAccess::default(),
            gate: RwLock::new(()),
            changed: Notify::new(),
            restart: Sender::default(),
            is_shared,
            is_demo,
        }
    }

    /// A process is about to be started from this file, and will read its own files; blocks.
    pub(super) fn process_starts(&self, program: Option<&std::path::Path>) {
        if self.files.note_start(program) {
            self.facts.login_changed();
        }
    }

    /// Stores whether codexd started the app-server.
    pub(super) fn joined(&self, generation: u64, is_ours: bool) {
        self.facts.joined(generation, is_ours);
    }

    /// Stores the answer to `initialize`.
    pub(super) fn connected(&self, generation: u64, info: &serde_json::Value) {
        self.facts.connected(generation, info);
        self.changed.notify_one();
    }

    /// Handles a notification of the app-server.
    pub(super) fn handle_notification(&self, generation: u64, method: &str, params: &str) {
        if method == notifications::ACCOUNT_UPDATED {
            self.shared_login.server_logged_in();
        }
        if self.facts.handle_notification(generation, method, params) {
            self.changed.notify_one();
        }
    }

    /// Handles the outcome of a call: its method, and the error where it was refused.
    fn answered(&self, generation: u64, method: &str, error: Option<&RpcError>) {
        let reason = error.and_then(|error| errors::refused_configuration_of_call(&error.message));
        match (reason, error) {
            (Some(reason), _) if self.files.is_in_config(reason) => {
                self.facts.call_refused(generation, reason);
            }
            // account/read and model/list succeed with a configuration that cannot be read (measured on 0.171.0), so
            // only thread/start proves that it was read.
            (_, None) if method == methods::THREAD_START && self.facts.config_was_read(generation) => {}
            _ => return,
        }
        self.changed.notify_one();
    }

    /// The health of Codex now.
    pub(super) fn health(&self, now: &Availability) -> CodexHealth {
        let facts = self.facts.now();
        let health = judge(now, &facts, self.files.config_path().as_deref(), self.is_shared);
        if self.is_demo {
            return health.of_demo();
        }
        let keeps_login = matches!(health.state, CodexState::NoAccount | CodexState::LoginRefused);
        let message = if keeps_login { self.login_message(&health.message) } else { health.message };
        let mut notes = self.notes(now, &facts);
        notes.extend(self.directory_access.notes());
        CodexHealth { message, notes, ..health }
    }

    /// What is wrong with the login, and what a new one needs besides the command.
    pub(super) fn login_message(&self, message: &str) -> String {
        if self.is_shared { format!("{message} {SHARED_LOGIN}") } else { message.to_owned() }
    }

    /// The version of the installed Codex, as it was when the file was looked at last.
    pub(super) fn installed_version(&self) -> Option<String> {
        self.installed.version()
    }

    /// What the app-server reported about itself since it was started.
    pub(super) fn facts(&self) -> facts::Facts {
        self.facts.now()
    }

    /// Returns when an app-server has been asked for its account.
    pub(super) async fn account_known(&self) {
        self.facts.account_known().await;
    }

    fn notes(&self, now: &Availability, facts: &facts::Facts) -> Vec<String> {
        let (Availability::Ready(_), Some(version)) = (now, facts.version()) else { return Vec::new() };
        let newer = versions::why_untested(version);
        let restart = self.restart.borrow().as_ref().map(PendingRestart::note);
        let installed = self.installed.note(version, facts.is_ours);
        let login = self.shared_login.note(facts.is_ours);
        newer.into_iter().chain(installed).chain(login).chain(restart).collect()
    }
}

/// What follows from the availability and the facts.
fn judge(
    now: &Availability,
    facts: &facts::Facts,
    config: Option<&std::path::Path>,
    is_shared: bool,
) -> CodexHealth {
    use CodexState::{
        ConfigBroken, CrashLoop, LoginRefused, NoAccount, NotStarted, Offline, Ready, Restarting, SlowStart,
        Starting, Stopped, TooOld, Unreachable,
    };
    let correct = || match config {
        Some(path) => format!("Correct {}; codexd tries again as soon as it changes.", path.display()),
        None => "Correct its configuration.".to_owned(),
    };
    if let Some(reason) = availability::unavailable_reason(now) {
        let state = match now {
            Availability::Stopped { .. } => Stopped,
            Availability::Waiting(Waiting { failure, reason, crash_loop, .. }) => match failure {
                Failure::NotStarted => NotStarted,
                Failure::Unreachable => Unreachable,
                Failure::SlowStart => SlowStart,
                Failure::Ended if facts::is_about_configuration(reason) => ConfigBroken,
                _ if *crash_loop => CrashLoop,
                Failure::Ended => Restarting,
            },
            Availability::Starting { .. } | Availability::Ready(_) => Starting,
        };
        return match state {
            ConfigBroken => CodexHealth::new(state, format!("{reason} {}", correct())),
            _ => CodexHealth::new(state, reason),
        };
    }
    if let Some(reason) = facts.refused_configuration() {
        let reason = reason.trim_end_matches('.');
        return CodexHealth::new(
            ConfigBroken,
            format!("Codex refuses its configuration: {reason}. {}", correct()),
        );
    }
    if let Some(message) = facts.version().and_then(|version| versions::why_too_old(version, is_shared)) {
        return CodexHealth::new(TooOld, message).with_command(UPGRADE_COMMAND);
    }
    if facts.account == Account::Missing {
        return CodexHealth::new(NoAccount, "Codex has no account, so turns fail.")
            .with_command(LOGIN_COMMAND);
    }
    if let Some(reason) = &facts.refused {
        let message = format!("The login of Codex is refused: {}.", reason.trim_end_matches('.'));
        return CodexHealth::new(LoginRefused, message).with_command(LOGIN_COMMAND);
    }
    if let Some(reason) = &facts.offline {
        let message = format!(
            "Codex does not reach its model: {}. Turns wait until it does; see whether this machine has a network.",
            reason.trim_end_matches('.')
        );
        return CodexHealth::new(Offline, message);
    }
    CodexHealth::new(Ready, "Codex is ready.")
}

#[cfg(test)]
mod tests {
    use super::facts::Facts;
    use super::*;
    use crate::codex::Client;

    fn waiting(failure: Failure, reason: &str, crash_loop: bool) -> Availability {
        let (reason, stderr_tail) = (reason.to_owned(), Vec::new());
        let (until, failures, generation) = (None, 1, 1);
        Availability::Waiting(Waiting {
            reason,
            until,
            failures,
            crash_loop,
            stderr_tail,
            failure,
            generation,
        })
    }

    #[test]
    fn codex_state_name_equals_its_json_value() {
        for (name, state) in CodexState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), name);
            assert_eq!(state.name(), name);
        }
    }

    #[test]
    fn judge_puts_availability_before_the_facts() {
        let config = Some(std::path::Path::new("/h/config.toml"));
        let facts = Facts { refused: Some("401".to_owned()), ..Facts::default() };
        let of = |now: &Availability| judge(now, &facts, config, false);
        let refused = "The app-server exited with code 1. Error output: Error: approval_policy = \"untrusted\" is no \
                       longer supported; remove this setting.";
        for (now, state) in [
            (waiting(Failure::NotStarted, "No program.", true), CodexState::NotStarted),
            (waiting(Failure::Unreachable, "Connection refused.", false), CodexState::Unreachable),
            (waiting(Failure::SlowStart, "No answer.", true), CodexState::SlowStart),
            (waiting(Failure::Ended, refused, true), CodexState::ConfigBroken),
            (waiting(Failure::Ended, "It exited.", false), CodexState::Restarting),
            (waiting(Failure::Ended, "It exited.", true), CodexState::CrashLoop),
            (Availability::Starting { reason: None }, CodexState::Starting),
            (Availability::Stopped { reason: "codexd is stopping.".to_owned() }, CodexState::Stopped),
        ] {
            assert_eq!(of(&now).state, state, "{now:?}");
        }
        let broken = of(&waiting(Failure::Ended, refused, false)).message;
        assert!(broken.contains("remove this setting") && broken.contains("/h/config.toml"), "{broken}");
    }

    #[test]
    fn judge_uses_the_facts_while_the_app_server_is_ready() {
        let ready = Availability::Ready(Client::new(1, std::time::Duration::from_secs(30)).0);
        let of = |facts: Facts| judge(&ready, &facts, None, false);
        assert_eq!(of(Facts::default()).state, CodexState::Ready);
        let version =
            |version: &str| Facts { user_agent: Some(format!("codexd/{version} (x)")), ..Facts::default() };
        let old = of(version("0.139.9"));
        assert_eq!((old.state, old.command.as_deref()), (CodexState::TooOld, Some(UPGRADE_COMMAND)));
        assert_eq!(of(version("0.140.0")).state, CodexState::Ready);
        let shared = judge(&ready, &version("0.159.1"), None, true);
        assert_eq!(shared.state, CodexState::TooOld);
        assert!(
            shared.message.contains("older than 0.160.0") && shared.message.contains("shared"),
            "{}",
            shared.message
        );
        assert_eq!(judge(&ready, &version("0.160.0"), None, true).state, CodexState::Ready);
        let without =
            Facts { account: Account::Missing, refused: Some("401".to_owned()), ..Facts::default() };
        let without = of(without);
        assert_eq!(without.state, CodexState::NoAccount);
        assert_eq!(without.sentence(), "Codex has no account, so turns fail. Type: codex login");
        let refused = of(Facts { refused: Some("status 401.".to_owned()), ..Facts::default() });
        assert_eq!(refused.sentence(), "The login of Codex is refused: status 401. Type: codex login");
        assert_eq!(
            of(Facts { offline: Some("no DNS".to_owned()), ..Facts::default() }).state,
            CodexState::Offline
        );
    }
}
