mod paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::settings::{self, Setting};
use super::*;

/// A home directory and the other inputs of a configuration.
struct Machine {
    home: tempfile::TempDir,
    variables: BTreeMap<String, OsString>,
    settings: Settings,
    platform: Platform,
}

impl Machine {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("HOME".to_owned(), home.path().as_os_str().to_owned())]);
        Self { home, variables, settings: Settings::default(), platform: Platform::Xdg }
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn without_home(mut self) -> Self {
        self.variables.remove("HOME");
        self
    }

    fn flag(mut self, setting: &Setting, value: &str) -> Self {
        self.settings.add(setting, value);
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
        resolve::resolve(&self.settings, &self.variables, Path::new("/current"), self.platform)
    }

    fn config(&self) -> Config {
        self.resolve().unwrap()
    }

    fn refusal(&self) -> String {
        let refusal = self.resolve().unwrap_err().to_string();
        assert!(refusal.ends_with('.') && !refusal.contains('\n'), "not one sentence: {refusal}");
        refusal
    }
}

fn source_of(config: &Config, setting: &Setting) -> String {
    config.report().settings.iter().find(|row| row.name == setting.name).unwrap().source.to_string()
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
    assert_eq!(config.server.mode, ServerMode::AppServer);
    assert_eq!(config.server.strategy, ChildStrategy::Spawn);
    assert_eq!(config.server.endpoint.to_string(), "stdio://codex-app-server");
    assert_eq!(config.server.endpoint.target(), &Endpoint::Stdio);
    assert_eq!(config.server.command, "codex");
    assert_eq!(config.server.args, ["app-server"]);
    assert_eq!(config.server.cwd, machine.home());
    assert_eq!(
        config.server.child_environment,
        ChildEnvironment { path: None, codex_home: config.server.child_environment.codex_home.clone() }
    );
    assert_eq!(config.log_filter, "info");
    assert_eq!(config.paths.repo_root, None);
    assert_eq!(std::fs::read_dir(machine.home()).unwrap().count(), 0, "resolving must create nothing");
}

#[test]
fn config_prefers_flag_over_variable_over_default() {
    // For each setting: a value for the environment variable, one for the flag, and both as the report shows them.
    let cases: &[(&Setting, &str, &str, serde_json::Value, serde_json::Value)] = &[
        (&settings::REPO_ROOT, "/usr", "/", json!("/usr"), json!("/")),
        (&settings::NODE_ID, "one", "two", json!("one"), json!("two")),
        (&settings::MODE, "app-server", " app-server ", json!("app-server"), json!("app-server")),
        (&settings::LOGS_DIR, "/l1", "l2", json!("/l1"), json!("/current/l2")),
        (&settings::STATE_DIR, "./s1/", "/s2//x/", json!("/current/s1"), json!("/s2/x")),
        (
            &settings::LOCAL_API_BASE,
            "http://[::1]:1",
            "http://localhost:0",
            json!("http://[::1]:1"),
            json!("http://localhost:0"),
        ),
        (&settings::EVENT_STREAM_PATH, "/a/", "/b", json!("/a"), json!("/b")),
        (
            &settings::ALLOWED_ORIGINS,
            "http://a http://b",
            "https://c",
            json!(["http://a", "http://b"]),
            json!(["https://c"]),
        ),
        (&settings::AUTH_TOKEN_FILE, "/t1", "t2", json!("/t1"), json!("/current/t2")),
        (&settings::CONNECTION_LIMIT, "1", "2", json!(1), json!(2)),
        (&settings::WEBSOCKET_LIMIT, "0", "1", json!(0), json!(1)),
        (&settings::BODY_LIMIT, "1024", "2048", json!(1024), json!(2048)),
        (&settings::SERVER_ENDPOINT, "stdio://a", "stdio://b", json!("stdio://a"), json!("stdio://b")),
        (&settings::SERVER_STRATEGY, "spawn", "spawn", json!("spawn"), json!("spawn")),
        (&settings::SERVER_COMMAND, "one", "bin/two", json!("one"), json!("/current/bin/two")),
        (&settings::SERVER_ARGS, "a  --b", "--c d", json!(["a", "--b"]), json!(["--c d"])),
        (&settings::SERVER_CWD, "/usr", "/", json!("/usr"), json!("/")),
        (&settings::EVENT_CACHE_SIZE, "1", "10000", json!(1), json!(10000)),
        (&settings::EVENT_SEGMENT_BYTES, "4096", "8192", json!(4096), json!(8192)),
        (&settings::EVENT_LOG_BYTES, "8192", "16384", json!(8192), json!(16384)),
        (&settings::OUTPUT_LOG_BYTES, "4096", "8192", json!(4096), json!(8192)),
        (&settings::CLOSED_SESSION_LIMIT, "0", "5", json!(0), json!(5)),
        (&settings::CLIENT_TIMEOUT, "1", "60", json!(1), json!(60)),
        (&settings::PING_INTERVAL, "2", "3", json!(2), json!(3)),
        (&settings::DRAIN_TIMEOUT, "0", "3", json!(0), json!(3)),
        (&settings::STALL_TIMEOUT, "1", "3", json!(1), json!(3)),
        (&settings::REQUEST_TIMEOUT, "1", "3", json!(1), json!(3)),
        (&settings::START_TIMEOUT, "1", "60", json!(1), json!(60)),
        (&settings::CALL_TIMEOUT, "1", "60", json!(1), json!(60)),
        (&settings::CHECK_INTERVAL, "1", "60", json!(1), json!(60)),
        (&settings::LINE_CAP, "1024", "2048", json!(1024), json!(2048)),
        (&settings::LOG_FILTER, "debug", "", json!("debug"), json!("")),
    ];
    let covered: Vec<_> = cases.iter().map(|case| case.0.name).collect();
    let existing: Vec<_> = settings::ALL.iter().map(|setting| setting.name).collect();
    assert_eq!(covered, existing, "a new setting needs a case here");

    for (setting, in_variable, in_flag, variable_shown, flag_shown) in cases {
        let row = |machine: &Machine| {
            let config = machine.config();
            let row = config.report().settings.iter().find(|row| row.name == setting.name).unwrap().clone();
            (row.value, row.source.to_string())
        };
        let machine = Machine::new().variable(setting.variable, *in_variable);
        assert_eq!(row(&machine), (variable_shown.clone(), setting.variable.to_owned()));
        if setting.has_flag {
            let machine = machine.flag(setting, in_flag);
            assert_eq!(row(&machine), (flag_shown.clone(), format!("--{}", setting.name)));
        }
        for blank in ["", "  ", "\n"] {
            let (_, source) = row(&Machine::new().variable(setting.variable, blank));
            assert!(source.starts_with("default"), "{source}");
        }
    }
}

