//! Access control: which requests the daemon accepts by Host, Origin, token and user, how it refuses malformed and
//! oversized requests, what many connections cost it, and what it logs about each request.

mod access_log;
mod allowed_origins;
mod browser;
mod connection_limits;
#[cfg(target_os = "linux")]
mod descriptor_limit;
mod forwarded;
mod host_header;
mod origin_header;
#[cfg(target_os = "linux")]
mod other_user;
#[cfg(target_os = "linux")]
mod process_usage;
mod raw_connection;
mod raw_http;
#[cfg(target_os = "linux")]
mod request_memory;
mod request_size_limits;
mod request_smuggling;
mod routes;
mod secret_leaks;
mod slow_clients;
mod token_command;
mod token_files;
mod tokens;
mod websocket_frames;
