//! The environment variables of Codex, and the files in its home directory.

/// The variable with the directory of Codex's own files.
pub const CODEX_HOME: &str = "CODEX_HOME";
/// The directory in the user's home directory that is taken when [`CODEX_HOME`] is not set.
pub const DEFAULT_CODEX_HOME: &str = ".codex";
/// The configuration, in the directory of Codex's own files.
pub const CONFIG_FILE: &str = "config.toml";
/// The login, in the same directory.
pub const AUTH_FILE: &str = "auth.json";

/// The socket of Codex's background app-server, in the same directory; `codex` without flags uses it since 0.160.
pub const CONTROL_SOCKET: &str = "app-server-control/app-server-control.sock";
/// The arguments that make an app-server listen at that socket.
pub const LISTEN_AT_CONTROL_SOCKET: [&str; 2] = ["--listen", "unix://"];

/// The environment variable in which Codex passes the thread ID to a command (measured on 0.140.0 to 0.171.0).
pub const THREAD_ID: &str = "CODEX_THREAD_ID";

/// What Codex sets for the commands of a thread: a codexd that one of them starts must not take its app-server for a
/// part of that thread.
///
/// Seen in 0.169.0 and 0.171.0: the originator becomes the user agent, and the sandbox is taken for the one around.
pub const THREAD_VARIABLES: [&str; 13] = [
    THREAD_ID,
    "CODEX_SESSION_ID",
    "CODEX_TOOL_CALL_ID",
    "CODEX_CI",
    "CODEX_SANDBOX",
    "CODEX_SANDBOX_NETWORK_DISABLED",
    "CODEX_PERMISSION_PROFILE",
    "CODEX_INTERNAL_ORIGINATOR_OVERRIDE",
    "CODEX_NETWORK_PROXY_ACTIVE",
    "CODEX_NETWORK_PROXY_ATTRIBUTION",
    "CODEX_NETWORK_ALLOW_LOCAL_BINDING",
    "CODEX_NETWORK_POLICY_VIOLATION",
    "CODEX_MANAGED_BY_NPM",
];

/// The parts of a login that stay when Codex renews its tokens: the key and the account.
pub fn login_identity(login: &serde_json::Value) -> [&serde_json::Value; 3] {
    [&login["auth_mode"], &login["OPENAI_API_KEY"], &login["tokens"]["account_id"]]
}