#[test]
fn config_report_lists_every_setting_once_in_order() {
    let config = Machine::new().config();
    let names: Vec<_> = config.report().settings.iter().map(|row| row.name).collect();
    let expected: Vec<_> = settings::ALL.iter().map(|setting| setting.name).collect();
    assert_eq!(names, expected);
}

#[test]
fn settings_have_unique_names_variables_and_purposes() {
    for texts in [
        settings::ALL.iter().map(|setting| setting.name).collect::<Vec<_>>(),
        settings::ALL.iter().map(|setting| setting.variable).collect(),
        settings::ALL.iter().map(|setting| setting.purpose).collect(),
    ] {
        let mut distinct = texts.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), texts.len());
        assert!(!distinct.contains(&""));
    }
}

#[test]
fn config_directories_follow_platform() {
    let machine = Machine::new();
    let home = machine.home().to_owned();
    let config = machine.config();
    assert_eq!(config.paths.state_dir, home.join(".local/state/codexd"));
    assert_eq!(config.paths.logs_dir, home.join(".local/state/codexd/logs"));
    assert_eq!(source_of(&config, &settings::STATE_DIR), "default from HOME");

    let config = machine.variable("XDG_STATE_HOME", "/xdg").config();
    assert_eq!(config.paths.state_dir, Path::new("/xdg/codexd"));
    assert_eq!(config.paths.logs_dir, Path::new("/xdg/codexd/logs"));
    assert_eq!(source_of(&config, &settings::LOGS_DIR), "default from XDG_STATE_HOME");

    let machine = Machine::new().on(Platform::MacOs).variable("XDG_STATE_HOME", "/xdg");
    let config = machine.config();
    assert_eq!(config.paths.state_dir, machine.home().join("Library/Application Support/codexd"));
    assert_eq!(config.paths.logs_dir, machine.home().join("Library/Logs/codexd"));
}

