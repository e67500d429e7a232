//! Clients that read, rest, go away and come back, and write down what they got.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::{Connection, Kind, Told};
use super::random::Dice;
use super::record::{Filter, Run, Step, Texts};
use crate::support::wait::DEADLINE;

/// What everybody knows of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scene {
    /// It is away and will come back.
    Away,
    /// It is there.
    Up(String),
    /// It will live on from here; everybody reads what there is, through this number, and goes home.
    Last { base: String, epoch: String, latest: u64 },
}

/// One client.
pub(super) struct Reader {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) filter: Filter,
    pub(super) dice: Dice,
    pub(super) texts: Arc<Texts>,
    pub(super) scene: watch::Receiver<Scene>,
}

impl Reader {
    /// Reads until the last scene is over; what the client got.
    pub(super) fn start(self) -> JoinHandle<Vec<Run>> {
        tokio::spawn(self.read())
    }

    async fn read(mut self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        loop {
            let scene = self.scene.wait_for(|scene| *scene != Scene::Away).await.unwrap().clone();
            match scene {
                Scene::Away => {}
                Scene::Up(base) => self.visit(&base, &mut runs).await,
                Scene::Last { base, epoch, latest } => {
                    // Those that began with another log have been told, or will never know; they are done.
                    runs.retain(|run| !run.steps.is_empty());
                    let same = |run: &&Run| run.epoch == epoch || run.epoch.is_empty();
                    let last = runs.last().filter(same).filter(|run| !is_over(run));
                    if last.is_some_and(|run| run.reached() < latest) {
                        let reading = self.catch_up(&base, latest, &mut runs);
                        let waited = tokio::time::timeout(DEADLINE, reading).await;
                        waited.unwrap_or_else(|_| panic!("the last events do not come"));
                    }
                    return runs;
                }
            }
        }
    }

    /// One connection, for as long as the client likes or the daemon lives.
    async fn visit(&mut self, base: &str, runs: &mut Vec<Run>) {
        let limit = 1 + self.dice.below(300);
        // A client of the present sees the hello first; all others know where they begin.
        let from_now = self.kind == Kind::WebSocket && self.dice.happens(50);
        let cursor = match runs.last().filter(|run| !is_over(run)) {
            Some(run) => Some(run.cursor()),
            None if from_now => None,
            None => Some("0".to_owned()),
        };
        let opened = Connection::open(self.kind, base, cursor.as_deref(), &self.filter, limit).await;
        let Some(mut connection) = opened else {
            self.rest(10, 30).await;
            return;
        };
        let resumes = runs.last().is_some_and(|run| !is_over(run));
        if !resumes {
            runs.push(self.new_run());
        }
        let run = runs.last_mut().unwrap();
        match (resumes, from_now) {
            (true, _) => run.steps.push(Step::Connected { after: run.reached() }),
            (false, true) => {}
            (false, false) => run.steps.push(Step::Connected { after: 0 }),
        }
        let patience = 1 + self.dice.below(400);
        for _ in 0..patience {
            let waiting = self.dice.milliseconds(20, 400);
            match tokio::time::timeout(waiting, connection.next()).await {
                Err(_) => break,
                Ok(None) => {
                    // It is gone, or we are too far ahead of those who tell that it is.
                    self.rest(1, 10).await;
                    break;
                }
                Ok(Some(told)) => {
                    self.write_down(told, run);
                    if is_over(run) {
                        break;
                    }
                }
            }
            if self.dice.happens(2) {
                self.rest(1, 150).await;
            }
        }
        if run.steps.is_empty() {
            runs.pop();
        }
        drop(connection);
        if self.dice.happens(30) {
            self.rest(1, 200).await;
        }
    }

    /// Reads on, by the client's own way, through this number.
    async fn catch_up(&mut self, base: &str, latest: u64, runs: &mut [Run]) {
        let run = runs.last_mut().unwrap();
        while run.reached() < latest && !is_over(run) {
            let after = run.cursor();
            // Only pages tell at once that nothing more passes the filter.
            let filtered = self.filter != Filter::default();
            let kind = if filtered { Kind::Pages } else { self.kind };
            let opened = Connection::open(kind, base, Some(&after), &self.filter, 1000).await;
            let mut connection = opened.expect("the daemon is there");
            run.steps.push(Step::Connected { after: run.reached() });
            while run.reached() < latest && !is_over(run) {
                let Some(told) = connection.next().await else { break };
                self.write_down(told, run);
            }
        }
    }

    fn write_down(&self, told: Told, run: &mut Run) {
        match told {
            // Whoever brought a cursor is greeted with the present all the same, and is sent what is in between.
            Told::Hello { epoch, seq } => {
                name_epoch(run, epoch);
                if run.steps.is_empty() {
                    run.steps.push(Step::Connected { after: seq });
                }
            }
            Told::Event { epoch, text } => {
                epoch.into_iter().for_each(|epoch| name_epoch(run, epoch));
                run.steps.push(Step::Event(self.texts.seen(&text)));
            }
            Told::Bookmark { epoch, seq } => {
                name_epoch(run, epoch);
                if run.steps.last() != Some(&Step::Bookmark(seq)) {
                    run.steps.push(Step::Bookmark(seq));
                }
            }
            Told::Gap(reason) => run.steps.push(Step::Gap(reason)),
        }
    }

    fn new_run(&self) -> Run {
        Run {
            client: self.name.clone(),
            epoch: String::new(),
            filter: self.filter.clone(),
            steps: Vec::new(),
        }
    }

    async fn rest(&mut self, least: u64, most: u64) {
        let length: Duration = self.dice.milliseconds(least, most);
        tokio::time::sleep(length).await;
    }
}

/// A run that a gap has ended.
fn is_over(run: &Run) -> bool {
    matches!(run.steps.last(), Some(Step::Gap(_)))
}

fn name_epoch(run: &mut Run, epoch: String) {
    if run.epoch.is_empty() {
        run.epoch = epoch;
    }
}
