//! Looks at the file of the server command, and records an event when it is another Codex than the one that runs.
//!
//! Only a file that has changed since the app-server was started is asked for its version, once: a look is a few `stat`
//! calls. Nothing follows from the result but the event and a note; a user restarts the app-server.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::files::program_file;
use super::watch::CodexMonitor;
use crate::blocking::Pool;
use crate::codex::protocol::versions::VERSION_FLAG;
use crate::codex::{Availability, Supervisor, VersionQuery, VersionReader};
use crate::config::{ChildStrategy, MODE};
use crate::daemon::app_server::plan::removed_environment;
use crate::state::ChildEvent;

/// How often a file is asked for its version: it may be in the middle of being replaced.
const MAX_TRIES: u32 = 3;
/// How long the file system may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(1);
static PROGRAMS: Pool = Pool::new("codex-program", 1, 4);

impl CodexMonitor {
    /// `None` when the daemon stops.
    fn version_reader(&self) -> Option<VersionReader> {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        supervisor.as_ref().map(Supervisor::version_reader)
    }

    /// Looks at the file of the server command, and records an event when it is another Codex than the one that runs.
    pub(in crate::daemon) async fn check_installed(&self) {
        let (codex, server) = (&self.core.codex, &self.core.config.server);
        let Some(place) = server.args.iter().position(|argument| argument == MODE) else { return };
        if server.strategy == ChildStrategy::External || server.demo {
            return;
        }
        let _checking = codex.installed.checking.lock().await;
        let is_connected = matches!(&*self.core.availability.borrow(), Availability::Ready(_));
        if !is_connected {
            return;
        }
        let running = codex.facts.now().version().map(str::to_owned);
        let config = Arc::clone(&self.core.config);
        let find = move || {
            let server = &config.server;
            let found = server.find_program();
            found.ok().map(|path| program_file(&path))
        };
        // A file that cannot be found is not another one.
        let Ok(Some(file)) = PROGRAMS.run(FILE_TIMEOUT, find).await else { return };
        // A shared app-server may have been started by another program.
        let is_running =
            server.strategy == ChildStrategy::Spawn && codex.files.program_at_start().as_ref() == Some(&file);
        let asked = codex.installed.known().asked.clone().filter(|(asked, ..)| *asked == file);
        let mut tries = asked.as_ref().map_or(0, |(.., tries)| *tries);
        let version = match asked {
            _ if is_running => running.clone(),
            Some((_, version, _)) if version.is_some() || tries >= MAX_TRIES => version,
            _ => {
                tries += 1;
                let Some(reader) = self.version_reader() else { return };
                let flag = std::iter::once(VERSION_FLAG.to_owned());
                let query = VersionQuery {
                    program: file.0.clone(),
                    arguments: server.args.iter().take(place).cloned().chain(flag).collect(),
                    directory: server.cwd.clone(),
                    removed_environment: removed_environment(),
                };
                reader.read(query).await
            }
        };
        let path = file.0.display().to_string();
        let is_news = {
            let mut known = codex.installed.known();
            if !is_running {
                known.asked = Some((file.clone(), version.clone(), tries));
            }
            known.version.clone_from(&version);
            let is_silent = version.is_none() && tries >= MAX_TRIES;
            known.is_unknown = !is_running && is_silent && server.strategy == ChildStrategy::Spawn;
            let is_another =
                running.is_some() && (known.is_unknown || version.is_some() && version != running);
            let about = running.clone().filter(|_| is_another).map(|running| (running, file));
            let is_news = about.is_some() && known.reported != about;
            known.reported = about;
            is_news
        };
        if is_news {
            self.core.recorder.record(ChildEvent::InstalledChanged {
                path,
                version: running,
                installed_version: version,
            });
        }
    }
}
