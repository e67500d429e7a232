//! Asks a program for its version: a process of a moment, which gets no input and has a time limit.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::info::pid_of;
use super::reaper::ChildRegistry;
use crate::codex::protocol::versions;

/// How long the program may take; Codex takes 10 to 200 ms (measured on 0.140.0 to 0.171.0).
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of its output is read, in bytes.
const MAX_OUTPUT_BYTES: u64 = 1024;

/// The program to ask.
#[derive(Debug, Clone)]
pub struct VersionQuery {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// Environment variables of the daemon that it does not get.
    pub removed_environment: Vec<String>,
}

/// Asks programs for their version; it has the registry of children of a supervisor.
#[derive(Debug, Clone)]
pub struct VersionReader(pub(crate) ChildRegistry);

impl VersionReader {
    /// The version that Codex prints; `None` when it cannot be started or does not exit in time, and for another program.
    pub async fn read(&self, query: VersionQuery) -> Option<String> {
        let output = output(query, &self.0).await?;
        versions::in_output(&output).map(str::to_owned)
    }
}

/// What the program prints on stdout; `None` when it cannot be started, fails, or does not exit in time.
async fn output(query: VersionQuery, children: &ChildRegistry) -> Option<String> {
    let start = move |children: &ChildRegistry| {
        let mut command = Command::new(&query.program);
        for name in &query.removed_environment {
            command.env_remove(name);
        }
        command
            .args(&query.arguments)
            .current_dir(&query.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A script of npm starts the program that prints the version, and both have to end.
            .process_group(0)
            .kill_on_drop(true);
        children.start(&mut command)
    };
    let mut child = children.run(start).await.ok()?.ok()?;
    let group = child.id().and_then(pid_of);
    let stdout = child.stdout.take();
    let answer = async {
        let mut text = String::new();
        stdout?.take(MAX_OUTPUT_BYTES).read_to_string(&mut text).await.ok()?;
        child.wait().await.ok()?.success().then_some(text)
    };
    let answer = tokio::time::timeout(VERSION_TIMEOUT, answer).await.ok().flatten();
    // While its exit status is not collected, its PID is that of its group.
    if let (Some(group), Some(_)) = (group, child.id()) {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = tokio::time::timeout(VERSION_TIMEOUT, child.wait()).await;
    }
    if let Some(group) = group {
        children.release(group);
    }
    answer
}