#[test]
fn config_directories_are_in_repository_if_set() {
    let repository = tempfile::tempdir().unwrap();
    let root = repository.path().to_str().unwrap();
    let machine = Machine::new().variable("BAA_CODEXD_REPO_ROOT", root);
    let config = machine.config();
    assert_eq!(config.paths.repo_root.as_deref(), Some(repository.path()));
    assert_eq!(config.paths.state_dir, repository.path().join("state/codexd"));
    assert_eq!(config.paths.logs_dir, repository.path().join("logs/codexd"));
    assert_eq!(config.server.cwd, repository.path());
    assert_eq!(source_of(&config, &settings::STATE_DIR), "default from BAA_CODEXD_REPO_ROOT");
    let config = Machine::new().flag(&settings::REPO_ROOT, root).config();
    assert_eq!(source_of(&config, &settings::SERVER_CWD), "default from --repo-root");
    assert_eq!(std::fs::read_dir(repository.path()).unwrap().count(), 0, "resolving must create nothing");
}

#[test]
fn config_shared_directories_yield_to_own_settings() {
    let machine = Machine::new()
        .flag(&settings::REPO_ROOT, "/usr")
        .variable("BAA_LOGS_DIR", "/shared/logs/")
        .variable("BAA_STATE_DIR", "shared/state");
    let config = machine.config();
    assert_eq!(config.paths.logs_dir, Path::new("/shared/logs/codexd"));
    assert_eq!(config.paths.state_dir, Path::new("/current/shared/state/codexd"));
    assert_eq!(source_of(&config, &settings::LOGS_DIR), "BAA_LOGS_DIR");

    let config =
        machine.variable("BAA_CODEXD_LOGS_DIR", "/own").flag(&settings::STATE_DIR, "/state").config();
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
        let machine = machine.flag(&settings::LOGS_DIR, "/logs");
        assert!(machine.refusal().ends_with(&home_or("state-dir", "BAA_CODEXD_STATE_DIR")));
        let machine = machine.flag(&settings::STATE_DIR, "/state");
        assert!(machine.refusal().ends_with(&home_or("server-cwd", "BAA_CODEXD_SERVER_CWD")));
        machine.flag(&settings::SERVER_CWD, "/").config();
    }
    let machine = Machine::new().variable("HOME", "relative");
    assert!(machine.refusal().starts_with("HOME is not set to an absolute path"));
}

#[test]
fn config_rejects_invalid_values_in_one_sentence() {
    for (setting, value, expected) in [
        (&settings::NODE_ID, " ", "--node-id: the value is empty; give a value or omit the flag."),
        (&settings::NODE_ID, "a\nb", "--node-id: the value contains a control character; remove it."),
        (&settings::MODE, "exec", "--mode: the mode \"exec\" is not supported; app-server is the only mode."),
        (
            &settings::LOGS_DIR,
            "~/logs",
            "--logs-dir: \"~/logs\" starts with a tilde, which only a shell expands; write the full path.",
        ),
        (
            &settings::LOCAL_API_BASE,
            "http://user:secret@127.0.0.1",
            "--local-api-base: \"http://***@127.0.0.1\" contains credentials; remove everything up to the @.",
        ),
        (
            &settings::EVENT_STREAM_PATH,
            "/",
            "--event-stream-path: the path \"/\" is the root; choose a path such as /v1/codexd/events.",
        ),
        (
            &settings::SERVER_STRATEGY,
            "fork",
            "--server-strategy: the strategy \"fork\" does not exist; use spawn or external.",
        ),
        (
            &settings::SERVER_COMMAND,
            "~/codex",
            "--server-command: \"~/codex\" starts with a tilde, which only a shell expands; write the full path.",
        ),
        (
            &settings::SERVER_CWD,
            "/nonexistent/directory",
            "--server-cwd: /nonexistent/directory does not exist; choose an existing directory.",
        ),
        (
            &settings::SERVER_CWD,
            "/dev/null",
            "--server-cwd: /dev/null is not a directory; choose an existing directory.",
        ),
        (
            &settings::EVENT_CACHE_SIZE,
            "0",
            "--event-cache-size: \"0\" is not a whole number from 1 to 10000.",
        ),
    ] {
        assert_eq!(Machine::new().flag(setting, value).refusal(), expected);
    }
    for value in ["-1", "10001", "1.5", "many", "99999999999999999999"] {
        let refusal = Machine::new().variable("BAA_CODEXD_EVENT_CACHE_SIZE", value).refusal();
        let expected =
            format!("BAA_CODEXD_EVENT_CACHE_SIZE: \"{value}\" is not a whole number from 1 to 10000.");
        assert_eq!(refusal, expected);
    }
}

