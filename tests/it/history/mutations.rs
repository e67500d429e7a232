//! Tests of the durability tests: each mutation breaks codexd in one place, and a validator must detect it.
//!
//! `CODEXD_MUTATED` names a codexd binary that was built with the feature `mutations`; see `docs/testing.md`.

use std::path::PathBuf;

use super::lost_log::{Loss, history_with_loss};
use super::mounts::{Mount, or_skip};
use super::power::PowerCuts;
use super::random::seed;
use super::soak::{Soak, soak_contradictions};
use super::validators::contradictions;

/// Returns the codexd binary with the feature `mutations`, or `None` after printing that the test is skipped.
fn program(mutation: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CODEXD_MUTATED").map(PathBuf::from);
    let found = named.ok_or("CODEXD_MUTATED names no codexd binary with the feature mutations".to_owned());
    or_skip(&format!("the mutation {mutation}"), found)
}

fn environment(mutation: &str) -> Vec<(String, String)> {
    vec![("BAA_CODEXD_MUTATION".to_owned(), mutation.to_owned())]
}

#[track_caller]
fn assert_detected(found: &[String], validator: &str) {
    assert!(
        found.iter().any(|contradiction| contradiction.starts_with(validator)),
        "{validator} is not in {found:#?}"
    );
}

/// Returns the contradictions after at most 60 power cuts.
async fn cut_power(mutation: &str) -> Option<Vec<String>> {
    let program = Some(program(mutation)?);
    let mount = or_skip(&format!("power cuts of the mutation {mutation}"), Mount::ext4(64))?;
    let plan = PowerCuts { cuts: 60, seed: seed(), program, environment: environment(mutation) };
    Some(plan.run(&mount).await.1)
}

/// Returns the contradictions after `kills` kills.
async fn kill(mutation: &str, kills: u64) -> Option<Vec<String>> {
    let program = Some(program(mutation)?);
    let soak = Soak { kills, seed: seed(), program, environment: environment(mutation) };
    Some(soak_contradictions(&soak.run().await))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutation_without_sync_loses_an_acknowledgement() {
    if let Some(found) = cut_power("no-sync").await {
        // A log that was never synced may be lost completely, including its epoch.
        let expected =
            if found.iter().any(|text| text.starts_with("epoch:")) { "epoch" } else { "acknowledged" };
        assert_detected(&found, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutation_acknowledge_before_sync_loses_an_acknowledgement() {
    if let Some(found) = cut_power("ack-before-sync").await {
        assert_detected(&found, "acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutation_reused_sequence_numbers_is_detected() {
    if let Some(found) = cut_power("reuse-numbers").await {
        assert_detected(&found, "unique");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutation_publish_before_write_loses_published_events() {
    if let Some(found) = kill("publish-before-write", 40).await {
        assert_detected(&found, "kept");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutation_resume_one_event_late_is_detected() {
    if let Some(found) = kill("skip-tail", 5).await {
        assert_detected(&found, "resumable");
        assert_detected(&found, "nothing missing");
    }
}

#[tokio::test]
async fn mutation_accept_old_log_copy_is_detected() {
    if let Some(program) = program("no-epoch") {
        let found = contradictions(&history_with_loss(Loss::Older, Some((program, "no-epoch"))).await);
        assert_detected(&found, "nothing missing");
    }
}
