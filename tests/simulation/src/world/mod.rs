//! The world: a queue of happenings in virtual time, and what each does.

mod ambush;
mod checkpoints;
mod clients;
mod describe;
mod membership;
mod network;
mod replicas;
mod schedule;

use crate::adversaries::{self, Loot};
use crate::clock::Clock;
use crate::history::History;
use crate::node::Node;
use crate::scenario::{Fault, Scenario};
use crate::workload::Workload;
use crate::{Counts, Failure, Outcome, Simulate as _, Trace, invariants};
use network::Links;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;
use std::time::Duration;
use steeldb_ordering::{Config, InstanceNumber, Message, QueueSizes, Request, RequestKey, Roster};
use steeldb_types::{ReplicaId, View, ViewNumber};
use steeldb_wire::auth::SecretKey;

/// How long after the faults everything must be delivered, virtual microseconds.
const LIVENESS_BOUND_US: u64 = 120_000_000;
/// How often the history is looked at once faults are over, virtual microseconds.
const INSPECTION_US: u64 = 5_000_000;
/// The base time-out of the cores: short, so that faults are long beside it.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);
/// Requests that may wait at a core, and those of one client.
pub(crate) const PENDING_MAX: usize = 48;
const PENDING_PER_CLIENT_MAX: usize = 8;
/// Bytes of decisions a core keeps: so few that who is behind has to be served from the disk.
pub(crate) const DECISIONS_KEPT_BYTES: usize = 600;

/// Something that happens at a time. Nodes are numbered: replica i is node i, twins come behind.
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
enum Happening {
    Arrive { at: usize, from: ReplicaId, message: Message },
    Flush { at: usize, life: u32, upto: u64 },
    Tick { at: usize, life: u32 },
    Change,
    Checkpointed { at: usize, life: u32, instance: InstanceNumber, fetched: bool },
    Ask { lane: usize, request: usize },
    Answer { key: RequestKey, from: ReplicaId, reply: crate::application::Reply },
    Crash { at: Vec<usize> },
    Wipe { at: usize },
    Rot { at: usize },
    Start { at: usize },
    Cut(network::Cut),
    Mend,
    Heal,
    Inspect,
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    rng: ChaCha8Rng,
    /// What adversaries draw from.
    adversary_rng: ChaCha8Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    nodes: Vec<Node>,
    links: Links,
    loot: Loot,
    workload: Workload,
    ambush: ambush::State,
    healed: bool,
    history: History,
    trace: Trace,
    steps: u64,
    failure: Option<(&'static str, String)>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, explain: bool) -> World<'a> {
        let stream = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
            rng.set_stream(stream);
            rng
        };
        let (mut rng, mut adversary_rng) = (stream(1), stream(2));
        let workload = Workload::new(scenario);
        let keys: Vec<SecretKey> =
            (0..scenario.nodes()).map(|i| SecretKey::from_seed(&[i as u8 + 1; 32])).collect();
        let history = History {
            model: scenario.model,
            n: scenario.n,
            f: scenario.f(),
            nodes: scenario.nodes(),
            window: scenario.window,
            correct: scenario.correct().into_iter().collect(),
            replica_keys: keys.iter().map(SecretKey::public).collect(),
            skew_max_us: scenario.clocks.skew_max_us,
            signed: workload.signed(),
            wanted: workload.wanted(),
            acknowledged: BTreeMap::new(),
            vouched: Vec::new(),
            observed: Vec::new(),
            applied: BTreeMap::new(),
            queues: QueueSizes::default(),
            accusations: Vec::new(),
        };
        let stolen = scenario
            .faulty
            .iter()
            .filter_map(|(replica, _)| keys.get(usize::from(replica.0)).map(|key| (*replica, key.clone())));
        let loot = Loot::new(stolen.collect(), workload.refused.clone());
        let mut failure = None;
        let mut nodes = Vec::new();
        match roster(scenario, &history) {
            Ok(roster) => {
                let twins = scenario.replicas().filter(|replica| scenario.does(*replica, Fault::Twins));
                for id in scenario.replicas().chain(twins) {
                    let key = keys[usize::from(id.0)].clone();
                    let config = config(scenario, id, &roster, key, &workload);
                    let faults = scenario.faults(id);
                    let adversaries = faults
                        .iter()
                        .filter_map(|fault| adversaries::of(*fault, scenario.nodes(), &mut adversary_rng));
                    let clock = clock(&mut rng, scenario);
                    nodes.push(Node::new(config, !faults.is_empty(), adversaries.collect(), clock));
                }
            }
            Err(reason) => failure = Some(("scenario", reason)),
        }
        World {
            scenario,
            links: Links::new(nodes.len()),
            rng,
            adversary_rng,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes,
            loot,
            workload,
            ambush: ambush::State::default(),
            healed: false,
            history,
            trace: Trace::new("steeldb/simulation", explain),
            steps: 0,
            failure,
        }
    }

