//! `codexd models`: lists the models that Codex offers.

use std::process::ExitCode;

use serde_json::Value;

use super::api::list;
use super::failure::Failure;
use super::terminal::{Column, Overflow, table};
use crate::commands::context::CommandContext;

const COLUMNS: [Column; 4] = [
    Column { title: "MODEL", overflow: Overflow::Keep },
    Column { title: "NAME", overflow: Overflow::TruncateEnd },
    Column { title: "EFFORTS", overflow: Overflow::TruncateEnd },
    Column { title: "DESCRIPTION", overflow: Overflow::TruncateEnd },
];

pub(crate) async fn run(context: &CommandContext) -> Result<ExitCode, Failure> {
    let answer = context.client.get("/v1/codexd/models").await?;
    let rows: Vec<_> = list(&answer, "models").iter().map(row).collect();
    let text =
        if rows.is_empty() { "No models.".to_owned() } else { table(&context.stdout, &COLUMNS, &rows) };
    context.print(&answer, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn row(model: &Value) -> Vec<String> {
    let text = |name: &str| model[name].as_str().unwrap_or("-").to_owned();
    let default = &model["defaultReasoningEffort"];
    let efforts = model["supportedReasoningEfforts"].as_array().into_iter().flatten();
    let efforts = efforts.filter_map(|effort| effort["reasoningEffort"].as_str());
    let efforts: Vec<String> = efforts
        .map(|effort| if default == effort { format!("{effort}*") } else { effort.to_owned() })
        .collect();
    let name = if model["isDefault"] == true {
        format!("{} (default)", text("displayName"))
    } else {
        text("displayName")
    };
    vec![text("model"), name, efforts.join(" "), text("description")]
}
