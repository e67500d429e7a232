//! What people type: the commands beside `start`.

mod doctor;
#[cfg(target_os = "linux")]
mod service;
