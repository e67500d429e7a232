//! What a daemon leaves on disk, with every kind of damage.

mod failing_disk;
mod state_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::StateDirectories;
use crate::config::{Config, Environment, Settings};
use crate::daemon::events;
use crate::daemon::recorder::handle::Recorder;
use crate::daemon::recorder::recovery::{self, Opened};
use crate::ids::{ThreadId, TurnId};
use crate::state::{DaemonEvent, NewEvent, Purpose, RequestPolicy, Session, SessionStatus, State, TurnEvent};

const STATE_FILES: [&str; 5] =
    ["identity.json", "daemon-state.json", "session-registry.json", "records.json", "recent-events.json"];

/// The configuration with these flags, and with state and logs in this directory.
pub(super) fn config(directory: &Path, flags: &[&str]) -> Config {
    let mut settings = Settings::from_flags(flags).unwrap();
    settings.server.server_cwd = Some(directory.to_owned());
    settings.paths.state_dir = Some(directory.join("state"));
    settings.paths.logs_dir = Some(directory.join("logs"));
    Config::resolve(settings, &Environment::new()).unwrap()
}

fn open(config: &Config) -> (Opened, StateDirectories) {
    let directories = StateDirectories::take(config).unwrap();
    (recovery::open(config, &directories).unwrap(), directories)
}

pub(super) fn new_session(name: &str) -> Session {
    Session {
        session_id: name.into(),
        purpose: Purpose::Duplex,
        thread_id: Some(ThreadId::new(format!("thread-{name}"))),
        status: SessionStatus::Active,
        endpoint: "stdio".into(),
        child_pid: None,
        created_at: "2026-01-02T03:04:05.678Z".into(),
        updated_at: "2026-01-02T03:04:05.678Z".into(),
        cwd: None,
        model: None,
        model_provider: None,
        service_tier: None,
        reasoning_effort: None,
        current_turn_id: None,
        last_turn_id: None,
        last_turn_status: None,
        metadata: BTreeMap::new().into(),
        held: None,
        closed_reason: None,
        trust: crate::state::Trust::AsUser,
        title: None,
        archived: false,
    }
}

/// A recorder at work, with the directories that it writes to.
pub(super) struct TestRecorder {
    pub(super) recorder: Recorder,
    _directories: StateDirectories,
}

impl TestRecorder {
    pub(super) fn start(config: &Config) -> Self {
        let (opened, directories) = open(config);
        Self { recorder: Recorder::start(config, opened).unwrap(), _directories: directories }
    }

    async fn open_session(&self, name: &str) {
        let session = new_session(name);
        self.recorder
            .record_durably(move |_| {
                vec![events::session_opened(
                    &session,
                    false,
                    Map::new(),
                    RequestPolicy::default(),
                    None,
                    None,
                )]
            })
            .await
            .unwrap();
    }

    async fn close_session(&self, name: &'static str) {
        self.recorder
            .record_durably(move |state| events::session_closed(state, &name.into(), None))
            .await
            .unwrap();
    }

    fn sessions(&self) -> Vec<String> {
        self.recorder.view().state().sessions.iter().map(|session| session.session_id.to_string()).collect()
    }

    fn forgotten(&self) -> Vec<Value> {
        let log = &self.recorder.view().log;
        let events =
            log.recent(1000).into_iter().map(|line| serde_json::from_slice::<Value>(line.json()).unwrap());
        let forgotten = events.filter(|event| event["type"] == "session.forgotten");
        forgotten.map(|event| event["detail"]["sessionId"].clone()).collect()
    }
}

/// The acceptance of the turn `turn-NAME` of the session `NAME`.
fn accepted(name: &str) -> NewEvent {
    TurnEvent::Accepted {
        session_id: name.into(),
        thread_id: Some(ThreadId::new(format!("thread-{name}"))),
        turn_id: TurnId::new(format!("turn-{name}")),
        status: None,
        is_newest: None,
        steered: false,
        queue_id: None,
        on_usage_limit: None,
        idempotency: None,
    }
    .into()
}

