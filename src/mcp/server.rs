//! The Model Context Protocol itself: the only file that uses its library.
//!
//! [`CodexServer`] passes calls of tools to [`Jobs`]. It speaks the revisions of the protocol with an `initialize`
//! handshake: newer ones forbid requests to the client during a call, which forms for approvals need.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest,
    ElicitRequestParams, ElicitationAction, ErrorData, Implementation, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ProgressToken, ProtocolVersion, ServerCapabilities,
    ServerConfig, ServerRequest, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService, stdio};
use rmcp::{RoleServer, ServerHandler, ServiceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::jobs::{Caller, Filled, Jobs, Outcome, WaitLimit};
use super::tools::{
    Answer, CODEX, CODEX_ANSWER, CODEX_INTERRUPT, CODEX_REPLY, CODEX_START, CODEX_STATUS, CODEX_WAIT,
    DEFAULT_WAIT_SECONDS, JobReport, JobStatus, NewThread, Reply, Start, TOOLS, ToolDeclaration, Wait,
    WhenBusy, argument_names,
};
use crate::client::DaemonClient;
use crate::http::McpService;

/// How long a session of `/mcp` may be idle. A client that comes back later initializes again, as the protocol has it.
const HTTP_SESSION_IDLE: Duration = Duration::from_secs(3600);

/// Serves one client on stdin and stdout until stdin is closed.
///
/// # Errors
///
/// A sentence, if the client does not initialize the protocol.
pub(crate) async fn serve_stdio(client: DaemonClient, directory: PathBuf) -> Result<(), String> {
    let server = CodexServer { jobs: Jobs::new(client, Some(directory)) };
    let running = server.serve(stdio()).await;
    let running = running.map_err(|error| format!("The MCP client did not initialize: {error}."))?;
    running.waiting().await.map(|_| ()).map_err(|error| format!("The MCP server ended: {error}."))
}

/// The handler of `/mcp`. Its sessions end with `shutdown`.
pub(crate) fn http_service(client: DaemonClient, shutdown: CancellationToken) -> McpService {
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(HTTP_SESSION_IDLE);
    // The request guard has checked Host and Origin.
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_cancellation_token(shutdown);
    let server = CodexServer { jobs: Jobs::new(client, None) };
    let service = StreamableHttpService::new(move || Ok(server.clone()), Arc::new(sessions), config);
    McpService::new(tower::service_fn(move |request: Request| {
        let service = service.clone();
        async move { Ok(service.handle(request).await.map(Body::new)) }
    }))
}

#[derive(Debug, Clone)]
struct CodexServer {
    jobs: Jobs,
}

impl ServerHandler for CodexServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_server_info(Implementation::new("codexd", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "Codex works in threads. codex starts one and waits for its answer; codex-reply continues it. For work \
                 that takes longer than your timeout for a call, use codex-start and codex-wait.",
            )
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::LATEST_WITH_INITIALIZE))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.iter().map(declaration).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = TOOLS.iter().find(|tool| tool.name == request.name) else {
            let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
            let message = format!("Unknown tool {:?}; the tools are {}.", request.name, names.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        let caller = McpCaller::new(context);
        let outcome = self.call(tool, request.arguments.unwrap_or_default(), &caller).await;
        Ok(match outcome {
            Ok(report) => result(&report),
            Err(sentence) => CallToolResult::error(vec![ContentBlock::text(sentence)]),
        }
        .into())
    }
}

impl CodexServer {
    async fn call(
        &self,
        tool: &ToolDeclaration,
        arguments: Map<String, Value>,
        caller: &McpCaller,
    ) -> Outcome<JobReport> {
        let jobs = &self.jobs;
        // The caller waits for the turn, so a call that is cancelled interrupts it.
        let to_the_end = WaitLimit { until: None, interrupts: true };
        match tool.name {
            CODEX => {
                let job = jobs.start_thread(read(tool, arguments)?).await?;
                jobs.wait(job, caller, to_the_end).await
            }
            CODEX_REPLY => {
                let Reply { prompt, thread_id, conversation_id } = read(tool, arguments)?;
                let thread_id = thread_id.or(conversation_id).ok_or("codex-reply needs threadId.")?;
                let turn = NewThread { prompt, ..NewThread::default() };
                let job = jobs.continue_thread(&thread_id, turn, WhenBusy::default()).await?;
                jobs.wait(job, caller, to_the_end).await
            }
            CODEX_START => {
                let Start { thread_id, when_busy, thread } = read(tool, arguments)?;
                let job = match thread_id {
                    Some(id) => jobs.continue_thread(&id, thread, when_busy.unwrap_or_default()).await?,
                    None => jobs.start_thread(thread).await?,
                };
                jobs.report(&job).await
            }
            CODEX_WAIT => {
                let Wait { turn, timeout_seconds } = read(tool, arguments)?;
                let seconds = timeout_seconds.unwrap_or(DEFAULT_WAIT_SECONDS).min(3600);
                let until = Some(Instant::now() + Duration::from_secs(seconds));
                let job = jobs.find(turn).await?;
                jobs.wait(job, caller, WaitLimit { until, interrupts: false }).await
            }
            CODEX_INTERRUPT => {
                let job = jobs.find(read(tool, arguments)?).await?;
                jobs.interrupt(&job).await?;
                jobs.report(&job).await
            }
            CODEX_ANSWER => jobs.answer(read::<Answer>(tool, arguments)?).await,
            CODEX_STATUS => {
                let job = jobs.find(read(tool, arguments)?).await?;
                jobs.report(&job).await
            }
            name => Err(format!("The tool {name} does nothing.")),
        }
    }
}

