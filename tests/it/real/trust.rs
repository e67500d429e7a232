//! Trust in directories: the MCP commands in the `.codex` of a directory run as the user and outside of any sandbox, so
//! Codex may use it only if the user or the client of the session has decided so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{create_session, record, submit};
use crate::support::codex::{CodexHome, DEFAULT_VERSION, versions};
use crate::support::daemon::Daemon;
use crate::support::http::{Target, get, post};
use crate::support::model::MockModel;
use crate::support::skip::runs_long;
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until;

/// A daemon with one version of Codex, and the contents of the user's `config.toml`.
struct Stage {
    daemon: Daemon,
    home: CodexHome,
    config: Vec<u8>,
    _model: MockModel,
}

impl Stage {
    /// Starts with these lines in the user's `config.toml` instead of those for sandbox and approvals.
    async fn start(version: &str, settings: &str) -> Self {
        Self::start_with(version, |_| settings.to_owned()).await
    }

    async fn start_with(version: &str, settings: impl FnOnce(&Path) -> String) -> Self {
        let model = MockModel::start();
        let home = CodexHome::new(&model);
        let path = home.path().join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        let rest = text
            .lines()
            .filter(|line| !line.starts_with("approval_policy") && !line.starts_with("sandbox_mode"));
        let rest: Vec<_> = rest.collect();
        // Settings that begin with a table go to the end of the file, all others to its start.
        let settings = settings(&home.workspace());
        let text = match settings.starts_with('[') {
            true => format!("{}\n{settings}\n", rest.join("\n")),
            false => format!("{settings}\n{}\n", rest.join("\n")),
        };
        fs::write(&path, &text).unwrap();
        let daemon = Daemon::builder().real_version(&home, version).start().await;
        Self { daemon, home, config: text.into_bytes(), _model: model }
    }

    async fn restart(self, version: &str) -> Self {
        let Self { mut daemon, home, config, _model } = self;
        assert!(daemon.stop().await.status.success());
        let daemon = Daemon::builder().real_version(&home, version).state_from(&daemon).start().await;
        Self { daemon, home, config, _model }
    }

    async fn session(&self, cwd: &Path, settings: &Value) -> Value {
        let mut body = json!({ "cwd": cwd });
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        create_session(&self.daemon, &self.home, &body).await
    }

    /// Runs one turn of this session to its end; by then every MCP server of its thread has been started.
    async fn turn(&self, session: &Value) {
        let body = json!({ "sessionId": session["sessionId"], "input": "mock:deltas=1" });
        let accepted = submit(&self.daemon, &body).await.data(202).clone();
        let path = format!(
            "/v1/codexd/sessions/{}/turns/{}?wait=60",
            session["sessionId"].as_str().unwrap(),
            accepted["turnId"].as_str().unwrap()
        );
        let answer = crate::support::http::get(&self.daemon, &path).await;
        assert_eq!(answer.data(200)["turn"]["status"], "completed");
    }

    /// Asserts that the user's `config.toml` is unchanged byte for byte.
    fn assert_config_unchanged(&self) {
        let now = fs::read(self.home.path().join("config.toml")).unwrap();
        assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(&self.config));
    }

    /// Returns the events of this type in the log.
    fn events(&self, event_type: &str) -> Vec<Value> {
        let events = self.daemon.events_on_disk();
        events.into_iter().filter(|event| event["type"] == event_type).collect()
    }
}

/// A directory whose `.codex` configures an MCP command, and the file that the command creates.
pub(crate) struct Project {
    pub(crate) path: PathBuf,
    pub(crate) marker: PathBuf,
}

impl Project {
    fn new(path: PathBuf, is_repository: bool) -> Self {
        fs::create_dir_all(path.join(".codex")).unwrap();
        if is_repository {
            git(&path, &["init", "-q"]);
        }
        let marker = path.join("command-has-run");
        let config = format!(
            "[mcp_servers.anything]\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"touch '{}'; exec sleep 300\"]\n\
             startup_timeout_sec = 1\n",
            marker.display()
        );
        fs::write(path.join(".codex/config.toml"), config).unwrap();
        Self { path, marker }
    }

    /// Creates a project with a repository in the workspace of this home.
    pub(crate) fn in_workspace(home: &CodexHome, name: &str) -> Self {
        Self::new(home.workspace().join(name), true)
    }

    /// Waits until the command has run, and removes its file.
    async fn assert_ran(&self) {
        wait_until("the MCP command", || self.marker.exists().then_some(())).await;
        fs::remove_file(&self.marker).unwrap();
    }

    fn assert_did_not_run(&self) {
        assert!(!self.marker.exists(), "the command of {} has run", self.path.display());
    }
}

