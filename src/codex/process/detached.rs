//! Starts the app-server that all programs of the user share, so that nothing of codexd ends it.
//!
//! It leads a session of its own, so no signal to the group of codexd and no closing terminal reaches it; it writes to a
//! file, which outlives codexd as a pipe does not; it has no mark that a sweep follows; and where codexd is a service of
//! systemd it gets a scope of its own, because systemd ends what is left in the unit of a service.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use rustix::process::setsid;
use tokio::process::{Child, Command};

use super::child::FindProgram;
use super::filter::INSTANCE_VARIABLE;
use super::info::PROGRAM_VARIABLE;
use super::reaper::ChildRegistry;
use super::stderr_tail::StderrTail;
use super::systemd::{self, SystemdManager};

/// The subcommand of codexd that runs [`run`].
pub(crate) const DETACH_COMMAND: &str = "detach";
/// What the output of an app-server begins with.
const BEGINNING: &str = "codexd starts ";
/// The program that asks systemd for a scope and becomes another program in it.
const SYSTEMD_RUN: &str = "systemd-run";
/// How much of the output of a start is read, in bytes.
const MAX_OUTPUT_BYTES: usize = 16 * 1024;

/// Opens the file for the output of the app-server, for appending and reading; may block.
pub type OpenOutput = Arc<dyn Fn() -> io::Result<File> + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct DetachedProgram {
    /// Finds the executable.
    pub find: FindProgram,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// The directory it starts in.
    pub directory: PathBuf,
    /// Environment variables on top of the daemon's.
    pub environment: Vec<(String, String)>,
    /// Environment variables of the daemon that it does not get.
    pub removed_environment: Vec<String>,
    /// The executable of codexd, which makes the session; without it nothing can be started.
    pub launcher: Option<PathBuf>,
    /// Opens the file for its output.
    pub output: OpenOutput,
}

/// An app-server that was just started.
#[derive(Debug)]
pub(crate) struct Detached {
    pub(crate) child: Child,
    output: File,
    /// Where its output begins in the file.
    output_start: u64,
    /// Whether systemd was asked for a scope.
    has_scope: bool,
}

/// Why an app-server has exited, as far as its output tells.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The last lines.
    pub(crate) tail: Vec<String>,
    /// Whether systemd gave it no scope, so that it was not started.
    pub(crate) is_without_scope: bool,
}

/// Starts the program; the error is a sentence for the user.
pub(crate) async fn start(program: &DetachedProgram, children: &ChildRegistry) -> Result<Detached, String> {
    let program = program.clone();
    let started = children.run(move |children| start_blocking(&program, children)).await;
    started.unwrap_or_else(|unanswered| {
        Err(format!("The app-server could not be started: the system {unanswered}."))
    })
}

fn start_blocking(program: &DetachedProgram, children: &ChildRegistry) -> Result<Detached, String> {
    let path = (program.find)()?;
    let failed = |error: io::Error| format!("{} could not be started: {error}.", path.display());
    let Some(launcher) = &program.launcher else {
        return Err("The app-server could not be started: the path of codexd itself is not known.".to_owned());
    };
    let output = (program.output)()
        .map_err(|error| format!("The log of the app-server cannot be opened: {error}."))?;
    let output_start = output.metadata().map_err(failed)?.len();
    let manager = systemd::manager_of_service();
    let mut command = match manager {
        None => Command::new(launcher),
        Some(manager) => {
            let mut command = Command::new(SYSTEMD_RUN);
            command.args((manager == SystemdManager::User).then_some("--user"));
            command.args(["--scope", "--quiet", "--collect", "--description=Codex app-server", "--"]);
            command.arg(launcher);
            command
        }
    };
    for name in &program.removed_environment {
        command.env_remove(name);
    }
    command
        .arg(DETACH_COMMAND)
        .arg("--")
        .arg(&path)
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .env_remove(INSTANCE_VARIABLE)
        .env_remove(PROGRAM_VARIABLE)
        .current_dir(&program.directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output.try_clone().map_err(failed)?);
    let child = children.start(&mut command).map_err(|error| match manager {
        None => failed(error),
        Some(_) => without_scope(&format!("{SYSTEMD_RUN} could not be started: {error}")),
    })?;
    Ok(Detached { child, output, output_start, has_scope: manager.is_some() })
}

/// That systemd gave the app-server no scope, and what to do.
pub(crate) fn without_scope(reason: &str) -> String {
    let reason = reason.trim_end_matches('.');
    format!(
        "The app-server was not started, because systemd gives it no scope of its own ({reason}), and in the service of \
         codexd it would end with codexd. Let codexd be a service of the user (codexd service install), or start the \
         app-server in a terminal: codex app-server --listen unix://"
    )
}

impl Detached {
    /// What it wrote; blocks.
    pub(crate) fn output(&self) -> Output {
        let length = self.output.metadata().map_or(0, |metadata| metadata.len());
        let start = self.output_start.max(length.saturating_sub(MAX_OUTPUT_BYTES as u64));
        let mut text = vec![0; MAX_OUTPUT_BYTES];
        let read = self.output.read_at(&mut text, start).unwrap_or(0);
        let (mut tail, mut has_begun) = (StderrTail::default(), start > self.output_start);
        for line in text.get(..read).unwrap_or_default().split_inclusive(|&byte| byte == b'\n') {
            match line.starts_with(BEGINNING.as_bytes()) {
                true => has_begun = true,
                false => tail.take(line),
            }
        }
        Output { tail: tail.lines(), is_without_scope: self.has_scope && !has_begun }
    }
}

/// Becomes the leader of a new session, and then the program; returns why that failed.
#[expect(clippy::disallowed_methods, reason = "it is a separate process, which becomes the program")]
pub fn run(program: &OsStr, arguments: &[OsString]) -> io::Error {
    // It fails only where this process leads a process group, as in a terminal, and then it has left codexd already.
    let _ = setsid();
    // Without it the log does not tell the output of one app-server from that of the next, or from that of systemd-run.
    let _ = writeln!(io::stderr(), "{BEGINNING}{}", program.display());
    std::process::Command::new(program).args(arguments).exec()
}
