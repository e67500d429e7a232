mod paths;

use std::error::Error;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;

/// A home directory and the other inputs of a configuration. `tests/it/cli/config.rs` has the tests of the environment
/// variables of settings, which clap reads.
struct Machine {
    home: tempfile::TempDir,
    variables: Environment,
    flags: Vec<String>,
    platform: Platform,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let variables = Environment::from([("HOME".into(), home.path().into())]);
        Self { home, variables, flags: Vec::new(), platform: Platform::Xdg }
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn without_home(mut self) -> Self {
        self.variables.remove("HOME".as_ref() as &std::ffi::OsStr);
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push(format!("--{name}={value}"));
        self
    }

    fn on(mut self, platform: Platform) -> Self {
        self.platform = platform;
        self
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn resolve(&self) -> Result<Config, ConfigError> {
        resolve::resolve(Settings::from_flags(&self.flags).unwrap(), &self.variables, self.platform)
    }

    fn config(&self) -> Config {
        self.resolve().unwrap()
    }

    fn refusal(&self) -> String {
        let refusal = match Settings::from_flags(&self.flags) {
            Ok(_) => self.resolve().unwrap_err().to_string(),
            Err(error) => {
                let flag = error.get(clap::error::ContextKind::InvalidArg).unwrap().to_string();
                format!("{}: {}", flag.split(' ').next().unwrap(), error.source().unwrap())
            }
        };
        assert!(refusal.ends_with('.') && !refusal.contains('\n'), "not one sentence: {refusal}");
        refusal
    }
}

/// Every setting: its name and environment variable.
fn all_settings() -> Vec<(String, String)> {
    let rows = Machine::new().config().report.settings.into_iter();
    rows.map(|row| (row.name, row.variable)).collect()
}

fn source_of(config: &Config, name: &str) -> String {
    config.report.source(name).to_owned()
}

fn in_current_dir(path: &str) -> PathBuf {
    std::env::current_dir().unwrap().join(path)
}

#[test]
fn config_uses_defaults_without_flags_and_variables() {
    let machine = Machine::new();
    let config = machine.config();

    assert_eq!(config.node_id, "mini-main");
    assert_eq!(config.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(config.event_cache_size, 50);
    assert_eq!(config.service.local_api_base.as_str(), "http://127.0.0.1:4319");
    assert_eq!(config.service.event_stream_path, "/v1/codexd/events");
    assert_eq!(config.view().server.mode, "app-server");
    assert_eq!(config.server.strategy, ChildStrategy::Spawn);
    assert_eq!(config.server.endpoint.to_string(), "stdio://codex-app-server");
    assert_eq!(config.server.endpoint.target(), &Endpoint::Stdio);
    assert_eq!(config.server.command, "codex");
    assert_eq!(config.server.args, ["app-server"]);
    assert_eq!(config.server.cwd, machine.home());
    assert_eq!(
        config.server.child_environment,
        ChildEnvironment {
            path: None,
            local_bin: Some(machine.home().join(".local/bin")),
            codex_home: config.server.child_environment.codex_home.clone()
        }
    );
    assert_eq!(config.log_filter, "info");
    assert_eq!(config.paths.repo_root, None);
    assert_eq!(std::fs::read_dir(machine.home()).unwrap().count(), 0, "resolving must create nothing");
}

#[test]
fn config_reads_flag_of_every_setting() {
    let current = |path: &str| json!(in_current_dir(path));
    // For each setting with a flag: a value, and the same as the report shows it.
    let cases = [
        ("repo-root", "/usr", json!("/usr")),
        ("logs-dir", "l2", current("l2")),
        ("state-dir", "/s2//x/", json!("/s2/x")),
        ("node-id", " two ", json!("two")),
        ("event-cache-size", "10000", json!(10000)),
        ("keep-awake", " off", json!("off")),
        ("local-api-base", "http://localhost:0", json!("http://localhost:0")),
        ("event-stream-path", "/b/", json!("/b")),
        ("auth-token-file", "./t2", current("t2")),
        ("allowed-origin", "https://c", json!(["https://c"])),
        ("allowed-host", "C.example", json!(["c.example"])),
        ("allow-uid", "33", json!(["33"])),
        ("read-token-file", "./t3", current("t3")),
        ("connection-limit", "1", json!(1)),
        ("websocket-limit", "0", json!(0)),
        ("body-limit", "1024", json!(1024)),
        ("mode", " app-server ", json!("app-server")),
        ("server-endpoint", " stdio://b", json!("stdio://b")),
        ("server-strategy", " spawn ", json!("spawn")),
        ("server-command", "bin/two", current("bin/two")),
        ("server-arg", "--c d", json!(["--c d"])),
        ("server-cwd", "/", json!("/")),
        ("app-server-calls", " none ", json!("none")),
        ("event-segment-bytes", " 4096", json!(4096)),
        ("event-log-bytes", "8192", json!(8192)),
        ("output-log-bytes", "4096", json!(4096)),
        ("closed-session-limit", "0", json!(0)),
        ("client-timeout", "1", json!(1)),
        ("ping-interval", "2", json!(2)),
        ("drain-timeout", "0", json!(0)),
        ("stall-timeout", "1", json!(1)),
        ("request-timeout", "1", json!(1)),
        ("start-timeout", "1", json!(1)),
        ("call-timeout", "1", json!(1)),
        ("check-interval", "1", json!(1)),
        ("line-cap", "1024", json!(1024)),
    ];
    let covered: Vec<_> = cases.iter().map(|case| case.0).chain(["log-filter"]).collect();
    let existing: Vec<_> = all_settings().into_iter().map(|(name, _)| name).collect();
    assert_eq!(covered, existing, "a new setting needs a case here and in tests/it/cli/config.rs");

    for (name, value, shown) in cases {
        let mut machine = Machine::new();
        // Those that let further clients in need a token.
        if ["allowed-host", "allow-uid", "read-token-file"].contains(&name) {
            machine = machine.flag("auth-token-file", "/t");
        }
        let config = machine.flag(name, value).config();
        let row = config.report.settings.into_iter().find(|row| row.name == name).unwrap();
        assert_eq!((row.value, row.source), (shown, format!("--{name}")));
    }
}

#[test]
fn settings_have_unique_names_variables_and_purposes() {
    let (names, variables): (Vec<_>, Vec<_>) = all_settings().into_iter().unzip();
    let declared = Settings::declared();
    let purposes = declared.get_arguments().map(|argument| argument.get_help().unwrap().to_string());
    for texts in [names, variables, purposes.collect()] {
        let mut distinct = texts.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), texts.len());
        assert!(!distinct.contains(&String::new()));
    }
    declared.debug_assert();
}

