//! Whose word it takes for Codex to use the `.codex` of a directory: its MCP commands run as the user, outside of any
//! sandbox.

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

/// A daemon on one version, and directories that would like to run something.
struct Stage {
    daemon: Daemon,
    home: CodexHome,
    config: Vec<u8>,
    _model: MockModel,
}

impl Stage {
    /// With these lines at the top of the user's `config.toml`, in the place of those for sandbox and approvals.
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
        // What begins with a table comes last, whatever else comes first.
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

    /// Runs one turn of this session to its end; by then every MCP server of its thread was started.
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

    /// The user's settings are byte for byte what they were.
    fn assert_config_is_untouched(&self) {
        let now = fs::read(self.home.path().join("config.toml")).unwrap();
        assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(&self.config));
    }

    /// The events of this type.
    fn events(&self, event_type: &str) -> Vec<Value> {
        let events = self.daemon.events_on_disk();
        events.into_iter().filter(|event| event["type"] == event_type).collect()
    }
}

/// A directory whose `.codex` names an MCP command, and the file that the command makes.
pub(crate) struct Project {
    pub(crate) path: PathBuf,
    pub(crate) mark: PathBuf,
}

impl Project {
    fn new(path: PathBuf, is_repository: bool) -> Self {
        fs::create_dir_all(path.join(".codex")).unwrap();
        if is_repository {
            git(&path, &["init", "-q"]);
        }
        let mark = path.join("the-command-ran");
        let config = format!(
            "[mcp_servers.anything]\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"touch '{}'; exec sleep 300\"]\n\
             startup_timeout_sec = 1\n",
            mark.display()
        );
        fs::write(path.join(".codex/config.toml"), config).unwrap();
        Self { path, mark }
    }

    /// One in the workspace of this home.
    pub(crate) fn in_workspace(home: &CodexHome, name: &str) -> Self {
        Self::new(home.workspace().join(name), true)
    }

    async fn assert_ran(&self) {
        wait_until("the MCP command", || self.mark.exists().then_some(())).await;
        fs::remove_file(&self.mark).unwrap();
    }

    fn assert_did_not_run(&self) {
        assert!(!self.mark.exists(), "{} ran its command", self.path.display());
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
                stage.assert_config_is_untouched();
            }
        }
        let told = stage.events("session.trust");
        assert_eq!(told[0]["detail"]["leftOut"], json!([project.path.join(".codex")]), "{told:?}");
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
            stage.assert_config_is_untouched();
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
            stage.assert_config_is_untouched();
            let told = settings_of(&stage.home);
            assert_eq!((told.0.as_str(), told.1.as_str()), (sandbox, policy), "{version} {settings}");
        }
    }
}

/// The sandbox and the approval policy of the newest turn, as Codex wrote them into the thread's file.
fn settings_of(home: &CodexHome) -> (String, String) {
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
                // Not even the caller's word changes it.
                for settings in [json!({}), json!({ "trust": true })] {
                    let session = stage.session(&cwd, &settings).await;
                    assert_eq!(session["trust"], "asUser");
                    stage.turn(&session).await;
                    match level {
                        "trusted" => project.assert_ran().await,
                        _ => project.assert_did_not_run(),
                    }
                    stage.assert_config_is_untouched();
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
        stage.assert_config_is_untouched();
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
        let early = stage.session(&project.path, &json!({ "sandbox": "workspace-write" })).await;
        stage.turn(&untrusted).await;
        project.assert_did_not_run();
        let told = stage.events("session.trust");
        assert_eq!(
            (&told[0]["detail"]["trust"], &told[0]["detail"]["sessionId"]),
            (&json!("trusted"), &trusted["sessionId"])
        );

        // Once with threads that are resumed, and one that is created anew.
        let stage = stage.restart(version).await;
        for session in [&untrusted, &early] {
            stage.turn(session).await;
            assert_eq!(record(&stage.daemon, session).await["trust"], "untrusted");
        }
        project.assert_did_not_run();
        stage.turn(&trusted).await;
        project.assert_ran().await;
        assert_eq!(record(&stage.daemon, &trusted).await["trust"], "trusted");

        // And the same threads by the names of others.
        for (way, name) in [("threadId", &untrusted["threadId"]), ("forkFrom", &untrusted["sessionId"])] {
            let body = json!({ way: name, "sandbox": "workspace-write" });
            let session =
                post(&stage.daemon, "/v1/codexd/sessions", &body).await.data(201)["session"].clone();
            assert_eq!(session["trust"], "untrusted", "{way}");
            stage.turn(&session).await;
            project.assert_did_not_run();
        }
        stage.assert_config_is_untouched();
    }
}

const QUESTION: &str = "Trust it? [y/N] ";

impl Stage {
    /// `codexd ask` for a turn in this directory, with these flags.
    fn ask(&self, project: &Project, flags: &[&str]) -> Command {
        let words = ["ask", "mock:deltas=1", "--cwd", project.path.to_str().unwrap()];
        crate::cli::command(
            self.daemon.base_url(),
            &self.home.workspace(),
            &[words.as_slice(), flags].concat(),
        )
    }

