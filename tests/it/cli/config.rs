//! The environment variables of settings, as `codexd config` reports them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use serde_json::{Value, json};

use super::document;
use crate::api::{CommandOutput, run_command};
use crate::support::daemon::codexd;
use crate::support::scratch;

/// Each setting in the order of the report: its environment variable, a value for it, and the same as the report shows
/// it; HERE is the current directory.
fn cases() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("repo-root", "BAA_CODEXD_REPO_ROOT", "/usr", json!("/usr")),
        ("logs-dir", "BAA_CODEXD_LOGS_DIR", "/l1", json!("/l1")),
        ("state-dir", "BAA_CODEXD_STATE_DIR", "./s1/", json!("HERE/s1")),
        ("node-id", "BAA_NODE_ID", " one", json!("one")),
        ("event-cache-size", "BAA_CODEXD_EVENT_CACHE_SIZE", " 1", json!(1)),
        ("keep-awake", "BAA_CODEXD_KEEP_AWAKE", " off ", json!("off")),
        ("local-api-base", "BAA_CODEXD_LOCAL_API_BASE", "http://[::1]:1", json!("http://[::1]:1")),
        ("event-stream-path", "BAA_CODEXD_EVENT_STREAM_PATH", "/a/", json!("/a")),
        ("auth-token-file", "BAA_CODEXD_AUTH_TOKEN_FILE", "t1", json!("HERE/t1")),
        (
            "allowed-origin",
            "BAA_CODEXD_ALLOWED_ORIGINS",
            "http://a http://b",
            json!(["http://a", "http://b"]),
        ),
        ("allowed-host", "BAA_CODEXD_ALLOWED_HOSTS", "A.example b:1", json!(["a.example", "b:1"])),
        ("allow-uid", "BAA_CODEXD_ALLOW_UIDS", "33 nobody", json!(["33", "nobody"])),
        ("read-token-file", "BAA_CODEXD_READ_TOKEN_FILE", "t2", json!("HERE/t2")),
        ("connection-limit", "BAA_CODEXD_CONNECTION_LIMIT", "100000", json!(100_000)),
        ("websocket-limit", "BAA_CODEXD_WEBSOCKET_LIMIT", "0", json!(0)),
        ("body-limit", "BAA_CODEXD_BODY_LIMIT", "2048", json!(2048)),
        ("mode", "BAA_CODEXD_MODE", " app-server ", json!("app-server")),
        ("server-endpoint", "BAA_CODEXD_SERVER_ENDPOINT", "stdio://a", json!("stdio://a")),
        ("server-strategy", "BAA_CODEXD_SERVER_STRATEGY", "spawn", json!("spawn")),
        ("server-command", "BAA_CODEXD_SERVER_COMMAND", "bin/one", json!("HERE/bin/one")),
        ("server-arg", "BAA_CODEXD_SERVER_ARGS", "a  --b", json!(["a", "--b"])),
        ("server-cwd", "BAA_CODEXD_SERVER_CWD", "/usr", json!("/usr")),
        ("app-server-calls", "BAA_CODEXD_APP_SERVER_CALLS", "all", json!("all")),
        ("event-segment-bytes", "BAA_CODEXD_EVENT_SEGMENT_BYTES", "4096", json!(4096)),
        ("event-log-bytes", "BAA_CODEXD_EVENT_LOG_BYTES", "8192", json!(8192)),
        ("output-log-bytes", "BAA_CODEXD_OUTPUT_LOG_BYTES", "8192", json!(8192)),
        ("closed-session-limit", "BAA_CODEXD_CLOSED_SESSION_LIMIT", "5", json!(5)),
        ("client-timeout", "BAA_CODEXD_CLIENT_TIMEOUT", "60", json!(60)),
        ("ping-interval", "BAA_CODEXD_PING_INTERVAL", "3", json!(3)),
        ("drain-timeout", "BAA_CODEXD_DRAIN_TIMEOUT", "0", json!(0)),
        ("stall-timeout", "BAA_CODEXD_STALL_TIMEOUT", "3", json!(3)),
        ("request-timeout", "BAA_CODEXD_REQUEST_TIMEOUT", "3", json!(3)),
        ("start-timeout", "BAA_CODEXD_START_TIMEOUT", "60", json!(60)),
        ("call-timeout", "BAA_CODEXD_CALL_TIMEOUT", "60", json!(60)),
        ("check-interval", "BAA_CODEXD_CHECK_INTERVAL", "60", json!(60)),
        ("line-cap", "BAA_CODEXD_LINE_CAP", "2048", json!(2048)),
        ("log-filter", "BAA_CODEXD_LOG", " debug", json!("debug")),
    ]
}

