//! The commands that talk to a running daemon: their arguments, and [`ClientCommand`].

use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use clap_complete::Shell;

use super::exit::{CliExit, usage};
use super::flags::{add_flags, merge, read_flags};
use super::invocation::{Answer, AskOptions, ClientCommand, Invocation};
use crate::codex::protocol::decisions;
use crate::config::Settings;
use crate::config::settings::{AUTH_TOKEN_FILE, EVENT_STREAM_PATH, LOCAL_API_BASE, Setting};

#[derive(Debug, Subcommand)]
pub(super) enum ClientSubcommand {
    /// Submit a prompt to Codex and stream the answer
    Ask(AskArguments),
    /// List sessions
    Sessions(ListArguments),
    /// Print events as they occur
    Follow(FollowArguments),
    /// List pending requests of Codex
    Requests(ListArguments),
    /// Approve a request of Codex
    Approve(ApproveArguments),
    /// Decline a request of Codex
    Decline(DeclineArguments),
    /// Interrupt the running turn of a session
    Interrupt(InterruptArguments),
    /// Resume the held queue of a session
    ResumeQueue(ResumeQueueArguments),
    /// Close a session
    Close(CloseArguments),
    /// Print a shell completion script
    Completions {
        /// Shell to generate completions for
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
}

/// The settings that select the daemon, and the output format.
#[derive(Debug, Args)]
pub(super) struct ClientArguments {
    #[command(flatten)]
    settings: ClientSettings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CLIENT_SETTINGS: [&Setting; 3] = [&LOCAL_API_BASE, &EVENT_STREAM_PATH, &AUTH_TOKEN_FILE];

#[derive(Debug, Default)]
struct ClientSettings(Settings);

impl Args for ClientSettings {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.defer(|command| add_flags(command, &CLIENT_SETTINGS))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ClientSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = Self::default();
        settings.update_from_arg_matches(matches)?;
        Ok(settings)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        read_flags(&mut self.0, matches, &CLIENT_SETTINGS);
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct AskArguments {
    #[command(flatten)]
    ask: AskOptions,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Include finished ones
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct FollowArguments {
    /// Print events of this session only; "last" is the most recently used one in this directory
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Print only events whose type starts with TYPE; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Start after this cursor; 0 starts with the oldest event [default: new events only]
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ApproveArguments {
    /// Request ID; optional if exactly one request is pending
    #[arg(value_name = "ID")]
    request: Option<String>,
    /// Decision to send, such as acceptForSession, by name or as JSON; must be one of those offered
    #[arg(long, value_name = "DECISION", default_value = decisions::ACCEPT)]
    decision: String,
    /// Answer to a question: the number of an option, or text; once per question
    #[arg(long = "answer", value_name = "TEXT", conflicts_with = "decision")]
    answers: Vec<String>,
    /// Complete result as JSON, in the format of the app-server, instead of a decision
    #[arg(long, value_name = "JSON", conflicts_with_all = ["decision", "answers"])]
    result: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct DeclineArguments {
    /// Request ID; optional if exactly one request is pending
    #[arg(value_name = "ID")]
    request: Option<String>,
    /// End the turn as well
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct InterruptArguments {
    /// Session ID or "last"; optional if exactly one session has a running turn
    #[arg(value_name = "SESSION")]
    session: Option<String>,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct ResumeQueueArguments {
    /// Session ID or "last"
    #[arg(value_name = "SESSION")]
    session: String,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Args)]
pub(super) struct CloseArguments {
    /// Session ID or "last"
    #[arg(value_name = "SESSION")]
    session: String,
    /// Interrupt the running turn first
    #[arg(long)]
    interrupt: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// Builds the invocation from the flags before the command, one of `start` only among them, and the command itself.
pub(super) fn invocation(
    settings: Settings,
    json: bool,
    only_start: Option<&str>,
    command: ClientSubcommand,
) -> Result<Invocation, CliExit> {
    let (name, client, command) = match command {
        ClientSubcommand::Completions { shell } => {
            let nothing = settings.first().is_none() && !json && only_start.is_none();
            return match nothing {
                true => Ok(Invocation::Completions { shell }),
                false => Err(usage("\"completions\" takes no flags")),
            };
        }
        ClientSubcommand::Ask(AskArguments { ask, client }) => ("ask", client, ClientCommand::Ask(ask)),
        ClientSubcommand::Sessions(ListArguments { all, client }) => {
            ("sessions", client, ClientCommand::Sessions { all })
        }
        ClientSubcommand::Follow(FollowArguments { session, types, after, client }) => {
            ("follow", client, ClientCommand::Follow { session, types, after })
        }
        ClientSubcommand::Requests(ListArguments { all, client }) => {
            ("requests", client, ClientCommand::Requests { all })
        }
        ClientSubcommand::Approve(ApproveArguments { request, decision, answers, result, client }) => {
            let answer = match result {
                Some(result) => Answer::Result(result),
                None if !answers.is_empty() => Answer::Words(answers),
                None => Answer::Decision(decision),
            };
            ("approve", client, ClientCommand::Answer { request, answer })
        }
        ClientSubcommand::Decline(DeclineArguments { request, cancel, client }) => {
            let word = if cancel { decisions::CANCEL } else { decisions::DECLINE };
            ("decline", client, ClientCommand::Answer { request, answer: Answer::Decision(word.to_owned()) })
        }
        ClientSubcommand::Interrupt(InterruptArguments { session, client }) => {
            ("interrupt", client, ClientCommand::Interrupt { session })
        }
        ClientSubcommand::ResumeQueue(ResumeQueueArguments { session, client }) => {
            ("resume-queue", client, ClientCommand::ResumeQueue { session })
        }
        ClientSubcommand::Close(CloseArguments { session, interrupt, client }) => {
            ("close", client, ClientCommand::Close { session, interrupt })
        }
    };
    if let Some(flag) = only_start {
        return Err(usage(&format!("{flag} does not apply to \"{name}\"")));
    }
    let settings = merge(settings, client.settings.0)?;
    Ok(Invocation::Client { settings, json: json || client.json, command })
}