    /// `codexd ask` on a terminal that has to ask about trust; nothing is begun by then.
    async fn asks(&self, project: &Project) -> Terminal {
        let before = self.sessions().await.len();
        let terminal = Terminal::start(self.ask(project, &[]), 200);
        terminal.shows(QUESTION).await;
        let question = format!(
            "This directory has its own Codex configuration ({}/.codex). {QUESTION}",
            project.path.display()
        );
        assert!(terminal.text().contains(&question), "{}", terminal.text());
        assert!(terminal.text().contains("--trust and --trust=false change it"), "{}", terminal.text());
        assert_eq!(self.sessions().await.len(), before, "a session before the answer");
        project.assert_did_not_run();
        terminal
    }

    /// `codexd ask` on a terminal with these flags, which asks nothing about trust; what is passed for its session.
    async fn asks_nothing(&self, project: &Project, flags: &[&str]) -> Value {
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

        // Without a terminal nothing is asked, and that is no answer.
        let ended = crate::api::run(stage.ask(&project, &[])).await;
        let hint = format!(
            "codexd: Ignored, because the directory is not trusted: {}/.codex; --trust enables it.\n",
            project.path.display()
        );
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(&hint) && !ended.stderr.contains(QUESTION), "{ended:?}");

        // Left at the question, nothing was begun.
        let terminal = stage.asks(&project).await;
        terminal.interrupt();
        let (code, shown) = terminal.ended().await;
        assert_eq!(code, Some(130), "{shown}");
        assert_eq!(stage.sessions().await.len(), before + 1, "{shown}");

        // The end of the terminal is no answer either, and the directory is not trusted.
        let mut terminal = stage.asks(&project).await;
        terminal.type_in("\u{4}");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{shown}");

        let mut terminal = stage.asks(&project).await;
        terminal.type_in("perhaps\n");
        terminal.shows("y or n: ").await;
        terminal.type_in("n\n");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{shown}");
        assert!(shown.contains("Ignored, because the directory is not trusted: "), "{shown}");
        assert_eq!(stage.asks_nothing(&project, &[]).await, "untrusted");
        project.assert_did_not_run();

        // Another directory is another question.
        let other = Project::in_workspace(&stage.home, "second");
        let mut terminal = stage.asks(&other).await;
        terminal.type_in("y\n");
        let (code, shown) = terminal.ended().await;
        assert_eq!((code, stage.newest_trust().await), (Some(0), json!("trusted")), "{shown}");
        other.assert_ran().await;
        assert_eq!(stage.asks_nothing(&other, &[]).await, "trusted");
        other.assert_ran().await;
        // A script does what its command line says.
        let ended = crate::api::run(stage.ask(&other, &[])).await;
        assert_eq!((ended.code, stage.newest_trust().await), (Some(0), json!("untrusted")), "{ended:?}");
        other.assert_did_not_run();

        // The answers are changed, and outlive the daemon.
        assert_eq!(stage.asks_nothing(&other, &["--trust=false"]).await, "untrusted");
        assert_eq!(stage.asks_nothing(&project, &["--trust"]).await, "trusted");
        project.assert_ran().await;
        let stage = stage.restart(version).await;
        assert_eq!(stage.asks_nothing(&other, &[]).await, "untrusted");
        other.assert_did_not_run();
        assert_eq!(stage.asks_nothing(&project, &[]).await, "trusted");
        project.assert_ran().await;
        stage.assert_config_is_untouched();
    }
}

#[tokio::test]
async fn trust_ask_rejects_undecided_directory() {
    let stage = Stage::start(DEFAULT_VERSION, "").await;
    let (kind, evil) =
        (Project::in_workspace(&stage.home, "kind"), Project::in_workspace(&stage.home, "evil"));
    let plain = stage.home.workspace().join("plain");
    let link = stage.home.workspace().join("link");
    fs::create_dir(&plain).unwrap();
    std::os::unix::fs::symlink(&kind.path, &link).unwrap();
    let ask = async |cwd: &Path, trust: Value| {
        post(&stage.daemon, "/v1/codexd/sessions", &json!({ "cwd": cwd, "trust": trust })).await
    };
    let refused = ask(&evil.path, json!("ask")).await;
    let message = refused.error(409, "trust_undecided").to_owned();
    assert!(message.contains(&format!("{}/.codex", evil.path.display())), "{message}");
    let details = json!({ "cwd": evil.path, "leftOut": [evil.path.join(".codex")] });
    assert_eq!(refused.json["details"], details);
    assert_eq!(stage.sessions().await, [] as [Value; 0]);
    ask(&evil.path, json!("yes")).await.error(400, "bad_request");

    // With nothing to leave out there is no question, and so no answer.
    assert_eq!(ask(&plain, json!("ask")).await.data(201)["session"]["trust"], "untrusted");
    fs::create_dir(plain.join(".codex")).unwrap();
    fs::copy(evil.path.join(".codex/config.toml"), plain.join(".codex/config.toml")).unwrap();
    ask(&plain, json!("ask")).await.error(409, "trust_undecided");

    // An answer about a directory holds through a link to it, and not for what the link leads to later.
    assert_eq!(ask(&kind.path, json!(true)).await.data(201)["session"]["trust"], "trusted");
    assert_eq!(ask(&link, json!("ask")).await.data(201)["session"]["trust"], "trusted");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&evil.path, &link).unwrap();
    ask(&link, json!("ask")).await.error(409, "trust_undecided");
    evil.assert_did_not_run();
    stage.assert_config_is_untouched();
}