/// The directories of a daemon that had two sessions and was stopped; what it knew then, and its name.
async fn stopped_daemon(directory: &Path) -> (Config, State, String) {
    let config = config(directory, &[]);
    let test_recorder = TestRecorder::start(&config);
    let daemon_id = test_recorder.recorder.view().identity.daemon_id.clone();
    test_recorder.recorder.record(events::daemon_started(&config, &daemon_id));
    test_recorder.open_session("a").await;
    test_recorder.open_session("b").await;
    test_recorder.recorder.record_durably(|_| vec![accepted("b")]).await.unwrap();
    test_recorder.close_session("a").await;
    test_recorder.recorder.record(DaemonEvent::Stopped {});
    test_recorder.recorder.stop().await;
    let state = test_recorder.recorder.view().state().clone();
    (config, state, daemon_id)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else if path.ends_with("event-log.json") {
            // A copy would be noticed, and what is tried here would come back under another name.
            fs::hard_link(&path, &target).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[tokio::test]
async fn recovery_rebuilds_a_truncated_state_file() {
    let directory = TempDir::new().unwrap();
    let (_, state, daemon_id) = stopped_daemon(directory.path()).await;
    for name in STATE_FILES {
        let whole = fs::read(directory.path().join("state").join(name)).unwrap();
        // Every byte of the small files and of both ends of the others; their middle is more of the same.
        let is_end = |cut: &usize| cut.min(&(whole.len() - cut)) < &150 || cut.is_multiple_of(13);
        for cut in (0..whole.len()).filter(is_end) {
            let copied = TempDir::new().unwrap();
            copy(directory.path(), copied.path());
            let path = copied.path().join("state").join(name);
            fs::write(&path, &whole[..cut]).unwrap();
            let (opened, _directories) = open(&config(copied.path(), &[]));
            let case = format!("{name} cut at {cut}");
            assert_eq!(opened.state, state, "{case}");
            assert_eq!(opened.identity.daemon_id, daemon_id, "{case}");
            if serde_json::from_slice::<Value>(&whole[..cut]).is_ok() {
                assert!(opened.notices.is_empty(), "{case}: only the last newline is missing");
                continue;
            }
            assert_eq!(fs::read(path.with_extension("json.bad")).unwrap(), whole[..cut], "{case}");
            assert!(opened.notices.iter().any(|notice| notice.message().contains(name)), "{case}");
        }
    }
}

#[tokio::test]
async fn recovery_survives_a_truncated_log_meta_file() {
    let directory = TempDir::new().unwrap();
    let (_, state, _) = stopped_daemon(directory.path()).await;
    let whole = fs::read(directory.path().join("logs/event-log.json")).unwrap();
    let meta: Value = serde_json::from_slice(&whole).unwrap();
    for cut in 0..whole.len() {
        let copied = TempDir::new().unwrap();
        copy(directory.path(), copied.path());
        fs::write(copied.path().join("logs/event-log.json"), &whole[..cut]).unwrap();
        let (opened, _directories) = open(&config(copied.path(), &[]));
        assert_eq!(opened.state, state, "cut at {cut}");
        let epoch = opened.journal.log().bounds().epoch;
        let is_whole = serde_json::from_slice::<Value>(&whole[..cut]).is_ok();
        assert_eq!(
            epoch == meta["epoch"],
            is_whole,
            "cut at {cut}: another name for what cannot be vouched for"
        );
    }
}

#[tokio::test]
async fn recovery_replaces_an_invalid_epoch() {
    for epoch in ["", "a-b", "ä", "a b", &"a".repeat(65)] {
        let directory = TempDir::new().unwrap();
        let (config, state, _) = stopped_daemon(directory.path()).await;
        let path = directory.path().join("logs/event-log.json");
        let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        meta["epoch"] = json!(epoch);
        fs::write(&path, meta.to_string()).unwrap();
        let (opened, _directories) = open(&config);
        let bounds = opened.journal.log().bounds();
        let cursor = bounds.cursor(bounds.latest).parse().unwrap();
        assert_eq!(bounds.check(&cursor), Ok(bounds.latest), "{epoch:?}");
        assert_eq!(opened.state, state);
        assert!(path.with_extension("json.bad").exists());
    }
}

#[tokio::test]
async fn recorder_forgets_closed_sessions_oldest_first() {
    let directory = TempDir::new().unwrap();
    let config = config(directory.path(), &["--closed-session-limit=2"]);
    let test_recorder = TestRecorder::start(&config);
    for name in ["a", "b", "c", "d", "e"] {
        test_recorder.open_session(name).await;
    }
    test_recorder.recorder.record_durably(|_| vec![accepted("e")]).await.unwrap();
    for (name, forgotten) in
        [("c", json!([])), ("a", json!([])), ("d", json!(["c"])), ("b", json!(["c", "a"]))]
    {
        test_recorder.close_session(name).await;
        assert_eq!(json!(test_recorder.forgotten()), forgotten, "{name} was closed");
        // Sessions that closed in the same millisecond are ordered by age; the test gives each another millisecond.
        let closed =
            test_recorder.recorder.view().state().sessions.get(&name.into()).unwrap().updated_at.clone();
        while crate::time::rfc3339_now() <= closed {
            std::hint::spin_loop();
        }
    }
    assert_eq!(test_recorder.sessions(), ["b", "d", "e"], "the one with a turn is never among them");
    test_recorder.recorder.stop().await;
    drop(test_recorder);

    // Neither the files nor the log alone bring them back.
    for lost in [&["identity.json"][..], &STATE_FILES] {
        for name in lost {
            fs::remove_file(directory.path().join("state").join(name)).unwrap();
        }
        let test_recorder = TestRecorder::start(&config);
        test_recorder.recorder.caught_up().await;
        assert_eq!(test_recorder.sessions(), ["b", "d", "e"], "without {lost:?}");
        assert_eq!(test_recorder.forgotten().len(), 2);
        test_recorder.recorder.stop().await;
    }
}

/// On macOS by default, where an earlier version had the event log in the directory of the logs.
#[tokio::test]
async fn event_log_is_moved_out_of_the_logs_directory() {
    let directory = tempfile::tempdir().unwrap();
    let earlier = config(directory.path(), &[]);
    let test_recorder = TestRecorder::start(&earlier);
    test_recorder.open_session("a").await;
    test_recorder.recorder.stop().await;
    drop(test_recorder);
    fs::create_dir(&earlier.paths.attachments).unwrap();
    fs::write(earlier.paths.attachments.join("one"), "data").unwrap();

    let mut config = earlier.clone();
    config.paths = config.paths.with_events_in_state();
    let epoch = |config: &Config| {
        let text = fs::read(config.paths.events_dir.join("event-log.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["epoch"].clone()
    };
    let before = epoch(&earlier);
    // Before the first start, too.
    let copy = directory.path().join("copy");
    crate::daemon::back_up(&config.paths, None, &copy).unwrap();
    assert_eq!(fs::read_to_string(copy.join("logs/attachments/one")).unwrap(), "data");

    let test_recorder = TestRecorder::start(&config);
    assert_eq!((test_recorder.sessions(), epoch(&config)), (vec!["a".to_owned()], before));
    assert!(!earlier.paths.structured_event_log.exists() && config.paths.structured_event_log.exists());
    assert_eq!(fs::read_to_string(config.paths.attachments.join("one")).unwrap(), "data");
    let log = &test_recorder.recorder.view().log;
    let moved =
        log.recent(1000).into_iter().any(|line| line.json().windows(9).any(|text| text == b"was moved"));
    test_recorder.recorder.stop().await;
    drop(test_recorder);

    let (opened, _directories) = open(&config);
    let moved_again = opened.notices.iter().any(|notice| format!("{notice:?}").contains("was moved"));
    assert!(!moved_again, "{moved}");
}
