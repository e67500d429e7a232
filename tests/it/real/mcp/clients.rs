//! The clients of other people: the Python and TypeScript SDKs of the protocol, and its inspector's command line.
//!
//! They are packages of PyPI and npm, in the directory that `CODEXD_TEST_MCP_CLIENTS` names: `.ci/mcp-clients` installs
//! them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::Stage;
use crate::support::daemon::clean_command;
use crate::support::http::Target;
use crate::support::skip::skip;

const VARIABLE: &str = "CODEXD_TEST_MCP_CLIENTS";

/// The directory with the packages; `None` after saying that the test is skipped.
#[track_caller]
fn packages(what: &str) -> Option<PathBuf> {
    let directory = std::env::var_os(VARIABLE).map(PathBuf::from);
    if directory.is_none() {
        skip(VARIABLE, what, &format!("{VARIABLE} is not set; .ci/run sets it"));
    }
    directory
}

/// Runs a client for the daemon, over both transports; returns what each printed.
async fn run(stage: &Stage, program: &Path, arguments: &[&str], packages: &Path) -> [String; 2] {
    let base = stage.daemon.base_url();
    let (codexd, url) = (env!("CARGO_BIN_EXE_codexd"), format!("{base}/mcp"));
    let stdio = ["stdio", codexd, "mcp", "--local-api-base", base];
    let http = ["http", url.as_str()];
    let mut printed = Vec::new();
    for transport in [&stdio[..], &http[..]] {
        let mut command = clean_command(program, &stage.home.user_home());
        command.args(arguments).args(transport).env("CODEXD_MCP_PACKAGES", packages);
        command.current_dir(stage.home.workspace());
        printed.push(output(command).await);
    }
    printed.try_into().unwrap()
}

async fn output(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

fn script(name: &str) -> String {
    format!("{}/tests/mcp/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn python_sdk_drives_codex() {
    let Some(packages) = packages("the Python SDK") else { return };
    let stage = Stage::start().await;
    let python = packages.join("venv/bin/python3");
    assert_eq!(run(&stage, &python, &[&script("client.py")], &packages).await, ["ok\n", "ok\n"]);
}

#[tokio::test]
async fn typescript_sdk_drives_codex() {
    let Some(packages) = packages("the TypeScript SDK") else { return };
    let stage = Stage::start().await;
    assert_eq!(run(&stage, Path::new("node"), &[&script("client.mjs")], &packages).await, ["ok\n", "ok\n"]);
}

#[tokio::test]
async fn inspector_lists_and_calls_tools() {
    let Some(packages) = packages("the inspector") else { return };
    let stage = Stage::start().await;
    let session = stage.session(&json!({})).await;
    let url = format!("{}/mcp", stage.daemon.base_url());
    for (arguments, key) in [
        (vec!["--method", "tools/list"], "tools"),
        (
            vec![
                "--method",
                "tools/call",
                "--tool-name",
                "codex-reply",
                "--tool-arg",
                "prompt=mock:text=[inspected]",
                "--tool-arg",
                &format!("threadId={}", session["threadId"].as_str().unwrap()),
            ],
            "structuredContent",
        ),
    ] {
        let mut command =
            clean_command(&packages.join("node_modules/.bin/mcp-inspector"), &stage.home.user_home());
        command.args(["--cli", &url, "--transport", "http"]).args(arguments);
        let answer: Value = serde_json::from_str(&output(command).await).unwrap();
        match key {
            "tools" => assert_eq!(answer[key].as_array().unwrap().len(), 7, "{answer}"),
            _ => assert_eq!(answer[key]["content"], "inspected", "{answer}"),
        }
    }
}
