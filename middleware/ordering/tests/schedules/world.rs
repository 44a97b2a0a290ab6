//! A cluster in virtual time whose membership changes while messages are lost and delayed, replicas are cut off, lose
//! power, and one of them lies.

use crate::oracle::Oracle;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{
    AcceptAll, Change, Config, Core, Delivery, Effect, Event, InstanceNumber, Joining, Message, Now,
    Proposal, Record, Request, RequestId, Restored, Roster, ViewChain,
};
use steeldb_types::{ClientId, FaultModel, ReplicaId, SessionId, SessionKey, Timestamp, View, ViewNumber};
use steeldb_wire::auth::{PublicKey, SecretKey, Signature};

/// Replicas that ever are.
const NODES: u16 = 9;
const FAULTS_US: u64 = 3_000_000;
const LIVENESS_US: u64 = 90_000_000;
const CLIENT: ClientId = ClientId(1);

pub fn replica_key(id: u16) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 1; 32])
}

fn client_key() -> SecretKey {
    SecretKey::from_seed(&[200; 32])
}

fn administrator() -> SecretKey {
    SecretKey::from_seed(&[201; 32])
}

/// What the faulty replica does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Nothing at all.
    Silent,
    /// As a leader, proposes changes that nobody signed, and those that are past.
    Forger,
    /// As a leader, proposes changes that are past.
    Replayer,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
enum Happening {
    Arrive { to: u16, from: u16, message: Message },
    Flush { at: u16, life: u32, upto: u64 },
    Tick { at: u16, life: u32 },
    Ask { sequence: u64 },
    Change,
    Crash { at: u16 },
    Start { at: u16 },
    CutOff { at: Vec<u16> },
    Heal,
}

struct Node {
    core: Option<Core>,
    fault: Option<Fault>,
    durable: Vec<Record>,
    unsynced: Vec<(u64, Record)>,
    life: u32,
    tick_at: Option<u64>,
    delivered: Vec<Delivery>,
}

pub struct World {
    rng: ChaCha8Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    nodes: Vec<Node>,
    genesis: Roster,
    oracle: Oracle,
    /// Instances in flight.
    window: usize,
    loss: f64,
    delay_max_us: u64,
    cut_off: Vec<u16>,
    healed: bool,
    wanted: u64,
    /// Changes asked for, for a forger to say again.
    changes: Vec<Request>,
    asked_for_changes: u32,
    bug: Bug,
    failure: Option<String>,
}

#[cfg(feature = "planted-bugs")]
pub type Bug = Option<steeldb_ordering::PlantedBug>;
#[cfg(not(feature = "planted-bugs"))]
pub type Bug = Option<()>;

