use std::path::PathBuf;

use clap::CommandFactory;

use super::flags::help_of;
use super::*;
use crate::config::Settings;
use crate::config::settings;

fn parse_words(words: &[&str]) -> Result<Invocation, CliExit> {
    parse(std::iter::once("codexd").chain(words.iter().copied()).map(OsString::from))
}

fn usage_of(words: &[&str]) -> String {
    match parse_words(words) {
        Err(CliExit::Usage(text)) => text,
        other => panic!("{words:?} gave {other:?}"),
    }
}

fn help_of_words(words: &[&str]) -> String {
    match parse_words(words) {
        Err(CliExit::Text(text)) => text,
        other => panic!("{words:?} gave {other:?}"),
    }
}

#[test]
fn command_line_definition_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn parse_uses_start_as_default_command() {
    let nothing =
        Invocation::Start { settings: Settings::default(), json: false, run_once: false, demo: false };
    assert_eq!(parse_words(&[]), Ok(nothing.clone()));
    assert_eq!(parse_words(&["start"]), Ok(nothing));
    let settings = Settings::default().with(&settings::NODE_ID, "lab");
    let flags = Invocation::Start { settings, json: true, run_once: true, demo: false };
    for words in [
        ["--node-id", "lab", "--json", "--run-once"].as_slice(),
        &["start", "--node-id=lab", "--run-once", "--json"],
        &["--json", "start", "--run-once", "--node-id", "lab"],
    ] {
        assert_eq!(parse_words(words), Ok(flags.clone()));
    }
}

#[test]
fn parse_requires_service_action() {
    let flags = Settings::default().with(&settings::NODE_ID, "x");
    for (word, action) in [
        ("install", ServiceAction::Install),
        ("uninstall", ServiceAction::Uninstall),
        ("status", ServiceAction::Status),
        ("print", ServiceAction::Print),
    ] {
        let expected = Invocation::Service { action, settings: flags.clone(), json: true };
        for words in
            [["--node-id", "x", "service", word, "--json"], ["service", word, "--json", "--node-id", "x"]]
        {
            assert_eq!(parse_words(&words), Ok(expected.clone()));
        }
    }
    let backup = Invocation::Backup { settings: flags.clone(), json: true, directory: PathBuf::from("copy") };
    assert_eq!(parse_words(&["backup", "copy", "--json", "--node-id", "x"]), Ok(backup.clone()));
    assert_eq!(parse_words(&["--node-id", "x", "--json", "backup", "copy"]), Ok(backup));
    assert!(usage_of(&["backup"]).contains("<DIRECTORY> is missing;"));
    assert!(usage_of(&["--run-once", "backup", "copy"]).contains("does not apply to \"backup\""));
    let doctor = Invocation::Doctor { settings: flags, json: false };
    assert_eq!(parse_words(&["doctor", "--node-id", "x"]), Ok(doctor));
    assert!(usage_of(&["service", "start"]).contains("invalid value 'start'"));
    assert!(usage_of(&["service"]).contains("<install|uninstall|status|print> is missing;"));
    assert!(usage_of(&["--run-once", "doctor"]).contains("does not apply to \"doctor\""));
    assert!(usage_of(&["--run-once", "service", "print"]).contains("does not apply to \"service\""));
}

#[test]
fn parse_accepts_setting_flags_before_and_after_command() {
    for setting in settings::ALL.iter().filter(|setting| setting.has_flag) {
        let flag = flag_of(setting);
        let given = Settings::default().with(setting, "x");
        for command in ["start", "status", "config", "token", "smoke"] {
            for words in [[command, flag.as_str(), "x"], [flag.as_str(), "x", command]] {
                let (Invocation::Start { settings, .. }
                | Invocation::Status { settings, .. }
                | Invocation::Config { settings, .. }
                | Invocation::Token { settings, .. }
                | Invocation::Smoke { settings, .. }) = parse_words(&words).unwrap()
                else {
                    panic!("{words:?}")
                };
                assert_eq!(settings, given, "{words:?}");
            }
        }
    }
    assert!(matches!(parse_words(&["status", "--json"]), Ok(Invocation::Status { json: true, .. })));
    assert!(matches!(parse_words(&["--json", "config"]), Ok(Invocation::Config { json: true, .. })));
    assert!(matches!(parse_words(&["smoke"]), Ok(Invocation::Smoke { json: false, .. })));
}

#[test]
fn parse_accepts_server_arguments_that_look_like_flags() {
    let Ok(Invocation::Start { settings, json, .. }) = parse_words(&[
        "--server-arg",
        "app-server",
        "--server-arg",
        "--store",
        "--server-arg=--json",
        "--server-arg",
        "",
        "start",
        "--server-arg",
        "-c",
    ]) else {
        panic!()
    };
    assert_eq!(settings.values(&settings::SERVER_ARGS), ["app-server", "--store", "--json", "", "-c"]);
    assert!(!json);
}