fn git(directory: &Path, arguments: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn undecided_directory_runs_no_command_with_any_policy() {
    for version in versions() {
        let stage = Stage::start(version, "").await;
        let project = Project::in_workspace(&stage.home, "fresh");
        for sandbox in
            [Value::Null, json!("read-only"), json!("workspace-write"), json!("danger-full-access")]
        {
            for policy in [Value::Null, json!("never"), json!("on-request"), json!("untrusted")] {
                let settings = json!({ "sandbox": sandbox, "approvalPolicy": policy });
                let session = stage.session(&project.path, &settings).await;
                assert_eq!(session["trust"], "untrusted", "{settings}");
                if policy != "untrusted" {
                    stage.turn(&session).await;
                }
                project.assert_did_not_run();
                stage.assert_config_unchanged();
            }
        }
        let events = stage.events("session.trust");
        assert_eq!(events[0]["detail"]["leftOut"], json!([project.path.join(".codex")]), "{events:?}");
    }
}

#[tokio::test]
async fn undecided_directory_runs_no_command_by_any_path() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        let stage = Stage::start(version, "").await;
        let workspace = stage.home.workspace();
        let plain = Project::in_workspace(&stage.home, "plain");
        fs::create_dir_all(plain.path.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&plain.path, workspace.join("link")).unwrap();
        let dotted = Project::in_workspace(&stage.home, "my.project.d");
        let bare = Project::new(workspace.join("bare"), false);
        let main = Project::in_workspace(&stage.home, "main");
        git(&main.path, &["add", "-A"]);
        git(&main.path, &["commit", "-q", "-m", "x"]);
        git(&main.path, &["worktree", "add", "-q", "../tree"]);
        for (path, project) in [
            ("plain", &plain),
            ("plain/", &plain),
            ("plain/a/b", &plain),
            ("plain/a/..", &plain),
            ("./plain//a/", &plain),
            ("link", &plain),
            ("link/a", &plain),
            ("my.project.d", &dotted),
            ("bare", &bare),
            ("tree", &main),
        ] {
            let cwd = format!("{}/{path}", workspace.display());
            let session = stage.session(Path::new(&cwd), &json!({ "sandbox": "workspace-write" })).await;
            assert_eq!(session["trust"], "untrusted", "{path}");
            stage.turn(&session).await;
            project.assert_did_not_run();
            stage.assert_config_unchanged();
        }
    }
}

#[tokio::test]
async fn untrusted_session_keeps_configured_sandbox_and_approvals() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        for (settings, sandbox, policy) in [
            ("", "readOnly", "on-request"),
            ("approval_policy = \"never\"", "readOnly", "never"),
            ("sandbox_mode = \"workspace-write\"", "workspaceWrite", "on-request"),
            (
                "sandbox_mode = \"danger-full-access\"\napproval_policy = \"never\"",
                "dangerFullAccess",
                "never",
            ),
            ("default_permissions = \":workspace\"", "workspaceWrite", "on-request"),
        ] {
            let stage = Stage::start(version, settings).await;
            let project = Project::in_workspace(&stage.home, "fresh");
            let session = stage.session(&project.path, &json!({})).await;
            stage.turn(&session).await;
            project.assert_did_not_run();
            stage.assert_config_unchanged();
            let used = newest_turn_settings(&stage.home);
            assert_eq!((used.0.as_str(), used.1.as_str()), (sandbox, policy), "{version} {settings}");
        }
    }
}