/// The arguments of a call.
fn read<T: DeserializeOwned>(tool: &ToolDeclaration, arguments: Map<String, Value>) -> Outcome<T> {
    let known = argument_names(tool);
    if let Some(unknown) = arguments.keys().find(|name| !known.contains(name)) {
        return Err(format!(
            "{} has no argument {unknown:?}; its arguments are {}.",
            tool.name,
            known.join(", ")
        ));
    }
    serde_path_to_error::deserialize(Value::from(arguments)).map_err(|error| {
        format!("The arguments of {} cannot be used: {}: {}.", tool.name, error.path(), error.inner())
    })
}

fn declaration(tool: &ToolDeclaration) -> Tool {
    Tool::new(tool.name, tool.description, Arc::new((tool.arguments)()))
        .with_title(tool.title)
        .with_raw_output_schema(Arc::new((tool.result)()))
        .with_annotations(ToolAnnotations::new().read_only(tool.is_read_only))
}

/// The result of a call: the answer as text, and the report as structured content.
fn result(report: &JobReport) -> CallToolResult {
    let text = match (report.status, report.requests.first()) {
        (JobStatus::Completed, _) => report.content.clone(),
        (JobStatus::NeedsAnswer, Some(request)) => format!(
            "Codex needs an answer before it continues. Request {}: {}\nCall {CODEX_ANSWER}, then {CODEX_WAIT}.",
            request.request_id, request.message
        ),
        (JobStatus::Failed, _) => {
            format!("The turn failed: {}", report.error.as_deref().unwrap_or_default())
        }
        (JobStatus::Interrupted, _) => "The turn was interrupted.".to_owned(),
        (JobStatus::Queued, _) => {
            format!("The turn is queued. {CODEX_WAIT} with its queueId waits for its end.")
        }
        (JobStatus::Idle, _) => "The thread has no turn.".to_owned(),
        (JobStatus::Running | JobStatus::NeedsAnswer, _) => {
            format!("The turn is in progress. {CODEX_WAIT} waits for its end. {}", report.content)
        }
    };
    let mut result = match report.status {
        JobStatus::Failed | JobStatus::Interrupted => CallToolResult::error(vec![ContentBlock::text(text)]),
        _ => CallToolResult::success(vec![ContentBlock::text(text)]),
    };
    result.structured_content = serde_json::to_value(report).ok();
    result
}

/// The client that waits for one call.
struct McpCaller {
    context: RequestContext<RoleServer>,
    token: Option<ProgressToken>,
    /// How many progress messages it got.
    shown: AtomicU32,
}

impl McpCaller {
    fn new(context: RequestContext<RoleServer>) -> Self {
        Self { token: context.meta.get_progress_token(), shown: AtomicU32::new(0), context }
    }
}

impl Caller for McpCaller {
    async fn show_progress(&self, message: &str) {
        let Some(token) = self.token.clone() else { return };
        let number = self.shown.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = ProgressNotificationParam::new(token, f64::from(number)).with_message(message);
        if let Err(error) = self.context.peer.notify_progress(progress).await {
            tracing::debug!(%error, "failed to send progress to an MCP client");
        }
    }

    fn has_forms(&self) -> bool {
        let info = self.context.peer.peer_info();
        let elicitation = info.as_ref().and_then(|info| info.capabilities.elicitation.as_ref());
        // Before the revision of 2025-11-25 there were forms only, and no word for them.
        elicitation.is_some_and(|modes| modes.form.is_some() || modes.url.is_none())
    }

    async fn fill_in(&self, message: String, form: Value) -> Filled {
        let requested_schema = match serde_json::from_value(form) {
            Ok(schema) => schema,
            Err(error) => return Filled::Failed(format!("its form cannot be described: {error}")),
        };
        let params = ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
        let request = ServerRequest::ElicitRequest(ElicitRequest::new(params));
        match self.context.peer.send_request(request).await {
            Ok(rmcp::model::ClientResult::ElicitResult(result)) => match result.action {
                ElicitationAction::Accept => Filled::In(result.content.unwrap_or_default()),
                // Declined, or dismissed without a choice.
                _ => Filled::Declined,
            },
            Ok(_) => Filled::Failed("its result is not that of a form".to_owned()),
            Err(error) => Filled::Failed(error.to_string()),
        }
    }

    async fn cancelled(&self) {
        self.context.ct.cancelled().await;
    }
}
