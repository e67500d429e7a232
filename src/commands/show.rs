//! `codexd show`: the conversation of a session, as Codex has it.
//!
//! It is one Markdown document: a terminal gets it laid out, through the pager if it is long, and a pipe as it is.

use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::api::session_path;
use super::call::call;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use super::patch::FileChange;
use super::programs::page;
use super::terminal::{sanitize_for_terminal, sanitize_lines_for_terminal};
use super::{format, markdown, output};
use crate::cli::ShowArguments;
use crate::codex::protocol::items;
use crate::codex::protocol::methods::{THREAD_READ, THREAD_TURNS_LIST};
use crate::codex::protocol::values::{ITEMS_FULL, TURN_COMPLETED, TURN_IN_PROGRESS};
use crate::commands::context::CommandContext;

/// How many turns are read at once.
const TURNS_PER_PAGE: u64 = 50;
/// How many lines of the output of a command are shown on a terminal.
const MAX_OUTPUT_LINES: usize = 10;

pub(crate) async fn run(context: &CommandContext, arguments: &ShowArguments) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, &arguments.session, &current_or_named_directory(None)?).await?;
    let session = context.client.get(&session_path(&session_id)).await?["session"].take();
    let turns = if session["lastTurnId"].is_null() { Vec::new() } else { turns(context, &session).await? };
    if context.json {
        output::print_json(&json!({ "session": session, "turns": turns }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_laid_out = context.stdout.is_terminal && !arguments.markdown;
    let document = document(&session, &turns, is_laid_out.then_some(MAX_OUTPUT_LINES));
    match is_laid_out {
        true => page(&context.stdout, &markdown::render(&context.stdout, &document))?,
        false if context.stdout.is_terminal => {
            output::print(&sanitize_lines_for_terminal(document.trim_end()))?;
        }
        false => output::print(document.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The turns of a session with all their items, oldest first.
async fn turns(context: &CommandContext, session: &Value) -> Result<Vec<Value>, Failure> {
    let mut params = json!({
        "threadId": session["threadId"], "itemsView": ITEMS_FULL, "sortDirection": "asc", "limit": TURNS_PER_PAGE,
    });
    let mut turns = Vec::new();
    loop {
        let page = match call(context, THREAD_TURNS_LIST, params.clone(), None).await {
            Ok(mut answer) => answer["result"].take(),
            // An old Codex has no such method, and a thread that is not stored has no such list.
            Err(error) if turns.is_empty() => {
                let params = json!({ "threadId": session["threadId"], "includeTurns": true });
                let read = call(context, THREAD_READ, params, None).await;
                let mut thread = read.map_err(|_| error)?["result"]["thread"].take();
                return Ok(thread["turns"].as_array_mut().map(std::mem::take).unwrap_or_default());
            }
            Err(error) => return Err(error),
        };
        turns.extend(page["data"].as_array().into_iter().flatten().cloned());
        if page["nextCursor"].is_null() {
            return Ok(turns);
        }
        params["cursor"] = page["nextCursor"].clone();
    }
}

/// The conversation as Markdown. With `max_output`, the output of a command has at most this many lines.
fn document(session: &Value, turns: &[Value], max_output: Option<usize>) -> String {
    // A file is opened elsewhere, where a character that reverses text would disguise the rest of the heading.
    let text = |name: &str| sanitize_for_terminal(session[name].as_str().unwrap_or("-"));
    let title = session["title"].as_str().unwrap_or("Session without a title");
    let mut document = format!(
        "# {}\n\n{} · {} · {}\n",
        sanitize_for_terminal(title),
        text("sessionId"),
        text("model"),
        text("cwd")
    );
    for turn in turns {
        let mut is_codex_named = false;
        for item in turn["items"].as_array().into_iter().flatten() {
            if items::is_user_message(item) {
                let time = turn["startedAt"].as_i64().and_then(local_time).map(|time| format!(" · {time}"));
                // The lines of a person stay lines.
                let said = items::user_text(item).trim_end().replace('\n', "  \n");
                document.push_str(&format!("\n## You{}\n\n{}\n", time.unwrap_or_default(), said));
                is_codex_named = false;
            } else if let Some(block) = item_block(item, session["cwd"].as_str(), max_output) {
                if !std::mem::replace(&mut is_codex_named, true) {
                    document.push_str("\n## Codex\n");
                }
                document.push_str(&format!("\n{}\n", block.trim_end()));
            }
        }
        let status = turn["status"].as_str().unwrap_or(TURN_COMPLETED);
        if status != TURN_COMPLETED {
            let reason =
                format::error(&turn["error"]).map(|reason| format!(": {reason}")).unwrap_or_default();
            let status = if status == TURN_IN_PROGRESS { "in progress" } else { status };
            document.push_str(&format!("\n*{status}{reason}*\n"));
        }
    }
    document
}

/// An item as Markdown; `None` for those that say nothing to a person.
fn item_block(item: &Value, cwd: Option<&str>, max_output: Option<usize>) -> Option<String> {
    let text = |name: &str| item[name].as_str().filter(|text| !text.is_empty());
    let outcome = format::item_outcome(item).map(|outcome| format!(" · {outcome}")).unwrap_or_default();
    match item["type"].as_str()? {
        items::AGENT_MESSAGE | items::PLAN => text("text").map(str::to_owned),
        items::COMMAND_EXECUTION => {
            let command = format::item_for_person(item)?;
            let output: Vec<&str> = text("aggregatedOutput").unwrap_or_default().lines().collect();
            let hidden = output.len().saturating_sub(max_output.unwrap_or(usize::MAX));
            let more = if hidden > 0 { format!("… {hidden} lines before\n") } else { String::new() };
            let shown = output.get(hidden..).unwrap_or_default().join("\n");
            let block = fenced("console", &format!("$ {command}\n{more}{shown}"));
            Some(if outcome.is_empty() {
                block
            } else {
                format!("{block}\n{}", outcome.trim_start_matches(" · "))
            })
        }
        items::FILE_CHANGE => {
            let changes = FileChange::all(&item["changes"]);
            let file = |change: &FileChange| {
                let lines: Vec<String> = change.diff().collect();
                format!("- {}{outcome}\n\n{}", change.summary(cwd), fenced("diff", &lines.join("\n")))
            };
            Some(changes.iter().map(file).collect::<Vec<_>>().join("\n"))
        }
        items::REASONING => {
            let parts = item["summary"].as_array()?.iter().filter_map(Value::as_str);
            let summary = parts.collect::<Vec<_>>().join("\n\n");
            let lines: Vec<String> = summary.lines().map(|line| format!("> {line}")).collect();
            Some(lines.join("\n")).filter(|text| !text.is_empty())
        }
        _ => format::item(item).map(|line| format!("- {line}{outcome}")),
    }
}

/// A code block whose fence is longer than any in the text.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

/// A time in seconds, as the clock on the wall shows it.
fn local_time(seconds: i64) -> Option<String> {
    let time = Timestamp::from_second(seconds).ok()?.to_zoned(TimeZone::system());
    Some(time.strftime("%Y-%m-%d %H:%M").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_has_everything_that_was_said_and_done() {
        let session = json!({ "sessionId": "session-1", "title": "Fix\u{202e} it", "model": "m", "cwd": "/p", "lastTurnId": "t" });
        let turns = [json!({ "startedAt": null, "status": "failed", "error": { "message": "no" }, "items": [
            { "type": "userMessage", "content": [{ "type": "text", "text": "Fix it" }] },
            { "type": "reasoning", "summary": ["**Thinking**"] },
            { "type": "commandExecution", "command": "bash -lc 'ls ```'", "aggregatedOutput": "a\nb\nc\n", "exitCode": 2 },
            { "type": "fileChange", "status": "completed",
              "changes": [{ "path": "/p/a.txt", "kind": { "type": "add" }, "diff": "x\n" }] },
            { "type": "agentMessage", "text": "Done." },
        ] })];
        let expected = "# Fix\u{fffd} it\n\nsession-1 · m · /p\n\n## You\n\nFix it\n\n## Codex\n\n> **Thinking**\n\n\
                        ````console\n$ ls ```\n… 1 lines before\nb\nc\n````\n\nexit code 2\n\n- add a.txt +1\n\n\
                        ```diff\n+x\n```\n\nDone.\n\n*failed: no*\n";
        assert_eq!(document(&session, &turns, Some(2)), expected);
    }
}
