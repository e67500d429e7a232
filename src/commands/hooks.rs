//! `codexd hooks`: lists, adds, tests and removes hooks.

use std::io::{Read, stdin};
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::api::{HOOKS_PATH, hook_path, list as list_in};
use super::context::CommandContext;
use super::failure::Failure;
use super::format::age;
use super::names::{current_or_named_directory, find_session};
use super::terminal::{Column, Overflow, sanitize_for_terminal, table};
use crate::cli::{HookAction, HooksArguments};
use crate::config::{ConfigError, find_program, variable};
use crate::http::prove_command;
use crate::storage::read_secret;

/// The longest file with a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 1024;

const COLUMNS: [Column; 6] = [
    Column { title: "NAME", overflow: Overflow::Keep },
    Column { title: "STATE", overflow: Overflow::Keep },
    Column { title: "TARGET", overflow: Overflow::TruncateEnd },
    Column { title: "EVENTS", overflow: Overflow::TruncateEnd },
    Column { title: "DELIVERED", overflow: Overflow::Keep },
    Column { title: "ERROR", overflow: Overflow::TruncateEnd },
];

pub(crate) async fn run(context: &CommandContext, arguments: &HooksArguments) -> Result<ExitCode, Failure> {
    match arguments.action {
        HookAction::List => list(context).await,
        HookAction::Add => add(context, arguments).await,
        HookAction::Test => test(context, arguments).await,
        HookAction::Remove => {
            let hook = find(context, arguments).await?;
            let answer = context.client.delete(&hook_path(text(&hook["hookId"]))).await?;
            let removed = format!("Removed hook {}.", text(&hook["name"]));
            context.print(&answer, &context.stdout.line(&removed))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(context: &CommandContext) -> Result<ExitCode, Failure> {
    let answer = context.client.get(HOOKS_PATH).await?;
    let now = Timestamp::now();
    let rows: Vec<_> = list_in(&answer, "hooks").iter().map(|hook| row(hook, now)).collect();
    let text = match rows.is_empty() {
        true => "No hooks.".to_owned(),
        false => table(&context.stdout, &COLUMNS, &rows),
    };
    context.print(&answer, &text)?;
    Ok(ExitCode::SUCCESS)
}

async fn add(context: &CommandContext, arguments: &HooksArguments) -> Result<ExitCode, Failure> {
    let name = match (&arguments.hook, arguments.command.first(), &arguments.url) {
        (Some(name), _, _) => name.clone(),
        (None, Some(program), _) => name_of(program.rsplit('/').next().unwrap_or_default()),
        (None, None, Some(url)) => name_of(url.split('/').nth(2).unwrap_or_default()),
        (None, None, None) => return Err(Failure::usage("Give --command or --url.")),
    };
    let mut body = Map::new();
    body.insert("name".to_owned(), name.as_str().into());
    body.insert("on".to_owned(), json!(arguments.on));
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(field.to_owned(), value);
        }
    };
    if let Some(session) = &arguments.session {
        let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
        set("sessionId", Some(session_id.into()));
    }
    set("url", arguments.url.as_ref().map(|url| json!(url)));
    set("secret", arguments.secret_file.as_deref().map(secret).transpose()?.map(Value::from));
    set("timeoutSeconds", arguments.timeout.map(Value::from));
    set("detail", arguments.detail.then_some(Value::Bool(true)));
    if !arguments.command.is_empty() {
        let state_dir = arguments.paths.clone().resolve(&arguments.client.sources)?.state_dir;
        let command = from_here(&arguments.command)?;
        set("proof", prove_command(&state_dir, &name, &command).map(Value::from));
        set("command", Some(json!(command)));
    }
    let answer = context.client.post(HOOKS_PATH, &body.into()).await?;
    let test = context.command_line(&format!("hooks test {name}"));
    let added = format!("Added hook {name}; it gets the events from now on. Try it: {test}");
    context.print(&answer, &context.stdout.line(&added))?;
    Ok(ExitCode::SUCCESS)
}

async fn test(context: &CommandContext, arguments: &HooksArguments) -> Result<ExitCode, Failure> {
    let hook = find(context, arguments).await?;
    let path = format!("{}/test", hook_path(text(&hook["hookId"])));
    let answer = context
        .client
        .post_for(hook["timeoutSeconds"].as_u64().unwrap_or_default(), &path, &json!({}))
        .await?;
    let (name, took) = (text(&hook["name"]), answer["durationMs"].as_u64().unwrap_or_default());
    match answer["error"].as_str() {
        None => {
            let line = format!("Hook {name} took the test in {took} ms.");
            context.print(&answer, &context.stdout.line(&line))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(error) => {
            if context.json {
                context.print(&answer, "")?;
            }
            Err(Failure::new(format!("Hook {name} failed after {took} ms: {error}.")))
        }
    }
}

/// The hook that the command line names, by its name or its ID.
async fn find(context: &CommandContext, arguments: &HooksArguments) -> Result<Value, Failure> {
    let Some(wanted) = &arguments.hook else { return Err(Failure::usage("Give the name of a hook.")) };
    let answer = context.client.get(HOOKS_PATH).await?;
    let is_it = |hook: &&Value| hook["name"] == **wanted || hook["hookId"] == **wanted;
    let found = list_in(&answer, "hooks").iter().find(is_it).cloned();
    let list = context.command_line("hooks list");
    found.ok_or_else(|| Failure::new(format!("There is no hook \"{wanted}\"; \"{list}\" lists them.")))
}

/// Refuses a program that does not exist or cannot be executed; the daemon would find that out at the first event only.
///
/// A name without a slash is searched for in the `PATH` of this shell. The one of the daemon may be another: `hooks test`
/// shows that.
fn check_program(program: &str) -> Result<(), Failure> {
    let here = current_or_named_directory(None)?;
    let problem = match find_program(program, variable("PATH").as_deref(), &here) {
        Ok(_) => return Ok(()),
        Err(ConfigError::ProgramNotExecutable { path }) => {
            format!("{} is not an executable file; type: chmod +x {}", path.display(), path.display())
        }
        Err(_) if program.contains('/') => format!("{program} does not exist; name a program that does."),
        Err(_) => format!("{program} is not in PATH; name a program that is, or give the path of one."),
    };
    Err(Failure::usage(format!("The hook was not added: {problem}")))
}

/// The command with an absolute program where the command line has a relative path; the daemon has another directory.
fn from_here(command: &[String]) -> Result<Vec<String>, Failure> {
    let mut command = command.to_vec();
    if let Some(program) = command.first() {
        check_program(program)?;
    }
    if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
        let path = std::path::absolute(&*program).map_err(|error| Failure::usage(error.to_string()))?;
        let text = path.into_os_string().into_string();
        *program = text.map_err(|path| Failure::usage(format!("{} is not UTF-8.", path.display())))?;
    }
    Ok(command)
}

/// A name from that of a program or a host.
fn name_of(text: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    text.chars().map(plain).take(64).collect()
}

/// Reads the secret; "-" is stdin.
fn secret(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("The secret cannot be read: {error}."));
    let mut text = String::new();
    if path == Path::new("-") {
        stdin().take(MAX_SECRET_BYTES).read_to_string(&mut text).map_err(failed)?;
    } else {
        let (bytes, _) = read_secret(path, MAX_SECRET_BYTES).map_err(failed)?;
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    Ok(text.trim().to_owned())
}

fn row(hook: &Value, now: Timestamp) -> Vec<String> {
    let on: Vec<_> = list_in(hook, "on").iter().map(text).collect();
    let state = if hook["failing"] == true { "failing" } else { text(&hook["state"]) };
    let delivered = match hook["deliveredAt"].is_string() {
        true => age(&hook["deliveredAt"], now),
        false => "-".to_owned(),
    };
    vec![
        text(&hook["name"]).to_owned(),
        state.to_owned(),
        sanitize_for_terminal(hook["program"].as_str().unwrap_or_else(|| text(&hook["origin"]))).to_string(),
        on.join(", "),
        delivered,
        hook["error"].as_str().unwrap_or("-").to_owned(),
    ]
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
