//! The command line: subcommands and flags, as words only.
//!
//! The flags come from the table of settings, so that their variables and defaults stand in the help; what the
//! values mean is decided in `config`.

mod client;
mod help;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::settings::{self, Setting};
use crate::config::{LONG_VERSION, Settings};

pub use clap_complete::Shell;
pub use client::{Answer, AskOptions, ClientCommand, completions};

/// What codexd is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
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
    /// Copy the state and the events.
    Backup {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// The directory that is made for the copy.
        directory: PathBuf,
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
    /// Make codexd a service of the person, or say how that is.
    Service {
        /// What to do.
        action: ServiceAction,
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Look at everything that codexd needs.
    Doctor {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Ask the running daemon for something.
    Client {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// For what.
        command: ClientCommand,
    },
    /// Write the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
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
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, CliExit> {
    let args: Vec<OsString> = args.collect();
    if let Some(help) = help::in_json(&args) {
        return Err(help);
    }
    let CommandLine { before, command } = CommandLine::try_parse_from(args).map_err(exit_of)?;
    let StartArguments { settings, json, run_once } = before;
    let refuse = |flag: &str, command: &str| Err(usage(&format!("{flag} means nothing to \"{command}\"")));
    // Those that stand before a command that has none of them.
    let stray = settings.first().map(flag_of);
    let stray = stray.or(json.then(|| "--json".to_owned())).or(run_once.then(|| "--run-once".to_owned()));
    Ok(match command {
        None => Invocation::Start { settings, json, run_once },
        Some(Command::Client(command)) => {
            return client::request(StartArguments { settings, json, run_once }, command);
        }
        Some(Command::Start(after)) => Invocation::Start {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            run_once: run_once || after.run_once,
        },
        Some(Command::Service(_)) if run_once => return refuse("--run-once", "service"),
        Some(Command::Doctor(_)) if run_once => return refuse("--run-once", "doctor"),
        Some(Command::Doctor(after)) => {
            Invocation::Doctor { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Service(ServiceArguments { action, common: after })) => Invocation::Service {
            action,
            settings: merge(settings, after.settings)?,
            json: json || after.json,
        },
        Some(Command::Status(_)) if run_once => return refuse("--run-once", "status"),
        Some(Command::Config(_)) if run_once => return refuse("--run-once", "config"),
        Some(Command::Smoke(_)) if run_once => return refuse("--run-once", "smoke"),
        Some(Command::Token(_)) if run_once => return refuse("--run-once", "token"),
        Some(Command::Backup(_)) if run_once => return refuse("--run-once", "backup"),
        Some(Command::Backup(BackupArguments { directory, common: after })) => Invocation::Backup {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            directory,
        },
        Some(Command::Status(after)) => {
            Invocation::Status { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Config(after)) => {
            Invocation::Config { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::Token(TokenArguments { common: after, replace })) => Invocation::Token {
            settings: merge(settings, after.settings)?,
            json: json || after.json,
            replace,
        },
        Some(Command::Smoke(after)) => {
            Invocation::Smoke { settings: merge(settings, after.settings)?, json: json || after.json }
        }
        Some(Command::EmbeddedAppServer { .. } | Command::Guard { .. }) if stray.is_some() => {
            let name =
                if matches!(command, Some(Command::Guard { .. })) { "guard" } else { "embedded-app-server" };
            return refuse(&stray.unwrap_or_default(), name);
        }
        Some(Command::EmbeddedAppServer { store, startup }) => {
            Invocation::EmbeddedAppServer { store, startup }
        }
        Some(Command::Guard { instance }) => Invocation::Guard { instance },
    })
}

/// The always-on local home of OpenAI Codex: one daemon, one loopback listener, one log
#[derive(Debug, Parser)]
#[command(name = "codexd", bin_name = "codexd", version = LONG_VERSION, next_line_help = true, after_help = after_help())]
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
    #[command(flatten)]
    Client(client::ClientSubcommand),
    /// Show every setting and where its value comes from
    Config(CommonArguments),
    /// Copy the state and the events to a new directory, while codexd runs or not
    Backup(BackupArguments),
    /// Make the file with the token that --auth-token-file names
    Token(TokenArguments),
    /// Try everything out against a built-in offline app-server
    Smoke(CommonArguments),
    /// Make codexd a service that starts by itself, as an agent of launchd or a user unit of systemd
    Service(ServiceArguments),
    /// Look at everything that codexd needs, and say what to do where something is wrong
    Doctor(CommonArguments),
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
struct ServiceArguments {
    /// What to do
    #[arg(value_enum, value_name = "install|uninstall|status|print")]
    action: ServiceAction,
    #[command(flatten)]
    common: CommonArguments,
}

/// What to do about the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceAction {
    /// Write its file with the settings in force, and start it
    Install,
    /// Stop it and remove its file; state and logs stay
    Uninstall,
    /// Say how it is
    Status,
    /// Show the file that install would write
    Print,
}

#[derive(Debug, Args)]
struct BackupArguments {
    /// Directory for the copy, which is made; an empty one may exist
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    #[command(flatten)]
    common: CommonArguments,
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
        // Every subcommand has them all, and a process reads one of them.
        command.defer(|command| add_flags(command, settings::ALL))
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
        read_flags(self, matches, settings::ALL);
        Ok(())
    }
}

/// Adds the flags of these settings to a command.
fn add_flags(command: clap::Command, settings: &[&Setting]) -> clap::Command {
    settings.iter().filter(|setting| setting.has_flag).fold(command, |command, setting| {
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

fn read_flags(given: &mut Settings, matches: &ArgMatches, settings: &[&Setting]) {
    for setting in settings.iter().filter(|setting| setting.has_flag) {
        for value in matches.get_many::<String>(setting.name).into_iter().flatten() {
            given.add(setting, value);
        }
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
        // The first line does not say which, as it does for the others.
        ErrorKind::MissingRequiredArgument => {
            usage(&format!("{} is missing", text(ContextKind::InvalidArg).unwrap_or_default()))
        }
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