/// A home directory in which commands run.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(scratch::directory("config"))
    }

    async fn run<V: AsRef<OsStr>>(&self, arguments: &[&str], variables: &[(&str, V)]) -> CommandOutput {
        let mut command = codexd(self.0.path());
        command.args(arguments).current_dir(self.0.path());
        command.envs(variables.iter().map(|(name, value)| (name, value.as_ref())));
        run_command(command).await
    }

    /// Name, value and source of every setting, with HERE for the home directory.
    async fn report(&self, flags: &[&str], variables: &[(&str, &str)]) -> Vec<(String, Value, String)> {
        let shown = self.run(&[&["config", "--json"], flags].concat(), variables).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(0), ""));
        let here = self.0.path().to_str().unwrap();
        let text = document(&shown).to_string().replace(here, "HERE");
        let report: Value = serde_json::from_str(&text).unwrap();
        let rows = report["settings"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.map(|row| (text(&row["name"]), row["value"].clone(), text(&row["source"]))).collect()
    }

    /// The one line on stderr with which `config` refuses this variable.
    async fn refusal(&self, name: &str, value: impl AsRef<OsStr>) -> String {
        let refused = self.run(&["config"], &[(name, value)]).await;
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{name}: {refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        refused.stderr.trim_end().to_owned()
    }
}

