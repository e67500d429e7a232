//! `codexd start`: runs the daemon, from its first line of output to its exit code.
//!
//! [`Running`] owns the daemon and its listener, and the order in which they start and stop. `smoke` uses it too.

use std::io::{IsTerminal, stderr, stdout};
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use axum::response::Response;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use super::runtime::runtime;
use super::status::codex_status_text;
use super::terminal::{OutputTarget, sanitize_for_terminal};
use super::wrap::wrap_indented;
use super::{demo, logging, output, watchdog};
use crate::client::DaemonClient;
use crate::codex;
use crate::config::{ChildStrategy, Config, DEFAULT_LOCAL_API_BASE, LONG_VERSION, LocalApiBase};
use crate::daemon::{Daemon, StateDirectories};
use crate::http::{
    AllowedClients, App, LOCAL_KEY_IS_NEEDED, Server, StatusView, TokenFile, create_local_key, find_users,
    read_token,
};
use crate::mcp;
use crate::storage::{self, LOG_FILE_NAME};

pub(crate) fn run(config: Config, json: bool, run_once: bool, verbose: bool) -> Result<ExitCode, Failure> {
    let is_watched = stdout().is_terminal() && stderr().is_terminal() && !(json || run_once || verbose);
    // A person gets what matters, and the log is in a file; if there can be none, it is on the terminal as elsewhere.
    let log_file = if is_watched { storage::open_log(&config.paths.logs_dir).ok() } else { None };
    let is_watched = log_file.is_some();
    // Dropped last, so that the last lines are written.
    let log = logging::start(&config.log_filter, log_file)?;
    let runtime = runtime()?;
    if let Some(log) = log.log()
        && let Err(error) = watchdog::start(runtime.handle().clone(), log)
    {
        tracing::warn!(%error, "failed to start the watchdog thread");
    }
    let code = runtime.block_on(async {
        let mut signals = Signals::new()?;
        survive_file_limit();
        let demo = config.server.demo.then(|| config.clone());
        let running = Running::start(config).await?;
        let mut first_signal = None;
        if is_watched {
            tokio::select! {
                () = running.daemon.settled_with_account() => running.print_welcome(),
                name = signals.next() => first_signal = Some(name),
            }
        } else {
            if let Some(config) = demo {
                let base = running.app.status().service.resolved_base_url.unwrap_or_default();
                output::print_error(&demo::notice(&config, &base));
            }
            if run_once {
                return Ok(running.once(json).await);
            }
            running.print_status(json);
        }
        let name = match first_signal {
            Some(name) => name,
            None => signals.next().await,
        };
        tracing::info!(signal = name, "stopping");
        let daemon = running.daemon.clone();
        let hurry = async {
            let name = signals.next().await;
            tracing::warn!(signal = name, "stopping at once");
            daemon.force_stop();
            std::future::pending::<()>().await;
        };
        let status = tokio::select! {
            status = running.stop() => status,
            () = hurry => return Ok(ExitCode::FAILURE),
        };
        if is_watched {
            warn_if_failed(output::print("codexd has stopped."));
        } else if !json {
            warn_if_failed(output::print(&format!("codexd stopped after {name}\n{}", line(&status))));
        }
        Ok(ExitCode::SUCCESS)
    });
    // A blocked read of the log must not keep the process.
    runtime.shutdown_background();
    code
}

/// The daemon and its listener.
pub(crate) struct Running {
    pub(crate) daemon: Daemon,
    pub(crate) app: App,
    server: Server,
}

impl Running {
    /// Listens, then starts everything behind the listener, so that an address in use is reported before anything else
    /// starts.
    pub(crate) async fn start(mut config: Config) -> Result<Self, Failure> {
        let directories =
            StateDirectories::take(&config).map_err(|error| Failure::usage(error.to_string()))?;
        let clients = allowed_clients(&config)?;
        let listener = listen(&config.service.local_api_base)?;
        limit_connections(&mut config.http.connection_limit);
        let address = listener
            .local_addr()
            .map_err(|error| Failure::new(format!("Failed to read the address of the listener: {error}.")))?;
        // Under the other strategies no process is ours to end.
        if config.server.strategy == ChildStrategy::Spawn
            && let Err(error) = codex::become_subreaper()
        {
            tracing::warn!(%error, "failed to become a child subreaper; orphans are found by environment only");
        }
        #[expect(clippy::disallowed_methods, reason = "nothing is served yet")]
        let program = std::env::current_exe().inspect_err(
            |error| tracing::warn!(%error, "cannot resolve own executable; orphan guard disabled"),
        );
        let daemon = Daemon::start_guarded(config, directories, program.ok()).await;
        let daemon = daemon.map_err(|error| match error.is_refusal() {
            true => Failure::usage(error.to_string()),
            false => Failure::new(error.to_string()),
        })?;
        if LOCAL_KEY_IS_NEEDED && clients.token.is_none() {
            // Without the key, "codexd hooks add" cannot add a command; nothing else depends on it.
            if let Err(error) = create_local_key(&daemon.config().paths.state_dir) {
                tracing::warn!(%error, "failed to create hooks-key; no hook with a command can be added");
            }
        }
        let app = with_mcp(App::new(daemon.clone(), address, clients), daemon.config());
        let server = Server::start(listener, app.clone());
        tracing::info!(%address, "listening");
        Ok(Self { daemon, app, server })
    }

