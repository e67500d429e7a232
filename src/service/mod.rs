//! codexd as a service of the user: the file for the service manager, and the calls to it.
//!
//! The text of the file depends on the settings alone ([`ServiceFile::new`]), for either system on any system.
//! [`ServiceManager`] runs `launchctl` or `systemctl`. `codexd service` and `codexd doctor` use both.

mod environment;
mod file;
mod launchd;
mod manager;
mod search;
mod spec;
mod state;
mod systemd;
#[cfg(test)]
mod tests;

pub use environment::{ServiceEnvironment, enter_environment};
pub use file::{ServiceFile, file, installed_variable, launchd_log, remove, variables_file};
pub use manager::{ManagerError, SYSTEMD_UNIT, ServiceManager};
pub use spec::{FileChange, NAME, ServiceError};
pub use state::ServiceState;