#[tokio::test]
async fn config_prefers_flag_over_variable_over_default() {
    let home = Home::new();
    let variables: Vec<_> = cases().into_iter().map(|(_, variable, value, _)| (variable, value)).collect();
    let expected: Vec<_> = cases()
        .into_iter()
        .map(|(name, variable, _, shown)| (name.to_owned(), shown, variable.to_owned()))
        .collect();
    assert_eq!(home.report(&[], &variables).await, expected);

    // Flags with the values of the variables; an array is one flag for each element.
    let mut flags = Vec::new();
    for (name, _, value, shown) in cases().into_iter().filter(|case| case.0 != "log-filter") {
        match shown.as_array() {
            Some(elements) => {
                flags.extend(elements.iter().map(|one| format!("--{name}={}", one.as_str().unwrap())));
            }
            None => flags.push(format!("--{name}={value}")),
        }
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let others: Vec<_> =
        cases().into_iter().map(|(_, variable, ..)| (variable, "none of these is read")).collect();
    let with_log = [&others[..others.len() - 1], &[("BAA_CODEXD_LOG", "debug")]].concat();
    let by_flag = expected.iter().map(|(name, shown, source)| {
        let source = if name == "log-filter" { source.clone() } else { format!("--{name}") };
        (name.clone(), shown.clone(), source)
    });
    assert_eq!(home.report(&flags, &with_log).await, by_flag.collect::<Vec<_>>());

    let defaults = home.report(&[], &[]).await;
    for blank in ["", "  ", "\n"] {
        let blanks: Vec<_> = cases().into_iter().map(|(_, variable, ..)| (variable, blank)).collect();
        assert_eq!(home.report(&[], &blanks).await, defaults, "{blank:?}");
    }
    assert!(defaults.iter().all(|(.., source)| source.starts_with("default")), "{defaults:?}");
}

#[tokio::test]
async fn config_names_variable_of_invalid_value() {
    let home = Home::new();
    for (name, value, problem) in [
        ("BAA_CODEXD_EVENT_CACHE_SIZE", "0", "\"0\" is not a whole number from 1 to 10000."),
        ("BAA_CODEXD_MODE", "exec", "the mode \"exec\" is not supported; app-server is the only mode."),
        (
            "BAA_CODEXD_LOCAL_API_BASE",
            "http://user:secret@127.0.0.1",
            "\"http://***@127.0.0.1\" contains credentials; remove everything up to the @.",
        ),
        ("BAA_NODE_ID", "a\nb", "the value contains a control character; remove it."),
        (
            "BAA_CODEXD_STATE_DIR",
            "~/x",
            "\"~/x\" starts with a tilde, which only a shell expands; write the full path.",
        ),
    ] {
        assert_eq!(home.refusal(name, value).await, format!("codexd: {name}: {problem}"));
    }
    for text in ["[", "[1]", r#"["a"] b"#] {
        let refusal = home.refusal("BAA_CODEXD_SERVER_ARGS", text).await;
        assert!(refusal.starts_with(
            "codexd: BAA_CODEXD_SERVER_ARGS: the value starts with [ but is not a JSON array of strings ("
        ));
    }
    let refusal = home.refusal("BAA_CODEXD_ALLOWED_ORIGINS", "http://a http://b/").await;
    assert_eq!(
        refusal,
        "codexd: BAA_CODEXD_ALLOWED_ORIGINS: browsers write \"http://b/\" differently; use http://b."
    );
}

#[tokio::test]
async fn config_rejects_setting_variable_that_is_not_utf8() {
    let home = Home::new();
    for (_, variable, ..) in cases() {
        assert_eq!(
            home.refusal(variable, OsStr::from_bytes(b"/\xff")).await,
            format!("codexd: {variable}: the value is not valid UTF-8; set it to plain text or unset it.")
        );
    }
}

#[tokio::test]
async fn config_reads_list_variables_as_words_or_json() {
    let home = Home::new();
    for (text, arguments) in [
        (" app-server\t--listen  x\n", json!(["app-server", "--listen", "x"])),
        (r#" ["a b", "", "-c", "x\ny"] "#, json!(["a b", "", "-c", "x\ny"])),
        ("[]", json!([])),
    ] {
        let report = home.report(&[], &[("BAA_CODEXD_SERVER_ARGS", text)]).await;
        let row = report.into_iter().find(|(name, ..)| name == "server-arg").unwrap();
        assert_eq!((row.1, row.2.as_str()), (arguments, "BAA_CODEXD_SERVER_ARGS"));
    }
}

#[tokio::test]
async fn config_names_variable_behind_default() {
    let home = Home::new();
    let report = home.report(&[], &[("BAA_CODEXD_REPO_ROOT", "/usr")]).await;
    for name in ["logs-dir", "state-dir", "server-cwd"] {
        let row = report.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(row.2, "default from BAA_CODEXD_REPO_ROOT", "{name}");
    }
}

#[tokio::test]
async fn config_keeps_bytes_of_path_variables() {
    let home = Home::new();
    for name in ["proj ", " proj", "proj\u{a0}", "\u{3000}proj\u{2003}"] {
        let directory = home.0.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let in_directory = |file: &str| format!("{}/{file}", directory.display());
        let (command, token) = (in_directory("codex "), in_directory("token "));
        let socket = format!(" unix://{}", in_directory("socket "));
        let report = home
            .report(
                &[],
                &[
                    ("BAA_CODEXD_REPO_ROOT", directory.to_str().unwrap()),
                    ("BAA_CODEXD_LOGS_DIR", name),
                    ("BAA_CODEXD_SERVER_CWD", directory.to_str().unwrap()),
                    ("BAA_CODEXD_SERVER_COMMAND", &command),
                    ("BAA_CODEXD_AUTH_TOKEN_FILE", &token),
                    ("BAA_CODEXD_SERVER_STRATEGY", " external "),
                    ("BAA_CODEXD_SERVER_ENDPOINT", &socket),
                ],
            )
            .await;
        for (setting, shown) in [
            ("repo-root", format!("HERE/{name}")),
            ("logs-dir", format!("HERE/{name}")),
            ("state-dir", format!("HERE/{name}/state/codexd")),
            ("server-cwd", format!("HERE/{name}")),
            ("server-command", format!("HERE/{name}/codex ")),
            ("auth-token-file", format!("HERE/{name}/token ")),
            ("server-endpoint", format!("unix://HERE/{name}/socket ")),
        ] {
            let row = report.iter().find(|row| row.0 == setting).unwrap();
            assert_eq!(row.1, json!(shown), "{setting}");
        }
    }
}

/// The `Environment=` lines of the unit for these flags, as variables.
#[cfg(target_os = "linux")]
async fn unit_variables(home: &Home, flags: &[&str], variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let printed = home.run(&[&["service", "print"], flags].concat(), variables).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let lines =
        printed.stdout.lines().filter_map(|line| line.strip_prefix("Environment=\"")?.strip_suffix('"'));
    let pairs = lines.map(|line| {
        let line = line.replace("\\\"", "\"").replace("\\\\", "\\").replace("%%", "%");
        let (name, value) = line.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    });
    pairs.filter(|(name, _)| name.starts_with("BAA_")).collect()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn service_variables_restore_settings() {
    let home = Home::new();
    let mut given: Vec<_> = cases().into_iter().map(|(_, variable, value, _)| (variable, value)).collect();
    for (name, value) in [
        ("BAA_CODEXD_REPO_ROOT", "a b/\"c\"\\%h$HOME'"),
        ("BAA_CODEXD_SERVER_ARGS", r#"[" [two words", "--more"]"#),
        ("BAA_CODEXD_SERVER_STRATEGY", "external"),
        ("BAA_CODEXD_SERVER_ENDPOINT", "unix:///run/a b%h.sock"),
    ] {
        given.iter_mut().filter(|(known, _)| *known == name).for_each(|pair| pair.1 = value);
    }
    for (given, count) in [(given, cases().len()), (Vec::new(), 2)] {
        let written = unit_variables(&home, &[], &given).await;
        assert_eq!(written.len(), count, "{written:?}");
        let read: Vec<_> = written.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let values = |report: Vec<(String, Value, String)>| -> Vec<Value> {
            report.into_iter().map(|(_, value, _)| value).collect()
        };
        assert_eq!(values(home.report(&[], &read).await), values(home.report(&[], &given).await));
        assert_eq!(unit_variables(&home, &[], &read).await, written);
    }
}

#[tokio::test]
async fn service_file_rejects_path_that_is_not_utf8() {
    let home = Home::new();
    let directory = home.0.path().join(OsString::from_vec(vec![0xff]));
    std::fs::create_dir(&directory).unwrap();
    let mut command = codexd(home.0.path());
    command.args(["service", "print", "--state-dir", "state"]).current_dir(&directory);
    let refused = run_command(command).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.ends_with("of --state-dir is not valid UTF-8; use another path.\n"),
        "{refused:?}"
    );
    assert!(!Path::new(&directory).join("state").exists());
}

#[tokio::test]
async fn demo_and_smoke_ignore_variables_of_settings_they_replace() {
    let home = Home::new();
    let variables = [
        ("BAA_CODEXD_SERVER_STRATEGY", "nonsense"),
        ("BAA_CODEXD_SERVER_ENDPOINT", "nonsense\n"),
        ("BAA_CODEXD_SERVER_COMMAND", "~/nonsense"),
        ("BAA_CODEXD_SERVER_ARGS", "[nonsense"),
    ];
    let demo = ["start", "--demo", "--run-once", "--local-api-base", "http://127.0.0.1:0"];
    let shown = home.run(&demo, &variables).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let more = [("BAA_CODEXD_LOCAL_API_BASE", "nonsense"), ("BAA_CODEXD_STATE_DIR", "~/nonsense")];
    let shown = home.run(&["smoke"], &[&variables[..], &more].concat()).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
}

#[tokio::test]
async fn value_of_a_flag_does_not_count_as_the_flag_demo() {
    let home = Home::new();
    let variables = [("BAA_CODEXD_SERVER_COMMAND", "wrapper")];
    let shown = home.run(&["config", "--server-arg", "--demo"], &variables).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("wrapper"), "{shown:?}");
}

#[tokio::test]
async fn clients_need_only_the_settings_that_they_use() {
    let home = Home::new();
    let base = "http://127.0.0.1:1";
    let variables = [("BAA_CODEXD_LOCAL_API_BASE", base), ("BAA_CODEXD_EVENT_CACHE_SIZE", "nonsense")];
    let alone = home.run(&["sessions"], &variables).await;
    assert_eq!(alone.code, Some(3), "{alone:?}");
    assert!(alone.stderr.contains(base), "{alone:?}");
}