#[test]
fn config_directories_follow_platform() {
    let machine = Machine::new();
    let home = machine.home().to_owned();
    let config = machine.config();
    assert_eq!(config.paths.state_dir, home.join(".local/state/codexd"));
    assert_eq!(config.paths.logs_dir, home.join(".local/state/codexd/logs"));
    assert_eq!(source_of(&config, "state-dir"), "default from HOME");

    let config = machine.variable("XDG_STATE_HOME", "/xdg").config();
    assert_eq!(config.paths.state_dir, Path::new("/xdg/codexd"));
    assert_eq!(config.paths.logs_dir, Path::new("/xdg/codexd/logs"));
    assert_eq!(source_of(&config, "logs-dir"), "default from XDG_STATE_HOME");

    let machine = Machine::new().on(Platform::MacOs).variable("XDG_STATE_HOME", "/xdg");
    let config = machine.config();
    assert_eq!(config.paths.state_dir, machine.home().join("Library/Application Support/codexd"));
    let logs = machine.home().join("Library/Logs/codexd");
    assert_eq!(config.paths.logs_dir, logs);
    assert_eq!(config.paths.stderr_log, logs.join("stderr.log"));
    // What is not only text for people is where backups include it.
    let events = config.paths.state_dir.join("log");
    assert_eq!(config.paths.events_dir, events);
    assert_eq!(config.paths.structured_event_log, events.join("events.jsonl"));
    assert_eq!(config.paths.attachments, events.join("attachments"));
    // A service file names the directory.
    let machine = machine.flag("logs-dir", logs.to_str().unwrap()).flag("state-dir", "/state");
    assert_eq!(machine.config().paths.events_dir, Path::new("/state/log"));
    let demo = machine.config().paths.in_subdirectory("demo");
    assert_eq!((demo.events_dir.as_path(), demo.logs_dir), (Path::new("/state/demo/log"), logs.join("demo")));
    // Elsewhere the files are together.
    for machine in [
        Machine::new().on(Platform::MacOs).flag("logs-dir", "/logs"),
        Machine::new().on(Platform::MacOs).variable("BAA_LOGS_DIR", "/shared"),
        Machine::new().on(Platform::MacOs).flag("repo-root", "/usr"),
        Machine::new(),
    ] {
        let paths = machine.config().paths;
        assert_eq!(paths.events_dir, paths.logs_dir);
        assert_eq!(paths.structured_event_log, paths.logs_dir.join("events.jsonl"));
    }
}

