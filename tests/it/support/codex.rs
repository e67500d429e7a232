//! The real Codex: npm packages of pinned versions, each installed once per target directory, and a `CODEX_HOME`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use super::model::MockModel;
use super::skip::runs_long_part;
use crate::support::scratch;

/// The version that the tests run unless a test or `CODEXD_TEST_CODEX_VERSION` selects another one.
pub(crate) const DEFAULT_VERSION: &str = "0.171.0";

/// The previous release, whose protocol differs.
const PREVIOUS_VERSION: &str = "0.169.0";

/// A token of ChatGPT, without a signature: `me@example.org`, plan plus, account acc-1, valid until 2100.
pub(crate) const CHATGPT_TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJlbWFpbCI6Im1lQGV4YW1wbGUub3JnIiwiZXhwIjo0MTAyNDQ0ODAwLCJodHRwczovL2FwaS5vcGVuYWkuY29tL2F1dGgiOnsiY2hhdGdwdF9wbGFuX3R5cGUiOiJwbHVzIiwiY2hhdGdwdF91c2VyX2lkIjoidXNlci0xIiwiY2hhdGdwdF9hY2NvdW50X2lkIjoiYWNjLTEifX0.c2ln";

/// An installed Codex.
pub(crate) struct Codex {
    /// The output of `codex --version` without the name.
    pub(crate) version: String,
    /// The `codex` on a user's `PATH`: npm's node script, which starts the native program.
    pub(crate) launcher: PathBuf,
    /// The native program.
    pub(crate) native: PathBuf,
}

/// The Codex for tests that do not depend on a version: `CODEXD_TEST_CODEX_VERSION`, or [`DEFAULT_VERSION`].
pub(crate) fn codex() -> &'static Codex {
    let version = std::env::var("CODEXD_TEST_CODEX_VERSION").ok().filter(|version| !version.is_empty());
    codex_version(version.as_deref().unwrap_or(DEFAULT_VERSION))
}

/// The versions for tests of differences between releases: the newest one, and with the long tests the previous one.
#[track_caller]
pub(crate) fn versions() -> &'static [&'static str] {
    let all = &[DEFAULT_VERSION, PREVIOUS_VERSION];
    let has_all = runs_long_part(&format!("with Codex {PREVIOUS_VERSION}"));
    if has_all { all } else { &all[..1] }
}

/// The Codex of this version; the first call installs it, which takes some seconds and needs npm, node and the
/// registry.
pub(crate) fn codex_version(version: &str) -> &'static Codex {
    static INSTALLED: OnceLock<Mutex<HashMap<String, &'static Codex>>> = OnceLock::new();
    // A failed installation panics with the lock held; the other tests then try and fail themselves.
    let mut installed = INSTALLED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(codex) = installed.get(version) {
        return codex;
    }
    let codex: &'static Codex = Box::leak(Box::new(find_or_install(version)));
    installed.insert(version.to_owned(), codex);
    codex
}

fn find_or_install(version: &str) -> Codex {
    let directory = target_directory().join(format!("codex-{version}"));
    // Several test processes may install at the same time; the lock is released when the file is dropped.
    let lock = File::create(with_added_extension(&directory, "lock")).unwrap();
    lock.lock().unwrap();
    require("node");
    if let Some(codex) = find(&directory, version) {
        return codex;
    }
    install(&directory, version);
    find(&directory, version).unwrap_or_else(|| {
        panic!(
            "npm installed @openai/codex@{version}, but without a native program that runs on this platform"
        )
    })
}

/// A `CODEX_HOME` whose only model is the offline one, with a workspace beside it; removed when dropped.
pub(crate) struct CodexHome {
    directory: PathBuf,
    /// Held for its `Drop`.
    _temporary: TempDir,
}

