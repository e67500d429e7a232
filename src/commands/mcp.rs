//! `codexd mcp`: the tools of Codex for a client of the Model Context Protocol, on stdin and stdout.

use std::process::ExitCode;

use super::failure::Failure;
use super::names::current_or_named_directory;
use crate::commands::context::CommandContext;
use crate::mcp;

pub(crate) async fn run(context: &CommandContext) -> Result<ExitCode, Failure> {
    let directory = current_or_named_directory(None)?;
    mcp::serve_stdio(context.client.clone(), directory).await.map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
