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
        let expected = (Path::new("/current").join(name), Path::new("/current").join(name));
        let flags = Machine::new().flag(&settings::STATE_DIR, name).flag(&settings::LOGS_DIR, name);
        assert_eq!(relative(&flags.config()), expected);
        let variables = Machine::new()
            .variable(settings::STATE_DIR.variable, name)
            .variable(settings::LOGS_DIR.variable, name);
        assert_eq!(relative(&variables.config()), expected);

        let machine = |given: &dyn Fn(Machine, &'static Setting, &str) -> Machine| {
            let machine = given(Machine::new(), &settings::REPO_ROOT, path);
            let machine = given(machine, &settings::SERVER_CWD, path);
            let machine = given(machine, &settings::SERVER_COMMAND, &format!("{path}/codex "));
            let machine = given(machine, &settings::AUTH_TOKEN_FILE, &format!("{path}/token "));
            let machine = given(machine, &settings::SERVER_STRATEGY, " external ");
            given(machine, &settings::SERVER_ENDPOINT, &format!(" unix://{path}/socket "))
        };
        for config in [
            machine(&|machine, setting, value| machine.flag(setting, value)).config(),
            machine(&|machine, setting, value| machine.variable(setting.variable, value)).config(),
        ] {
            assert_eq!(config.paths.repo_root.as_deref(), Some(directory.as_path()));
            assert_eq!(config.paths.state_dir, directory.join("state/codexd"));
            assert_eq!(config.server.cwd, directory);
            assert_eq!(config.server.command, format!("{path}/codex "));
            assert_eq!(config.service.auth_token_file, Some(directory.join("token ")));
            assert_eq!(config.server.endpoint.target(), &Endpoint::Unix(directory.join("socket ")));
            let again = config.service_variables().unwrap();
            let read_back =
                again.iter().fold(Machine::new(), |machine, (name, value)| machine.variable(name, value));
            assert_eq!(read_back.config().service_variables().unwrap(), again);
        }
        let shared = Machine::new().variable("BAA_STATE_DIR", path).variable("BAA_LOGS_DIR", path).config();
        assert_eq!(shared.paths.state_dir, directory.join("codexd"));
        let home = Machine::new().variable("HOME", path).config();
        assert_eq!(home.server.cwd, directory);
        assert!(home.paths.state_dir.starts_with(&directory), "{:?}", home.paths.state_dir);
    }
}
