//! Directories of tests: neither Codex nor git finds a repository around them.

use std::fs;
use std::process::Command;

use super::app_server::AppServer;
use crate::support::codex::CodexHome;
use crate::support::model::MockModel;
use crate::support::scratch;

#[tokio::test]
async fn codex_treats_workspace_as_separate_project() {
    let model = MockModel::start();
    let home = CodexHome::new(&model);
    let mut app_server = AppServer::start(&home).await;
    let settings = serde_json::json!({ "cwd": home.workspace(), "sandbox": "workspace-write" });
    let thread = app_server.call("thread/start", settings).await;
    assert_eq!(thread["thread"]["gitInfo"], serde_json::Value::Null);
    app_server.stop().await;
    // Codex trusts the project of a thread that may write; the project is the repository, if there is one.
    let config = fs::read_to_string(home.path().join("config.toml")).unwrap();
    let project = format!("[projects.\"{}\"]", home.workspace().display());
    assert!(config.contains(&project), "{config}");
}

#[test]
fn git_finds_no_repository_above_scratch_directory() {
    let directory = scratch::directory("test");
    let output =
        Command::new("git").args(["rev-parse", "--show-toplevel"]).current_dir(directory.path()).output();
    // Without git there is nothing to check.
    if let Ok(output) = output {
        assert!(!output.status.success(), "{output:?}");
    }
}
