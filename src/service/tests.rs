use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::search;
use super::*;
use crate::config::{Config, Environment, Platform, Settings, UserEnv};
use crate::storage::Disk;

/// A home directory with programs in it.
struct Machine {
    home: tempfile::TempDir,
    flags: Vec<String>,
    codex_home: Option<PathBuf>,
}

impl Machine {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), flags: Vec::new(), codex_home: None }
    }

    fn program(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn config(&self, search: &str) -> Config {
        let variables = [("HOME".into(), self.home.path().into()), ("PATH".into(), search.into())];
        Config::resolve(Settings::from_flags(&self.flags).unwrap(), &variables.into()).unwrap()
    }

    /// Variables of these names, each with the value `secret`.
    fn environment(&self, names: &[&str]) -> ServiceEnvironment {
        let mut environment = ServiceEnvironment::read(&self.home.path().join("conf/service.env")).unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        environment.change(&names, &[], |_| Some("secret".into())).unwrap();
        environment
    }

    fn service(
        &self,
        platform: Platform,
        home: &str,
        program: &str,
        search: &str,
    ) -> Result<ServiceFile, ServiceError> {
        let user = UserEnv { home: home.into(), config_home: None, codex_home: self.codex_home.clone() };
        let environment = self.environment(&[]);
        ServiceFile::new(&self.config(search), &user, platform, Path::new(program), &environment)
    }
}

#[test]
fn installed_variable_is_read_from_either_file() {
    let mut machine = Machine::new();
    machine.flags.push("--local-api-base=http://[::1]:4000".to_owned());
    for platform in [Platform::MacOs, Platform::Xdg] {
        let text = machine.service(platform, "/home/me", "/codexd", "").unwrap().text;
        assert_eq!(installed_variable(&text, "BAA_CODEXD_LOCAL_API_BASE"), Some("http://[::1]:4000"));
        assert_eq!(installed_variable(&text, "BAA_CODEXD_NODE_ID"), None);
    }
}

/// Characters that are special in XML, systemd units and shells.
const SPECIAL_CHARACTERS: &str = "/o d&d/<b>$HOME %h 'q' __CODEXD__";

