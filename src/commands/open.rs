//! `codexd open`: the page in the browser; and `codexd resume`: a session in Codex's own terminal.

use std::process::ExitCode;

use serde_json::json;

use super::api::session_path;
use super::failure::Failure;
use super::names::{current_or_named_directory, find_session};
use super::programs::{become_program, open_in_browser};
use crate::client::percent_encode;
use crate::commands::context::CommandContext;
use crate::config::ChildStrategy;

/// Opens the page, at a session if one is named.
///
/// The token is passed in no way, because others can read the arguments of a browser; the page asks for it once.
pub(crate) async fn page(context: &CommandContext, session: Option<&str>) -> Result<ExitCode, Failure> {
    let mut address = context.client.address();
    if let Some(session) = session {
        let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
        context.client.get(&session_path(&session_id)).await?;
        address = format!("{}/#{}", address.trim_end_matches('/'), percent_encode(&session_id));
    } else {
        // Nothing is opened that does not respond.
        context.client.status().await?;
    }
    let is_opened = open_in_browser(&address);
    let mut text =
        if is_opened { format!("Opened {address}") } else { format!("Open {address} in a browser.") };
    let token_file = context.client.token_file();
    if let Some(path) = token_file {
        text.push_str(&format!("\nThe page asks once for the token, which is in {}", path.display()));
    }
    let document = json!({ "url": address, "opened": is_opened, "tokenFile": token_file });
    context.print(&document, &super::terminal::sanitize_lines_for_terminal(&text))?;
    Ok(ExitCode::SUCCESS)
}

/// Becomes `codex resume` with the thread of a session.
pub(crate) async fn resume(context: &CommandContext, session: &str) -> Result<ExitCode, Failure> {
    let session_id = find_session(context, session, &current_or_named_directory(None)?).await?;
    let session = context.client.get(&session_path(&session_id)).await?["session"].take();
    let status = context.client.status().await?;
    if status["service"]["codex"]["demo"] == true {
        return Err(Failure::new(
            "This is the demo: Codex does not have its sessions. Continue here with \"codexd ask --session\".",
        ));
    }
    let server = &status["snapshot"]["config"]["server"];
    if server["childStrategy"] != ChildStrategy::Shared.as_str() {
        return Err(Failure::new(
            "Codex lets one process write a thread, and the app-server of this codexd has it. Start codexd with \
             --server-strategy shared, so that it and the terminal use one app-server; or continue here with \
             \"codexd ask --session\".",
        ));
    }
    let Some(thread_id) = session["threadId"].as_str().filter(|_| session["lastTurnId"].is_string()) else {
        return Err(Failure::new(format!(
            "Session {session_id} has no turn yet, so Codex has nothing to resume."
        )));
    };
    let program = server["childCommand"].as_str().unwrap_or_default();
    let mut arguments = vec!["resume", thread_id];
    if let Some(cwd) = session["cwd"].as_str() {
        arguments.extend(["-C", cwd]);
    }
    Err(become_program(program, &arguments))
}