    /// Stops in order: no new work, no streams, no app-server, everything on disk, no listener.
    ///
    /// Each step has a time limit, independent of clients, the app-server and the disk.
    pub(crate) async fn stop(self) -> StatusView {
        self.daemon.refuse_work();
        tokio::select! {
            () = self.app.close_websockets() => {}
            () = self.daemon.stop_forced() => {}
        }
        self.daemon.stop().await;
        tokio::select! {
            () = self.server.stop() => {}
            () = self.daemon.stop_forced() => {}
        }
        self.app.status()
    }

    /// Starts, waits until the app-server is ready or has failed, and stops.
    async fn once(self, json: bool) -> ExitCode {
        let readiness = self.daemon.settled().await;
        let status = self.stop().await;
        print_status(&status, json);
        match readiness.reason {
            None => ExitCode::SUCCESS,
            Some(reason) => {
                output::print_error(&format!("codexd: {reason}"));
                ExitCode::FAILURE
            }
        }
    }

    /// Tells a person what runs, where the page is, and how to stop.
    fn print_welcome(&self) {
        let status = self.app.status();
        let config = self.daemon.config();
        let base = status.service.resolved_base_url.clone().unwrap_or_default();
        let codex = codex_status_text(&serde_json::to_value(&status.service.codex).unwrap_or_default());
        let version = status.snapshot.daemon.child.state.version.as_deref().filter(|_| !config.server.demo);
        let version = version.map(|version| format!(" · Codex {version}")).unwrap_or_default();
        let ask = match base == DEFAULT_LOCAL_API_BASE {
            true => String::new(),
            false => format!(" --local-api-base {base}"),
        };
        let lines = [
            format!("codexd {LONG_VERSION}{version} · {codex}"),
            format!("Open {base} in a browser, or type: {} ask hello{ask}", config.own_command()),
            format!(
                "Ctrl-C stops codexd. Its log is {}",
                config.paths.logs_dir.join(LOG_FILE_NAME).display()
            ),
        ];
        let screen = OutputTarget::stdout();
        let lines = lines.map(|line| wrap_indented(&sanitize_for_terminal(&line), screen.width, 2));
        warn_if_failed(output::print(&lines.join("\n")));
    }

    fn print_status(&self, json: bool) {
        print_status(&self.app.status(), json);
    }
}

/// The app with `/mcp`, whose tools call the app itself.
fn with_mcp(app: App, config: &Config) -> App {
    let inner = app.clone();
    let service = move |request| {
        let app = inner.clone();
        Box::pin(async move { app.respond_locally(request).await })
            as Pin<Box<dyn Future<Output = Response> + Send>>
    };
    let client = DaemonClient::new(&config.service, |_| {}).local(Arc::new(service));
    let shutdown = app.shutdown();
    app.with_mcp(mcp::http_service(client, shutdown))
}

fn print_status(status: &StatusView, json: bool) {
    warn_if_failed(if json { output::print_json(status) } else { output::print(&line(status)) });
}

/// A daemon runs even if its output cannot be written.
fn warn_if_failed(outcome: Result<(), Failure>) {
    if let Err(failure) = outcome {
        output::print_error(&format!("codexd: {}", failure.message));
    }
}

/// How many open files to request if the system's limit is lower; macOS gives 256 by default.
///
/// The app-server inherits the limit, and programs that use select(2) cannot handle more.
const MIN_OPEN_FILES: u64 = 1024;
/// Fewer connections than these are worth a warning when the limit of open files allows no more.
pub(super) const FEW_CONNECTIONS: usize = 256;
/// How many files codexd needs for itself, its log and its app-server.
const OWN_FILES: u64 = 48;

/// The token of a file.
fn read_token_of(path: &Path) -> Result<String, Failure> {
    read_token(path).map_err(|error| Failure::usage(format!("The token file cannot be used: {error}.")))
}