/// The settings of a `CodexHome` that a test can change.
pub(crate) struct CodexHomeBuilder {
    base_url: String,
    approval_policy: String,
    sandbox_mode: String,
    retries: u32,
    sub_agents: bool,
    needs_account: bool,
    more_tables: String,
}

impl CodexHome {
    /// Creates a home in which Codex requests no approval and everything is allowed.
    pub(crate) fn new(model: &MockModel) -> Self {
        Self::builder(model).build()
    }

    /// Returns a builder for a home with other settings.
    pub(crate) fn builder(model: &MockModel) -> CodexHomeBuilder {
        CodexHomeBuilder {
            base_url: model.base_url(),
            approval_policy: "never".to_owned(),
            sandbox_mode: "danger-full-access".to_owned(),
            retries: 1,
            sub_agents: false,
            needs_account: false,
            more_tables: String::new(),
        }
    }

    /// Logs in with this key, as `codex login --with-api-key` does.
    pub(crate) fn log_in(&self, key: &str) {
        let login = serde_json::json!({ "auth_mode": "apikey", "OPENAI_API_KEY": key });
        fs::write(self.path().join("auth.json"), login.to_string()).unwrap();
    }

    /// Logs in with ChatGPT as `me@example.org`, plan plus; `model` plays its servers.
    pub(crate) fn log_in_with_chatgpt(&self, model: &MockModel) {
        let login = serde_json::json!({
            "auth_mode": "chatgpt", "last_refresh": "2099-01-01T00:00:00Z",
            "tokens": {
                "id_token": CHATGPT_TOKEN, "access_token": CHATGPT_TOKEN, "refresh_token": "refresh-secret",
                "account_id": "acc-1",
            },
        });
        fs::write(self.path().join("auth.json"), login.to_string()).unwrap();
        self.configure(|config| format!("chatgpt_base_url = \"{}\"\n{config}", model.chatgpt_base_url()));
    }

    /// Changes the configuration.
    pub(crate) fn configure(&self, change: impl FnOnce(String) -> String) {
        let path = self.path().join("config.toml");
        let config = change(fs::read_to_string(&path).unwrap());
        fs::write(path, config).unwrap();
    }

    /// The value for `CODEX_HOME`.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("codex-home")
    }

    /// The value for `HOME`, so that the tests read and write nothing of the user who runs them.
    pub(crate) fn user_home(&self) -> PathBuf {
        self.directory.join("home")
    }

    /// A working directory for threads: a separate project outside every git repository.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.directory.join("workspace")
    }

    /// The value for `TMPDIR`; Codex writes there and makes it writable for the commands in its sandbox.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory.join("tmp")
    }
}

impl CodexHomeBuilder {
    /// `on-request` or `never` (the default); Codex accepts `untrusted` for a thread, but no longer here.
    pub(crate) fn approval_policy(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.approval_policy);
        self
    }

    /// `read-only`, `workspace-write` or `danger-full-access` (the default).
    pub(crate) fn sandbox_mode(mut self, mode: &str) -> Self {
        mode.clone_into(&mut self.sandbox_mode);
        self
    }

    /// How often Codex repeats a failed request to the model (1).
    pub(crate) fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Offers the model the tools that spawn sub-agents.
    pub(crate) fn sub_agents(mut self) -> Self {
        self.sub_agents = true;
        self
    }

    /// The model requires an account, as OpenAI's models do.
    pub(crate) fn needs_account(mut self) -> Self {
        self.needs_account = true;
        self
    }

    /// Another address of the model, such as one without a listener.
    pub(crate) fn base_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.base_url);
        self
    }

    /// Additional tables at the end of the configuration.
    pub(crate) fn more_tables(mut self, tables: &str) -> Self {
        tables.clone_into(&mut self.more_tables);
        self
    }

    pub(crate) fn build(self) -> CodexHome {
        let temporary = scratch::directory("home");
        // The target directory may be behind a symbolic link, and Codex returns resolved paths.
        let directory = temporary.path().canonicalize().unwrap();
        let home = CodexHome { directory, _temporary: temporary };
        for path in [home.path(), home.user_home(), home.workspace(), home.temporary()] {
            fs::create_dir(path).unwrap();
        }
        fs::write(home.path().join("config.toml"), self.config()).unwrap();
        home
    }

    fn config(&self) -> String {
        let Self { base_url, approval_policy, sandbox_mode, retries, sub_agents, needs_account, more_tables } =
            self;
        // With plugins or apps enabled, the app-server requests their lists from the internet.
        format!(
            r#"model = "mock-model"
model_provider = "mock"
approval_policy = "{approval_policy}"
sandbox_mode = "{sandbox_mode}"
check_for_update_on_startup = false

[analytics]
enabled = false

[feedback]
enabled = false

[features]
plugins = false
apps = false
multi_agent = {sub_agents}

[tools.update_plan]
enabled = true

[model_providers.mock]
name = "mock"
base_url = "{base_url}"
wire_api = "responses"
requires_openai_auth = {needs_account}
request_max_retries = {retries}
stream_max_retries = {retries}
stream_idle_timeout_ms = 300000
{more_tables}
"#
        )
    }
}