impl World {
    pub fn new(seed: u64, bug: Bug) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let crash_model = rng.random_bool(0.25);
        let (model, n) = match crash_model {
            true => (FaultModel::Crash, rng.random_range(3..=4)),
            false => (FaultModel::Byzantine, rng.random_range(4..=6)),
        };
        let keys: Vec<PublicKey> = (0..NODES).map(|id| replica_key(id).public()).collect();
        let view = View::new(ViewNumber(0), model, n, 1, vec![]).unwrap();
        let genesis = Roster::of_keys(view, keys[..usize::from(n)].to_vec()).unwrap();
        let faulty = rng.random_range(0..n);
        let fault = match rng.random_range(0..3) {
            0 => Some(Fault::Silent),
            1 if !crash_model && rng.random_bool(0.5) => Some(Fault::Replayer),
            1 if !crash_model => Some(Fault::Forger),
            _ => None,
        };
        let node = |id: u16| Node {
            core: None,
            fault: fault.filter(|_| id == faulty),
            durable: vec![],
            unsynced: vec![],
            life: 0,
            tick_at: None,
            delivered: vec![],
        };
        let mut world = World {
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes: (0..NODES).map(node).collect(),
            oracle: Oracle::new(model, n, 1, keys),
            genesis,
            window: *[1, 1, 2, 4].choose(&mut rng).unwrap(),
            loss: *[0.0, 0.05, 0.3].choose(&mut rng).unwrap(),
            delay_max_us: *[2_000, 20_000, 150_000].choose(&mut rng).unwrap(),
            cut_off: vec![],
            healed: false,
            wanted: rng.random_range(3..10),
            changes: vec![],
            asked_for_changes: 0,
            bug,
            failure: None,
            rng,
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for at in 0..NODES {
            self.at(0, Happening::Start { at });
        }
        self.at(1_000, Happening::Ask { sequence: 1 });
        for _ in 0..self.rng.random_range(1..5) {
            let at_us = self.rng.random_range(0..FAULTS_US);
            self.at(at_us, Happening::Change);
        }
        if self.replays() {
            // While clients still ask: it is in their requests' place that old changes are proposed.
            for _ in 0..6 {
                let at_us = self.rng.random_range(0..FAULTS_US / 3);
                self.at(at_us, Happening::Change);
            }
            self.wanted += 4;
        }
        for _ in 0..self.rng.random_range(0..4) {
            let (at_us, at) = (self.rng.random_range(0..FAULTS_US), self.rng.random_range(0..NODES));
            self.at(at_us, Happening::Crash { at });
            let start_us = at_us + self.rng.random_range(1_000..600_000);
            self.at(start_us, Happening::Start { at });
        }
        for _ in 0..self.rng.random_range(0..3) {
            let at_us = self.rng.random_range(0..FAULTS_US);
            let at = (0..NODES).filter(|_| self.rng.random_bool(0.3)).collect();
            self.at(at_us, Happening::CutOff { at });
            let until_us = at_us + self.rng.random_range(1_000..800_000);
            self.at(until_us, Happening::CutOff { at: vec![] });
        }
        self.at(FAULTS_US, Happening::Heal);
    }