#[test]
fn config_rejects_missing_default_directory_with_its_origin() {
    assert_eq!(
        Machine::new().flag(&settings::REPO_ROOT, "/nonexistent/root").refusal(),
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
    for setting in settings::ALL {
        assert_eq!(
            Machine::new().variable(setting.variable, broken()).refusal(),
            format!("{}: the value is not valid UTF-8; set it to plain text or unset it.", setting.variable)
        );
    }
    // PATH is passed to the system and never shown as JSON, so it may contain any bytes.
    let config = Machine::new().variable("PATH", broken()).config();
    assert_eq!(config.server.child_environment.path, Some(broken()));
}

#[test]
fn config_reads_server_arguments_as_words_or_json() {
    let arguments = |text: &str| Machine::new().variable("BAA_CODEXD_SERVER_ARGS", text).config().server.args;
    assert_eq!(arguments(" app-server\t--listen  x\n"), ["app-server", "--listen", "x"]);
    assert_eq!(arguments(r#" ["a b", "", "-c", "x\ny"] "#), ["a b", "", "-c", "x\ny"]);
    assert!(arguments("[]").is_empty());
    for text in ["[", "[1]", r#"["a"] b"#] {
        let refusal = Machine::new().variable("BAA_CODEXD_SERVER_ARGS", text).refusal();
        assert!(refusal.starts_with(
            "BAA_CODEXD_SERVER_ARGS: the value starts with [ but is not a JSON array of strings ("
        ));
    }
    let config =
        Machine::new().flag(&settings::SERVER_ARGS, "--store").flag(&settings::SERVER_ARGS, " [x ").config();
    assert_eq!(config.server.args, ["--store", " [x "]);
}

#[test]
fn config_requires_endpoint_for_external_app_server() {
    let machine = Machine::new().flag(&settings::SERVER_STRATEGY, "external");
    assert!(matches!(machine.resolve(), Err(ConfigError::EndpointMissing)));
    assert!(machine.refusal().contains("--server-endpoint"));
    let config = machine.variable("BAA_CODEXD_SERVER_ENDPOINT", "https://host/x").config();
    assert_eq!(config.server.strategy, ChildStrategy::External);
    assert_eq!(config.server.endpoint.target(), &Endpoint::WebSocket("wss://host/x".to_owned()));
    assert!(
        Machine::new()
            .flag(&settings::SERVER_STRATEGY, "external")
            .flag(&settings::SERVER_ENDPOINT, "stdio://x")
            .refusal()
            .starts_with("--server-endpoint: an external app-server cannot be reached at \"stdio://x\"")
    );
}

#[test]
fn config_hides_endpoint_secrets() {
    for strategy in ["spawn", "external"] {
        let machine = Machine::new()
            .flag(&settings::SERVER_STRATEGY, strategy)
            .flag(&settings::SERVER_ENDPOINT, "wss://user:secret@host/path?token=secret");
        let config = machine.config();
        for shown in [
            config.report().to_string(),
            serde_json::to_string(&config.report()).unwrap(),
            serde_json::to_string(&config.view()).unwrap(),
            format!("{config:?}"),
        ] {
            assert!(!shown.contains("secret"), "{shown}");
            assert!(shown.contains("wss://***@host/path?***"), "{shown}");
        }
        assert!(!format!("{:?}", machine.settings).contains("secret"));
    }
}

#[test]
fn config_report_formats_as_text_and_json() {
    let config = Machine::new().flag(&settings::NODE_ID, "lab").config();
    let report = config.report();
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), settings::ALL.len());
    assert!(lines[0].starts_with("repo-root             -  "), "{text}");
    assert!(lines[1].starts_with("node-id               lab  "), "{text}");
    assert!(lines[1].ends_with("  (--node-id)"), "{text}");
    let columns: Vec<_> = lines.iter().map(|line| line.rfind("  (").unwrap()).collect();
    assert!(columns.iter().all(|column| *column == columns[0]), "{text}");

    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["settings"][1], json!({"name": "node-id", "value": "lab", "source": "--node-id"}));
    assert_eq!(json["settings"][0], json!({"name": "repo-root", "value": null, "source": "default"}));
}

#[test]
fn config_view_keeps_json_shape() {
    let config = Machine::new()
        .flag(&settings::LOGS_DIR, "/logs")
        .flag(&settings::STATE_DIR, "/state")
        .flag(&settings::SERVER_CWD, "/")
        .config();
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
