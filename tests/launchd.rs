//! The LaunchAgent's template and the page that explains it, checked against each other and against the program.

#![expect(clippy::disallowed_methods, reason = "tests may block: each runs on a thread of its own")]
#![expect(
    clippy::unwrap_used,
    reason = "clippy.toml frees test functions only, and the helpers here serve nothing but tests"
)]

#[path = "it/support/scratch.rs"]
mod scratch;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use codexd::cli::{self, Command};
use codexd::config::{Config, Environment, Paths, Platform, Settings, UserEnv};
use codexd::service::{ServiceEnvironment, ServiceFile};
use plist::{Dictionary, Value};

const PROPERTY_LIST: &str = "launchd/codexd.plist";
const OPERATIONS: &str = "docs/operations.md";
/// How long stopping the app-server may take, in seconds; launchd must wait longer.
const STOP_LADDER_SECONDS: i64 = 12;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn agent() -> Dictionary {
    Value::from_reader_xml(read(PROPERTY_LIST).as_bytes()).unwrap().into_dictionary().unwrap()
}

/// The agent that `codexd service install` would write for a user at home in `/home-of/me`.
fn installed() -> Dictionary {
    let home = scratch::directory("test");
    let variables = Environment::from([("HOME".into(), home.path().into())]);
    let config = Config::resolve(Settings::from_flags([""; 0]).unwrap(), &variables).unwrap();
    let user = UserEnv { home: "/home-of/me".into(), config_home: None, codex_home: None };
    let environment = ServiceEnvironment::read(&home.path().join("service.env")).unwrap();
    let program = Path::new("/programs/codexd");
    let service = ServiceFile::new(&config, &user, Platform::MacOs, program, &environment).unwrap();
    assert_eq!(service.path, Path::new("/home-of/me/Library/LaunchAgents/codexd.plist"));
    Value::from_reader_xml(service.text.as_bytes()).unwrap().into_dictionary().unwrap()
}

fn string<'a>(dictionary: &'a Dictionary, key: &str) -> &'a str {
    dictionary.get(key).and_then(Value::as_string).unwrap_or_else(|| panic!("no string {key}"))
}

fn integer(dictionary: &Dictionary, key: &str) -> i64 {
    dictionary.get(key).and_then(Value::as_signed_integer).unwrap_or_else(|| panic!("no integer {key}"))
}

fn dictionary<'a>(parent: &'a Dictionary, key: &str) -> &'a Dictionary {
    parent.get(key).and_then(Value::as_dictionary).unwrap_or_else(|| panic!("no dictionary {key}"))
}

fn program_arguments(agent: &Dictionary) -> Vec<&str> {
    let arguments = agent.get("ProgramArguments").and_then(Value::as_array).unwrap();
    arguments.iter().map(|argument| argument.as_string().unwrap()).collect()
}

/// Every string in the property list, keys left out.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Dictionary(dictionary) => dictionary.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// The words of the form `__NAME__`.
fn placeholders(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.len() > 4 && word.starts_with("__") && word.ends_with("__"))
        .collect()
}

#[test]
fn agent_label_matches_file_name() {
    assert_eq!(string(&agent(), "Label"), Path::new(PROPERTY_LIST).file_stem().unwrap());
}

#[test]
fn agent_arguments_parse_as_start() {
    let agent = agent();
    let arguments = program_arguments(&agent);
    assert_eq!(arguments.first(), Some(&"__CODEXD__"));
    let Ok(Command::Start(start)) = cli::parse(arguments.iter().map(OsString::from)) else { panic!() };
    assert!(!(start.daemon.json || start.run_once || start.demo));
}

#[test]
fn agent_restarts_after_failures_only() {
    let agent = agent();
    assert_eq!(agent.get("RunAtLoad"), Some(&Value::Boolean(true)));
    let keep_alive = dictionary(&agent, "KeepAlive");
    assert_eq!(keep_alive.get("SuccessfulExit"), Some(&Value::Boolean(false)));
    // Another condition would be an alternative: launchd starts the job when any of them holds.
    assert_eq!(keep_alive.len(), 1);
}

#[test]
fn agent_timeouts_cover_stop_steps() {
    let agent = agent();
    assert!(integer(&agent, "ThrottleInterval") >= 10);
    assert_eq!(integer(&agent, "ExitTimeOut"), 30);
    assert!(integer(&agent, "ExitTimeOut") > STOP_LADDER_SECONDS);
}

#[test]
fn agent_sets_process_type_and_no_umask() {
    let agent = agent();
    assert!(["Standard", "Adaptive", "Interactive"].contains(&string(&agent, "ProcessType")));
    for key in ["UserName", "GroupName", "AbandonProcessGroup", "SessionCreate"] {
        assert!(!agent.contains_key(key), "{key} does not belong into the agent of a user");
    }
    // Codex and the commands it runs would inherit it; codexd says the rights of each file it makes.
    assert!(!agent.contains_key("Umask"));
}

