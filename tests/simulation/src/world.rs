//! The world: a queue of happenings in virtual time, and what each does.

use crate::adversary::Adversary;
use crate::history::{History, Observed};
use crate::node::Node;
use crate::scenario::{Fault, Scenario};
use crate::trace::Trace;
use crate::workload::{Application, Workload};
use crate::{Failure, Outcome, invariants};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use steeldb_ordering::{Config, Effect, Event, Message, Now, Regency, RequestKey, Roster};
use steeldb_types::{ReplicaId, Timestamp, View};
use steeldb_wire::auth::SecretKey;

/// How long after the faults everything must be delivered, virtual microseconds.
const LIVENESS_BOUND_US: u64 = 120_000_000;
/// The base time-outs of the cores: short, so that faults are long beside them.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(200);
const CLIENT_RETRY_US: u64 = 400_000;
const EPOCH_US: i64 = 1_700_000_000_000_000;

/// Something that happens at a time.
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
enum Happening {
    Arrive { to: ReplicaId, from: ReplicaId, message: Message },
    Flush { at: ReplicaId, life: u32, upto: u64 },
    Tick { at: ReplicaId, life: u32 },
    Ask { lane: usize, request: usize },
    Crash { at: Vec<ReplicaId> },
    Start { at: ReplicaId },
    Part { groups: u32 },
    Mend,
    Heal,
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    rng: ChaCha8Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    nodes: Vec<Node>,
    workload: Workload,
    answers: BTreeMap<RequestKey, BTreeSet<ReplicaId>>,
    /// Bit i is replica i's side; nothing: all can talk.
    partition: Option<u32>,
    /// Cut off by an ambush, which also stops ACCEPTs of this regency and those before.
    ambushed: Option<(ReplicaId, Regency)>,
    healed: bool,
    history: History,
    trace: Trace,
    steps: u64,
    failure: Option<(&'static str, String)>,
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, explain: bool) -> World<'a> {
        let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
        rng.set_stream(1);
        let workload = Workload::new(scenario);
        let keys: Vec<SecretKey> =
            (0..scenario.n).map(|i| SecretKey::from_seed(&[i as u8 + 1; 32])).collect();
        let replica_keys: Vec<_> = keys.iter().map(SecretKey::public).collect();
        let correct = scenario.correct();
        let history = History {
            n: scenario.n,
            correct: correct.iter().copied().collect(),
            replica_keys: replica_keys.clone(),
            client_keys: workload.client_keys.clone(),
            submitted: workload.all(),
            observed: Vec::new(),
            applied: BTreeMap::new(),
        };
        let mut nodes = Vec::new();
        // The view of a size always exists here: sizes are 4, 5 and 7.
        let roster = View::of_size(scenario.n).map(|view| Roster::of_keys(view, replica_keys.clone()));
        if let Ok(Ok(roster)) = roster {
            for (id, key) in roster.view().replicas().zip(&keys) {
                let clients = workload.client_keys.clone();
                let mut config = Config::new(id, roster.clone(), key.clone(), clients);
                config.request_timeout = REQUEST_TIMEOUT;
                config.resend_interval = REQUEST_TIMEOUT / 4;
                config.clock_tolerance = Duration::from_secs(1);
                config.batch_requests_max = 3;
                config.decisions_kept_bytes = 600;
                #[cfg(feature = "planted-bugs")]
                {
                    config.planted_bug = scenario.planted_bug;
                }
                let refused = &workload.refused;
                let adversary =
                    scenario.fault(id).map(|fault| Adversary::new(fault, key.clone(), refused.clone()));
                nodes.push(Node {
                    id,
                    config,
                    core: None,
                    adversary,
                    durable: Vec::new(),
                    unsynced: Vec::new(),
                    applied: Vec::new(),
                    life: 0,
                    skew_us: rng.random_range(-50_000..=50_000),
                    tick_at: None,
                });
            }
        }
        World {
            scenario,
            rng,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes,
            workload,
            answers: BTreeMap::new(),
            partition: None,
            ambushed: None,
            healed: false,
            history,
            trace: Trace::new(explain),
            steps: 0,
            failure: None,
        }
    }

    pub(crate) fn run(mut self, steps_max: Option<u64>) -> Outcome {
        self.trace.line(0, &format!("{:?}", self.scenario));
        self.schedule();
        let last_us = self.scenario.faults_us + LIVENESS_BOUND_US;
        while let Some(((at_us, _), happening)) = self.queue.pop_first() {
            if at_us > last_us || steps_max.is_some_and(|max| self.steps >= max) {
                break;
            }
            self.now_us = at_us;
            self.steps += 1;
            self.happen(happening);
            if self.failure.is_some() || (self.healed && self.is_done()) {
                break;
            }
        }
        self.judge(steps_max.is_none())
    }

    /// Draws everything that will go wrong.
    fn schedule(&mut self) {
        let (scenario, faults_us) = (self.scenario, self.scenario.faults_us);
        for node in 0..scenario.n {
            self.at(0, Happening::Start { at: ReplicaId(node) });
        }
        for lane in 0..self.workload.lanes.len() {
            let at = self.rng.random_range(0..faults_us);
            self.at(at, Happening::Ask { lane, request: 0 });
        }
        let correct = scenario.correct();
        for _ in 0..scenario.crashes {
            let at = self.rng.random_range(0..faults_us);
            if let Some(replica) = correct.choose(&mut self.rng).copied() {
                self.crash(at, vec![replica]);
            }
        }
        for _ in 0..scenario.blackouts {
            let at = self.rng.random_range(0..faults_us);
            let spared = correct.choose(&mut self.rng).copied();
            self.crash(at, correct.iter().copied().filter(|replica| Some(*replica) != spared).collect());
        }
        for (replica, _) in scenario.faulty.iter().filter(|(_, fault)| *fault == Fault::Crash) {
            let at = self.rng.random_range(0..faults_us);
            self.at(at, Happening::Crash { at: vec![*replica] });
        }
        for _ in 0..scenario.partitions {
            let at = self.rng.random_range(0..faults_us);
            let until = self.rng.random_range(at..=faults_us);
            let groups = self.rng.random_range(1..(1u32 << scenario.n) - 1);
            self.at(at, Happening::Part { groups });
            self.at(until, Happening::Mend);
        }
        self.at(faults_us, Happening::Heal);
    }

    fn crash(&mut self, at: u64, replicas: Vec<ReplicaId>) {
        for replica in &replicas {
            let down_us = self.rng.random_range(1_000..400_000);
            self.at(at + down_us, Happening::Start { at: *replica });
        }
        self.at(at, Happening::Crash { at: replicas });
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
            Happening::Arrive { to, from, message } => self.arrive(to, from, message),
            Happening::Flush { at, life, upto } => {
                let node = &mut self.nodes[usize::from(at.0)];
                if node.life == life && node.core.is_some() {
                    node.flush(upto);
                    self.handle(at, Event::Persisted { upto });
                }
            }
            Happening::Tick { at, life } => {
                let node = &mut self.nodes[usize::from(at.0)];
                if node.life == life && node.core.is_some() && node.tick_at == Some(self.now_us) {
                    node.tick_at = None;
                    self.handle(at, Event::Tick);
                }
            }
            Happening::Ask { lane, request } => self.ask(lane, request),
            Happening::Crash { at } => {
                for replica in at {
                    self.note(&format!("{replica} crashes"));
                    let node = &mut self.nodes[usize::from(replica.0)];
                    let survivors = self.rng.random_range(0..=node.unsynced.len());
                    node.crash(survivors, self.rng.random_range(0..3));
                    self.history.applied.insert(replica, node.applied.clone());
                }
            }
            Happening::Start { at } => self.start(at),
            Happening::Part { groups } => {
                self.note(&format!("partition {groups:b}"));
                self.partition = Some(groups);
            }
            Happening::Mend => {
                self.note("partition mended");
                self.partition = None;
            }
            Happening::Heal => self.heal(),
        }
    }

    fn start(&mut self, at: ReplicaId) {
        let node = &mut self.nodes[usize::from(at.0)];
        if node.core.is_some() {
            return;
        }
        let started = node.start();
        self.note(&format!("{at} starts"));
        if let Err(reason) = started {
            self.failure.get_or_insert(("restart", format!("{at}: {reason}")));
            return;
        }
        self.run_effects(at);
        for peer in (0..self.scenario.n).map(ReplicaId).filter(|peer| *peer != at) {
            if self.now_us > 0 {
                self.handle(at, Event::LinkUp(peer));
                self.handle(peer, Event::LinkUp(at));
            }
        }
    }

    /// The faults end; liars stay liars.
    fn heal(&mut self) {
        self.note("healed");
        self.healed = true;
        self.partition = None;
        self.ambushed = None;
        for replica in self.scenario.correct() {
            self.start(replica);
        }
        for a in (0..self.scenario.n).map(ReplicaId) {
            for b in (0..self.scenario.n).map(ReplicaId).filter(|b| *b != a) {
                self.handle(a, Event::LinkUp(b));
            }
        }
    }

    /// A client asks some replicas for a lane's current request, and again later.
    fn ask(&mut self, lane: usize, request: usize) {
        let all: Vec<ReplicaId> = (0..self.scenario.n).map(ReplicaId).collect();
        let current = self.workload.lanes.get(lane).filter(|lane| lane.next == request);
        let Some(asked) = current.and_then(|lane| lane.current()).cloned() else { return };
        // After the faults it may be that a single correct replica hears of it.
        let some = if self.healed { self.scenario.correct() } else { all.clone() };
        let replicas: Vec<ReplicaId> = match self.rng.random_range(0..3) {
            0 => some.choose(&mut self.rng).copied().into_iter().collect(),
            1 => some.into_iter().filter(|_| self.rng.random_bool(0.7)).collect(),
            _ => all,
        };
        self.note(&format!("a client asks {replicas:?} for {:?}", asked.key()));
        for replica in replicas {
            self.handle(replica, Event::Request(asked.clone()));
        }
        let retry_us = CLIENT_RETRY_US * if self.healed { 10 } else { 1 };
        self.at(self.now_us + retry_us, Happening::Ask { lane, request });
    }

    fn arrive(&mut self, to: ReplicaId, from: ReplicaId, message: Message) {
        if self.nodes[usize::from(to.0)].core.is_none() {
            return;
        }
        self.note(&format!("{to} <- {from}: {}", describe(&message)));
        if let Some(adversary) = &mut self.nodes[usize::from(to.0)].adversary {
            for (peer, answer) in adversary.hear(from, &message) {
                self.carry(to, peer, answer);
            }
        }
        self.handle(to, Event::Message { from, message });
    }

    fn handle(&mut self, at: ReplicaId, event: Event) {
        let node = &mut self.nodes[usize::from(at.0)];
        let wall = Timestamp(EPOCH_US + self.now_us as i64 + node.skew_us);
        let Some(core) = &mut node.core else { return };
        core.handle(Now { monotonic_us: self.now_us, wall }, event, &Application);
        self.run_effects(at);
    }

    fn run_effects(&mut self, at: ReplicaId) {
        let index = usize::from(at.0);
        while let Some(effect) = self.nodes[index].core.as_mut().and_then(|core| core.poll_effect()) {
            self.run_effect(at, effect);
        }
        let node = &mut self.nodes[index];
        let Some(due) = node.core.as_ref().and_then(|core| core.next_timeout()) else { return };
        let due = due.max(self.now_us + 1);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let life = node.life;
            self.at(due, Happening::Tick { at, life });
        }
    }

    fn run_effect(&mut self, at: ReplicaId, effect: Effect) {
        let node = &mut self.nodes[usize::from(at.0)];
        match effect {
            Effect::Persist { sequence, record } => {
                node.unsynced.push((sequence, record));
                let life = node.life;
                let flush_us = self.rng.random_range(50..self.scenario.disk_max_us);
                self.at(self.now_us + flush_us, Happening::Flush { at, life, upto: sequence });
            }
            Effect::Send { to, message } => self.say(at, to, message),
            Effect::Broadcast { message } => {
                for to in (0..self.scenario.n).map(ReplicaId).filter(|to| *to != at) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) => self.deliver(at, delivery),
            Effect::Refused { request, reason } => self.note(&format!("{at} refuses {request:?}: {reason}")),
            Effect::ReadDecisions { peer, from, .. } => {
                let of = |record: &steeldb_ordering::Record| match record {
                    steeldb_ordering::Record::Decision(decision) if decision.instance() >= from => {
                        Some(decision.clone())
                    }
                    _ => None,
                };
                let unsynced = node.unsynced.iter().map(|(_, record)| record);
                let decisions: Vec<_> = node.durable.iter().chain(unsynced).filter_map(of).take(2).collect();
                self.handle(at, Event::DecisionsRead { peer, decisions });
            }
            Effect::RegencyInstalled { regency, leader } => {
                self.note(&format!("{at} installs {regency} of {leader}"));
            }
            Effect::ViewInstalled { roster, first } => {
                self.note(&format!("{at} installs view {} at {first}", roster.view().number().0));
            }
            Effect::Misbehaved { replica, reason } => self.misbehaved(at, replica, &reason),
            Effect::StateDiffers { instance } => {
                self.failure.get_or_insert(("checkpoints", format!("{at} differs at {instance}")));
            }
            Effect::TakeCheckpoint { .. }
            | Effect::ReadChunk { .. }
            | Effect::StoreChunk { .. }
            | Effect::InstallCheckpoint { .. }
            | Effect::DropCheckpoints { .. }
            | Effect::Truncate { .. } => {}
        }
    }

    /// A correct replica is never accused by another; except that a leader which lost power before its own WRITE was
    /// durable may propose again, and differently.
    fn misbehaved(&mut self, at: ReplicaId, replica: ReplicaId, reason: &str) {
        self.note(&format!("{at} accuses {replica}: {reason}"));
        let forgot =
            self.nodes[usize::from(replica.0)].life > 1 && reason.starts_with("proposed two batches");
        if !forgot
            && !self.scenario.has_planted_bug()
            && self.history.correct.contains(&at)
            && self.history.correct.contains(&replica)
        {
            self.failure.get_or_insert(("accusations", format!("{at} accuses {replica}: {reason}")));
        }
    }

    fn say(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        let messages = match &mut self.nodes[usize::from(from.0)].adversary {
            Some(adversary) => adversary.twist(to, message),
            None => vec![message],
        };
        for message in messages {
            self.carry(from, to, message);
        }
    }

    /// The network.
    fn carry(&mut self, from: ReplicaId, to: ReplicaId, message: Message) {
        let apart = self.partition.is_some_and(|groups| groups >> from.0 & 1 != groups >> to.0 & 1);
        let (loss, duplication, delay_max_us) = match self.healed {
            true => (0.0, 0.0, 5_000),
            false => (self.scenario.loss, self.scenario.duplication, self.scenario.delay_max_us),
        };
        let loss = match message {
            Message::Accept { .. } if !self.healed => loss.max(self.scenario.accepts_lost),
            _ => loss,
        };
        let stopped = self.ambushed.is_some_and(|(cut_off, regency)| {
            let late = matches!(message, Message::Accept { claim, .. } if claim.regency <= regency);
            from == cut_off || to == cut_off || late
        });
        if apart || stopped || self.rng.random_bool(loss) {
            return;
        }
        let copies = if self.rng.random_bool(duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let delay_us = self.rng.random_range(100..=delay_max_us);
            let message = message.clone();
            self.at(self.now_us + delay_us, Happening::Arrive { to, from, message });
        }
    }

    fn deliver(&mut self, at: ReplicaId, delivery: steeldb_ordering::Delivery) {
        if self.nodes[usize::from(at.0)].adversary.is_some() {
            return;
        }
        let keys: Vec<RequestKey> = delivery.requests.iter().map(|(_, request)| request.key()).collect();
        self.note(&format!("{at} delivers {} {keys:?}", delivery.instance));
        self.nodes[usize::from(at.0)].applied.push(delivery.clone());
        self.history.applied.entry(at).or_default().push(delivery.clone());
        self.ambush(at, &delivery);
        self.history.observed.push(Observed {
            replica: at,
            at_us: self.now_us,
            wall_us: EPOCH_US + self.now_us as i64,
            delivery,
        });
        for key in keys {
            let answers = self.answers.entry(key).or_default();
            answers.insert(at);
            if answers.len() <= usize::from(self.scenario.f()) {
                continue;
            }
            let lanes = self.workload.lanes.iter_mut().enumerate();
            for (index, lane) in lanes {
                if lane.current().is_some_and(|request| request.key() == key) {
                    lane.next += 1;
                    let (request, after_us) = (lane.next, self.rng.random_range(100..5_000));
                    self.queued += 1;
                    self.queue.insert(
                        (self.now_us + after_us, self.queued),
                        Happening::Ask { lane: index, request },
                    );
                    break;
                }
            }
        }
    }

    /// The worst moment: one replica has decided, and nobody else knows.
    fn ambush(&mut self, at: ReplicaId, delivery: &steeldb_ordering::Delivery) {
        let Some(ambush) = self.scenario.ambush else { return };
        if self.healed || self.ambushed.is_some() || delivery.instance.0 != ambush.instance {
            return;
        }
        self.note(&format!("ambush: {at} is cut off"));
        self.ambushed = Some((at, delivery.proof.claim.regency));
        if ambush.blackout {
            let others = self.scenario.correct().into_iter().filter(|replica| *replica != at).collect();
            self.crash(self.now_us, others);
        }
    }

    fn is_done(&self) -> bool {
        self.workload.lanes.iter().all(|lane| lane.current().is_none())
            && (invariants::LIVENESS.1)(&self.history).is_ok()
    }

    fn judge(mut self, liveness_too: bool) -> Outcome {
        for (name, check) in invariants::SAFETY {
            if let Err(what) = check(&self.history) {
                self.failure.get_or_insert((name, what));
            }
        }
        let (name, check) = invariants::LIVENESS;
        if liveness_too && let Err(what) = check(&self.history) {
            self.failure.get_or_insert((name, what));
        }
        if let Some((invariant, what)) = &self.failure {
            self.trace.line(self.now_us, &format!("{invariant} broken: {what}"));
        }
        let cores = self.nodes.iter().filter(|node| self.history.correct.contains(&node.id));
        let regency = cores.filter_map(|node| Some(node.core.as_ref()?.regency().number)).max().unwrap_or(0);
        let everywhere = |key: &RequestKey| {
            self.answers.get(key).is_some_and(|answers| answers.len() == self.history.correct.len())
        };
        Outcome {
            delivered: self.history.submitted.keys().filter(|key| everywhere(key)).count(),
            regency,
            steps: self.steps,
            ended_us: self.now_us,
            trace: self.trace,
            failure: self.failure.map(|(invariant, what)| Failure {
                seed: self.scenario.seed,
                invariant,
                what,
            }),
        }
    }
}

