//! What people type: the commands beside `start`.

#[cfg(target_os = "linux")]
mod service;