/// Reads the token files and finds the users that the settings name.
fn allowed_clients(config: &Config) -> Result<AllowedClients, Failure> {
    let open = |path: Option<&Path>| {
        let file = path.map(TokenFile::open).transpose();
        file.map_err(|error| Failure::usage(format!("The token file cannot be used: {error}.")))
    };
    if let (Some(token), Some(read_token)) =
        (&config.service.auth.auth_token_file, &config.http.read_token_file)
        && read_token_of(token)? == read_token_of(read_token)?
    {
        return Err(Failure::usage(
            "--read-token-file has the token of --auth-token-file, so it would allow everything; make another one with \
             codexd token.",
        ));
    }
    Ok(AllowedClients {
        token: open(config.service.auth.auth_token_file.as_deref())?,
        read_token: open(config.http.read_token_file.as_deref())?,
        uids: find_users(&config.http.allow_uid).map_err(Failure::usage)?,
    })
}

/// Limits connections so that enough file descriptors are left for everything else.
fn limit_connections(connections: &mut usize) {
    let limits = getrlimit(Resource::Nofile);
    let mut files = limits.current.unwrap_or(u64::MAX);
    let desired = desired_files(&limits);
    if files < desired && setrlimit(Resource::Nofile, Rlimit { current: Some(desired), ..limits }).is_ok() {
        files = desired;
    }
    let possible = max_connections_for(files);
    if possible < *connections {
        let text = "fewer connections are accepted because of the limit of open files";
        if possible < FEW_CONNECTIONS.min(*connections) {
            tracing::warn!(files, wanted = *connections, connections = possible, "{text}");
        } else {
            tracing::info!(files, wanted = *connections, connections = possible, "{text}");
        }
        *connections = possible;
    }
}

/// The file limit after codexd has raised it.
pub(super) fn desired_files(limits: &Rlimit) -> u64 {
    let asked_for = MIN_OPEN_FILES.min(limits.maximum.unwrap_or(MIN_OPEN_FILES));
    limits.current.unwrap_or(u64::MAX).max(asked_for)
}

/// How many connections leave enough of `files` for everything else.
pub(super) fn max_connections_for(files: u64) -> usize {
    usize::try_from(files.saturating_sub(OWN_FILES)).unwrap_or(usize::MAX).max(1)
}

/// How many connections may wait to be accepted.
const LISTEN_BACKLOG: u32 = 1024;
/// The size of the kernel's send buffer of a connection, in bytes.
///
/// The kernel reports a socket writable only when about a third of the buffer is free. With the megabytes that it would
/// use by default, a slow reader could not be distinguished from one that does not read.
const SEND_BUFFER: u32 = 128 * 1024;

fn listen(base: &LocalApiBase) -> Result<TcpListener, Failure> {
    let address = base.socket_address();
    let listener = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Lingering connections of the previous process must not block the listener.
        socket.set_reuseaddr(true)?;
        // Connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    listener().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Failure::new(format!(
            "{address} is already in use, perhaps by another codexd; stop that one or choose another address with \
             --local-api-base."
        )),
        _ => Failure::new(format!("codexd cannot listen at {address}: {error}.")),
    })
}

/// The whole state on one line, for logs.
fn line(status: &StatusView) -> String {
    let (service, snapshot) = (&status.service, &status.snapshot);
    let (config, daemon) = (&snapshot.config, &snapshot.daemon);
    let pid = daemon.pid.map_or_else(|| "none".to_owned(), |pid| pid.to_string());
    let not_listening = || "not-listening".to_owned();
    [
        format!("daemon={}", snapshot.identity.daemon_id),
        format!("node={}", config.node_id),
        format!("started={}", daemon.started),
        format!("pid={pid}"),
        format!("strategy={}", config.server.child_strategy),
        format!("mode={}", config.server.mode),
        format!("endpoint={}", config.server.endpoint),
        format!("local_api_base={}", config.service.local_api_base),
        format!("event_stream_path={}", config.service.event_stream_path),
        format!("sessions={}", snapshot.session_registry.sessions.len()),
        format!("recent_events={}", snapshot.recent_events.events.0.len()),
        format!("logs_dir={}", config.paths.logs_dir),
        format!("state_dir={}", config.paths.state_dir),
        format!("resolved_base={}", service.resolved_base_url.clone().unwrap_or_else(not_listening)),
        format!("ws_url={}", service.event_stream_url.clone().unwrap_or_else(not_listening)),
    ]
    .join(" ")
}

/// Makes a write beyond the file size limit (`ulimit -f`) fail with EFBIG, like a full disk, instead of ending the
/// daemon with SIGXFSZ.
///
/// With a handler, because an ignored signal stays ignored in the app-server and all its commands.
fn survive_file_limit() {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // The handler stays installed when the listener is dropped.
    if let Err(error) = signal(kind) {
        tracing::warn!(%error, "failed to handle SIGXFSZ; exceeding the file size limit will end codexd");
    }
}

/// The signals that stop the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(format!("Failed to handle signals: {error}.")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            // The terminal was closed.
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The name of the next signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}
