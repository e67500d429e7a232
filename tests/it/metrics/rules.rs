//! The alert rules in `docs/prometheus-rules.yml`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::page;
use crate::api::{new_session, start_daemon, start_turn, wait_until_idle};
use crate::support::skip::skip;

const RULES: &str = include_str!("../../../docs/prometheus-rules.yml");

#[test]
fn alert_rules_pass_promtool() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (action, file) in
        [("check", "docs/prometheus-rules.yml"), ("test", "tests/it/metrics/rules_test.yml")]
    {
        match Command::new("promtool").args([action, "rules", file]).current_dir(root).output() {
            Ok(output) => assert!(
                output.status.success(),
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
            Err(error) => {
                let why = format!("promtool cannot be started: {error}");
                skip("CODEXD_TEST_PROMTOOL", "the test of the alert rules by promtool", &why);
            }
        }
    }
}

#[tokio::test]
async fn alert_rules_use_metrics_that_exist() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    let page = page(&daemon).await;
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let exist: BTreeSet<_> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    let words = RULES.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let used: BTreeSet<_> = words.filter(|word| word.starts_with("codexd_")).collect();
    assert!(used.len() > 10, "{used:?}");
    let missing: Vec<_> = used.difference(&exist).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