#[test]
fn agent_escapes_every_value() {
    let mut machine = Machine::new();
    machine.codex_home = Some(SPECIAL_CHARACTERS.into());
    machine.flags.push(format!("--auth-token-file={}", SPECIAL_CHARACTERS));
    machine.flags.push(format!("--server-arg={}", "a\"b"));
    let program = format!("{SPECIAL_CHARACTERS}/codexd");
    let service = machine.service(Platform::MacOs, SPECIAL_CHARACTERS, &program, "").unwrap();
    assert_eq!(service.path, Path::new(SPECIAL_CHARACTERS).join("Library/LaunchAgents/codexd.plist"));
    assert_eq!(service.directory, Some(Path::new(SPECIAL_CHARACTERS).join("Library/Logs/codexd")));
    let agent = plist::Value::from_reader_xml(service.text.as_bytes()).unwrap().into_dictionary().unwrap();
    assert_eq!(agent.get("WorkingDirectory").unwrap().as_string(), Some(SPECIAL_CHARACTERS));
    assert_eq!(
        agent.get("ProgramArguments").unwrap().as_array().unwrap(),
        &[program.into(), plist::Value::from("start")]
    );
    let variables = agent.get("EnvironmentVariables").unwrap().as_dictionary().unwrap();
    let value = |name: &str| variables.get(name).and_then(plist::Value::as_string);
    for (name, expected) in [
        ("HOME", SPECIAL_CHARACTERS),
        ("CODEX_HOME", SPECIAL_CHARACTERS),
        ("PATH", &search::MACOS_PATH.replace("__HOME__", SPECIAL_CHARACTERS)),
        ("BAA_CODEXD_LOG", "warn"),
        ("BAA_CODEXD_AUTH_TOKEN_FILE", SPECIAL_CHARACTERS),
        ("BAA_CODEXD_SERVER_ARGS", r#"["a\"b"]"#),
        ("BAA_CODEXD_STATE_DIR", machine.config("").paths.state_dir.to_str().unwrap()),
    ] {
        assert_eq!(value(name), Some(expected), "{name}");
    }
    assert!(service.text.contains("written by codexd service install") && !service.text.contains("__NAME__"));
}

#[test]
fn agent_contains_log_filter_once() {
    let machine = Machine::new();
    let variables = Environment::from([
        ("HOME".into(), machine.home.path().into()),
        ("BAA_CODEXD_LOG".into(), "codexd=debug".into()),
    ]);
    let config = Config::resolve(Settings::from_flags(&machine.flags).unwrap(), &variables).unwrap();
    let user = UserEnv::of(&variables).unwrap();
    let environment = machine.environment(&[]);
    let service =
        ServiceFile::new(&config, &user, Platform::MacOs, Path::new("/codexd"), &environment).unwrap();
    assert_eq!(service.text.matches("BAA_CODEXD_LOG<").count(), 1);
    assert!(service.text.contains("<string>codexd=debug</string>") && !service.text.contains(">warn<"));
}

#[test]
fn unit_escapes_specifiers_and_quotes() {
    let mut machine = Machine::new();
    machine.flags.push(format!("--server-arg={}", "50% \"x\\y\""));
    let service = machine.service(Platform::Xdg, SPECIAL_CHARACTERS, "/a b/100%/$x/codexd", "").unwrap();
    let has =
        |line: &str| assert!(service.text.lines().any(|other| other == line), "no {line} in {service:#?}");
    has(r#"ExecStart="/a b/100%%/$x/codexd" start"#);
    has(r#"Environment="HOME=/o d&d/<b>$HOME %%h 'q' __CODEXD__""#);
    has(r#"Environment="BAA_CODEXD_SERVER_ARGS=[\"50%% \\\"x\\\\y\\\"\"]""#);
    for program in ["/a\"b/codexd", "/a'b/codexd", "/a\\b/codexd", "/a\nb/codexd"] {
        let refusal = machine.service(Platform::Xdg, "/home/me", program, "").unwrap_err().to_string();
        assert!(refusal.contains("move or rename it"), "{refusal}");
    }
}

#[test]
fn service_file_rejects_secret_in_argument() {
    let mut machine = Machine::new();
    machine.flags.push(format!("--server-arg={}", "MY_API_KEY=abc"));
    for platform in [Platform::MacOs, Platform::Xdg] {
        let refusal = machine.service(platform, "/home/me", "/codexd", "").unwrap_err().to_string();
        assert!(refusal.contains("--server-arg") && !refusal.contains("abc"), "{refusal}");
    }
}

#[test]
fn unit_file_limit_covers_connections() {
    let mut machine = Machine::new();
    let limit = |machine: &Machine| {
        let text = machine.service(Platform::Xdg, "/home/me", "/codexd", "").unwrap().text;
        text.lines().find_map(|line| line.strip_prefix("LimitNOFILE=")).unwrap().to_owned()
    };
    assert_eq!(limit(&machine), "1024:524288");
    machine.flags.push(format!("--connection-limit={}", "5000"));
    assert_eq!(limit(&machine), "5064:524288");
    let agent = machine.service(Platform::MacOs, "/home/me", "/codexd", "").unwrap().text;
    assert!(agent.contains("<integer>5064</integer>"), "{agent}");
}

#[test]
fn service_path_has_no_directory_of_a_shell() {
    let machine = Machine::new();
    let home = machine.home.path().canonicalize().unwrap();
    let bin = home.join("fnm/v1/installation/bin");
    for name in ["codex", "node"] {
        machine.program(&format!("fnm/v1/installation/bin/{name}"));
    }
    let shells = home.join("state/fnm_multishells");
    fs::create_dir_all(&shells).unwrap();
    std::os::unix::fs::symlink(bin.parent().unwrap(), shells.join("1_2")).unwrap();
    let given = shells.join("1_2/bin");
    let (path, _) =
        search::path(&machine.config(given.to_str().unwrap()), Platform::MacOs, "/home/me").unwrap();
    assert!(path.starts_with(&format!("{}:/home/me/.local/bin:/opt/", bin.display())), "{path}");
}

#[test]
fn service_path_finds_codex_and_node() {
    let machine = Machine::new();
    let home = machine.home.path().to_str().unwrap();
    let path = |given: &str| search::path(&machine.config(given), Platform::Xdg, home).unwrap();
    let usual = path("").0;
    assert!(usual.starts_with(&format!("{home}/.local/bin:/usr/local/sbin:")), "{usual}");
    let notes = path("").1;
    assert!(notes.len() == 1 && notes[0].contains("PATH is not set"), "{notes:?}");

    let codex = machine.program("tools/codex");
    let node = machine.program("node/bin/node");
    let (tools, node) = (codex.parent().unwrap().display(), node.parent().unwrap().display());
    let given = format!("{node}:{tools}");
    assert_eq!(path(&given), (format!("{tools}:{node}:{usual}"), vec![]));

    // If the default directories find the same programs, nothing is added.
    fs::create_dir_all(machine.home.path().join(".local/bin")).unwrap();
    for name in ["codex", "node"] {
        let directory = if name == "codex" {
            machine.home.path().join("tools")
        } else {
            machine.home.path().join("node/bin")
        };
        std::os::unix::fs::symlink(directory.join(name), machine.home.path().join(".local/bin").join(name))
            .unwrap();
    }
    assert_eq!(path(&given), (usual, vec![]));
}

#[test]
fn service_file_is_written_only_if_changed() {
    let machine = Machine::new();
    let home = machine.home.path().to_str().unwrap();
    let disk = Disk::default();
    for platform in [Platform::MacOs, Platform::Xdg] {
        let one = machine.service(platform, home, "/one", "").unwrap();
        let two = machine.service(platform, home, "/two", "").unwrap();
        assert_eq!(one.write(&disk).unwrap(), FileChange::Installed);
        assert_eq!(one.write(&disk).unwrap(), FileChange::Unchanged);
        assert_eq!(two.change().unwrap(), FileChange::Updated);
        assert_eq!(two.write(&disk).unwrap(), FileChange::Updated);
        assert_eq!(fs::read_to_string(&one.path).unwrap(), two.text);
        assert!(one.directory.is_none_or(|directory| directory.is_dir()));
        assert_eq!((remove(&disk, &one.path).unwrap(), remove(&disk, &one.path).unwrap()), (true, false));
    }
}

/// A manager with a stub program that records its calls.
struct Recorded {
    directory: tempfile::TempDir,
    manager: ServiceManager,
}

impl Recorded {
    fn new(platform: Platform, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let test_double = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/cli/test_doubles").join(name);
        let program = directory.path().join(name);
        std::os::unix::fs::symlink(test_double, &program).unwrap();
        Self { manager: ServiceManager::new(platform, program, 501), directory }
    }

    /// The calls since the last call of this function.
    fn calls(&self) -> Vec<String> {
        let path = self.directory.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls.lines().map(str::to_owned).collect()
    }
}

/// The calls that load the agent of user 501, and those that unload it.
const PUT_IN: [&str; 3] =
    ["enable gui/501/codexd", "bootstrap gui/501 /a b/codexd.plist", "kickstart gui/501/codexd"];
const TAKEN_OUT: [&str; 3] = ["bootout gui/501/codexd", "print gui/501/codexd", "print gui/501/codexd"];
const QUERIED: [&str; 2] = ["print gui/501", "print gui/501/codexd"];

#[tokio::test]
async fn manager_reloads_agent_when_file_changed() {
    let recorded = Recorded::new(Platform::MacOs, "launchctl");
    let (manager, file) = (&recorded.manager, Path::new("/a b/codexd.plist"));
    manager.install(file, FileChange::Installed).await.unwrap();
    assert_eq!(recorded.calls(), [QUERIED.as_slice(), &PUT_IN].concat());

    // One that runs is left alone.
    manager.install(file, FileChange::Unchanged).await.unwrap();
    manager.start(file).await.unwrap();
    assert_eq!(recorded.calls(), [QUERIED, QUERIED].concat());

    manager.install(file, FileChange::Updated).await.unwrap();
    assert_eq!(recorded.calls(), [QUERIED.as_slice(), &TAKEN_OUT, &PUT_IN].concat());

    let state = manager.state().await.unwrap();
    assert_eq!((state.running, state.pid, state.description.as_str()), (true, Some(4711), "running"));
    assert_eq!((state.failed, state.last_exit), (false, None));
    recorded.calls();
    manager.uninstall().await.unwrap();
    manager.reload().await.unwrap();
    assert_eq!(recorded.calls(), [QUERIED.as_slice(), &TAKEN_OUT].concat());
    assert_eq!(manager.state().await.unwrap(), ServiceState::default());
    manager.stop().await.unwrap();
}

#[tokio::test]
async fn manager_restarts_agent_with_replaced_program() {
    let recorded = Recorded::new(Platform::MacOs, "launchctl");
    let (manager, file) = (&recorded.manager, Path::new("/a b/codexd.plist"));
    let behave = |name: &str| fs::write(recorded.directory.path().join(name), "").unwrap();
    manager.start(file).await.unwrap();
    recorded.calls();

    // The agent is out of the report, and bootstrap fails once more.
    behave("busy");
    manager.restart(file).await.unwrap();
    let retried = [PUT_IN[0], PUT_IN[1], "print gui/501/codexd", PUT_IN[1], PUT_IN[2]];
    assert_eq!(recorded.calls(), [QUERIED.as_slice(), &TAKEN_OUT, &retried].concat());

    // What runs would not start again.
    behave("stale");
    assert!(manager.state().await.unwrap().needs_reload);
    recorded.calls();
    manager.install(file, FileChange::Unchanged).await.unwrap();
    assert_eq!(recorded.calls(), [QUERIED.as_slice(), &TAKEN_OUT, &PUT_IN].concat());
    assert!(!manager.state().await.unwrap().needs_reload);

    // bootstrap does not start it.
    behave("idle");
    manager.stop().await.unwrap();
    manager.start(file).await.unwrap();
    assert!(manager.state().await.unwrap().running);

    behave("killed");
    let state = manager.state().await.unwrap();
    assert_eq!((state.running, state.restarting, state.failed), (false, true, false));
    assert_eq!(state.last_exit.as_deref(), Some("signal Killed: 9, OS_REASON_CODESIGNING"));

    // A report that fails says nothing about the agent.
    behave("deaf");
    recorded.calls();
    for outcome in [manager.state().await.map(drop), manager.restart(file).await, manager.stop().await] {
        let refusal = outcome.unwrap_err().to_string();
        assert_eq!(
            refusal,
            "`launchctl print gui/501/codexd` failed: Could not find domain for user gui: 501"
        );
    }
    assert_eq!(recorded.calls(), [QUERIED, QUERIED, QUERIED].concat());
}

#[tokio::test]
async fn manager_distinguishes_absent_from_failed() {
    let nowhere = ServiceManager::new(Platform::MacOs, "/nonexistent/launchctl".into(), 501);
    let absent = nowhere.state().await.unwrap_err();
    assert_eq!(absent, ManagerError::NoProgram("launchctl".to_owned()));

    let recorded = Recorded::new(Platform::Xdg, "systemctl");
    fs::write(recorded.directory.path().join("no-bus"), "").unwrap();
    let absent = recorded.manager.install(Path::new("/unit"), FileChange::Installed).await.unwrap_err();
    assert_eq!(absent, ManagerError::Absent("Failed to connect to bus: No medium found".to_owned()));
    fs::remove_file(recorded.directory.path().join("no-bus")).unwrap();

    fs::write(recorded.directory.path().join("refuse"), "").unwrap();
    let refused =
        recorded.manager.install(Path::new("/unit"), FileChange::Installed).await.unwrap_err().to_string();
    assert_eq!(refused, "`systemctl --user restart codexd.service` failed: Job for codexd.service failed.");
    let state = recorded.manager.state().await.unwrap();
    assert_eq!((state.failed, state.running, state.last_exit.as_deref()), (true, false, Some("exit code 2")));
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn environment_is_stored_in_a_file_of_the_owner_only() {
    let machine = Machine::new();
    let path = machine.home.path().join("conf/service.env");
    let read = || ServiceEnvironment::read(&path);
    let disk = Disk::default();
    let mut environment = read().unwrap();
    assert!(environment.is_empty());
    let values =
        [("A", "plain"), ("B", "two\nlines = \"x\"\\"), ("C", ""), ("D", " # ü "), ("LC_ALL", "C.UTF-8")];
    let value_of =
        |name: &str| values.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value));
    environment.change(&names(&["A", "B", "C", "D", "LC_ALL"]), &[], value_of).unwrap();
    environment.write(&disk).unwrap();
    assert!(read().unwrap() == environment);
    let differs = |name, value: &str| environment.differs(name, value.as_ref());
    assert!(differs("A", "other") && !differs("A", "plain") && !differs("NONE", "other"));
    for (path, permissions) in [(path.as_path(), 0o600), (path.parent().unwrap(), 0o700)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, permissions);
    }

    // Names that are not mentioned stay, with their values.
    let mut again = read().unwrap();
    again.change(&[], &names(&["A", "C"]), |_| None).unwrap();
    again.write(&disk).unwrap();
    assert_eq!(read().unwrap().names().collect::<Vec<_>>(), ["B", "D", "LC_ALL"]);
    again.change(&[], &names(&["B", "D", "LC_ALL"]), |_| None).unwrap();
    again.write(&disk).unwrap();
    assert!(!path.exists());

    fs::write(&path, "# by hand\n\nKEY=as it=is\n").unwrap();
    let refusal = read().unwrap_err().to_string();
    assert!(refusal.contains("service.env has the permissions 06") && refusal.contains("chmod 600"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut by_hand = machine.environment(&[]);
    by_hand.change(&names(&["KEY"]), &[], |_| Some("as it=is".into())).unwrap();
    assert!(read().unwrap() == by_hand);
    for (text, problem) in [
        ("A=1\nsecret\n", "no NAME=VALUE in line 2"),
        ("A=\"secret\n", "in line 1 that is not a JSON string"),
        ("A=\"secret\\u0000\"\n", "in line 1 with a null character"),
        ("se-cret=1\n", "no use in line 1"),
        ("PATH=secret\n", "PATH cannot be passed to the service"),
        ("A=\u{7f}\n\0secret", "no NAME=VALUE in line 2"),
    ] {
        fs::write(&path, text).unwrap();
        let refusal = read().unwrap_err().to_string();
        assert!(refusal.contains(problem) && !refusal.contains("secret"), "{refusal}");
    }
    fs::write(&path, b"A=secret\xff\n").unwrap();
    assert!(read().unwrap_err().to_string().ends_with("is not valid UTF-8"));
}

#[test]
fn environment_refuses_names_with_a_reason_and_shows_no_value() {
    let machine = Machine::new();
    let mut environment = machine.environment(&["A"]);
    let value_of = |name: &str| match name {
        "BROKEN" => Some(std::os::unix::ffi::OsStringExt::from_vec(b"secret\xff".to_vec())),
        "UNSET" => None,
        name if name.contains("secret") => None,
        _ => Some("secret".into()),
    };
    for (name, reason) in [
        ("PATH", "PATH cannot be passed to the service: \"codexd service install\" makes a PATH"),
        ("HOME", "home directory of your user"),
        ("CODEX_HOME", "into the service file itself"),
        ("BAA_CODEXD_STATE_DIR", "it belongs to codexd"),
        ("UNSET", "UNSET cannot be passed to the service: it is not set"),
        ("BROKEN", "BROKEN cannot be passed to the service: its value is not valid UTF-8."),
        ("KEY=secret", "without its value"),
        ("sk-secret", "without its value"),
        ("gsk_secretK3Y", "without its value"),
        ("1A", "without its value"),
        ("", "without its value"),
    ] {
        let refusal = environment.change(&names(&[name]), &[], value_of).unwrap_err().to_string();
        assert!(refusal.contains(reason) && !refusal.contains("secret"), "{refusal}");
    }
    let refusal = environment.change(&[], &names(&["B"]), value_of).unwrap_err().to_string();
    assert!(refusal.contains("B cannot be passed to the service: it is none of the variables"), "{refusal}");
    let shown = format!("{environment:?}");
    assert!(shown.contains("\"A\"") && !shown.contains("secret"), "{shown}");
}

#[test]
fn service_file_names_the_file_of_variables_only_if_there_are_some() {
    let machine = Machine::new();
    let user = UserEnv { home: "/home/me".into(), config_home: None, codex_home: None };
    for platform in [Platform::MacOs, Platform::Xdg] {
        let text = |names: &[&str]| {
            let environment = machine.environment(names);
            let config = machine.config("");
            ServiceFile::new(&config, &user, platform, Path::new("/codexd"), &environment).unwrap().text
        };
        assert_eq!(installed_variable(&text(&[]), "BAA_CODEXD_SERVICE_ENV"), None);
        let with = text(&["TOKEN_X"]);
        let path = machine.home.path().join("conf/service.env");
        assert_eq!(installed_variable(&with, "BAA_CODEXD_SERVICE_ENV"), path.to_str());
        assert!(!with.contains("TOKEN_X") && !with.contains("secret"), "{with}");
    }
}