#[test]
fn config_directories_are_in_repository_if_set() {
    let repository = tempfile::tempdir().unwrap();
    let root = repository.path().to_str().unwrap();
    let config = Machine::new().flag("repo-root", root).config();
    assert_eq!(config.paths.repo_root.as_deref(), Some(repository.path()));
    assert_eq!(config.paths.state_dir, repository.path().join("state/codexd"));
    assert_eq!(config.paths.logs_dir, repository.path().join("logs/codexd"));
    assert_eq!(config.server.cwd, repository.path());
    assert_eq!(source_of(&config, "state-dir"), "default from --repo-root");
    assert_eq!(source_of(&config, "server-cwd"), "default from --repo-root");
    assert_eq!(std::fs::read_dir(repository.path()).unwrap().count(), 0, "resolving must create nothing");
}

#[test]
fn config_shared_directories_yield_to_own_settings() {
    let machine = Machine::new()
        .flag("repo-root", "/usr")
        .variable("BAA_LOGS_DIR", "/shared/logs/")
        .variable("BAA_STATE_DIR", "shared/state");
    let config = machine.config();
    assert_eq!(config.paths.logs_dir, Path::new("/shared/logs/codexd"));
    assert_eq!(config.paths.state_dir, in_current_dir("shared/state/codexd"));
    assert_eq!(source_of(&config, "logs-dir"), "BAA_LOGS_DIR");

    let config = machine.flag("logs-dir", "/own").flag("state-dir", "/state").config();
    assert_eq!(config.paths.logs_dir, Path::new("/own"));
    assert_eq!(config.paths.state_dir, Path::new("/state"));
}

#[test]
fn paths_use_file_names_of_contract() {
    let paths = Paths::new(None, PathBuf::from("/logs"), PathBuf::from("/state"));
    for (path, expected) in [
        (&paths.structured_event_log, "/logs/events.jsonl"),
        (&paths.stdout_log, "/logs/stdout.log"),
        (&paths.stderr_log, "/logs/stderr.log"),
        (&paths.identity, "/state/identity.json"),
        (&paths.daemon_state, "/state/daemon-state.json"),
        (&paths.session_registry, "/state/session-registry.json"),
        (&paths.recent_events, "/state/recent-events.json"),
    ] {
        assert_eq!(path, Path::new(expected));
    }
}

#[test]
fn config_without_home_names_what_to_set() {
    let home_or = |name: &str, variable: &str| {
        format!("so there is no default for --{name}; set HOME, --{name} or {variable}.")
    };
    for platform in [Platform::Xdg, Platform::MacOs] {
        let machine = Machine::new().without_home().on(platform);
        assert!(machine.refusal().ends_with(&home_or("logs-dir", "BAA_CODEXD_LOGS_DIR")));
        let machine = machine.flag("logs-dir", "/logs");
        assert!(machine.refusal().ends_with(&home_or("state-dir", "BAA_CODEXD_STATE_DIR")));
        let machine = machine.flag("state-dir", "/state");
        assert!(machine.refusal().ends_with(&home_or("server-cwd", "BAA_CODEXD_SERVER_CWD")));
        machine.flag("server-cwd", "/").config();
    }
    let machine = Machine::new().variable("HOME", "relative");
    assert!(machine.refusal().starts_with("HOME is not set to an absolute path"));
}

