//! The configuration: flags override environment variables, which override defaults.
//!
//! [`Config`] is validated once, when a command starts, and does not change afterwards. This is the only module that
//! reads the environment, through [`Environment`], so that tests can supply their own. Reading the settings may check
//! that a directory exists, and creates nothing.

mod address;
mod endpoint;
mod error;
mod origin;
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

pub use address::{AddressError, LocalApiBase, RESERVED_PATHS, StreamPathError, parse_event_stream_path};
pub use endpoint::{ChildStrategy, Endpoint, EndpointError, ServerEndpoint};
pub use error::{ConfigError, ValueError};
pub use origin::OriginError;
pub use platform::Platform;
pub use program::find_program;
pub use report::{ConfigReport, ConfigView, PathsView, ServerView, ServiceView};
pub use service_env::UserEnv;
pub use settings::{Environment, ProcessEnvironment, Settings, Source};
pub use values::{
    ChildEnvironment, Config, LONG_VERSION, LimitsConfig, MAX_EVENT_CACHE_SIZE, Paths, ReportRow,
    ServerConfig, ServerMode, ServiceConfig,
};