#[test]
fn agent_path_covers_homebrew_npm_and_system() {
    let agent = agent();
    let environment = dictionary(&agent, "EnvironmentVariables");
    let folders: Vec<_> = string(environment, "PATH").split(':').collect();
    for folder in ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        assert!(folders.contains(&folder), "no {folder} in PATH");
    }
    assert_eq!(folders[0], "__HOME__/.local/bin");
    assert!(folders[1..].iter().all(|folder| Path::new(folder).is_absolute()), "{folders:?}");
    assert_eq!(string(environment, "HOME"), "__HOME__");
}

#[test]
fn agent_paths_are_absolute() {
    let agent = installed();
    assert_eq!(program_arguments(&agent).first(), Some(&"/programs/codexd"));
    assert_eq!(string(&agent, "WorkingDirectory"), "/home-of/me");
    let logs_dir = Platform::MacOs.logs_dir(Some(Path::new("/home-of/me")), None).unwrap();
    for key in ["StandardOutPath", "StandardErrorPath"] {
        assert_eq!(Path::new(string(&agent, key)).parent(), Some(logs_dir.as_path()), "{key}");
    }
    assert_ne!(string(&agent, "StandardOutPath"), string(&agent, "StandardErrorPath"));
    assert!(placeholders(&strings(&Value::Dictionary(agent)).join(" ")).is_empty());
}

#[test]
fn agent_output_files_differ_from_codexd_files() {
    let agent = agent();
    let logs_dir = PathBuf::from(string(&agent, "StandardOutPath")).parent().unwrap().to_owned();
    let paths = Paths::new(None, logs_dir, PathBuf::from("/state"));
    for key in ["StandardOutPath", "StandardErrorPath"] {
        let file = Path::new(string(&agent, key));
        assert!(
            ![&paths.structured_event_log, &paths.stdout_log, &paths.stderr_log].contains(&&file.to_owned())
        );
    }
}

#[test]
fn agent_template_contains_no_home() {
    let agent = Value::Dictionary(agent());
    for text in strings(&agent) {
        for home in ["/Users/", "/home/", "/root", "~", "$"] {
            assert!(!text.contains(home), "{home} in {text:?}");
        }
    }
}

#[test]
fn agent_comments_are_well_formed_xml() {
    let text = read(PROPERTY_LIST);
    let mut count = 0;
    for comment in text.split("<!--").skip(1) {
        let (body, _) = comment.split_once("-->").expect("a comment has an end");
        // XML forbids two dashes in a comment, and not every parser says so.
        assert!(!body.contains("--") && !body.ends_with('-'), "{body}");
        count += 1;
    }
    assert!(count >= 10, "the reasons are gone");
}

#[test]
fn installed_agent_is_template_plus_settings() {
    let (template, installed) = (agent(), installed());
    for key in
        template.keys().filter(|key| !["ProgramArguments", "EnvironmentVariables"].contains(&key.as_str()))
    {
        let filled = |value: &Value| match value {
            Value::String(text) => Value::String(text.replace("__HOME__", "/home-of/me")),
            other => other.clone(),
        };
        assert_eq!(installed.get(key), template.get(key).map(filled).as_ref(), "{key}");
    }
    assert_eq!(installed.len(), template.len());
    let variables = dictionary(&installed, "EnvironmentVariables");
    for (name, value) in dictionary(&template, "EnvironmentVariables") {
        let value = value.as_string().unwrap().replace("__HOME__", "/home-of/me");
        assert_eq!(string(variables, name), value, "{name}");
    }
    assert!(variables.contains_key("BAA_CODEXD_STATE_DIR") && variables.contains_key("BAA_CODEXD_LOGS_DIR"));
}

#[test]
fn agent_placeholders_are_all_replaced() {
    let property_list = read(PROPERTY_LIST);
    let agent = Value::Dictionary(agent());
    let used = strings(&agent).join(" ");
    let used = placeholders(&used);
    assert_eq!(used, BTreeSet::from(["__CODEXD__", "__HOME__"]));
    let unknown: Vec<_> =
        placeholders(&property_list).into_iter().filter(|word| !used.contains(word)).collect();
    assert_eq!(unknown, ["__NAME__"]);
}

#[test]
fn docs_name_agent_files_and_timeouts() {
    let (agent, page) = (agent(), read(OPERATIONS));
    let label = string(&agent, "Label");
    for command in ["print", "kill SIGKILL"] {
        let line = format!("launchctl {command} gui/$UID/{label}");
        assert!(page.contains(&line), "no {line:?}");
    }
    let paths = Paths::new(None, PathBuf::from("/logs"), PathBuf::from("/state"));
    let files = [
        &paths.structured_event_log,
        &paths.stdout_log,
        &paths.stderr_log,
        &paths.identity,
        &paths.daemon_state,
        &paths.session_registry,
        &paths.recent_events,
    ];
    let of_launchd = ["StandardOutPath", "StandardErrorPath"].map(|key| PathBuf::from(string(&agent, key)));
    for path in files.into_iter().chain(&of_launchd) {
        let row = format!("| `{}` |", path.file_name().unwrap().to_str().unwrap());
        assert!(page.contains(&row), "no row {row:?}");
    }
    assert!(page.contains(&format!("launchd waits {} seconds", integer(&agent, "ExitTimeOut"))));
    assert!(page.contains(&format!("every {} seconds", integer(&agent, "ThrottleInterval"))));
}