    /// Runs to the end, or for so many events.
    pub(crate) fn run(mut self, steps_max: Option<u64>) -> Outcome {
        self.trace.line(0, &format!("{:?}", self.scenario));
        self.schedule();
        let last_us = self.scenario.faults_us + LIVENESS_BOUND_US;
        let mut complete = true;
        while self.failure.is_none() && !(self.healed && self.is_done()) {
            let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= last_us) else { break };
            if steps_max.is_some_and(|max| self.steps >= max) {
                complete = false;
                break;
            }
            let ((at_us, _), happening) = next.remove_entry();
            self.now_us = at_us;
            self.steps += 1;
            self.happen(happening);
        }
        self.judge(complete)
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at_us, self.queued), happening);
    }

    fn note(&mut self, line: &str) {
        self.trace.line(self.now_us, line);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { at, from, message } => self.arrive(at, from, message),
            Happening::Flush { at, life, upto } => self.flush(at, life, upto),
            Happening::Tick { at, life } => self.tick(at, life),
            Happening::Checkpointed { at, life, instance, fetched } => {
                self.checkpointed(at, life, instance, fetched);
            }
            Happening::Change => self.change_membership(),
            Happening::Ask { lane, request } => self.ask(lane, request),
            Happening::Answer { key, from, reply } => self.answer(&key, from, reply),
            Happening::Crash { at } => at.into_iter().for_each(|node| self.crash(node)),
            Happening::Wipe { at } => self.wipe(at),
            Happening::Rot { at } => self.rot(at),
            Happening::Start { at } => self.start(at),
            Happening::Cut(cut) => {
                self.note(&format!("{cut:?}"));
                self.links.cut(&cut);
            }
            Happening::Mend => {
                self.note("links mended");
                self.links.mend();
            }
            Happening::Heal => self.heal(),
            Happening::Inspect => self.inspect(),
        }
    }

    /// Looks whether all is safe, so that a run that is not need not go on.
    fn inspect(&mut self) {
        for (name, check) in invariants::SAFETY {
            if let Err(what) = check(&self.history) {
                self.failure.get_or_insert((name, what));
            }
        }
        self.at(self.now_us + INSPECTION_US, Happening::Inspect);
    }

    /// The faults end; liars stay liars.
    fn heal(&mut self) {
        self.inspect();
        self.note("healed");
        self.healed = true;
        self.links.mend();
        self.ambush = ambush::State::over();
        for node in 0..self.nodes.len() {
            if !self.nodes[node].faulty {
                self.start(node);
            }
        }
        for node in 0..self.nodes.len() {
            for peer in self.scenario.replicas() {
                self.handle(node, steeldb_ordering::Event::LinkUp(peer));
            }
        }
    }

    fn is_done(&self) -> bool {
        self.workload.is_done() && (invariants::LIVENESS.1)(&self.history).is_ok()
    }

    fn judge(mut self, complete: bool) -> Outcome {
        for (name, check) in invariants::SAFETY {
            if let Err(what) = check(&self.history) {
                self.failure.get_or_insert((name, what));
            }
        }
        let (name, check) = invariants::LIVENESS;
        if complete && let Err(what) = check(&self.history) {
            self.failure.get_or_insert((name, what));
        }
        if let Some((invariant, what)) = &self.failure {
            self.trace.line(self.now_us, &format!("{invariant} broken: {what}"));
        }
        let cores = self.nodes.iter().filter(|node| !node.faulty).filter_map(|node| node.core.as_ref());
        Outcome {
            counts: Counts {
                acknowledged: self.history.acknowledged.len() as u64,
                regencies: cores.map(|core| core.regency().number).max().unwrap_or(0),
            },
            steps: self.steps,
            ended_us: self.now_us,
            trace: self.trace,
            failure: self.failure.map(|(invariant, what)| Failure {
                reproduce: self.scenario.reproduce(),
                steps: Some(self.steps),
                invariant,
                what,
            }),
        }
    }

    /// Whether a faulty replica keeps a request from its core.
    fn ignores(&self, node: usize, request: &Request) -> bool {
        self.nodes[node].adversaries.iter().any(|adversary| adversary.ignores(request))
    }
}

fn roster(scenario: &Scenario, history: &History) -> Result<Roster, String> {
    let replicas = (0..scenario.n).map(ReplicaId).collect();
    let leader = scenario.script.as_ref().map_or(ReplicaId(0), |script| script.first_leader);
    let view = View::of_members(ViewNumber(0), scenario.model, replicas, scenario.f(), Vec::new(), leader);
    let view = view.map_err(|error| error.to_string())?;
    let keys = history.replica_keys[..usize::from(scenario.n)].to_vec();
    Roster::of_keys(view, keys).map_err(|error| error.to_string())
}

fn config(
    scenario: &Scenario,
    id: ReplicaId,
    roster: &Roster,
    key: SecretKey,
    workload: &Workload,
) -> Config {
    let mut config = Config::new(id, roster.clone(), key, workload.client_keys.clone());
    config.administrators = vec![membership::administrator().public()];
    config.request_timeout = REQUEST_TIMEOUT;
    config.resend_interval = REQUEST_TIMEOUT / 4;
    config.clock_tolerance = Duration::from_secs(1);
    config.batch_requests_max = 3;
    config.window = scenario.window;
    config.tentative = true;
    config.pending_requests_max = PENDING_MAX;
    config.pending_requests_per_client_max = PENDING_PER_CLIENT_MAX;
    config.decisions_kept_bytes = DECISIONS_KEPT_BYTES;
    if let Some(checkpoints) = scenario.checkpoints {
        config.checkpoint_interval = checkpoints.interval;
        config.decisions_kept = checkpoints.kept;
    }
    #[cfg(feature = "planted-bugs")]
    {
        config.planted_bug = scenario.planted_bug;
    }
    config
}

fn clock(rng: &mut ChaCha8Rng, scenario: &Scenario) -> Clock {
    let (skew, drift) = (scenario.clocks.skew_max_us, scenario.clocks.drift_max_ppm);
    Clock { skew_us: rng.random_range(-skew..=skew), drift_ppm: rng.random_range(-drift..=drift) }
}