#[test]
fn parse_rejects_other_flags_for_demo_app_server() {
    assert_eq!(
        parse_words(&["demo-app-server", "--store", "/s"]),
        Ok(Invocation::DemoAppServer { store: Some(PathBuf::from("/s")) })
    );
    assert_eq!(parse_words(&["demo-app-server"]), Ok(Invocation::DemoAppServer { store: None }));
    for flag in ["--json", "--run-once", "--demo", "--node-id=x"] {
        let name = flag.split('=').next().unwrap();
        assert_eq!(
            usage_of(&[flag, "demo-app-server"]),
            format!("codexd: {name} does not apply to \"demo-app-server\"; run \"codexd help\" for usage.")
        );
        usage_of(&["demo-app-server", flag]);
    }
}

#[test]
fn parse_accepts_demo_for_start_without_a_choice_of_app_server() {
    for words in [["--demo"].as_slice(), &["start", "--demo"], &["--demo", "start", "--server-cwd", "/x"]] {
        assert!(matches!(parse_words(words), Ok(Invocation::Start { demo: true, .. })), "{words:?}");
    }
    assert!(matches!(parse_words(&["start"]), Ok(Invocation::Start { demo: false, .. })));
    for flag in ["--server-strategy", "--server-endpoint", "--server-command", "--server-arg"] {
        for words in [["--demo", flag, "x"].as_slice(), &[flag, "x", "start", "--demo"]] {
            let problem = format!("codexd: --demo cannot be used with {flag};");
            assert!(usage_of(words).starts_with(&problem), "{}", usage_of(words));
        }
    }
    for name in ["status", "config", "smoke", "service", "doctor", "sessions", "interrupt"] {
        let words = ["--demo", name, "install"];
        let words = if name == "service" { &words[..] } else { &words[..2] };
        assert!(usage_of(words).contains(&format!("--demo does not apply to \"{name}\"")));
    }
}

#[test]
fn parse_reports_usage_errors_in_one_sentence() {
    for (words, problem) in [
        (["--foo"].as_slice(), "unexpected argument '--foo';"),
        (&["status", "--stat-dir", "/x"], "unexpected argument '--stat-dir', did you mean '--state-dir'?"),
        (
            &["--server-endpont=ws://user:secret@host"],
            "unexpected argument '--server-endpont', did you mean '--server-endpoint'?",
        ),
        (&["begin"], "unknown command 'begin';"),
        (&["statsu"], "unknown command 'statsu', did you mean 'status'?"),
        (&["start", "now"], "unexpected argument 'now';"),
        (&["start", "a\nb"], "unexpected argument 'a\\nb';"),
        (&["--node-id"], "a value is required for '--node-id <NAME>' but none was supplied;"),
        (
            &["--node-id", "a", "--node-id", "b"],
            "the argument '--node-id <NAME>' cannot be used multiple times;",
        ),
        (&["--node-id", "a", "start", "--node-id", "b"], "--node-id is given twice;"),
        (&["status", "--run-once"], "unexpected argument '--run-once';"),
        (&["--run-once", "status"], "--run-once does not apply to \"status\";"),
        (&["--json=yes"], "unexpected value 'yes' for '--json' found; no more were expected;"),
    ] {
        assert_eq!(usage_of(words), format!("codexd: {problem} run \"codexd help\" for usage."));
    }
}

#[cfg(unix)]
#[test]
fn parse_rejects_argument_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;

    let words = ["codexd".into(), "--node-id".into(), OsString::from_vec(vec![0xff])];
    let Err(CliExit::Usage(text)) = parse(words.into_iter()) else { panic!() };
    assert!(text.starts_with("codexd: invalid UTF-8"), "{text}");
    assert!(!text.contains('\n'));
}

#[test]
fn help_shows_every_flag_with_variable_and_default() {
    let help = help_of_words(&["help"]);
    assert_eq!(help, help_of_words(&["--help"]));
    // Help is wrapped, so white space is normalized before comparing.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in settings::ALL {
        let described = match setting.has_flag {
            true => format!("--{} <{}> {}", setting.name, setting.placeholder, help_of(setting)),
            false => format!("{}: {}", setting.variable, setting.purpose),
        };
        let described = described.replace('\n', " ");
        assert!(words.contains(&described), "no {described:?} in {help}");
    }
    for command in [
        "start",
        "status",
        "config",
        "backup",
        "token",
        "smoke",
        "service",
        "doctor",
        "help",
        "--json",
        "--run-once",
        "--demo",
        "--version",
    ] {
        assert!(words.contains(command), "no {command} in {help}");
    }
    assert!(!help.contains("demo-app-server"), "{help}");
    assert!(help_of_words(&["help", "smoke"]).contains("--state-dir"));
    assert!(!help.contains('\u{1b}'), "no colours in text that may go to a file");
}

