//! The settings and the start of a daemon: its program, app-server, arguments and environment.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use uuid::Uuid;

use super::{Daemon, MARK, Refusal, clean_command, repo_root};
use crate::support::codex::{Codex, CodexHome, codex, codex_version};
use crate::support::fake_codex::fake_codex;
use crate::support::http::Target;
use crate::support::scratch;

/// The settings of a daemon that a test starts.
pub(crate) struct DaemonBuilder {
    program: PathBuf,
    server: Server,
    address: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    root: Arc<TempDir>,
}

enum Server {
    FakeCodex { startup: Option<String> },
    Other(Vec<OsString>),
}

impl DaemonBuilder {
    /// A daemon with the fake app-server and fresh directories.
    pub(super) fn new() -> Self {
        Self {
            program: env!("CARGO_BIN_EXE_codexd").into(),
            server: Server::FakeCodex { startup: None },
            address: "http://127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            root: Arc::new(scratch::directory("test")),
        }
    }

    /// The fake app-server as the child, which is the default.
    ///
    /// A daemon with `state_from` uses the same directory of threads.
    pub(crate) fn fake_codex(mut self) -> Self {
        self.server = Server::FakeCodex { startup: None };
        self
    }

    /// The fake app-server, started with these directives.
    pub(crate) fn startup(mut self, directives: &str) -> Self {
        self.server = Server::FakeCodex { startup: Some(directives.to_owned()) };
        self
    }

    /// The real Codex as the child, with this home.
    pub(crate) fn real(self, home: &CodexHome) -> Self {
        self.real_codex(home, codex())
    }

    /// The real Codex of this version as the child, with this home.
    pub(crate) fn real_version(self, home: &CodexHome, version: &str) -> Self {
        self.real_codex(home, codex_version(version))
    }

    fn real_codex(self, home: &CodexHome, codex: &Codex) -> Self {
        self.server(&codex.native, &["app-server"])
            .env("CODEX_HOME", home.path())
            .env("HOME", home.user_home())
            .env("TMPDIR", home.temporary())
    }

    /// The demo app-server instead of Codex.
    pub(crate) fn demo(mut self) -> Self {
        self.server = Server::Other(vec!["--demo".into()]);
        self
    }

    /// Any program as the child.
    pub(crate) fn server(mut self, program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Self {
        self.server = Server::Other(server_flags(program, arguments));
        self
    }

    /// An external app-server at this endpoint instead of a child.
    pub(crate) fn external(mut self, endpoint: &str) -> Self {
        let flags = ["--server-strategy", "external", "--server-endpoint", endpoint];
        self.server = Server::Other(flags.map(OsString::from).into());
        self
    }

    /// Adds an argument of the daemon.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds an environment variable of the daemon.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Uses the directories of another daemon, for a restart.
    pub(crate) fn state_from(mut self, other: &Daemon) -> Self {
        self.root = Arc::clone(&other.root);
        self
    }

    /// Uses copies of the directories of another version of codexd, which `tests/fixtures/make` created.
    ///
    /// Idempotency keys expire after a day; the copies replace their expiry dates with dates in the far future.
    pub(crate) fn fixture(self, name: &str) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let root = self.root.path();
        let repo = repo_root(root);
        for (from, to) in [
            ("state", repo.join("state/codexd")),
            ("logs", repo.join("logs/codexd")),
            ("store", root.join("fake-codex-store")),
        ] {
            fs::create_dir_all(&to).unwrap();
            for file in fs::read_dir(fixture.join(from)).unwrap() {
                let file = file.unwrap();
                let mut text = fs::read_to_string(file.path()).unwrap();
                for key in ["\"expiresAt\":\"", "\"expiresAt\": \""] {
                    text = text.replace(&format!("{key}20"), &format!("{key}29"));
                }
                // The end of the keys of `format-3`, whose times are numbers without the century.
                text = text.replace(",261130", ",991130");
                fs::write(to.join(file.file_name()), text).unwrap();
            }
        }
        self
    }

