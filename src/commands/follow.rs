//! `codexd follow`: prints events as they occur, across daemon restarts; on a terminal, the conversation that they are.

use std::io::{ErrorKind, stdout};
use std::process::ExitCode;

use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;
use tokio::sync::oneshot;

use super::api::list;
use super::conversation::Conversation;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use super::output;
use super::terminal::{BAD, FAINT, WAITING, sanitize_for_terminal, truncate_end};
use crate::cli::FollowArguments;
use crate::client::{EventFilter, EventStream, StreamItem, newest_cursor};
use crate::codex::protocol::values::TURN_COMPLETED;
use crate::commands::context::CommandContext;
use crate::commands::format;

pub(crate) async fn run(context: &CommandContext, arguments: FollowArguments) -> Result<ExitCode, Failure> {
    let FollowArguments { session, events: prints_events, types, after, .. } = arguments;
    let is_conversation = context.stdout.is_terminal && !context.json && !prints_events && types.is_empty();
    let session_id = match session {
        Some(session) => Some(find_session(context, &session, &current_or_named_directory(None)?).await?),
        None => None,
    };
    let cursor = match after {
        Some(cursor) => cursor,
        None => newest_cursor(&context.client).await?,
    };
    let filter = EventFilter { session_id, types };
    let mut events = EventStream::new(&context.client, filter, cursor, None).open().await?;
    let mut conversation = match is_conversation {
        true => {
            let answer = context.client.get("/v1/codexd/sessions").await?;
            Some(Conversation::new(context.stdout, TimeZone::system(), list(&answer, "sessions")))
        }
        false => None,
    };
    let mut reader_exit = reader_exit()?;
    loop {
        let item = tokio::select! {
            item = events.next() => item?,
            Ok(()) = &mut reader_exit => return Ok(ExitCode::SUCCESS),
        };
        match item {
            StreamItem::Event(text) => {
                let lines = match &mut conversation {
                    Some(view) => view.lines(&serde_json::from_str(&text).unwrap_or_default()),
                    None if context.json => plain(context, &text) + "\n",
                    None => line(context, &text) + "\n",
                };
                match output::write_stdout(&lines) {
                    // The reader of stdout has exited.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                    written => written
                        .map_err(|error| Failure::new(format!("Failed to write the events: {error}.")))?,
                }
            }
            StreamItem::Gap(reason) => context.print_note(&format!("Events are missing here: {reason}.")),
            StreamItem::Disconnected => context.print_note("Connection lost; waiting for codexd."),
            StreamItem::Reconnected => {
                context.print_note("Reconnected to codexd; continuing where the connection ended.")
            }
        }
    }
}

fn plain(context: &CommandContext, text: &str) -> String {
    if context.stdout.is_terminal { sanitize_for_terminal(text) } else { text.to_owned() }
}

/// Formats an event as time, type and message. Colors do not count towards the width.
fn line(context: &CommandContext, text: &str) -> String {
    let event: Value = serde_json::from_str(text).unwrap_or_default();
    let part = |name: &str| sanitize_for_terminal(event[name].as_str().unwrap_or("-"));
    let (time, name) = (part("createdAt"), part("type"));
    let rest = sanitize_for_terminal(&format::event(&event));
    let screen = &context.stdout;
    let Some(width) = screen.width else { return format!("{time} {name} {rest}") };
    let head = truncate_end(&format!("{time} {name} "), width);
    let rest = truncate_end(&rest, width.saturating_sub(super::terminal::display_width(&head)));
    let status = event["detail"]["status"].as_str();
    let rest = match (event["level"].as_str(), event["type"].as_str()) {
        (_, Some("app-server.turn.completed")) if status != Some(TURN_COMPLETED) => screen.paint(BAD, &rest),
        (_, Some("request.opened")) => screen.paint(WAITING, &rest),
        (Some("warn" | "error"), _) => screen.paint(BAD, &rest),
        _ => rest,
    };
    format!("{}{rest}", screen.paint(FAINT, &head))
}

/// Resolves when stdout has no reader any more, also while there is nothing to write.
fn reader_exit() -> Result<oneshot::Receiver<()>, Failure> {
    let (sender, receiver) = oneshot::channel();
    let watch = move || {
        let stdout = stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        // If the system cannot report it for this kind of output, the next write fails instead.
        let woken = poll(&mut watched, None);
        let ended = woken.is_ok() && watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        if ended {
            let _ = sender.send(());
        }
    };
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(watch)
        .map_err(|error| Failure::new(format!("Failed to start a thread: {error}.")))?;
    Ok(receiver)
}