#[test]
fn version_shows_crate_version_and_commit() {
    let version = help_of_words(&["--version"]);
    assert_eq!(version, format!("codexd {}\n", env!("CODEXD_LONG_VERSION")));
    assert!(version.starts_with(concat!("codexd ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn parse_reads_client_commands() {
    let command = |words: &[&str]| match parse_words(words) {
        Ok(Invocation::Client { command, json, .. }) => (command, json),
        other => panic!("{words:?} gave {other:?}"),
    };
    let ask = AskOptions {
        words: vec!["say".to_owned(), "hello".to_owned()],
        network_timeout: 60,
        ..AskOptions::default()
    };
    assert_eq!(command(&["ask", "say", "hello"]), (ClientCommand::Ask(ask), false));
    // The word after --trust is part of the prompt.
    for (flag, trust) in [("--trust", true), ("--trust=true", true), ("--trust=false", false)] {
        let ask = AskOptions {
            words: vec!["x".to_owned()],
            trust: Some(trust),
            network_timeout: 60,
            ..AskOptions::default()
        };
        assert_eq!(command(&["ask", flag, "x"]).0, ClientCommand::Ask(ask));
    }
    assert_eq!(command(&["--json", "sessions"]), (ClientCommand::Sessions { all: false }, true));
    assert_eq!(command(&["requests", "--all", "--json"]), (ClientCommand::Requests { all: true }, true));
    let answer = |answer| ClientCommand::Answer { request: Some("r".to_owned()), answer };
    let decision = |word: &str| answer(Answer::Decision(word.to_owned()));
    assert_eq!(command(&["approve", "r"]).0, decision("accept"));
    assert_eq!(command(&["approve", "r", "--decision", "x"]).0, decision("x"));
    assert_eq!(command(&["approve", "r", "--result", "{}"]).0, answer(Answer::Result("{}".to_owned())));
    let words = answer(Answer::Words(vec!["red".to_owned(), "-1".to_owned()]));
    assert_eq!(command(&["approve", "r", "--answer", "red", "--answer=-1"]).0, words);
    assert_eq!(command(&["decline", "r"]).0, decision("decline"));
    assert_eq!(command(&["decline", "--cancel", "r"]).0, decision("cancel"));
    let follow = ClientCommand::Follow {
        session: Some("s".to_owned()),
        types: vec!["a".to_owned(), "b".to_owned()],
        after: Some("0".to_owned()),
    };
    assert_eq!(command(&["follow", "--type", "a", "--type=b", "--session", "s", "--after", "0"]).0, follow);
    for (words, problem) in [
        (["ask", "--sandbox", "none"].as_slice(), "invalid value 'none' for '--sandbox <SANDBOX>'"),
        (&["ask", "--sandbox", "read-only", "--session", "s"], "cannot be used with"),
        (&["ask", "--trust=perhaps"], "invalid value 'perhaps'"),
        (&["ask", "--trust", "--session", "s"], "cannot be used with"),
        (&["ask", "--when-busy", "queue"], "--session <ID> is missing"),
        (&["ask", "--state-dir", "/x"], "unexpected argument '--state-dir'"),
        (&["close"], "is missing"),
        (&["resume-queue"], "is missing"),
        (&["completions", "csh"], "invalid value 'csh'"),
        (&["--json", "completions", "bash"], "takes no flags"),
        (&["--run-once", "follow"], "--run-once does not apply to \"follow\""),
    ] {
        let usage = usage_of(words);
        assert!(usage.contains(problem), "{words:?}: {usage}");
    }
}

#[test]
fn parse_accepts_address_before_and_after_client_command() {
    for setting in [&settings::LOCAL_API_BASE, &settings::EVENT_STREAM_PATH, &settings::AUTH_TOKEN_FILE] {
        let flag = format!("{}=x", flag_of(setting));
        let given = Settings::default().with(setting, "x");
        let commands = [
            "ask",
            "sessions",
            "follow",
            "requests",
            "approve",
            "decline",
            "interrupt",
            "close last",
            "resume-queue last",
        ];
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            for words in
                [[words.as_slice(), &[&flag]].concat(), [&[flag.as_str()], words.as_slice()].concat()]
            {
                let Ok(Invocation::Client { settings, .. }) = parse_words(&words) else {
                    panic!("{words:?}")
                };
                assert_eq!(settings, given, "{words:?}");
            }
        }
    }
}

#[test]
fn completions_contain_visible_commands_only() {
    for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
        let script = String::from_utf8(completions(shell)).unwrap();
        for word in ["ask", "follow", "when-busy", "local-api-base", "completions"] {
            assert!(script.contains(word), "no {word} for {shell}");
        }
        assert!(!script.contains("guard") && !script.contains("demo-app-server"), "{shell}");
    }
}