/// Returns the sandbox and the approval policy of the newest turn, which Codex writes into the file of the thread.
fn newest_turn_settings(home: &CodexHome) -> (String, String) {
    fn files(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => files(&path, found),
                path if path.extension().is_some_and(|end| end == "jsonl") => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    files(&home.path().join("sessions"), &mut found);
    found.sort();
    let text = fs::read_to_string(found.last().unwrap()).unwrap();
    let mut lines = text.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let context = lines.find(|line| line["type"] == "turn_context").unwrap();
    let sandbox = match context["payload"]["sandbox_policy"]["type"].as_str().unwrap() {
        "read-only" => "readOnly",
        "workspace-write" => "workspaceWrite",
        "danger-full-access" => "dangerFullAccess",
        other => panic!("{other}"),
    };
    (sandbox.to_owned(), context["payload"]["approval_policy"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn user_trust_level_overrides_session_trust() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        for level in ["trusted", "untrusted"] {
            let stage = Stage::start_with(version, |workspace| {
                format!("[projects.\"{}/known\"]\ntrust_level = \"{level}\"", workspace.display())
            })
            .await;
            let project = Project::in_workspace(&stage.home, "known");
            fs::create_dir_all(project.path.join("a")).unwrap();
            for cwd in [project.path.clone(), project.path.join("a")] {
                // The trust of the session does not change it either.
                for settings in [json!({}), json!({ "trust": true })] {
                    let session = stage.session(&cwd, &settings).await;
                    assert_eq!(session["trust"], "asUser");
                    stage.turn(&session).await;
                    match level {
                        "trusted" => project.assert_ran().await,
                        _ => project.assert_did_not_run(),
                    }
                    stage.assert_config_unchanged();
                }
            }
            assert_eq!(stage.events("session.trust"), [] as [Value; 0]);
        }
    }
}

#[tokio::test]
async fn session_config_can_trust_its_project() {
    for version in versions() {
        let stage = Stage::start(version, "").await;
        let project = Project::in_workspace(&stage.home, "own.project");
        let projects = json!({ project.path.to_str().unwrap(): { "trust_level": "trusted" } });
        let session = stage.session(&project.path, &json!({ "config": { "projects": projects } })).await;
        assert_eq!(session["trust"], "asUser");
        stage.turn(&session).await;
        project.assert_ran().await;
        stage.assert_config_unchanged();
    }
}

#[tokio::test]
async fn session_trust_is_kept_across_restart_resume_and_fork() {
    for version in versions() {
        let stage = Stage::start(version, "").await;
        let project = Project::in_workspace(&stage.home, "fresh");
        let trusted =
            stage.session(&project.path, &json!({ "trust": true, "sandbox": "workspace-write" })).await;
        assert_eq!(trusted["trust"], "trusted");
        stage.turn(&trusted).await;
        project.assert_ran().await;
        let untrusted =
            stage.session(&project.path, &json!({ "trust": false, "sandbox": "workspace-write" })).await;
        let without_turns = stage.session(&project.path, &json!({ "sandbox": "workspace-write" })).await;
        stage.turn(&untrusted).await;
        project.assert_did_not_run();
        let events = stage.events("session.trust");
        assert_eq!(
            (&events[0]["detail"]["trust"], &events[0]["detail"]["sessionId"]),
            (&json!("trusted"), &trusted["sessionId"])
        );

        // One thread is resumed, and the one without turns is created again.
        let stage = stage.restart(version).await;
        for session in [&untrusted, &without_turns] {
            stage.turn(session).await;
            assert_eq!(record(&stage.daemon, session).await["trust"], "untrusted");
        }
        project.assert_did_not_run();
        stage.turn(&trusted).await;
        project.assert_ran().await;
        assert_eq!(record(&stage.daemon, &trusted).await["trust"], "trusted");

        // New sessions on the untrusted thread, and forks of it, are untrusted too.
        for (field, id) in [("threadId", &untrusted["threadId"]), ("forkFrom", &untrusted["sessionId"])] {
            let body = json!({ field: id, "sandbox": "workspace-write" });
            let session =
                post(&stage.daemon, "/v1/codexd/sessions", &body).await.data(201)["session"].clone();
            assert_eq!(session["trust"], "untrusted", "{field}");
            stage.turn(&session).await;
            project.assert_did_not_run();
        }
        stage.assert_config_unchanged();
    }
}

const QUESTION: &str = "Trust it? [y/N] ";

impl Stage {
    /// The command `codexd ask` for a turn in this directory, with these flags.
    fn ask(&self, project: &Project, flags: &[&str]) -> Command {
        let arguments = ["ask", "mock:deltas=1", "--cwd", project.path.to_str().unwrap()];
        crate::cli::command(
            self.daemon.base_url(),
            &self.home.workspace(),
            &[arguments.as_slice(), flags].concat(),
        )
    }

    /// Runs `codexd ask` on a terminal until it prompts for trust, and asserts that no session exists yet.
    async fn ask_until_prompt(&self, project: &Project) -> Terminal {
        let before = self.sessions().await.len();
        let terminal = Terminal::start(self.ask(project, &[]), 200);
        terminal.shows(QUESTION).await;
        let question = format!(
            "This directory has its own Codex configuration ({}/.codex). {QUESTION}",
            project.path.display()
        );
        assert!(terminal.text().contains(&question), "{}", terminal.text());
        assert!(terminal.text().contains("--trust and --trust=false change it"), "{}", terminal.text());
        assert_eq!(self.sessions().await.len(), before, "a session was created before the answer");
        project.assert_did_not_run();
        terminal
    }

    /// Runs `codexd ask` on a terminal with these flags and asserts that it does not prompt; returns the trust of its
    /// session.
    async fn ask_without_prompt(&self, project: &Project, flags: &[&str]) -> Value {
        let (code, shown) = Terminal::start(self.ask(project, flags), 200).ended().await;
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains(QUESTION), "{shown}");
        self.newest_trust().await
    }

    async fn sessions(&self) -> Vec<Value> {
        let answer = get(&self.daemon, "/v1/codexd/sessions").await;
        answer.data(200)["sessions"].as_array().unwrap().clone()
    }

    async fn newest_trust(&self) -> Value {
        self.sessions().await.last().unwrap()["trust"].clone()
    }
}

#[tokio::test]
async fn ask_prompts_for_trust_once_per_directory() {
    if !runs_long() {
        return;
    }
    for version in versions() {
        let stage = Stage::start(version, "").await;
        let project = Project::in_workspace(&stage.home, "first");
        let before = stage.sessions().await.len();

        // Without a terminal there is no prompt, and the decision stays open.
        let ended = crate::api::run_command(stage.ask(&project, &[])).await;
        let hint = format!(
            "codexd: Ignored, because the directory is not trusted: {}/.codex; --trust enables it.\n",
            project.path.display()
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(&hint) && !ended.stderr.contains(QUESTION), "{ended:?}");

        // An interrupt at the prompt creates no session.
        let terminal = stage.ask_until_prompt(&project).await;
        terminal.interrupt();
        let (code, shown) = terminal.ended().await;
        assert_eq!(code, Some(130), "{shown}");
        assert_eq!(stage.sessions().await.len(), before + 1, "{shown}");

        // The end of the input is not a decision either, and the directory is not trusted.
        let mut terminal = stage.ask_until_prompt(&project).await;
        terminal.type_in("\u{4}");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{shown}");

        let mut terminal = stage.ask_until_prompt(&project).await;
        terminal.type_in("perhaps\n");
        terminal.shows("y or n: ").await;
        terminal.type_in("n\n");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{shown}");
        assert!(shown.contains("Ignored, because the directory is not trusted: "), "{shown}");
        assert_eq!(stage.ask_without_prompt(&project, &[]).await, "untrusted");
        project.assert_did_not_run();

        // Another directory has its own prompt.
        let other = Project::in_workspace(&stage.home, "second");
        let mut terminal = stage.ask_until_prompt(&other).await;
        terminal.type_in("y\n");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("trusted")), "{shown}");
        other.assert_ran().await;
        assert_eq!(stage.ask_without_prompt(&other, &[]).await, "trusted");
        other.assert_ran().await;
        // Without a terminal only the command line counts.
        let ended = crate::api::run_command(stage.ask(&other, &[])).await;
        assert_eq!((ended.code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{ended:?}");
        other.assert_did_not_run();

        // Flags change the decisions, and the decisions survive a restart.
        assert_eq!(stage.ask_without_prompt(&other, &["--trust=false"]).await, "untrusted");
        assert_eq!(stage.ask_without_prompt(&project, &["--trust"]).await, "trusted");
        project.assert_ran().await;
        let stage = stage.restart(version).await;
        assert_eq!(stage.ask_without_prompt(&other, &[]).await, "untrusted");
        other.assert_did_not_run();
        assert_eq!(stage.ask_without_prompt(&project, &[]).await, "trusted");
        project.assert_ran().await;
        stage.assert_config_unchanged();
    }
}

#[tokio::test]
async fn trust_ask_rejects_undecided_directory() {
    let stage = Stage::start(DEFAULT_VERSION, "").await;
    let (trusted, undecided) =
        (Project::in_workspace(&stage.home, "trusted"), Project::in_workspace(&stage.home, "undecided"));
    let plain = stage.home.workspace().join("plain");
    let link = stage.home.workspace().join("link");
    fs::create_dir(&plain).unwrap();
    std::os::unix::fs::symlink(&trusted.path, &link).unwrap();
    let create = async |cwd: &Path, trust: Value| {
        post(&stage.daemon, "/v1/codexd/sessions", &json!({ "cwd": cwd, "trust": trust })).await
    };
    let refused = create(&undecided.path, json!("ask")).await;
    let message = refused.error(409, "trust_undecided").to_owned();
    assert!(message.contains(&format!("{}/.codex", undecided.path.display())), "{message}");
    let details = json!({ "cwd": undecided.path, "leftOut": [undecided.path.join(".codex")] });
    assert_eq!(refused.json["details"], details);
    assert_eq!(stage.sessions().await, [] as [Value; 0]);
    create(&undecided.path, json!("yes")).await.error(400, "bad_request");

    // Without a configuration to ignore, no decision is needed.
    assert_eq!(create(&plain, json!("ask")).await.data(201)["session"]["trust"], "untrusted");
    fs::create_dir(plain.join(".codex")).unwrap();
    fs::copy(undecided.path.join(".codex/config.toml"), plain.join(".codex/config.toml")).unwrap();
    create(&plain, json!("ask")).await.error(409, "trust_undecided");

    // A decision applies to a directory through a link too, and not to a later target of the link.
    assert_eq!(create(&trusted.path, json!(true)).await.data(201)["session"]["trust"], "trusted");
    assert_eq!(create(&link, json!("ask")).await.data(201)["session"]["trust"], "trusted");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&undecided.path, &link).unwrap();
    create(&link, json!("ask")).await.error(409, "trust_undecided");
    undecided.assert_did_not_run();
    stage.assert_config_unchanged();
}