#[test]
fn config_rejects_invalid_values_in_one_sentence() {
    for (setting, value, expected) in [
        ("node-id", " ", "--node-id: the value is empty; give a value or omit the flag."),
        ("node-id", "a\nb", "--node-id: the value contains a control character; remove it."),
        ("mode", "exec", "--mode: the mode \"exec\" is not supported; app-server is the only mode."),
        (
            "logs-dir",
            "~/logs",
            "--logs-dir: \"~/logs\" starts with a tilde, which only a shell expands; write the full path.",
        ),
        (
            "local-api-base",
            "http://user:secret@127.0.0.1",
            "--local-api-base: \"http://***@127.0.0.1\" contains credentials; remove everything up to the @.",
        ),
        (
            "event-stream-path",
            "/",
            "--event-stream-path: the path \"/\" is the root; choose a path such as /v1/codexd/events.",
        ),
        (
            "server-strategy",
            "fork",
            "--server-strategy: the strategy \"fork\" does not exist; use spawn, shared or external.",
        ),
        (
            "server-command",
            "~/codex",
            "--server-command: \"~/codex\" starts with a tilde, which only a shell expands; write the full path.",
        ),
        (
            "server-cwd",
            "/nonexistent/directory",
            "--server-cwd: /nonexistent/directory does not exist; choose an existing directory.",
        ),
        (
            "server-cwd",
            "/dev/null",
            "--server-cwd: /dev/null is not a directory; choose an existing directory.",
        ),
        ("event-cache-size", "0", "--event-cache-size: \"0\" is not a whole number from 1 to 10000."),
    ] {
        assert_eq!(Machine::new().flag(setting, value).refusal(), expected);
    }
    for value in ["-1", "10001", "1.5", "many", "99999999999999999999"] {
        let refusal = Machine::new().flag("event-cache-size", value).refusal();
        let expected = format!("--event-cache-size: \"{value}\" is not a whole number from 1 to 10000.");
        assert_eq!(refusal, expected);
    }
}

#[test]
fn config_rejects_missing_default_directory_with_its_origin() {
    assert_eq!(
        Machine::new().flag("repo-root", "/nonexistent/root").refusal(),
        "The app-server cannot start in /nonexistent/root, which comes from --repo-root: does not exist; choose another directory with --server-cwd."
    );
    assert!(
        Machine::new()
            .variable("HOME", "/nonexistent/home")
            .refusal()
            .contains("which comes from HOME: does not exist")
    );
}

#[test]
fn config_rejects_variable_that_is_not_utf8() {
    let broken = || OsString::from_vec(vec![b'/', 0xff]);
    for name in ["BAA_LOGS_DIR", "BAA_STATE_DIR", "BAA_CODEXD_LOG", "HOME", "XDG_STATE_HOME"] {
        assert_eq!(
            Machine::new().variable(name, broken()).refusal(),
            format!("{name}: the value is not valid UTF-8; set it to plain text or unset it.")
        );
    }
    // PATH is passed to the system and never shown as JSON, so it may contain any bytes.
    let config = Machine::new().variable("PATH", broken()).config();
    assert_eq!(config.server.child_environment.path, Some(broken()));
}