    /// Uses this directory for all files of the daemon instead of a new one.
    pub(crate) fn within(mut self, directory: TempDir) -> Self {
        self.root = Arc::new(directory);
        self
    }

    /// Listens on the address of another daemon, which has ended, so that its clients can reconnect.
    pub(crate) fn address_of(mut self, other: &Daemon) -> Self {
        self.address = other.base_url().to_owned();
        self
    }

    /// Starts another program instead of `codexd`.
    pub(crate) fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Starts the daemon and waits until it has printed its base URL.
    pub(crate) async fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        match daemon.first_document().await {
            Ok(document) => {
                let base_url = document["service"]["resolvedBaseUrl"].as_str();
                let base_url = base_url.unwrap_or_else(|| panic!("no resolvedBaseUrl in {document:#}"));
                daemon.base_url = base_url.trim_end_matches('/').to_owned();
                daemon
            }
            Err(status) => panic!("the daemon ended with {status} before it was ready"),
        }
    }

    /// Asserts that the daemon exits instead of starting; returns its output.
    pub(crate) async fn start_refused(self) -> Refusal {
        let mut daemon = self.spawn();
        match daemon.first_document().await {
            Ok(document) => panic!("the daemon started: {document:#}"),
            Err(status) => Refusal { status, stdout: daemon.stdout(), stderr: daemon.stderr() },
        }
    }

    /// Starts the daemon without waiting; the test may end it at any moment of its start.
    pub(crate) fn spawn(self) -> Daemon {
        let mark = Uuid::new_v4().to_string();
        let directory = if self.server.is_demo() { "codexd/demo" } else { "codexd" };
        let root = self.root;
        let home = root.path().join("home");
        let repo_root = repo_root(root.path());
        let temporary = root.path().join("tmp");
        for directory in [&home, &repo_root, &temporary] {
            fs::create_dir_all(directory).unwrap();
        }
        let stderr_path = root.path().join(format!("stderr-{mark}.log"));
        let mut command = clean_command(&self.program, &home);
        command
            .args(["start", "--json", "--local-api-base", &self.address, "--repo-root"])
            .arg(&repo_root)
            .args(self.server.flags(root.path()))
            .args(&self.arguments)
            // Tests of the drain override this; all others must not wait for turns that never end.
            .env("BAA_CODEXD_DRAIN_TIMEOUT", "0")
            // As few processes as possible beside the tests; those of this setting override it.
            .env("BAA_CODEXD_KEEP_AWAKE", "off")
            .env("TMPDIR", &temporary)
            .envs(self.environment)
            .env(MARK, &mark)
            .current_dir(&repo_root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&stderr_path).unwrap());
        let mut process = loop {
            match command.spawn() {
                // A process that another test forked while a script was being written still has that file open.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                spawned => break spawned.unwrap(),
            }
        };
        let mut pipe = process.stdout.take().unwrap();
        let stdout = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&stdout);
        // The pipe is always read, so that the daemon never blocks on its output.
        let stdout_reader = std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Daemon {
            process,
            #[cfg(target_os = "linux")]
            mark,
            root,
            stdout,
            stdout_reader,
            stderr_path,
            base_url: String::new(),
            directory,
        }
    }
}

impl Server {
    fn is_demo(&self) -> bool {
        matches!(self, Self::Other(flags) if flags.first().is_some_and(|flag| flag == "--demo"))
    }

    fn flags(&self, root: &Path) -> Vec<OsString> {
        match self {
            Self::Other(flags) => flags.clone(),
            Self::FakeCodex { startup } => {
                let store = root.join("fake-codex-store");
                let mut arguments = vec![OsStr::new("app-server"), OsStr::new("--store"), store.as_os_str()];
                if let Some(directives) = startup {
                    arguments.extend([OsStr::new("--startup"), OsStr::new(directives)]);
                }
                server_flags(fake_codex(), &arguments)
            }
        }
    }
}

fn server_flags(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Vec<OsString> {
    let mut flags: Vec<OsString> = vec!["--server-command".into(), program.as_ref().into()];
    for argument in arguments {
        flags.extend(["--server-arg".into(), argument.as_ref().to_owned()]);
    }
    flags
}
