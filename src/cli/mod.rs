//! The command line: subcommands and flags.
//!
//! [`parse`] turns arguments into an [`Invocation`] or a [`CliExit`]. The flags of settings come from the table in
//! `config`, which also parses their values; this layer treats them as text.

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

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the daemon.
    Start {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Start, print the status, and stop.
        run_once: bool,
    },
    /// Query the running daemon.
    Status {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Print every setting and its source.
    Config {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Copy the state and the event log.
    Backup {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// The directory to create for the copy.
        directory: PathBuf,
    },
    /// Create the token file.
    Token {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// Replace an existing token.
        replace: bool,
    },
    /// Test the daemon against the built-in app-server.
    Smoke {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Manage codexd as a service of the user.
    Service {
        /// What to do.
        action: ServiceAction,
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Check everything that codexd needs.
    Doctor {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
    },
    /// Run a command that talks to the running daemon.
    Client {
        /// The flags given.
        settings: Settings,
        /// Answer in JSON.
        json: bool,
        /// The command.
        command: ClientCommand,
    },
    /// Print a shell completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Run the guard of a daemon, on stdin.
    Guard {
        /// The instance name of the daemon.
        instance: String,
    },
    /// Run the built-in app-server on the standard streams.
    EmbeddedAppServer {
        /// The directory where its threads are stored; `None` keeps them in memory.
        store: Option<PathBuf>,
        /// Startup options, one word each.
        startup: Vec<String>,
    },
}

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliExit {
    /// Help or version, with its final line break: for stdout, exit code 0.
    Text(String),
    /// A usage error as one sentence, without a line break: for stderr, exit code 2.
    Usage(String),
}

/// Parses a command line as `std::env::args_os` returns it, including the program's name.
///
/// Flags may come before or after the subcommand; without a subcommand they are those of `start`.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Invocation, CliExit> {
    let args: Vec<OsString> = args.collect();
    if let Some(help) = help::in_json(&args) {
        return Err(help);
    }
    let CommandLine { before, command } = CommandLine::try_parse_from(args).map_err(exit_of)?;
    let StartArguments { settings, json, run_once } = before;
    let refuse = |flag: &str, command: &str| Err(usage(&format!("{flag} does not apply to \"{command}\"")));
    // Flags before a command that has no flags.
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

/// Local daemon that supervises `codex app-server` and exposes it over HTTP, SSE and WebSocket
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
    /// Run the daemon (default)
    Start(StartArguments),
    /// Show the status of the running daemon
    Status(CommonArguments),
    #[command(flatten)]
    Client(client::ClientSubcommand),
    /// Print every setting, its value and its source
    Config(CommonArguments),
    /// Copy the state and the event log to a new directory, whether codexd runs or not
    Backup(BackupArguments),
    /// Create the token file that --auth-token-file names
    Token(TokenArguments),
    /// Test the daemon against a built-in offline app-server
    Smoke(CommonArguments),
    /// Install, remove or inspect codexd as a service (launchd agent or systemd user unit)
    Service(ServiceArguments),
    /// Check everything that codexd needs and suggest fixes
    Doctor(CommonArguments),
    /// Run the guard of a daemon: end the processes that a killed daemon leaves behind
    #[command(hide = true)]
    Guard {
        /// Instance name of the daemon, which marks its processes
        #[arg(long, value_name = "NAME")]
        instance: String,
    },
    /// Run the built-in app-server on the standard streams
    #[command(hide = true)]
    EmbeddedAppServer {
        /// Directory in which threads are stored
        #[arg(long, value_name = "DIR")]
        store: Option<PathBuf>,
        /// Startup option; may be repeated
        #[arg(long, value_name = "WORD")]
        startup: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct StartArguments {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Start, print the status, and stop; only with start
    #[arg(long)]
    run_once: bool,
}

#[derive(Debug, Args)]
struct CommonArguments {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServiceArguments {
    /// Action
    #[arg(value_enum, value_name = "install|uninstall|status|print")]
    action: ServiceAction,
    #[command(flatten)]
    common: CommonArguments,
}

/// What to do with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServiceAction {
    /// Write the service file for the current settings, and start the service
    Install,
    /// Stop the service and remove its file; state and logs are kept
    Uninstall,
    /// Show the state of the service
    Status,
    /// Print the file that install would write
    Print,
}

#[derive(Debug, Args)]
struct BackupArguments {
    /// Directory to create for the copy; it may exist if it is empty
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, Args)]
struct TokenArguments {
    #[command(flatten)]
    common: CommonArguments,
    /// Replace the existing token
    #[arg(long)]
    replace: bool,
}

impl Args for Settings {
    fn augment_args(command: clap::Command) -> clap::Command {
        // Every subcommand has all settings, and a process parses only one subcommand.
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

/// Merges the flags before and after the subcommand; a flag given in both places is an error.
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
    let mut text =
        "A flag overrides its environment variable (in brackets), which overrides the default.".to_owned();
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
        // clap lists the closest suggestion last.
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
        // The first line does not name the argument, as it does for other errors.
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

/// One line in all cases: a line break in an argument must not look like a second message.
fn usage(problem: &str) -> CliExit {
    let problem: String = problem
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    let separator = if problem.ends_with('?') { "" } else { ";" };
    CliExit::Usage(format!("codexd: {problem}{separator} run \"codexd help\" for usage."))
}
