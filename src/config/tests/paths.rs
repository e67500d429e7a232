//! Paths in settings are taken byte for byte.

use super::*;

#[test]
fn config_keeps_path_bytes_and_trims_other_texts() {
    let home = tempfile::tempdir().unwrap();
    for name in ["proj ", " proj", "proj\u{a0}", "\u{3000}proj\u{2003}"] {
        let directory = home.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let path = directory.to_str().unwrap();
        let relative = |config: &Config| (config.paths.state_dir.clone(), config.paths.logs_dir.clone());
        let expected = (in_current_dir(name), in_current_dir(name));
        let flags = Machine::new().flag("state-dir", name).flag("logs-dir", name);
        assert_eq!(relative(&flags.config()), expected);

        let config = Machine::new()
            .flag("repo-root", path)
            .flag("server-cwd", path)
            .flag("server-command", &format!("{path}/codex "))
            .flag("auth-token-file", &format!("{path}/token "))
            .flag("server-strategy", " external ")
            .flag("server-endpoint", &format!(" unix://{path}/socket "))
            .config();
        assert_eq!(config.paths.repo_root.as_deref(), Some(directory.as_path()));
        assert_eq!(config.paths.state_dir, directory.join("state/codexd"));
        assert_eq!(config.server.cwd, directory);
        assert_eq!(config.server.command, format!("{path}/codex "));
        assert_eq!(config.service.auth.auth_token_file, Some(directory.join("token ")));
        assert_eq!(config.server.endpoint.target(), &Endpoint::Unix(directory.join("socket ")));
        let shared = Machine::new().variable("BAA_STATE_DIR", path).variable("BAA_LOGS_DIR", path).config();
        assert_eq!(shared.paths.state_dir, directory.join("codexd"));
        let home = Machine::new().variable("HOME", path).config();
        assert_eq!(home.server.cwd, directory);
        assert!(home.paths.state_dir.starts_with(&directory), "{:?}", home.paths.state_dir);
    }
}
