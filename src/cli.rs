//! The command line: subcommands and flags, as words only.
//!
//! The flags come from the table of settings, so that their variables and defaults stand in the help; what the
//! values mean is decided in `config`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};

use crate::config::Settings;
use crate::config::settings::{self, Setting};

/// What codexd is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Run the daemon.
    Start {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Start, say how things are, and stop.
        run_once: bool,
    },
    /// Ask the running daemon how it is.
    Status {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Show every setting and where its value comes from.
    Config {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Make the file with the token.
    Token {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Put a new token in the place of an old one.
        replace: bool,
    },
    /// Try everything out against the offline app-server.
    Smoke {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Be the guard of a daemon, on stdin.
    Guard {
        /// The name of the daemon's life.
        instance: String,
    },
    /// Be the offline app-server, on the standard streams.
    EmbeddedAppServer {
        /// The folder its threads outlive it in; none keeps them in memory.
        store: Option<PathBuf>,
        /// How it starts up, one word each.
        startup: Vec<String>,
    },
}

/// Why there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliExit {
    /// Help or version, with its final line break: for stdout, exit code 0.
    Text(String),
    /// One sentence about a wrong command line, without a line break: for stderr, exit code 2.
    Usage(String),
}

/// Reads a command line as `std::env::args_os` gives it, the program's name first.
///
/// Flags may stand before or after the subcommand; without a subcommand they mean `start`.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, CliExit> {
    let CommandLine { before, command } = CommandLine::try_parse_from(args).map_err(exit_of)?;
    let StartArguments { settings, json, run_once } = before;
    let refuse = |flag: &str, command: &str| Err(usage(&format!("{flag} means nothing to \"{command}\"")));
    // Those that stand before a command that has none of them.
    let stray = settings.first().map(flag_of);
    let stray = stray.or(json.then(|| "--json".to_owned())).or(run_once.then(|| "--run-once".to_owned()));
    Ok(match command {
        None => Request::Start { settings, json, run_once },
        Some(Command::Start(after)) => Request::Start {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            run_once: run_once || after.run_once,
        },
        Some(Command::Status(_)) if run_once => return refuse("--run-once", "status"),
        Some(Command::Config(_)) if run_once => return refuse("--run-once", "config"),
        Some(Command::Smoke(_)) if run_once => return refuse("--run-once", "smoke"),
        Some(Command::Token(_)) if run_once => return refuse("--run-once", "token"),
        Some(Command::Status(after)) => {
            Request::Status { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Config(after)) => {
            Request::Config { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Token(TokenArguments { common: after, replace })) => {
            Request::Token { settings: merge(settings, after.settings)?, json: json || after.json, replace }
        }
        Some(Command::Smoke(after)) => {
            Request::Smoke { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::EmbeddedAppServer { .. } | Command::Guard { .. }) if stray.is_some() => {
            let name =
                if matches!(command, Some(Command::Guard { .. })) { "guard" } else { "embedded-app-server" };
            return refuse(&stray.unwrap_or_default(), name);
        }
        Some(Command::EmbeddedAppServer { store, startup }) => Request::EmbeddedAppServer { store, startup },
        Some(Command::Guard { instance }) => Request::Guard { instance },
    })
}

/// The always-on local home of OpenAI Codex: one daemon, one loopback listener, one log
#[derive(Debug, Parser)]
#[command(name = "codexd", bin_name = "codexd", version, next_line_help = true, after_help = after_help())]
struct CommandLine {
    #[command(flatten)]
    before: StartArguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon; the default
    Start(StartArguments),
    /// Ask the running daemon how it is
    Status(CommonArguments),
    /// Show every setting and where its value comes from
    Config(CommonArguments),
    /// Make the file with the token that --auth-token-file names
    Token(TokenArguments),
    /// Try everything out against a built-in offline app-server
    Smoke(CommonArguments),
    /// Be the guard of a daemon: end what it leaves behind when it is killed
    #[command(hide = true)]
    Guard {
        /// The name of the daemon's life, which marks what is its own
        #[arg(long, value_name = "NAME")]
        instance: String,
    },
    /// Be the offline app-server, on the standard streams
    #[command(hide = true)]
    EmbeddedAppServer {
        /// Folder in which threads outlive the process
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
        /// How to start up, once for each word
        #[arg(long, value_name = "WORD")]
        startup: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct StartArguments {
    #[command(flatten)]
    settings: Settings,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Start, say how things are, and stop; only with start
    #[arg(long)]
    run_once: bool,
}

#[derive(Debug, Args)]
struct CommonArguments {
    #[command(flatten)]
    settings: Settings,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct TokenArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Put a new token in the place of the one that is there
    #[arg(long)]
    replace: bool,
}

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        settings::ALL.iter().filter(|setting| setting.has_flag).fold(command, |command, setting| {
            let action = if setting.repeatable { ArgAction::Append } else { ArgAction::Set };
            command.arg(
                Arg::new(setting.name)
                    .long(setting.name)
                    .value_name(setting.placeholder)
                    .help(help_of(setting))
                    .action(action)
                    .allow_hyphen_values(setting.repeatable),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in settings::ALL.iter().filter(|setting| setting.has_flag) {
            for value in matches.get_many::<String>(setting.name).into_iter().flatten() {
                self.add(setting, value);
            }
        }
        Ok(())
    }
}

/// Flags from before and from after the subcommand; which of two values counts would be a guess.
fn merge(before: Settings, after: Settings) -> Result<Settings, CliExit> {
    let mut merged = before;
    for setting in settings::ALL {
        if !setting.repeatable && !merged.values(setting).is_empty() && !after.values(setting).is_empty() {
            return Err(usage(&format!("{} is given twice", flag_of(setting))));
        }
        for value in after.values(setting) {
            merged.add(setting, value);
        }
    }
    Ok(merged)
}

fn flag_of(setting: &Setting) -> String {
    format!("--{}", setting.name)
}

fn help_of(setting: &Setting) -> String {
    format!("{}\n[{}; default: {}]", setting.purpose, setting.variable, setting.default.description())
}

fn after_help() -> String {
    let mut text = "A flag wins over its variable (in brackets), the variable over the default.".to_owned();
    for setting in settings::ALL.iter().filter(|setting| !setting.has_flag) {
        text.push_str(&format!(
            "\n{}: {} (default: {}).",
            setting.variable,
            setting.purpose,
            setting.default.description()
        ));
    }
    text
}

fn exit_of(error: clap::Error) -> CliExit {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        // clap puts the closest of several suggestions last.
        Some(ContextValue::Strings(texts)) => texts.last().map(String::as_str),
        _ => None,
    };
    let with_suggestion = |problem: String, suggestion: Option<&str>| match suggestion {
        Some(suggestion) => format!("{problem}, did you mean '{suggestion}'?"),
        None => problem,
    };
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => CliExit::Text(error.render().to_string()),
        ErrorKind::UnknownArgument => usage(&with_suggestion(
            format!("unexpected argument '{}'", text(ContextKind::InvalidArg).unwrap_or_default()),
            text(ContextKind::SuggestedArg),
        )),
        ErrorKind::InvalidSubcommand => usage(&with_suggestion(
            format!("unknown command '{}'", text(ContextKind::InvalidSubcommand).unwrap_or_default()),
            text(ContextKind::SuggestedSubcommand),
        )),
        // The first line names the argument and the problem; the others repeat the usage.
        _ => {
            let rendered = error.render().to_string();
            let first_line = rendered.lines().next().unwrap_or_default();
            usage(first_line.strip_prefix("error: ").unwrap_or(first_line))
        }
    }
}

/// One line, whatever was typed: a line break in an argument must not look like a second message.
fn usage(problem: &str) -> CliExit {
    let problem: String = problem
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let separator = if problem.ends_with('?') { "" } else { ";" };
    CliExit::Usage(format!("codexd: {problem}{separator} run \"codexd help\" to see what there is."))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse_words(words: &[&str]) -> Result<Request, CliExit> {
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
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn start_is_the_default() {
        let nothing = Request::Start { settings: Settings::default(), json: false, run_once: false };
        assert_eq!(parse_words(&[]), Ok(nothing.clone()));
        assert_eq!(parse_words(&["start"]), Ok(nothing));
        let settings = Settings::default().with(&settings::NODE_ID, "lab");
        let flags = Request::Start { settings, json: true, run_once: true };
        for words in [
            ["--node-id", "lab", "--json", "--run-once"].as_slice(),
            &["start", "--node-id=lab", "--run-once", "--json"],
            &["--json", "start", "--run-once", "--node-id", "lab"],
        ] {
            assert_eq!(parse_words(words), Ok(flags.clone()));
        }
    }

    #[test]
    fn every_flag_is_taken_before_and_after_every_command() {
        for setting in settings::ALL.iter().filter(|setting| setting.has_flag) {
            let flag = flag_of(setting);
            let given = Settings::default().with(setting, "x");
            for command in ["start", "status", "config", "token", "smoke"] {
                for words in [[command, flag.as_str(), "x"], [flag.as_str(), "x", command]] {
                    let (Request::Start { settings, .. }
                    | Request::Status { settings, .. }
                    | Request::Config { settings, .. }
                    | Request::Token { settings, .. }
                    | Request::Smoke { settings, .. }) = parse_words(&words).unwrap()
                    else {
                        panic!("{words:?}")
                    };
                    assert_eq!(settings, given, "{words:?}");
                }
            }
        }
        assert!(matches!(parse_words(&["status", "--json"]), Ok(Request::Status { json: true, .. })));
        assert!(matches!(parse_words(&["--json", "config"]), Ok(Request::Config { json: true, .. })));
        assert!(matches!(parse_words(&["smoke"]), Ok(Request::Smoke { json: false, .. })));
    }

    #[test]
    fn server_arguments_may_look_like_flags() {
        let Ok(Request::Start { settings, json, .. }) = parse_words(&[
            "--server-arg",
            "embedded-app-server",
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
        assert_eq!(
            settings.values(&settings::SERVER_ARGS),
            ["embedded-app-server", "--store", "--json", "", "-c"]
        );
        assert!(!json);
    }

    #[test]
    fn the_embedded_app_server_takes_its_own_flags_only() {
        assert_eq!(
            parse_words(&["embedded-app-server", "--store", "/s", "--startup", "a", "--startup", "b"]),
            Ok(Request::EmbeddedAppServer {
                store: Some(PathBuf::from("/s")),
                startup: vec!["a".to_owned(), "b".to_owned()]
            })
        );
        assert_eq!(
            parse_words(&["embedded-app-server"]),
            Ok(Request::EmbeddedAppServer { store: None, startup: vec![] })
        );
        for flag in ["--json", "--run-once", "--node-id=x"] {
            let name = flag.split('=').next().unwrap();
            assert_eq!(
                usage_of(&[flag, "embedded-app-server"]),
                format!(
                    "codexd: {name} means nothing to \"embedded-app-server\"; run \"codexd help\" to see what there is."
                )
            );
            usage_of(&["embedded-app-server", flag]);
        }
    }

    #[test]
    fn a_wrong_command_line_gets_one_sentence() {
        for (words, problem) in [
            (["--foo"].as_slice(), "unexpected argument '--foo';"),
            (
                &["status", "--stat-dir", "/x"],
                "unexpected argument '--stat-dir', did you mean '--state-dir'?",
            ),
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
            (&["--run-once", "status"], "--run-once means nothing to \"status\";"),
            (&["--json=yes"], "unexpected value 'yes' for '--json' found; no more were expected;"),
        ] {
            assert_eq!(
                usage_of(words),
                format!("codexd: {problem} run \"codexd help\" to see what there is.")
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn an_argument_that_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStringExt;

        let words = ["codexd".into(), "--node-id".into(), OsString::from_vec(vec![0xff])];
        let Err(CliExit::Usage(text)) = parse(words.into_iter()) else { panic!() };
        assert!(text.starts_with("codexd: invalid UTF-8"), "{text}");
        assert!(!text.contains('\n'));
    }

    #[test]
    fn help_shows_every_flag_with_its_variable_and_default() {
        let help = help_of_words(&["help"]);
        assert_eq!(help, help_of_words(&["--help"]));
        // Lines are wrapped, so white space is evened out before comparing.
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for setting in settings::ALL {
            let described = match setting.has_flag {
                true => format!("--{} <{}> {}", setting.name, setting.placeholder, help_of(setting)),
                false => format!("{}: {}", setting.variable, setting.purpose),
            };
            let described = described.replace('\n', " ");
            assert!(words.contains(&described), "no {described:?} in {help}");
        }
        for command in
            ["start", "status", "config", "token", "smoke", "help", "--json", "--run-once", "--version"]
        {
            assert!(words.contains(command), "no {command} in {help}");
        }
        assert!(!help.contains("embedded"), "{help}");
        assert!(help_of_words(&["help", "smoke"]).contains("--state-dir"));
        assert!(!help.contains('\u{1b}'), "no colours in text that may go to a file");
    }

    #[test]
    fn version_is_that_of_the_crate() {
        assert_eq!(help_of_words(&["--version"]), format!("codexd {}\n", env!("CARGO_PKG_VERSION")));
    }
}