#[test]
fn config_takes_server_argument_flags_literally() {
    let config = Machine::new().flag("server-arg", "--store").flag("server-arg", " [x ").config();
    assert_eq!(config.server.args, ["--store", " [x "]);
    let list = |text: &str| parse::list(text);
    assert_eq!(list(" app-server\t--listen  x\n").unwrap(), ["app-server", "--listen", "x"]);
    assert_eq!(list(r#" ["a b", "", "-c", "x\ny"] "#).unwrap(), ["a b", "", "-c", "x\ny"]);
    assert!(list("[]").unwrap().is_empty());
    for text in ["[", "[1]", r#"["a"] b"#] {
        let refusal = list(text).unwrap_err();
        assert!(refusal.starts_with("the value starts with [ but is not a JSON array of strings ("));
    }
}

#[test]
fn config_reads_log_filter_variable() {
    for (value, filter, source) in [(" debug ", "debug", "BAA_CODEXD_LOG"), (" ", "info", "default")] {
        let config = Machine::new().variable("BAA_CODEXD_LOG", value).config();
        assert_eq!((config.log_filter.as_str(), source_of(&config, "log-filter").as_str()), (filter, source));
        assert_eq!(config.report.settings.last().unwrap().value, json!(filter));
    }
}

#[test]
fn config_requires_endpoint_for_external_app_server() {
    let machine = Machine::new().flag("server-strategy", "external");
    assert!(matches!(machine.resolve(), Err(ConfigError::EndpointMissing)));
    assert!(machine.refusal().contains("--server-endpoint"));
    let config = machine.flag("server-endpoint", " https://host/x ").config();
    assert_eq!(config.server.strategy, ChildStrategy::External);
    assert_eq!(config.server.endpoint.target(), &Endpoint::WebSocket("wss://host/x".to_owned()));
    assert!(
        Machine::new()
            .flag("server-strategy", "external")
            .flag("server-endpoint", "stdio://x")
            .refusal()
            .starts_with("--server-endpoint: an external app-server cannot be reached at \"stdio://x\"")
    );
}

#[test]
fn config_hides_endpoint_secrets() {
    for strategy in ["spawn", "external"] {
        let machine = Machine::new()
            .flag("server-strategy", strategy)
            .flag("server-endpoint", "wss://user:secret@host/path?token=secret");
        let config = machine.config();
        for shown in [
            config.report.to_string(),
            serde_json::to_string(&config.report).unwrap(),
            serde_json::to_string(&config.view()).unwrap(),
            format!("{config:?}"),
        ] {
            assert!(!shown.contains("secret"), "{shown}");
            assert!(shown.contains("wss://***@host/path?***"), "{shown}");
        }
        assert!(!format!("{:?}", Settings::from_flags(&machine.flags)).contains("secret"));
    }
}

#[test]
fn config_report_formats_as_text_and_json() {
    let config = Machine::new().flag("node-id", "lab").config();
    let report = &config.report;
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), all_settings().len());
    assert!(lines[0].starts_with("repo-root             -  "), "{text}");
    assert!(lines[3].starts_with("node-id               lab  "), "{text}");
    assert!(lines[3].ends_with("  (--node-id)"), "{text}");
    let columns: Vec<_> = lines.iter().map(|line| line.rfind("  (").unwrap()).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "{text}");

    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["settings"][3], json!({"name": "node-id", "value": "lab", "source": "--node-id"}));
    assert_eq!(json["settings"][0], json!({"name": "repo-root", "value": null, "source": "default"}));
}

#[test]
fn config_view_keeps_json_shape() {
    let config =
        Machine::new().flag("logs-dir", "/logs").flag("state-dir", "/state").flag("server-cwd", "/").config();
    let expected = json!({
        "nodeId": "mini-main",
        "version": env!("CARGO_PKG_VERSION"),
        "eventCacheSize": 50,
        "paths": {
            "repoRoot": null,
            "logsDir": "/logs",
            "stateDir": "/state",
            "structuredEventLogPath": "/logs/events.jsonl",
            "stdoutLogPath": "/logs/stdout.log",
            "stderrLogPath": "/logs/stderr.log",
            "identityPath": "/state/identity.json",
            "daemonStatePath": "/state/daemon-state.json",
            "sessionRegistryPath": "/state/session-registry.json",
            "recentEventsPath": "/state/recent-events.json",
        },
        "service": {"eventStreamPath": "/v1/codexd/events", "localApiBase": "http://127.0.0.1:4319"},
        "server": {
            "mode": "app-server",
            "endpoint": "stdio://codex-app-server",
            "childStrategy": "spawn",
            "childCommand": "codex",
            "childArgs": ["app-server"],
            "childCwd": "/",
        },
    });
    assert_eq!(serde_json::to_string(&config.view()).unwrap(), expected.to_string());
}