/// Returns the params that codexd sends with `thread/start` or `thread/resume` in a directory without a trust decision:
/// `params` of the client, with the trust level, the sandbox and the approval policy added.
pub(crate) fn untrusted(mut params: Value, cwd: &Value) -> Value {
    let cwd = cwd.as_str().unwrap();
    for name in [cwd.to_owned(), fs::canonicalize(cwd).unwrap().to_str().unwrap().to_owned()] {
        params["config"]["projects"][name]["trust_level"] = "untrusted".into();
    }
    for (name, default) in [("sandbox", "read-only"), ("approvalPolicy", "on-request")] {
        if params.get(name).is_none() {
            params[name] = default.into();
        }
    }
    params
}

/// The target directory of this build: installations are kept between runs and removed by `cargo clean`.
fn target_directory() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

fn require(program: &str) {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "These tests run the real Codex, which needs `{program}`: install Node.js with npm \
         (for example `apt-get install nodejs npm` or `brew install node`) and run them again."
    );
}

/// Returns the Codex in `directory` if it is complete and of this version.
fn find(directory: &Path, version: &str) -> Option<Codex> {
    let modules = directory.join("node_modules");
    let launcher = modules.join(".bin").join("codex");
    let native = find_native(&modules.join("@openai"))?;
    let check_version = |program: &Path| {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.split_whitespace().any(|part| part == version).then_some(())
    };
    check_version(&native)?;
    check_version(&launcher)?;
    Some(Codex { version: version.to_owned(), launcher, native })
}

/// Finds `codex-<platform>/vendor/<target>/bin/codex` for any platform.
fn find_native(packages: &Path) -> Option<PathBuf> {
    let package = entries(packages).find(|path| file_name(path).starts_with("codex-"))?;
    entries(&package.join("vendor"))
        .map(|target| target.join("bin").join("codex"))
        .find(|path| path.is_file())
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns the path with an additional extension.
fn with_added_extension(directory: &Path, extension: &str) -> PathBuf {
    let mut name = directory.to_owned().into_os_string();
    name.push(".");
    name.push(extension);
    name.into()
}

/// Installs beside `directory` and renames, so that `directory` never contains an incomplete installation.
fn install(directory: &Path, version: &str) {
    require("npm");
    let partial = with_added_extension(directory, "partial");
    for leftover in [directory, &partial] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).unwrap();
        }
    }
    fs::create_dir_all(&partial).unwrap();
    let output = Command::new("npm")
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--include=optional",
            "--loglevel=error",
        ])
        .arg("--prefix")
        .arg(&partial)
        .arg(format!("@openai/codex@{version}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "npm could not install @openai/codex@{version}, which these tests need:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&partial, directory).unwrap();
}
