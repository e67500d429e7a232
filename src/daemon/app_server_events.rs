//! Messages of the app-server become inputs of the recorder.
//!
//! There is one [`EventHandler`] for each reader of each generation; it owns the events that wait to be flushed.
//! Events reach the recorder in the order of the messages.

mod notification_events;
mod session_changes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::codex::protocol::notifications::{Notification, ThreadStatus};
use crate::codex::protocol::{errors, notifications, values};
use crate::codex::rpc::wire::{RpcError, RpcId};
use crate::codex::{AppServerEvent, EscapeFilter, Exit, Listener, Outline, redact};
use crate::config::Config;
use crate::daemon::codex_health::Codex;
use crate::daemon::events;
use crate::daemon::mcp_servers::FailedMcpServer;
use crate::daemon::queue::held::hold_changes_before;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::input::{Input, Stream};
use crate::daemon::server_requests::open::OpenRequests;
use crate::daemon::server_requests::{FollowUp, RequestDefaults};
use crate::daemon::skipped_items::table::{SkippedItem, SkippedItems};
use crate::daemon::turns::activity::Activity;
use crate::daemon::turns::submission::Submissions;
use crate::ids::ThreadId;
use crate::state::server_requests::SKIPPED_BYTES;
use crate::state::{ChildEvent, FreeText, NewEvent};
use notification_events::notification;
use session_changes::session_changes;

/// What messages are passed on to.
#[derive(Clone)]
pub(crate) struct Receivers {
    pub(crate) config: Arc<Config>,
    pub(crate) recorder: Recorder,
    pub(crate) follow_ups: mpsc::UnboundedSender<FollowUp>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) open: Arc<OpenRequests>,
    pub(crate) submissions: Arc<Submissions>,
    pub(crate) skipped_items: Arc<SkippedItems>,
    pub(crate) codex: Arc<Codex>,
}

/// Turns the messages of one reader of one generation into inputs of the recorder.
pub(crate) struct EventHandler {
    to: Receivers,
    generation: u64,
    /// The thread of the last message, and when its activity was recorded; `None` again after [`ACTIVITY_INTERVAL`].
    active_thread: Option<(ThreadId, Instant)>,
    new_events: Vec<NewEvent>,
    /// State of the stderr, which arrives in pieces.
    escapes: EscapeFilter,
}

/// The shortest time between two records of a thread's activity, so that many messages are cheap.
const ACTIVITY_INTERVAL: Duration = Duration::from_millis(250);

impl EventHandler {
    pub(crate) fn new(to: Receivers, generation: u64) -> Self {
        let (active_thread, new_events, escapes) = (None, Vec::new(), EscapeFilter::default());
        Self { to, generation, active_thread, new_events, escapes }
    }

    /// Ends the requests that the app-server no longer waits for.
    fn end_requests(&mut self, method: &str, params: &str) {
        match method {
            notifications::SERVER_REQUEST_RESOLVED => {
                let Some(request_id) = notifications::resolved_request(params) else { return };
                self.flush();
                let has_other_clients = self.to.config.server.strategy.has_other_clients();
                self.to.open.resolved_by_app_server(self.generation, request_id.get(), has_other_clients);
            }
            notifications::TURN_COMPLETED => {
                let Some(turn_id) = notifications::completed_turn(params) else { return };
                self.flush();
                self.to.open.ended_with_turn(self.generation, &turn_id);
            }
            _ => {}
        }
    }

    /// Has a thread followed that another client uses, as its status shows.
    fn follow_thread(&mut self, params: &str) {
        if !self.to.config.server.strategy.has_other_clients() {
            return;
        }
        let decoded = Notification::decode(notifications::THREAD_STATUS_CHANGED, params);
        let Notification::ThreadStatusChanged(ThreadStatus { thread_id, status }) = decoded else { return };
        let generation = self.generation;
        // The receiver is gone when the daemon stops.
        let _ = self.to.follow_ups.send(match status["type"] == values::THREAD_NOT_LOADED {
            true => FollowUp::ForgetThread { generation, thread_id },
            false => FollowUp::FollowThread { generation, thread_id },
        });
    }

    /// Accepts a submission without an answer whose turn the item of the user's message names.
    fn accept_submission_of_item(&mut self, params: &str) {
        if let Some((submission, turn_id)) = self.to.submissions.of_item(params) {
            self.flush();
            submission.accept(&turn_id, None);
        }
    }