/// A message in a few words.
fn describe(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Propose { regency, proposal } => {
            format!("{name} {regency:?} {:?} {:?}", proposal.instance, proposal.digest())
        }
        Message::Write { instance, claim } | Message::Accept { instance, claim, .. } => {
            format!("{name} {:?} {instance:?} {:?}", claim.regency, claim.value)
        }
        Message::Stop { regency, requests } => format!("{name} {regency:?} with {} requests", requests.len()),
        Message::StopData { data, .. } => {
            let data = &data.data;
            format!("{name} {:?} {:?} bound {:?}", data.regency, data.instance(), data.bound)
        }
        Message::Sync { regency, stop_data, proposal } => {
            let from: Vec<ReplicaId> = stop_data.iter().map(|signed| signed.data.replica).collect();
            let value = proposal.as_ref().map(|proposal| (proposal.instance, proposal.digest()));
            format!("{name} {regency:?} of {from:?} {value:?}")
        }
        Message::FetchDecisions { from, regency } => format!("{name} {from:?} {regency:?}"),
        Message::Decisions { decisions, more } => {
            let first = decisions.first().map(|decision| decision.instance());
            format!("{name} {} from {first:?} more {more}", decisions.len())
        }
        Message::Forward { requests } => format!("{name} {}", requests.len()),
        Message::Checkpoint { instance, digest, .. } => format!("{name} {instance:?} {digest:?}"),
        Message::CheckpointOffer { certificate, .. } => format!("{name} {:?}", certificate.instance),
        Message::FetchState { instance, part } => format!("{name} {instance:?} {part:?}"),
        Message::State { instance, part, bytes } => {
            format!("{name} {instance:?} {part:?} {} bytes", bytes.len())
        }
    }
}
