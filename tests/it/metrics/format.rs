//! The format of the page.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use hyper::Method;

use super::{CONTENT_TYPE, METRICS, page, samples};
use crate::api::{new_session, start_daemon, start_turn, wait_until_idle, wait_until_ready};
use crate::support::daemon::Daemon;
use crate::support::http::{get, get_text, request};
use crate::support::scratch;
use crate::support::skip::skip;

#[tokio::test]
async fn metrics_page_describes_each_metric_once() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let page = page(&daemon).await;
    let (mut helps, mut types) = (BTreeMap::new(), BTreeMap::new());
    let mut current = "";
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            assert!(help.ends_with('.') && !help.ends_with(".."), "{line}");
            assert_eq!(helps.insert(name, help), None, "{name} is described twice");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert!(helps.contains_key(name), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            types.insert(name, kind);
            current = name;
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let is_part = |ending: &&str| name.strip_suffix(ending) == Some(current);
            let histogram = ["_bucket", "_sum", "_count"].iter().any(is_part);
            let fits = if types[current] == "histogram" { histogram } else { name == current };
            assert!(fits, "{line} follows the description of {current}");
        }
    }
    assert_eq!(helps.len(), types.len());
    assert!(!page.contains("EOF") && page.ends_with('\n'), "{page}");
    assert!(
        page.contains(&format!("codexd_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"))),
        "{page}"
    );
}

#[tokio::test]
async fn operations_manual_lists_exactly_the_metrics() {
    let daemon = start_daemon().await;
    wait_until_ready(&daemon).await;
    let page = page(&daemon).await;
    let mut shown: Vec<_> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let manual = include_str!("../../../docs/operations.md");
    let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let is_metric = |name: &&str| name.starts_with("codexd_") || name.starts_with("process_");
    let mut named: Vec<_> = rows.filter(is_metric).collect();
    if cfg!(not(target_os = "linux")) {
        named.retain(|name| !name.ends_with("resident_memory_bytes"));
    }
    shown.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, shown);
}

#[tokio::test]
async fn metrics_page_requires_token_and_allowed_host() {
    let directory = scratch::directory("test");
    let (token, file) = ("0123456789abcdef0123456789abcdef", directory.path().join("token"));
    {
        use std::os::unix::fs::OpenOptionsExt;
        let mut open = std::fs::OpenOptions::new();
        open.write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)
            .unwrap()
            .write_all(token.as_bytes())
            .unwrap();
    }
    let daemon = Daemon::builder().arg("--auth-token-file").arg(&file).start().await;
    get(&daemon, METRICS).await.error(401, "unauthorized");
    let bearer = format!("Bearer {token}");
    let page = get_text(&daemon, METRICS, &[("authorization", &bearer)], CONTENT_TYPE).await;
    assert!(page.contains("codexd_http_requests_total{status=\"4xx\"} 1\n"), "{page}");
    let head = [("authorization", bearer.as_str()), ("host", "foreign.example")];
    request(&daemon, Method::GET, METRICS, &head, "").await.error(403, "forbidden");
}

#[tokio::test]
async fn metrics_page_passes_promtool() {
    let daemon = start_daemon().await;
    let session_id = new_session(&daemon).await;
    start_turn(&daemon, &session_id, "hello").await;
    wait_until_idle(&daemon, &session_id).await;
    samples(&daemon).await;
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let why = format!("promtool cannot be started: {error}");
            skip("CODEXD_TEST_PROMTOOL", "the check of the metrics by promtool", &why);
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(page(&daemon).await.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), &*stdout, &*stderr), (Some(0), "", ""));
}
