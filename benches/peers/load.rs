//! A number of clients and sessions, measured in the three ways in turns.

use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::peer::{Batch, Peer, Way};
use crate::process::{Cpu, Memory, machine, own_cpu};
use crate::support::model::MockModel;

/// All orders of three: each way follows each other one equally often, also in what it does after its turns.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];
/// The pause after the turns of each way.
const PAUSE: Duration = Duration::from_millis(50);
/// How long after the last turn work for it is counted: codexd writes its state files up to a second later.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) sessions: usize,
    /// How often each way has its turns.
    rounds: usize,
}

/// The measurements of a load.
pub(crate) struct Outcome {
    pub(crate) load: Load,
    /// In the order of [`Way::ALL`].
    pub(crate) rows: Vec<Row>,
    /// How long the disk took for small syncs between the turns.
    pub(crate) syncs: Vec<Duration>,
}

/// The measurements of one way.
pub(crate) struct Row {
    pub(crate) way: Way,
    /// One for each round.
    pub(crate) batches: Vec<Batch>,
    /// The use of the machine during the turns.
    pub(crate) usage: Usage,
    /// The CPU time of Codex and codexd per turn, with the work after it.
    pub(crate) cpu_per_turn: (Cpu, Cpu),
    /// The memory of Codex and codexd after the turns.
    pub(crate) memory: (Memory, Option<Memory>),
    /// The syncs of the log of codexd per turn, and the seconds of each.
    pub(crate) syncs: (f64, f64),
}

/// What used the processors, added up over all turns of one way.
#[derive(Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    pub(crate) processors: u32,
    pub(crate) codex: Cpu,
    pub(crate) codexd: Cpu,
    /// The clients and the model.
    pub(crate) clients: Cpu,
    pub(crate) machine: Duration,
}

impl Load {
    /// Clients that all follow sessions that work at once.
    pub(crate) fn new(clients: usize, sessions: usize, rounds: usize) -> Self {
        Self { clients, sessions, rounds: rounds.max(1) }
    }

    #[expect(clippy::print_stderr, reason = "the results on stdout are tables without gaps")]
    pub(crate) async fn run(self) -> Outcome {
        eprintln!("{} clients, {} sessions, {} rounds", self.clients, self.sessions, self.rounds);
        let model = MockModel::start();
        let mut peers = Vec::new();
        for way in Way::ALL {
            peers.push(Peer::start(way, &model, self.clients, self.sessions).await);
        }
        let mut before = Vec::new();
        tokio::time::sleep(SETTLE).await;
        for peer in &peers {
            before.push((peer.cpu(), peer.syncs().await));
        }
        let mut disk = Disk::new();
        let mut syncs = Vec::new();
        let mut measured: Vec<(Vec<Batch>, Usage)> = peers.iter().map(|_| Default::default()).collect();
        for round in 0..self.rounds {
            for index in ORDERS[round % ORDERS.len()] {
                let (batches, usage) = &mut measured[index];
                batches.push(usage.of_turns(&mut peers[index]).await);
                tokio::time::sleep(PAUSE).await;
                syncs.push(disk.sync());
            }
        }
        tokio::time::sleep(SETTLE).await;
        let mut rows = Vec::new();
        for ((peer, before), (batches, usage)) in peers.iter().zip(before).zip(measured) {
            rows.push(self.row(peer, before, batches, usage).await);
        }
        Outcome { load: self, rows, syncs }
    }

    async fn row(
        self,
        peer: &Peer,
        (cpu, syncs): ((Cpu, Cpu), (f64, f64)),
        batches: Vec<Batch>,
        usage: Usage,
    ) -> Row {
        let turns = (self.rounds * self.sessions) as u32;
        let now = peer.cpu();
        let per_turn = |cpu: Cpu| Cpu { total: cpu.total / turns, kernel: cpu.kernel / turns };
        let cpu_per_turn = (per_turn(now.0 - cpu.0), per_turn(now.1 - cpu.1));
        let memory = peer.memory();
        let (count, seconds) = peer.syncs().await;
        let (count, seconds) = (count - syncs.0, seconds - syncs.1);
        let syncs = (count / f64::from(turns), seconds / count.max(1.0));
        Row { way: peer.way, batches, usage, cpu_per_turn, memory, syncs }
    }
}

impl Usage {
    /// Runs one batch of turns and adds what it used.
    async fn of_turns(&mut self, peer: &mut Peer) -> Batch {
        let (codex, codexd) = peer.cpu();
        let (own, (busy, _), began) = (own_cpu(), machine(), Instant::now());
        let batch = peer.run_turns().await;
        self.elapsed += began.elapsed();
        let (machine, processors) = machine();
        let now = peer.cpu();
        self.processors = processors;
        self.machine += machine.saturating_sub(busy);
        self.clients = self.clients + (own_cpu() - own);
        self.codex = self.codex + (now.0 - codex);
        self.codexd = self.codexd + (now.1 - codexd);
        batch
    }

    /// What everything else used, the threads of the kernel included.
    pub(crate) fn others(&self) -> Duration {
        self.machine.saturating_sub(self.codex.total + self.codexd.total + self.clients.total)
    }

    /// The part of the processors' time that this CPU time is.
    pub(crate) fn share(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.elapsed.as_secs_f64() / f64::from(self.processors)
    }
}