    fn replays(&self) -> bool {
        self.nodes.iter().any(|node| node.fault == Some(Fault::Replayer))
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at_us, self.queued), happening);
    }

    /// Runs to the end; what was broken, and how many views there were.
    pub fn run(mut self) -> Result<u64, String> {
        while let Some(((at_us, _), happening)) = self.queue.pop_first() {
            if at_us > FAULTS_US + LIVENESS_US || self.failure.is_some() || self.is_done() {
                break;
            }
            self.now_us = at_us;
            self.happen(happening);
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.oracle.judge()?;
        if !self.is_done() {
            return Err(format!("liveness: {}", self.positions()));
        }
        self.follow()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { to, from, message } => {
                self.handle(to, Event::Message { from: ReplicaId(from), message });
            }
            Happening::Flush { at, life, upto } => {
                let node = &mut self.nodes[usize::from(at)];
                if node.life == life && node.core.is_some() {
                    let kept = node.unsynced.iter().position(|(sequence, _)| *sequence > upto);
                    let synced = node.unsynced.drain(..kept.unwrap_or(node.unsynced.len()));
                    node.durable.extend(synced.map(|(_, record)| record));
                    self.handle(at, Event::Persisted { upto });
                }
            }
            Happening::Tick { at, life } => {
                let node = &mut self.nodes[usize::from(at)];
                if node.life == life && node.tick_at == Some(self.now_us) {
                    node.tick_at = None;
                    self.handle(at, Event::Tick);
                }
            }
            Happening::Ask { sequence } => self.ask(sequence),
            Happening::Change => self.change(),
            Happening::Crash { at } => {
                let survivors = self.rng.random_range(0..=self.nodes[usize::from(at)].unsynced.len());
                let node = &mut self.nodes[usize::from(at)];
                node.core = None;
                node.life += 1;
                let synced: Vec<Record> =
                    node.unsynced.drain(..).take(survivors).map(|(_, record)| record).collect();
                node.durable.extend(synced);
            }
            Happening::Start { at } => self.start(at),
            Happening::CutOff { at } => self.cut_off = if self.healed { vec![] } else { at },
            Happening::Heal => {
                self.healed = true;
                self.cut_off.clear();
                (0..NODES).for_each(|at| self.start(at));
                for at in 0..NODES {
                    for peer in (0..NODES).filter(|peer| *peer != at) {
                        self.handle(at, Event::LinkUp(ReplicaId(peer)));
                    }
                }
            }
        }
    }

    fn start(&mut self, at: u16) {
        if self.nodes[usize::from(at)].core.is_some() {
            return;
        }
        let clients = BTreeMap::from([(CLIENT, client_key().public())]);
        let mut config = Config::new(ReplicaId(at), self.genesis.clone(), replica_key(at), clients);
        config.administrators = vec![administrator().public()];
        config.request_timeout = Duration::from_millis(200);
        config.resend_interval = Duration::from_millis(50);
        config.batch_requests_max = if self.window == 1 { 3 } else { 1 };
        config.window = self.window;
        #[cfg(feature = "planted-bugs")]
        {
            config.planted_bug = self.bug;
        }
        let _ = self.bug;
        let node = &mut self.nodes[usize::from(at)];
        node.delivered.clear();
        node.tick_at = None;
        match Core::new(config, Restored::new(InstanceNumber(0), node.durable.clone())) {
            Ok(core) => node.core = Some(core),
            Err(error) => self.failure = Some(format!("restart of {at}: {error}")),
        }
        self.run_effects(at);
        for peer in (0..NODES).filter(|peer| *peer != at) {
            self.handle(at, Event::LinkUp(ReplicaId(peer)));
            self.handle(peer, Event::LinkUp(ReplicaId(at)));
        }
    }

    fn handle(&mut self, at: u16, event: Event) {
        let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
        let Some(core) = &mut self.nodes[usize::from(at)].core else { return };
        core.handle(now, event, &AcceptAll);
        self.run_effects(at);
    }

    fn run_effects(&mut self, at: u16) {
        let index = usize::from(at);
        while let Some(effect) = self.nodes[index].core.as_mut().and_then(Core::poll_effect) {
            self.run_effect(at, effect);
        }
        let node = &mut self.nodes[index];
        let Some(due) = node.core.as_ref().and_then(Core::next_timeout) else { return };
        let due = due.max(self.now_us + 1);
        if node.tick_at.is_none_or(|known| due < known) {
            node.tick_at = Some(due);
            let life = node.life;
            self.at(due, Happening::Tick { at, life });
        }
    }

    fn run_effect(&mut self, at: u16, effect: Effect) {
        let node = &mut self.nodes[usize::from(at)];
        match effect {
            Effect::Persist { sequence, record } => {
                node.unsynced.push((sequence, record));
                let life = node.life;
                let flush_us = self.now_us + self.rng.random_range(50..5_000);
                self.at(flush_us, Happening::Flush { at, life, upto: sequence });
            }
            Effect::Send { to, message } => self.say(at, to.0, message),
            Effect::Broadcast { message } => {
                for to in (0..NODES).filter(|to| *to != at) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) if node.fault.is_none() => {
                if let Err(reason) = self.oracle.observe(at, &delivery) {
                    self.failure.get_or_insert(reason);
                }
                let last = delivery.requests.iter().filter_map(|(_, request)| match &**request {
                    Request::Client { id, .. } if id.session.session == SessionId(1) => Some(id.sequence),
                    _ => None,
                });
                if let Some(last) = last.max() {
                    let at_us = self.now_us + self.rng.random_range(100..200_000);
                    self.at(at_us, Happening::Ask { sequence: last + 1 });
                }
                self.nodes[usize::from(at)].delivered.push(delivery);
            }
            Effect::Misbehaved { replica, reason } => {
                let lies = |id: u16| self.nodes[usize::from(id)].fault.is_some();
                // A leader that lost power before its WRITE was durable may propose again, and differently.
                let forgot =
                    self.nodes[usize::from(replica.0)].life > 0 && reason.starts_with("proposed two");
                if !lies(at) && !lies(replica.0) && !forgot && self.bug.is_none() {
                    self.failure.get_or_insert(format!("accusations: {at} accuses {replica}: {reason}"));
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, from: u16, to: u16, message: Message) {
        let message = match self.nodes[usize::from(from)].fault {
            Some(Fault::Silent) => return,
            Some(Fault::Forger) => self.forge(message),
            Some(Fault::Replayer) => self.replay(message),
            None => message,
        };
        let (loss, delay_max_us) = if self.healed { (0.0, 5_000) } else { (self.loss, self.delay_max_us) };
        if self.cut_off.contains(&from) != self.cut_off.contains(&to) || self.rng.random_bool(loss) {
            return;
        }
        let arrive_us = self.now_us + self.rng.random_range(100..=delay_max_us);
        self.at(arrive_us, Happening::Arrive { to, from, message });
    }

    /// The same forgery to all, so that it would be decided if it were believed.
    fn forge(&mut self, message: Message) -> Message {
        let Message::Propose { regency, proposal } = message else { return message };
        let request = match proposal.digest().0[0] % 3 {
            0 => return Message::Propose { regency, proposal },
            1 => self.changes.first().cloned(),
            _ => {
                let views = self.nodes.iter().filter_map(|node| Some(node.core.as_ref()?.roster()));
                let newest = views.max_by_key(|roster| roster.view().number()).cloned();
                newest.map(|roster| {
                    let first_leader = roster.view().members().last().copied();
                    let change = Change { first_leader, ..Change::of(&roster) };
                    let Request::Membership { payload, .. } = change.signed(&administrator()) else {
                        return change.signed(&client_key());
                    };
                    let administrator = administrator().public();
                    Request::Membership { payload, administrator, signature: Signature([7; 64]) }
                })
            }
        };
        let Some(request) = request else { return Message::Propose { regency, proposal } };
        let proposal = Proposal { requests: vec![Arc::new(request)], ..(*proposal).clone() };
        Message::Propose { regency, proposal: Arc::new(proposal) }
    }

    /// The same old change to all, instead of what clients asked for.
    fn replay(&mut self, message: Message) -> Message {
        let Message::Propose { regency, proposal } = message else { return message };
        let asked = proposal.requests.iter().any(|request| matches!(**request, Request::Membership { .. }));
        let old = usize::from(proposal.digest().0[0]) % (self.changes.len() + 1);
        let Some(request) = self.changes.get(old).filter(|_| !asked).cloned() else {
            return Message::Propose { regency, proposal };
        };
        let proposal = Proposal { requests: vec![Arc::new(request)], ..(*proposal).clone() };
        Message::Propose { regency, proposal: Arc::new(proposal) }
    }

    /// The first session asks for its next request, and again until it is delivered somewhere.
    fn ask(&mut self, sequence: u64) {
        let highest = self.sequences().into_iter().max().unwrap_or(0);
        if sequence <= highest || sequence > self.wanted {
            return;
        }
        // Two more sessions ask at the same time, so that several instances are in flight.
        for session in 1..=3 {
            let session = SessionKey { client: CLIENT, session: SessionId(session) };
            let request = Arc::new(Request::signed(RequestId { session, sequence }, vec![], &client_key()));
            for at in 0..NODES {
                if self.healed || self.rng.random_bool(0.7) {
                    self.handle(at, Event::Request(Arc::clone(&request)));
                }
            }
        }
        self.at(self.now_us + 400_000, Happening::Ask { sequence });
    }

    /// An administrator asks for some change of the newest view that a correct replica knows.
    fn change(&mut self) {
        let correct = self.nodes.iter().filter(|node| node.fault.is_none());
        let rosters = correct.filter_map(|node| node.core.as_ref().map(Core::roster));
        let Some(roster) = rosters.max_by_key(|roster| roster.view().number()).cloned() else { return };
        let view = roster.view();
        let mut change = Change::of(&roster);
        let next = roster.next_id().0;
        let joining = Joining { key: replica_key(next % NODES).public(), address: format!("h{next}:1") };
        let some = *view.members().choose(&mut self.rng).unwrap();
        // What can be done again later: another leader.
        let kinds = if self.replays() && self.rng.random_bool(0.7) { 4..5 } else { 0..5 };
        match self.rng.random_range(kinds) {
            0 => change.remove.push(some),
            1 if next < NODES => change.add.push(joining),
            2 if next < NODES => {
                change.remove.push(some);
                change.add.push(joining);
            }
            3 => change.heavy = Some(view.members().iter().rev().take(view.heavy().len()).copied().collect()),
            _ => change.first_leader = Some(some),
        }
        if roster.changed(&change).is_err() {
            return;
        }
        let request = change.signed(&administrator());
        self.oracle.asked(&request);
        self.changes.push(request.clone());
        self.asked_for_changes += 1;
        let request = Arc::new(request);
        for at in 0..NODES {
            if self.rng.random_bool(0.8) {
                self.handle(at, Event::Request(Arc::clone(&request)));
            }
        }
    }

    fn sequences(&self) -> Vec<u64> {
        let of = |delivery: &Delivery| {
            let ids = delivery.requests.iter().filter_map(|(_, request)| match &**request {
                Request::Client { id, .. } if id.session.session == SessionId(1) => Some(id.sequence),
                _ => None,
            });
            ids.max()
        };
        let of_node = |node: &Node| node.delivered.iter().filter_map(of).max().unwrap_or(0);
        self.nodes.iter().map(of_node).collect()
    }

    /// Every correct member of the newest view has everything.
    fn is_done(&self) -> bool {
        let Some(newest) = self.newest() else { return false };
        let sequences = self.sequences();
        self.healed
            && newest.view().replicas().all(|id| {
                let node = &self.nodes[usize::from(id.0)];
                let current = node.core.as_ref().is_some_and(|core| core.roster() == &newest);
                node.fault.is_some() || (current && sequences[usize::from(id.0)] == self.wanted)
            })
    }

    fn newest(&self) -> Option<Arc<Roster>> {
        let correct = self.nodes.iter().filter(|node| node.fault.is_none());
        let rosters = correct.filter_map(|node| node.core.as_ref().map(Core::roster));
        rosters.max_by_key(|roster| roster.view().number()).cloned()
    }

    fn positions(&self) -> String {
        let of = |(id, node): (usize, &Node)| {
            let core = node.core.as_ref()?;
            let (regency, last) = (core.regency(), core.last_decided());
            Some(format!("{id}{:?}: {regency:?} {last:?} ", node.fault))
        };
        self.nodes.iter().enumerate().filter_map(of).collect::<String>() + &format!("{:?}", self.newest())
    }

    /// Whoever knows the genesis view alone can follow all changes.
    fn follow(&self) -> Result<u64, String> {
        let Some(newest) = self.newest() else { return Err("nobody is left".into()) };
        let mut chain = ViewChain::new(self.genesis.clone());
        let served = self.nodes.iter().filter(|node| node.fault.is_none());
        let served = served.filter_map(|node| node.core.as_ref()).find(|core| *core.roster() == newest);
        for decision in served.map(|core| core.views().certificates(ViewNumber(0), 64)).unwrap_or_default() {
            chain.follow(&decision)?;
        }
        match chain.roster() == &newest {
            true => Ok(newest.view().number().0),
            false => Err("the chain of views does not lead to the newest one".into()),
        }
    }
}
