mod names;

use std::path::PathBuf;

use clap::CommandFactory;

use super::arguments::DaemonArguments;
use super::*;
use crate::config::Settings;

/// Parses a command line; environment variables are ignored.
fn parse_words(words: &[&str]) -> Result<Command, CliExit> {
    let words = std::iter::once("codexd").chain(words.iter().copied()).map(OsString::from);
    parse_with(words.collect(), &|_| true)
}

/// What a command line asks for, as text to compare.
fn parsed(words: &[&str]) -> String {
    format!("{:?}", parse_words(words).unwrap_or_else(|exit| panic!("{words:?} gave {exit:?}")))
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

/// The settings, as arguments of clap.
fn settings() -> Vec<clap::Arg> {
    let command = CommandLine::command();
    let arguments = command.find_subcommand("config").unwrap().get_arguments();
    arguments.filter(|argument| argument.get_env().is_some()).cloned().collect()
}

/// A flag of a setting, with a valid value.
fn flag_with_value(setting: &clap::Arg) -> String {
    let value = match setting.get_default_values().first() {
        Some(default) => default.to_str().unwrap(),
        None => "/",
    };
    format!("--{}={value}", setting.get_long().unwrap())
}

#[test]
fn command_line_definition_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn parse_uses_start_as_default_command() {
    assert_eq!(parsed(&[]), parsed(&["start"]));
    let Ok(Command::Start(start)) = parse_words(&[]) else { panic!() };
    assert!(!(start.daemon.json || start.run_once || start.demo));
    let flags = ["start", "--node-id", "lab", "--json", "--run-once"];
    let Ok(Command::Start(start)) = parse_words(&flags) else { panic!() };
    assert_eq!(start.daemon.settings.node_id, "lab");
    assert!(start.daemon.json && start.run_once && !start.demo);
    for words in [
        &flags[1..],
        &["start", "--node-id=lab", "--run-once", "--json"],
        &["--json", "start", "--run-once", "--node-id", "lab"],
    ] {
        assert_eq!(parsed(words), parsed(&flags));
    }
}

#[test]
fn parse_requires_service_action() {
    for (word, action) in [
        ("install", ServiceAction::Install),
        ("uninstall", ServiceAction::Uninstall),
        ("start", ServiceAction::Start),
        ("stop", ServiceAction::Stop),
        ("restart", ServiceAction::Restart),
        ("status", ServiceAction::Status),
        ("logs", ServiceAction::Logs),
        ("print", ServiceAction::Print),
    ] {
        for words in
            [["--node-id", "x", "service", word, "--json"], ["service", word, "--json", "--node-id", "x"]]
        {
            let Ok(Command::Service(service)) = parse_words(&words) else { panic!("{words:?}") };
            let DaemonArguments { json, settings } = service.daemon;
            assert_eq!((service.action, json, settings.node_id.as_str()), (action, true, "x"));
        }
    }
    let words = ["backup", "copy", "--json", "--state-dir", "/x"];
    let Ok(Command::Backup(backup)) = parse_words(&words) else { panic!() };
    assert_eq!((backup.directory, backup.files.json), (PathBuf::from("copy"), true));
    assert_eq!(backup.files.paths.state_dir, Some(PathBuf::from("/x")));
    assert_eq!(parsed(&words), parsed(&["--state-dir", "/x", "--json", "backup", "copy"]));
    assert!(usage_of(&["backup"]).contains("were not provided: <DIRECTORY>. For"));
    assert!(usage_of(&["--run-once", "backup", "copy"]).contains("unexpected argument '--run-once'"));
    assert!(matches!(parse_words(&["doctor", "--node-id", "x"]), Ok(Command::Doctor(_))));
    assert!(usage_of(&["service", "begin"]).contains("invalid value 'begin'"));
    assert!(usage_of(&["service"]).contains("<install|uninstall|start|stop|restart|status|logs|print>"));
    assert!(usage_of(&["--run-once", "doctor"]).contains("unexpected argument '--run-once'"));
    assert!(usage_of(&["--run-once", "service", "print"]).contains("unexpected argument '--run-once'"));
}

#[test]
fn parse_accepts_setting_flags_before_and_after_command() {
    for setting in settings() {
        let flag = flag_with_value(&setting);
        let flag = flag.as_str();
        let (name, value) = flag.split_once('=').unwrap();
        for command in ["start", "status", "config", "doctor", "smoke"] {
            let after = parsed(&[command, flag]);
            assert_eq!(after, parsed(&[flag, command]));
            assert_eq!(after, parsed(&[command, name, value]));
            assert_eq!(after, parsed(&[name, value, command]));
            assert_ne!(after, parsed(&[command]));
        }
        let used_by_files = ["--repo-root", "--logs-dir", "--state-dir", "--auth-token-file"];
        for words in [[flag, "token"], ["token", flag]] {
            assert_eq!(parse_words(&words).is_ok(), used_by_files.contains(&name), "{words:?}");
        }
    }
    assert!(matches!(parse_words(&["status", "--json"]), Ok(Command::Status(arguments)) if arguments.json));
    assert!(matches!(parse_words(&["--json", "config"]), Ok(Command::Config(arguments)) if arguments.json));
    assert!(matches!(parse_words(&["smoke"]), Ok(Command::Smoke(arguments)) if !arguments.json));
}

#[test]
fn parse_accepts_server_arguments_that_look_like_flags() {
    let Ok(Command::Start(start)) = parse_words(&[
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
    assert_eq!(start.daemon.settings.server.server_arg, ["app-server", "--store", "--json", "", "-c"]);
    assert!(!start.daemon.json);
}

#[test]
fn parse_rejects_other_flags_for_demo_app_server() {
    let store = |words: &[&str]| match parse_words(words) {
        Ok(Command::DemoAppServer { store }) => store,
        other => panic!("{words:?} gave {other:?}"),
    };
    assert_eq!(store(&["demo-app-server", "--store", "/s"]), Some(PathBuf::from("/s")));
    assert_eq!(store(&["demo-app-server"]), None);
    for flag in ["--json", "--run-once", "--demo", "--node-id=x"] {
        let name = flag.split('=').next().unwrap();
        for words in [[flag, "demo-app-server"], ["demo-app-server", flag]] {
            let usage = usage_of(&words);
            assert!(usage.starts_with(&format!("codexd: unexpected argument '{name}' found")), "{usage}");
        }
    }
}

#[test]
fn parse_accepts_demo_for_start_without_a_choice_of_app_server() {
    for words in [["--demo"].as_slice(), &["start", "--demo"], &["--demo", "start", "--server-cwd", "/"]] {
        assert!(matches!(parse_words(words), Ok(Command::Start(start)) if start.demo), "{words:?}");
    }
    assert!(matches!(parse_words(&["start"]), Ok(Command::Start(start)) if !start.demo));
    for (flag, value) in [
        ("--server-strategy <STRATEGY>", "spawn"),
        ("--server-endpoint <URL>", "x"),
        ("--server-command <COMMAND>", "x"),
        ("--server-arg <ARGUMENT>", "x"),
    ] {
        let name = flag.split(' ').next().unwrap();
        for (words, one, other) in [
            (["--demo", name, value].as_slice(), "--demo", flag),
            (&[name, value, "start", "--demo"], flag, "--demo"),
        ] {
            let problem = format!("codexd: the argument '{one}' cannot be used with '{other}'.");
            assert!(usage_of(words).starts_with(&problem), "{}", usage_of(words));
        }
    }
    for name in ["status", "config", "smoke", "service", "doctor", "sessions", "interrupt"] {
        let words = ["--demo", name, "install"];
        let words = if name == "service" { &words[..] } else { &words[..2] };
        let usage = usage_of(words);
        assert!(usage.contains("unexpected argument '--demo' found"), "{usage}");
        assert!(usage.ends_with(&format!("try 'codexd {name} --help'.")), "{usage}");
    }
}

#[test]
fn parse_reports_usage_errors_in_one_sentence() {
    for (words, problem, help) in [
        (["--foo"].as_slice(), "unexpected argument '--foo' found", "start "),
        (
            &["status", "--stat-dir", "/x"],
            "unexpected argument '--stat-dir' found; a similar argument exists: '--state-dir'",
            "status ",
        ),
        (
            &["--server-endpont=ws://user:secret@host"],
            "unexpected argument '--server-endpont' found; a similar argument exists: '--server-endpoint'",
            "start ",
        ),
        (&["begin"], "unrecognized subcommand 'begin'; a similar subcommand exists: 'login'", ""),
        (
            &["statsu"],
            "unrecognized subcommand 'statsu'; some similar subcommands exist: 'start', 'status'",
            "",
        ),
        (&["start", "now"], "unexpected argument 'now' found", "start "),
        (&["start", "a\nb"], "unexpected argument 'a b' found", "start "),
        (&["--node-id"], "a value is required for '--node-id <NAME>' but none was supplied", "start "),
        (
            &["--node-id", "a", "--node-id", "b"],
            "the argument '--node-id <NAME>' cannot be used multiple times",
            "start ",
        ),
        (
            &["--node-id", "a", "status", "--node-id", "b"],
            "the argument '--node-id <NAME>' cannot be used multiple times",
            "status ",
        ),
        (&["status", "--run-once"], "unexpected argument '--run-once' found", "status "),
        (&["--run-once", "status"], "unexpected argument '--run-once' found", "status "),
        (&["--json=yes"], "unexpected value 'yes' for '--json' found; no more were expected", "start "),
        (
            &["ask", "--sandbox", "none"],
            "invalid value 'none' for '--sandbox <SANDBOX>' [possible values: read-only, workspace-write, \
             danger-full-access]",
            "ask ",
        ),
    ] {
        let expected = format!("codexd: {problem}. For more information, try 'codexd {help}--help'.");
        assert_eq!(usage_of(words), expected);
    }
}

#[test]
fn parse_reports_invalid_values_with_their_flag_and_without_secrets() {
    for (words, problem) in [
        (
            ["--event-cache-size", "0"].as_slice(),
            "--event-cache-size: \"0\" is not a whole number from 1 to 10000.",
        ),
        (
            &["status", "--local-api-base=http://user:secret@127.0.0.1"],
            "--local-api-base: \"http://***@127.0.0.1\" contains credentials; remove everything up to the @.",
        ),
        (
            &["ask", "--network-timeout", "86401"],
            "--network-timeout: \"86401\" is not a whole number from 0 to 86400.",
        ),
        (&["--mode", "a\nb"], "--mode: the value contains a control character; remove it."),
    ] {
        assert_eq!(usage_of(words), format!("codexd: {problem}"));
    }
}

#[cfg(unix)]
#[test]
fn parse_rejects_argument_that_is_not_utf8() {
    use std::os::unix::ffi::OsStringExt;

    let words = ["codexd".into(), "--node-id".into(), OsString::from_vec(vec![0xff])];
    let Err(CliExit::Usage(text)) = parse_with(words.into(), &|_| true) else { panic!() };
    assert!(text.starts_with("codexd: invalid UTF-8"), "{text}");
    assert!(!text.contains('\n'));
}

#[test]
fn help_shows_settings_where_they_apply() {
    let help = help_of_words(&["help"]);
    assert_eq!(help, help_of_words(&["--help"]));
    assert_eq!(help, help_of_words(&["--node-id", "x", "--help"]));
    for command in
        ["start", "status", "config", "backup", "token", "smoke", "service", "doctor", "help", "--version"]
    {
        assert!(help.contains(command), "no {command} in {help}");
    }
    assert!(!help.contains("demo-app-server"), "{help}");
    assert!(!help.contains('\u{1b}'), "no colours in text that may go to a file");
    for (command, setting, is_shown) in [
        ("smoke", "--event-cache-size", false),
        ("smoke", "--state-dir", false),
        ("smoke", "--server-command", false),
        ("ask", "--local-api-base", true),
        ("ask", "--state-dir", false),
        ("sessions", "--connection-limit", false),
        ("token", "--state-dir", true),
        ("token", "--auth-token-file", true),
        ("token", "--local-api-base", false),
        ("backup", "--node-id", false),
        ("status", "--state-dir", true),
        ("doctor", "--line-cap", false),
        ("status", "\"codexd help start\" lists", true),
    ] {
        for words in [["help", command], [command, "--help"], [command, "-h"]] {
            let help = help_of_words(&words);
            assert_eq!(help.contains(setting), is_shown, "{words:?} {setting}: {help}");
        }
    }
}

#[test]
fn help_shows_every_flag_with_variable_and_default() {
    let help = help_of_words(&["help", "start"]);
    assert_eq!(help, help_of_words(&["start", "--help"]));
    // Help is in paragraphs, so white space is normalized before comparing.
    let words = |help: &str| help.split_whitespace().collect::<Vec<_>>().join(" ");
    let (long, short) = (words(&help), words(&help_of_words(&["start", "-h"])));
    for setting in settings() {
        let (flag, placeholder) = (setting.get_long().unwrap(), &setting.get_value_names().unwrap()[0]);
        let flag = format!("--{flag} <{placeholder}> {}", setting.get_help().unwrap());
        let variable = format!("[env: {}]", setting.get_env().unwrap().display());
        assert!(long.contains(&flag) && long.contains(&variable), "no {flag} in {help}");
        assert!(short.contains(&flag) && !short.contains(&variable), "{short}");
        // The whole text of the setting, up to the next one.
        let (_, after) = long.split_once(&format!("{flag} ")).unwrap();
        assert!(after.split(" --").next().unwrap().contains("[default: "), "no default of {flag} in {help}");
    }
    for part in [
        "--json",
        "--run-once",
        "--demo",
        "--or-demo",
        "BAA_CODEXD_LOG",
        "Paths:",
        "HTTP:",
        "App-server:",
        "Log:",
        "Limits:",
    ] {
        assert!(long.contains(part) && short.contains(part), "no {part} in {help}");
    }
}

#[test]
fn version_shows_crate_version_and_commit() {
    let version = help_of_words(&["--version"]);
    assert_eq!(version, format!("codexd {}\n", env!("CODEXD_LONG_VERSION")));
    assert!(version.starts_with(concat!("codexd ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn parse_reads_client_commands() {
    let ask = |words: &[&str]| match parse_words(words) {
        Ok(Command::Ask(arguments)) => arguments,
        other => panic!("{words:?} gave {other:?}"),
    };
    let say = ask(&["ask", "say", "hello"]);
    assert_eq!((say.words, say.network_timeout), (vec!["say".to_owned(), "hello".to_owned()], 60));
    assert_eq!((say.trust, say.session, say.client.json), (None, None, false));
    // The word after --trust is part of the prompt.
    for (flag, trust) in [("--trust", true), ("--trust=true", true), ("--trust=false", false)] {
        let asked = ask(&["ask", flag, "x"]);
        assert_eq!((asked.words, asked.trust), (vec!["x".to_owned()], Some(trust)));
    }
    // What looks like a flag after -- is part of the prompt too.
    assert_eq!(ask(&["--json", "ask", "--", "--help", "--json"]).words, ["--help", "--json"]);
    assert!(matches!(
        parse_words(&["--json", "sessions"]),
        Ok(Command::Sessions(list)) if !list.all && list.client.json
    ));
    assert!(matches!(
        parse_words(&["requests", "--all", "--json"]),
        Ok(Command::Requests(list)) if list.all && list.client.json
    ));
    let approve = |words: &[&str]| match parse_words(words) {
        Ok(Command::Approve(arguments)) => arguments,
        other => panic!("{words:?} gave {other:?}"),
    };
    assert_eq!(approve(&["approve", "r"]).decision, "accept");
    assert_eq!(approve(&["approve", "r", "--decision", "x"]).decision, "x");
    assert_eq!(approve(&["approve", "r", "--result", "{}"]).result.as_deref(), Some("{}"));
    assert_eq!(approve(&["approve", "r", "--answer", "red", "--answer=-1"]).answers, ["red", "-1"]);
    assert!(matches!(parse_words(&["decline", "r"]), Ok(Command::Decline(decline)) if !decline.cancel));
    assert!(
        matches!(parse_words(&["decline", "--cancel", "r"]), Ok(Command::Decline(decline)) if decline.cancel)
    );
    let words = ["follow", "--type", "a", "--type=b", "--session", "s", "--after", "0"];
    let Ok(Command::Follow(follow)) = parse_words(&words) else { panic!() };
    assert_eq!((follow.session.as_deref(), follow.after.as_deref()), (Some("s"), Some("0")));
    assert_eq!(follow.types, ["a", "b"]);
    let words = ["hooks", "add", "n", "--on", "a,b", "--on=c", "--command", "curl", "-d", "--json", "--on"];
    let Ok(Command::Hooks(hooks)) = parse_words(&words) else { panic!() };
    assert_eq!((hooks.hook.as_deref(), hooks.client.json), (Some("n"), false));
    assert_eq!(
        (hooks.on, hooks.command),
        (
            vec!["a", "b", "c"].into_iter().map(str::to_owned).collect(),
            ["curl", "-d", "--json", "--on"].map(str::to_owned).to_vec()
        )
    );
    assert!(matches!(parse_words(&["hooks"]), Ok(Command::Hooks(hooks)) if hooks.action == HookAction::List));
    for (words, problem) in [
        (["ask", "--sandbox", "none"].as_slice(), "invalid value 'none' for '--sandbox <SANDBOX>'"),
        (&["ask", "--sandbox", "read-only", "--session", "s"], "cannot be used with"),
        (&["ask", "--trust=perhaps"], "invalid value 'perhaps'"),
        (&["ask", "--trust", "--session", "s"], "cannot be used with"),
        (&["ask", "--when-busy", "queue"], "were not provided: <--session <ID>|--continue>"),
        (&["ask", "--continue", "--session", "s", "x"], "cannot be used with"),
        (&["ask", "--continue", "--ephemeral", "x"], "cannot be used with"),
        (&["ask", "-c", "a=b", "--session", "s"], "cannot be used with"),
        (&["ask", "--state-dir", "/x"], "unexpected argument '--state-dir'"),
        (&["--state-dir", "/x", "ask"], "unexpected argument '--state-dir'"),
        (&["close"], "were not provided: <SESSION>"),
        (&["app-server"], "were not provided: <restart>"),
        (&["app-server", "restart", "--force", "--when-idle"], "cannot be used with"),
        (&["resume-queue"], "were not provided: <SESSION>"),
        (&["hooks", "add", "--command", "true"], "were not provided: --on <TYPE>"),
        (&["hooks", "add", "--on", "a", "--url", "https://x", "--command", "true"], "cannot be used with"),
        (&["hooks", "add", "--on", "a", "--secret-file", "/x"], "were not provided: --url <URL>"),
        (&["completions", "csh"], "invalid value 'csh'"),
        (&["--json", "completions", "bash"], "unexpected argument '--json'"),
        (&["--run-once", "follow"], "unexpected argument '--run-once'"),
    ] {
        let usage = usage_of(words);
        assert!(usage.contains(problem), "{words:?}: {usage}");
    }
}

#[test]
fn parse_accepts_address_before_and_after_client_command() {
    for flag in ["--local-api-base=http://[::1]:5", "--event-stream-path=/x", "--auth-token-file=/x"] {
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
            "app-server restart",
            "hooks list",
        ];
        for command in commands {
            let words: Vec<&str> = command.split(' ').collect();
            let after = parsed(&[words.as_slice(), &[flag]].concat());
            assert_eq!(after, parsed(&[[flag].as_slice(), &words].concat()));
            assert!(after.contains("CommandLine"), "{after}");
        }
    }
}

#[test]
fn smoke_accepts_all_settings() {
    let flags: Vec<String> = settings().iter().map(flag_with_value).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let Ok(Command::Smoke(smoke)) = parse_words(&[&["smoke"], flags.as_slice()].concat()) else { panic!() };
    assert_eq!(format!("{:?}", smoke.settings), format!("{:?}", Settings::from_flags(flags).unwrap()));
}

#[test]
fn visible_commands_hide_internal_ones() {
    let commands = visible_commands();
    let names: Vec<&str> = commands.get_subcommands().map(clap::Command::get_name).collect();
    assert!(["ask", "follow", "completions"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(["guard", "detach", "demo-app-server"].iter().all(|name| !names.contains(name)), "{names:?}");
    assert!(commands.get_arguments().any(|argument| argument.get_long() == Some("local-api-base")));
}
