//! One attempt to deliver something to the target of a hook.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::hook::{Hook, Target};
use super::url::HookUrl;
use super::webhook::Post;
use crate::codex::{OneProgram, ProgramRunner};

/// Finds the executable that a command names, or says in a clause why it cannot be run; may block.
pub(super) type FindCommand = Arc<dyn Fn(&str) -> Result<PathBuf, String> + Send + Sync>;

/// What deliveries need.
#[derive(Clone)]
pub struct Deliveries {
    /// Runs programs.
    pub runner: ProgramRunner,
    /// Finds programs.
    pub find: FindCommand,
    /// The directory that programs start in.
    pub directory: PathBuf,
    /// Environment variables of the daemon that programs do not get.
    pub removed_environment: Vec<String>,
    /// The mark of the programs of this daemon's state directory.
    pub owner: String,
}

impl Deliveries {
    /// Delivers; the error is a clause without secrets.
    pub(super) async fn deliver(
        &self,
        hook: &Hook,
        id: &str,
        payload: Bytes,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let limit = Duration::from_secs(hook.timeout_seconds);
        let delivered = match &hook.target {
            Target::Command(command) => self.run(command, payload, limit, cancelled).await,
            Target::Url { url, secret } => {
                let url = HookUrl::parse(url)?;
                let post = Post { url: &url, secret: secret.as_deref(), id, payload };
                tokio::select! {
                    posted = post.send() => posted,
                    () = tokio::time::sleep(limit) => Err(format!("it did not answer within {} s", limit.as_secs())),
                    () = cancelled.cancelled() => Err("codexd stopped".to_owned()),
                }
            }
        };
        delivered.map_err(|error| hook.without_secrets(&error))
    }

    async fn run(
        &self,
        command: &[String],
        payload: Bytes,
        limit: Duration,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let Some((name, arguments)) = command.split_first() else {
            return Err("it has no program".to_owned());
        };
        let (find, name) = (Arc::clone(&self.find), name.clone());
        let program = OneProgram {
            find: Box::new(move || find(&name)),
            arguments: arguments.to_vec(),
            directory: self.directory.clone(),
            removed_environment: self.removed_environment.clone(),
            owner: self.owner.clone(),
            limit,
        };
        self.runner.run(program, payload, cancelled).await
    }
}
