//! Who ends a request, in orders that a test of the whole daemon meets only by accident.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::tests::{TestRecorder, config};
use super::open::{Claim, ClaimResult, OpenRequests};
use super::{FollowUp, RequestDefaults, record_resolution, resolution, wait_for_expiry};
use crate::codex::rpc::wire::RpcId;
use crate::daemon::recorder::handle::Recorder;
use crate::ids::RequestId;
use crate::state::{ResolvedBy, ServerRequest, ServerRequestStatus};

/// A recorder with one request that waits.
struct Stage {
    test_recorder: TestRecorder,
    open: Arc<OpenRequests>,
    request_id: RequestId,
    _directory: TempDir,
}

impl Stage {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let test_recorder = TestRecorder::start(&config(directory.path(), &[]));
        let open = Arc::new(OpenRequests::new(test_recorder.recorder.clone()));
        let id: RpcId = serde_json::from_str("7").unwrap();
        let params = json!({ "threadId": "t", "turnId": "u", "itemId": "i" });
        let method = "item/commandExecution/requestApproval";
        let defaults = RequestDefaults { timeout: Duration::from_secs(600), has_other_clients: false };
        let asked = open.open(1, id, method, params, defaults);
        let Some(FollowUp::WatchRequest { request_id }) = asked else { panic!("{asked:?}") };
        Self { test_recorder, open, request_id, _directory: directory }
    }

    fn recorder(&self) -> &Recorder {
        &self.test_recorder.recorder
    }

    /// The request as a caller is shown it now.
    fn shown(&self) -> Arc<ServerRequest> {
        Arc::clone(self.recorder().view().state().requests.get(&self.request_id).unwrap())
    }

    fn claim(&self) -> Claim {
        match self.open.claim(&self.request_id) {
            ClaimResult::Claimed(claim) => claim,
            _ => panic!("another caller has it"),
        }
    }

    async fn accept(&self, claim: Claim) {
        let decision = Some(Value::from("accept"));
        let resolution = resolution(self.request_id.clone(), ResolvedBy::Client, decision, None);
        record_resolution(self.recorder(), claim, resolution).await.unwrap();
    }
}

#[tokio::test]
async fn second_claim_waits_for_the_record_of_the_first() {
    let stage = Stage::start();
    let first = stage.claim();
    let mut second = std::pin::pin!(stage.open.claim_or_wait(&stage.request_id));
    // The recorder processes the inputs of the second one before this one.
    tokio::select! {
        biased;
        _ = &mut second => panic!("returned while the request is {:?}", stage.shown().status),
        () = stage.recorder().caught_up() => {}
    }
    let (second, ()) = tokio::join!(second, stage.accept(first));
    assert!(second.is_none());
    assert_eq!(stage.shown().decision, Some(json!("accept")));
    stage.test_recorder.recorder.stop().await;
}

#[tokio::test]
async fn dropped_claim_lets_the_second_claim_succeed() {
    let stage = Stage::start();
    let first = stage.claim();
    let second = stage.open.claim_or_wait(&stage.request_id);
    let fail = async { drop(first) };
    let (second, ()) = tokio::join!(second, fail);
    stage.accept(second.unwrap()).await;
    assert_eq!(stage.shown().decision, Some(json!("accept")));
    assert!(stage.open.claim_or_wait(&stage.request_id).await.is_none());
    stage.test_recorder.recorder.stop().await;
}

#[tokio::test]
async fn request_resolved_by_the_app_server_is_recorded_before_the_next_claim() {
    for by in [ResolvedBy::AppServer, ResolvedBy::OtherClient, ResolvedBy::TurnEnd] {
        let stage = Stage::start();
        match by {
            ResolvedBy::AppServer => stage.open.resolved_by_app_server(1, "7", false),
            ResolvedBy::OtherClient => stage.open.resolved_by_app_server(1, "7", true),
            _ => stage.open.ended_with_turn(1, &"u".into()),
        }
        assert!(stage.open.claim_or_wait(&stage.request_id).await.is_none());
        assert_eq!(
            (stage.shown().status, stage.shown().resolved_by),
            (ServerRequestStatus::Resolved, Some(by))
        );
        stage.test_recorder.recorder.stop().await;
    }
}

#[tokio::test]
async fn claimed_request_is_not_resolved_again_by_the_app_server() {
    let stage = Stage::start();
    let first = stage.claim();
    stage.open.resolved_by_app_server(1, "7", false);
    stage.open.ended_with_turn(1, &"u".into());
    stage.accept(first).await;
    assert_eq!(stage.shown().resolved_by, Some(ResolvedBy::Client));
    let lines = stage.recorder().view().log.recent(100);
    let events = lines.iter().map(|line| serde_json::from_slice::<Value>(line.json()).unwrap());
    assert_eq!(events.filter(|event| event["type"] == "request.resolved").count(), 1);
    stage.test_recorder.recorder.stop().await;
}

#[tokio::test(start_paused = true)]
async fn request_expires_at_the_time_in_its_record() {
    let stage = Stage::start();
    stage.recorder().caught_up().await;
    let request = stage.shown();
    let began = Timestamp::now();
    // A machine that sleeps: the wall clock advances while no timer does.
    let early = wait_for_expiry(&request, || began);
    assert!(tokio::time::timeout(Duration::from_secs(3600), early).await.is_err());
    let late = wait_for_expiry(&request, || began + Duration::from_secs(600));
    tokio::time::timeout(Duration::from_secs(1), late).await.unwrap();
    stage.test_recorder.recorder.stop().await;
}
