//! `codexd login`: logs Codex in with a device code; `codexd logout`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::call::call;
use super::failure::Failure;
use crate::client::{EventFilter, EventStream, StreamItem, newest_cursor};
use crate::codex::protocol::calls;
use crate::commands::context::CommandContext;

/// Starts a login, shows the code, and waits until it was entered, refused, or has expired.
pub(crate) async fn run(context: &CommandContext) -> Result<ExitCode, Failure> {
    // Before the login starts, so that its end is not missed.
    let filter = EventFilter { session_id: None, types: vec!["app-server.notification".to_owned()] };
    let cursor = newest_cursor(&context.client).await?;
    let mut events = EventStream::new(&context.client, filter, cursor, None).open().await?;
    let started = call(context, calls::LOGIN_START, calls::device_code_login(), None).await?;
    let login = &started["result"];
    let text = |name: &str| login[name].as_str().unwrap_or_default();
    let (login_id, url, code) = (text("loginId"), text("verificationUrl"), text("userCode"));
    context.print_note(&context.stderr.line(&format!("Open {url} and enter the code {code}")));
    loop {
        tokio::select! {
            item = events.next() => {
                let StreamItem::Event(event) = item? else { continue };
                let event: Value = serde_json::from_str(&event).unwrap_or_default();
                let params = &event["detail"]["params"];
                if event["detail"]["notificationMethod"] != calls::LOGIN_COMPLETED || params["loginId"] != login_id {
                    continue;
                }
                if params["success"] == true {
                    context.print(params, &context.stdout.line("Codex is logged in."))?;
                    return Ok(ExitCode::SUCCESS);
                }
                let reason = params["error"].as_str().unwrap_or("the reason is not known");
                return Err(Failure::new(format!("The login failed: {reason}.")));
            }
            _ = tokio::signal::ctrl_c() => {
                call(context, calls::LOGIN_CANCEL, json!({ "loginId": login_id }), None).await?;
                return Err(Failure::new("The login was cancelled."));
            }
        }
    }
}

/// Logs out.
pub(crate) async fn log_out(context: &CommandContext) -> Result<ExitCode, Failure> {
    let answer = call(context, calls::LOGOUT, json!({}), None).await?;
    context.print(&answer, &context.stdout.line("Codex is logged out."))?;
    Ok(ExitCode::SUCCESS)
}
