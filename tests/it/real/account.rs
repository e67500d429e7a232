//! The account of the real Codex, its limits and its usage, in responses and commands.

use serde_json::{Value, json};

use super::Stage;
use crate::api::run_command;
use crate::cli::CliUser;
use crate::support::codex::{CHATGPT_TOKEN, CodexHome};
use crate::support::daemon::{Daemon, codexd};
use crate::support::http::{Target, get};
use crate::support::model::MockModel;
use crate::support::model::account::{LIFETIME_TOKENS, RESETS_AT, SECRET};
use crate::support::websocket::EventStream;

const ACCOUNT: &str = "/v1/codexd/account";

/// Starts a daemon with a Codex whose model requires an account, which `log_in` gives it.
async fn with_login(version: &str, log_in: impl FnOnce(&CodexHome, &MockModel)) -> Stage {
    let model = MockModel::start();
    let home = CodexHome::builder(&model).needs_account().build();
    log_in(&home, &model);
    let token_url = format!("{}token", model.chatgpt_base_url());
    let daemon = Daemon::builder().real_version(&home, version);
    let daemon = daemon.env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", token_url).start().await;
    let mut events = EventStream::connect(&daemon).await;
    events.hello().await;
    Stage { events, daemon, home, model }
}

async fn account(stage: &Stage) -> Value {
    get(&stage.daemon, ACCOUNT).await.data(200)["account"].clone()
}

#[tokio::test]
async fn account_has_its_limits_and_usage_and_nothing_secret() {
    for version in ["0.171.0", "0.140.0"] {
        let stage = with_login(version, |home, model| home.log_in_with_chatgpt(model)).await;
        let account = account(&stage).await;
        assert_eq!(
            (&account["type"], &account["email"], &account["planType"]),
            (&json!("chatgpt"), &json!("me@example.org"), &json!("plus")),
            "{version}: {account}"
        );
        assert_eq!(account["login"]["state"], "present", "{version}: {account}");
        let limit = &account["rateLimits"][0];
        assert_eq!(limit["limitId"], "codex", "{version}: {account}");
        let window =
            json!({ "usedPercent": 42, "windowMinutes": 300, "resetsAt": "2033-05-18T03:33:20.000Z" });
        assert_eq!(limit["primary"], window, "{version}: {RESETS_AT}");
        assert_eq!(limit["credits"]["balance"], "12.5", "{version}");
        assert_eq!(account["usage"]["lifetimeTokens"], LIFETIME_TOKENS, "{version}");
        assert_eq!(account["usage"]["days"], json!([{ "date": "2026-11-01", "tokens": 3 }]), "{version}");
        assert_eq!(account["notes"], json!([]), "{version}");

        let user = CliUser::of(&stage.daemon);
        let shown = user.run(&["account"]).await;
        assert_eq!(shown.code, Some(0), "{shown:?}");
        for text in
            ["chatgpt, me@example.org, plan plus", "42 % used of 5 h, until 2033-05-18T03:33:20Z", "123456"]
        {
            assert!(shown.stdout.contains(text), "{text} in {}", shown.stdout);
        }
        let status = user.run(&["status"]).await.stdout;
        assert!(status.contains("account") && status.contains("chatgpt, plan plus"), "{status}");
        let doctor = doctor(&stage).await;
        assert!(doctor.contains("Used: codex 42 %, codex 5 %."), "{doctor}");

        let log = json!(stage.daemon.events_on_disk()).to_string() + &stage.daemon.stderr();
        let everything = [account.to_string(), shown.stdout, status, doctor, log].concat();
        for secret in [SECRET, "refresh-secret", CHATGPT_TOKEN] {
            assert!(!everything.contains(secret), "{version}: {secret}");
        }
    }
}

/// Runs `codexd doctor` with the Codex of the stage.
async fn doctor(stage: &Stage) -> String {
    let mut command = codexd(&stage.home.user_home());
    let codex = crate::support::codex::codex();
    let flag = |name: &str, path: std::path::PathBuf| format!("--{name}={}", path.display());
    command
        .args(["doctor", "--server-command"])
        .arg(&codex.native)
        .arg(flag("state-dir", stage.daemon.state_dir()))
        .arg(flag("logs-dir", stage.daemon.logs_dir()))
        .arg(format!("--local-api-base={}", stage.daemon.base_url()))
        .env("CODEX_HOME", stage.home.path())
        .env("CODEX_REFRESH_TOKEN_URL_OVERRIDE", format!("{}token", stage.model.chatgpt_base_url()))
        .current_dir(stage.home.user_home());
    run_command(command).await.stdout
}

#[tokio::test]
async fn stale_login_is_noticed_and_the_command_that_renews_it_is_given() {
    let stage = with_login("0.171.0", |home, model| home.log_in_with_chatgpt(model)).await;
    stage.model.require_key("another");
    let account = account(&stage).await;
    let login = &account["login"];
    assert_eq!((&login["state"], &login["command"]), (&json!("refused"), &json!("codex login")), "{account}");
    assert_eq!((&account["rateLimits"], &account["usage"]), (&Value::Null, &Value::Null));
    assert!(!account.to_string().contains("Incorrect API key"), "{account}");
    let shown = CliUser::of(&stage.daemon).run(&["account"]).await;
    assert!(shown.code == Some(1) && shown.stdout.contains("Type: codex login"), "{shown:?}");
    let doctor = doctor(&stage).await;
    assert!(doctor.contains("The login of Codex is refused"), "{doctor}");
}

#[tokio::test]
async fn account_without_limits_is_no_error() {
    let stage = with_login("0.171.0", |home, _| home.log_in("sk-old-key-0123456789")).await;
    let account = account(&stage).await;
    assert_eq!((&account["type"], &account["login"]["state"]), (&json!("apiKey"), &json!("present")));
    assert_eq!((&account["rateLimits"], &account["usage"]), (&Value::Null, &Value::Null));
    assert_eq!(account["notes"].as_array().unwrap().len(), 1, "{account}");
    assert!(!account.to_string().contains("sk-old"), "{account}");

    stage.home.log_in("sk-new-key-0123456789");
    let account = self::account(&stage).await;
    assert_eq!(account["login"]["state"], "changed", "{account}");

    let none = with_login("0.171.0", |_, _| {}).await;
    let account = self::account(&none).await;
    assert_eq!((&account["type"], &account["login"]["state"]), (&Value::Null, &json!("missing")));
    let shown = CliUser::of(&none.daemon).run(&["account"]).await;
    assert!(shown.code == Some(1) && shown.stdout.contains("Type: codex login"), "{shown:?}");
}

#[tokio::test]
async fn account_of_an_app_server_that_does_not_run_is_unavailable() {
    let daemon = Daemon::builder().server("/nonexistent/codex", &["app-server"]).start().await;
    get(&daemon, ACCOUNT).await.error(503, "app_server_unavailable");
}