    /// Opens a request of the app-server.
    fn open_request(&mut self, id: RpcId, method: &str, params: Value) {
        let defaults = RequestDefaults {
            timeout: self.to.config.limits.request_timeout,
            has_other_clients: self.to.config.server.strategy.has_other_clients(),
        };
        let follow_up = self.to.open.open(self.generation, id, method, params, defaults);
        if let Some(follow_up) = follow_up {
            // The receiver is gone when the daemon stops; the end of the connection answers the app-server.
            let _ = self.to.follow_ups.send(follow_up);
        }
    }

    /// Handles a message that was too long to keep: records what it was, refuses a request, and has skipped items read.
    fn handle_skipped(&mut self, bytes: usize, cap: usize, outline: &Outline) {
        let method = outline.method.as_deref();
        // Another client of an external app-server may have received all of it, and can answer.
        let is_left_to_others = self.to.config.server.strategy.has_other_clients();
        let is_refused = method.is_some() && outline.id.is_some() && !is_left_to_others;
        self.new_events.push(events::message_skipped(bytes, cap, outline, is_refused).into());
        let Some(method) = outline.method.as_deref() else { return };
        if let Some(thread_id) = &outline.thread_id {
            self.to.activity.note(thread_id);
        }
        if let Some(id) = outline.id.clone() {
            self.flush();
            if is_left_to_others {
                let known = json!({
                    "threadId": outline.thread_id, "turnId": outline.turn_id, "itemId": outline.item_id,
                    SKIPPED_BYTES: bytes,
                });
                return self.open_request(id, method, known);
            }
            let generation = self.generation;
            let message = format!("{method} is {bytes} bytes long, and the limit is {cap} (--line-cap)");
            let error = RpcError { code: errors::INVALID_REQUEST, message, data: None };
            let _ = self.to.follow_ups.send(FollowUp::RefuseRequest { generation, id, error });
            return;
        }
        let (Some(thread_id), Some(turn_id)) = (&outline.thread_id, &outline.turn_id) else { return };
        match (method, &outline.turn_status) {
            (notifications::ITEM_COMPLETED, _) => {
                let item = SkippedItem { id: outline.item_id.clone(), kind: outline.item_type.clone() };
                if self.to.skipped_items.note(turn_id, item) {
                    let (thread_id, turn_id) = (thread_id.clone(), turn_id.clone());
                    let _ = self.to.follow_ups.send(FollowUp::ReadSkippedItems { thread_id, turn_id });
                }
            }
            (notifications::TURN_COMPLETED, Some(status)) => {
                let turn = json!({ "threadId": thread_id, "turn": { "id": turn_id, "status": status } });
                let params = turn.to_string();
                self.new_events.push(notification(method, &params));
                self.end_requests(method, &params);
            }
            _ => {}
        }
    }

    /// Records that an MCP server did not start.
    fn record_mcp_server_failure(&mut self, params: &str) {
        let Some((thread_id, server)) = self.to.codex.mcp_servers.handle_status(self.generation, params)
        else {
            return;
        };
        self.flush();
        self.to.recorder.send(Input::Build(Box::new(move |state| {
            // None is known as long as the answer to `thread/start` is not here.
            let session = state.sessions.in_thread(&thread_id).next();
            let FailedMcpServer { name, error } = server;
            let session_id = session.map(|session| session.session_id.clone());
            vec![ChildEvent::McpServerFailed { session_id, thread_id, name, error }.into()]
        })));
    }

    fn endpoint(&self) -> String {
        self.to.config.server.endpoint.to_string()
    }

    /// Records that a thread is active.
    fn note_activity(&mut self, params: &str) {
        if let Some(thread_id) = notifications::thread_in_text(params) {
            self.note_thread(thread_id);
        }
    }

    fn note_thread(&mut self, thread_id: &str) {
        if self.active_thread.as_ref().is_none_or(|(active_thread, _)| active_thread.as_str() != thread_id) {
            let thread_id = ThreadId::new(thread_id);
            self.to.activity.note(&thread_id);
            self.active_thread = Some((thread_id, Instant::now()));
        }
    }

    fn send(&mut self, input: Input) {
        self.flush();
        self.to.recorder.send(input);
    }
}

