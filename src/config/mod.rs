//! The configuration: flags override environment variables, which override defaults.
//!
//! `settings.rs` declares every setting for clap, which reads the flags and the environment variables. [`Config`] is
//! validated once, when a command starts, and does not change afterwards. This is the only module that reads the
//! environment. Reading the settings may check that a directory exists, and creates nothing.

mod address;
mod endpoint;
mod environment;
mod error;
mod origin;
mod parse;
mod platform;
mod program;
mod redact;
mod report;
mod resolve;
mod service_env;
pub mod settings;
#[cfg(test)]
mod tests;
mod values;
mod view;

pub use address::{LocalApiBase, RESERVED_PATHS, parse_event_stream_path};
pub use endpoint::{AllowedCalls, ChildStrategy, Endpoint, KeepAwake, ServerEndpoint};
pub use environment::{
    Environment, SERVICE_ENV_FILE, codex_home, has_blank_variable, has_display, is_variable_set, no_color,
    pager, service_env_file, variable, variable_of,
};
pub use error::ConfigError;
pub use parse::{MODE, count};
pub use platform::Platform;
pub use program::{find_program, is_same_file};
pub use report::{Report, ReportRow};
pub use resolve::default_token_file;
pub use service_env::UserEnv;
pub use settings::{
    AUTH_TOKEN_NAME, AuthConfig, DEFAULT_LOCAL_API_BASE, MAX_EVENT_CACHE_SIZE, PathSettings, ServiceConfig,
    Settings, Sources, ignore_variables,
};
pub use values::{ChildEnvironment, Config, LONG_VERSION, Paths, ServerConfig};
pub use view::{ConfigView, PathsView, ServerView, ServiceView};