impl Listener for EventHandler {
    fn on_event(&mut self, event: AppServerEvent<'_>) {
        let event = match event {
            AppServerEvent::Notification { method, params } => {
                self.note_activity(params);
                self.to.codex.handle_notification(self.generation, method, params);
                if matches!(method, notifications::ITEM_STARTED | notifications::ITEM_COMPLETED) {
                    self.accept_submission_of_item(params);
                }
                if let Some(build) = hold_changes_before(method, params) {
                    self.send(Input::Build(Box::new(build)));
                }
                self.new_events.push(notification(method, params));
                if let Some(changes) = session_changes(method, params) {
                    self.send(changes);
                }
                match method {
                    notifications::MCP_SERVER_STATUS_UPDATED => self.record_mcp_server_failure(params),
                    notifications::THREAD_STATUS_CHANGED => self.follow_thread(params),
                    _ => {}
                }
                return self.end_requests(method, params);
            }
            AppServerEvent::MessageDelta { line, delta } => {
                let thread_id = delta.thread_id.strip_prefix('"').and_then(|id| id.strip_suffix('"'));
                self.note_thread(thread_id.unwrap_or_default());
                self.to.codex.handle_notification(self.generation, notifications::AGENT_MESSAGE_DELTA, "");
                return self.new_events.push(notification_events::message_delta(line, &delta));
            }
            AppServerEvent::Request { id, method, params } => {
                self.note_activity(params);
                self.flush();
                let params = serde_json::from_str(params).unwrap_or(Value::Null);
                return self.open_request(id.to_owned(), method, params);
            }
            AppServerEvent::Skipped { bytes, cap, outline } => {
                return self.handle_skipped(bytes, cap, outline);
            }
            AppServerEvent::Stdout(bytes) => return self.send(Input::Output(Stream::Stdout, bytes)),
            AppServerEvent::Stderr(bytes) => {
                let text = self.escapes.strip(&String::from_utf8_lossy(&bytes));
                let length = bytes.len();
                self.send(Input::Output(Stream::Stderr, bytes));
                // No visible text: a newline alone, or the end of a colour sequence.
                if text.trim().is_empty() {
                    return;
                }
                ChildEvent::Stderr { text: redact(&text), bytes: length, stream: "stderr".to_owned() }
            }
            AppServerEvent::Closed(closed) => {
                // In this order, so that a request that is no longer in the table is about to be recorded as ended.
                self.send(Input::Closed(closed));
                return self.to.open.forget(self.generation);
            }
            AppServerEvent::Started { pid } => {
                self.to.codex.joined(self.generation, true);
                ChildEvent::Started {
                    args: self.to.config.server.args.clone(),
                    command: self.to.config.server.command.clone(),
                    generation: Some(self.generation),
                    pid,
                }
            }
            AppServerEvent::Joined { pid, is_known, is_ours } => {
                self.to.codex.joined(self.generation, is_ours);
                if !is_known {
                    // What an app-server before this one asked, this one does not wait for.
                    self.send(Input::Build(Box::new(|state| {
                        state.requests.pending().map(|request| events::request_cut_off(request)).collect()
                    })));
                }
                ChildEvent::Joined {
                    endpoint: self.endpoint(),
                    generation: Some(self.generation),
                    pid,
                    is_known,
                    is_ours,
                }
            }
            AppServerEvent::SpawnFailed { message } => ChildEvent::SpawnFailed(FreeText { message }),
            AppServerEvent::Connected { info } => {
                let info = serde_json::from_str(info.get()).unwrap_or(Value::Null);
                self.to.codex.connected(self.generation, &info);
                ChildEvent::Connected {
                    endpoint: self.endpoint(),
                    generation: Some(self.generation),
                    platform_family: info.get("platformFamily").cloned(),
                    platform_os: info.get("platformOs").cloned(),
                    user_agent: info.get("userAgent").cloned(),
                }
            }
            AppServerEvent::ConnectFailed { message } => {
                ChildEvent::ConnectFailed { message, endpoint: self.endpoint() }
            }
            AppServerEvent::InvalidMessage { reason, bytes } => ChildEvent::MessageInvalid {
                message: format!(" that are not a valid message: {reason}"),
                bytes,
                reason: reason.to_owned(),
                method: None,
                is_request: None,
                thread_id: None,
                turn_id: None,
                item_id: None,
            },
            AppServerEvent::Exited(Exit { code, signal, expected }) => {
                ChildEvent::Exited { code, signal, expected }
            }
            AppServerEvent::ChildError { message } => ChildEvent::Error(FreeText { message }),
            AppServerEvent::KillFailed { message } => ChildEvent::KillFailed(FreeText { message }),
            AppServerEvent::CloseFailed { message } => ChildEvent::CloseFailed(FreeText { message }),
            AppServerEvent::RestartScheduled(scheduled) => events::restart_scheduled(scheduled),
        };
        self.new_events.push(event.into());
    }

    fn flush(&mut self) {
        // Here and not for each message: a look at the clock costs as much as the rest of a delta's way.
        self.active_thread.take_if(|(_, at)| at.elapsed() >= ACTIVITY_INTERVAL);
        if !self.new_events.is_empty() {
            self.to.recorder.send(Input::Events(std::mem::take(&mut self.new_events)));
        }
    }
}
