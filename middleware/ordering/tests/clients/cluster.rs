//! Four cores in virtual time, with logs, checkpoints, and messages that can be held up, lost, reordered and changed.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{
    Account, Checkpoint, Config, Core, Decision, Delivery, Effect, Event, InstanceNumber, Join, Message, Now,
    Record, Refusal, Registered, Registration, RegistryConfig, Request, RequestId, RequestKey, Restored,
    Roster, Validator,
};
use steeldb_types::{ClientId, Digest, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::{PublicKey, SecretKey};

pub const N: usize = 4;
pub const SECOND_US: u64 = 1_000_000;
pub const INTERVAL: u64 = 8;
pub const CLIENTS_MAX: usize = 4;

/// A credential is the account's name and limit, and the key it is for.
pub struct Judge;

impl Validator for Judge {
    fn check(&self, _request: &Request, _roster: &Roster) -> Result<(), String> {
        Ok(())
    }

    fn authorize(&self, join: &Join, key: &PublicKey) -> Result<Account, String> {
        let (of, account) = join.credential.split_first_chunk::<32>().ok_or("no credential")?;
        let (sessions_max, name) = account.split_first().ok_or("no account")?;
        match *of == key.0 && name != b"nobody" {
            true => Ok(Account { name: name.to_vec(), sessions_max: u16::from(*sessions_max) }),
            false => Err("not yours".into()),
        }
    }
}

#[cfg(feature = "planted-bugs")]
pub type Bug = Option<steeldb_ordering::PlantedBug>;
#[cfg(not(feature = "planted-bugs"))]
pub type Bug = Option<()>;

#[derive(Default)]
pub struct Node {
    pub core: Option<Core>,
    pub log: Vec<Record>,
    /// Of all its lives.
    pub delivered: BTreeMap<u64, Delivery>,
    pub refused: Vec<(RequestKey, Refusal)>,
    pub accused: Vec<(ReplicaId, String)>,
    pub differs: bool,
    upto: u64,
    truncated: u64,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub now_us: u64,
    /// Messages between these are lost.
    pub cut_off: BTreeSet<usize>,
    /// Reorders and loses messages.
    pub chaos: Option<(ChaCha8Rng, f64)>,
    /// Changes what a replica says.
    pub twist: Box<dyn FnMut(usize, Message) -> Message>,
    queue: Vec<(usize, Event)>,
    window: usize,
    bug: Bug,
}

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn replica_key(replica: usize) -> SecretKey {
    key(100 + replica as u8)
}

/// The instance that a record is about.
fn place(record: &Record) -> InstanceNumber {
    match record {
        Record::Write { proposal, .. } => proposal.instance,
        Record::Accept { instance, .. } => *instance,
        Record::Decision(decision) => decision.instance(),
        Record::Checkpoint(stable) => stable.certificate.instance,
        _ => InstanceNumber(0),
    }
}

pub fn account(name: &str, sessions_max: u16) -> Account {
    Account { name: name.as_bytes().to_vec(), sessions_max }
}

pub fn join(key: &SecretKey, account: Account, until_us: u64) -> Arc<Request> {
    let credential = [&key.public().0[..], &[account.sessions_max as u8], &account.name].concat();
    let until = Timestamp(until_us as i64);
    Arc::new(Registration::Join(Join { account, credential, until }).signed(key))
}

pub fn confirm(key: &SecretKey, challenge: Digest) -> Arc<Request> {
    Arc::new(Registration::Confirm { challenge }.signed(key))
}

pub fn leave(key: &SecretKey, client: ClientId) -> Arc<Request> {
    Arc::new(Registration::Leave { client }.signed(key))
}

pub fn request(key: &SecretKey, client: ClientId, sequence: u64) -> Arc<Request> {
    let session = SessionKey { client, session: SessionId(1) };
    Arc::new(Request::signed_joined(RequestId { session, sequence }, vec![7], key))
}

pub fn registry() -> RegistryConfig {
    RegistryConfig {
        clients_max: CLIENTS_MAX,
        joins_max: 6,
        joins_per_account_max: 2,
        sessions_per_client_max: 4,
        join_timeout: Duration::from_secs(20),
        join_valid_max: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(100),
    }
}

impl Cluster {
    pub fn new(window: usize, bug: Bug) -> Cluster {
        let mut cluster = Cluster {
            nodes: (0..N).map(|_| Node::default()).collect(),
            now_us: SECOND_US,
            cut_off: BTreeSet::new(),
            chaos: None,
            twist: Box::new(|_, message| message),
            queue: Vec::new(),
            window,
            bug,
        };
        for at in 0..N {
            cluster.start(at);
        }
        cluster
    }

    fn config(&self, me: usize) -> Config {
        let publics = (0..N).map(|replica| replica_key(replica).public()).collect();
        let genesis = Roster::of_keys(View::of_size(N as u16).unwrap(), publics).unwrap();
        let mut config = Config::new(ReplicaId(me as u16), genesis, replica_key(me), BTreeMap::new());
        config.registry = Some(registry());
        config.window = self.window;
        config.checkpoint_interval = INTERVAL;
        config.decisions_kept = 1;
        config.decisions_kept_bytes = 0;
        #[cfg(feature = "planted-bugs")]
        {
            config.planted_bug = self.bug;
        }
        #[cfg(not(feature = "planted-bugs"))]
        let _ = self.bug;
        config
    }

    /// Starts a replica from what is in its log from the last checkpoint on.
    pub fn start(&mut self, at: usize) {
        let config = self.config(at);
        let node = &mut self.nodes[at];
        let checkpoint = node.log.iter().rev().find(|record| matches!(record, Record::Checkpoint(_)));
        let upto = checkpoint.map_or(0, |record| place(record).0);
        let later = |record: &&Record| match record {
            Record::Checkpoint(_) => false,
            Record::Regency(_) => true,
            _ => place(record).0 > upto,
        };
        let records: Vec<Record> =
            checkpoint.into_iter().chain(node.log.iter().filter(later)).cloned().collect();
        node.core = Some(Core::new(config, Restored::new(InstanceNumber(node.upto), records)).unwrap());
        self.effects(at);
        for peer in (0..N).filter(|peer| *peer != at) {
            self.queue.push((at, Event::LinkUp(ReplicaId(peer as u16))));
            self.queue.push((peer, Event::LinkUp(ReplicaId(at as u16))));
        }
    }

    pub fn stop(&mut self, at: usize) {
        self.nodes[at].core = None;
        self.queue.retain(|(to, _)| *to != at);
    }

    pub fn submit(&mut self, to: &[usize], request: &Arc<Request>) {
        self.queue.extend(to.iter().map(|to| (*to, Event::Request(Arc::clone(request)))));
    }

    /// Handles up to so many events.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            if self.queue.is_empty() {
                return;
            }
            let next = match &mut self.chaos {
                Some((rng, _)) => rng.random_range(0..self.queue.len()),
                None => 0,
            };
            let (at, event) = self.queue.remove(next);
            let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
            if let Some(core) = &mut self.nodes[at].core {
                core.handle(now, event, &Judge);
                self.effects(at);
            }
        }
    }

    pub fn run(&mut self) {
        self.steps(usize::MAX);
    }

    /// Lets time pass in the steps that timers ask for.
    pub fn pass(&mut self, us: u64) {
        let until = self.now_us + us;
        while self.now_us < until {
            self.now_us = (self.now_us + SECOND_US / 4).min(until);
            self.queue.extend((0..N).map(|at| (at, Event::Tick)));
            self.run();
        }
    }

    /// Has all replicas order a request, and waits for it.
    pub fn order(&mut self, request: &Arc<Request>) {
        self.submit(&[0, 1, 2, 3], request);
        self.run();
    }

    /// What the order makes of a registration; nothing when no replica ordered it.
    pub fn register(&mut self, request: &Arc<Request>) -> Option<Registered> {
        let before = self.nodes[1].delivered.last_key_value().map_or(0, |(instance, _)| *instance);
        self.order(request);
        let since = self.nodes[1].delivered.range(before + 1..);
        let mut made = since.flat_map(|(_, delivery)| &delivery.registrations);
        made.find(|registration| registration.request == *request).map(|made| made.registered.clone())
    }

    /// Joins in two steps; says why not.
    pub fn join(&mut self, key: &SecretKey, account: Account) -> Result<ClientId, Registered> {
        let request = join(key, account, self.now_us + 30 * SECOND_US);
        let challenge = match self.register(&request) {
            Some(Registered::Challenge(challenge)) => challenge,
            other => return Err(other.expect("ordered")),
        };
        match self.register(&confirm(key, challenge)) {
            Some(Registered::Joined(client)) => Ok(client),
            other => Err(other.expect("ordered")),
        }
    }

    /// How often a request was executed at a replica.
    pub fn executions(&self, at: usize, request: &Arc<Request>) -> usize {
        let executed = self.nodes[at].delivered.values().flat_map(|delivery| &delivery.requests);
        executed.filter(|(_, executed)| executed == request).count()
    }

    pub fn joined(&self, at: usize) -> Vec<ClientId> {
        let core = self.nodes[at].core.as_ref().expect("running");
        core.joined_clients().map(|(client, _)| client).collect()
    }

    /// All replicas delivered the same.
    pub fn assert_agreement(&self) {
        for node in &self.nodes[1..] {
            assert!(!node.differs);
            for (instance, delivery) in &node.delivered {
                let Some(first) = self.nodes[0].delivered.get(instance) else { continue };
                assert_eq!(first.registrations, delivery.registrations, "instance {instance}");
                assert_eq!(first.requests, delivery.requests, "instance {instance}");
            }
        }
    }

    /// Everything that was decided, by instance, as the logs say.
    pub fn decisions(&self, nodes: &[usize]) -> BTreeMap<u64, Arc<Decision>> {
        let records = nodes.iter().flat_map(|at| &self.nodes[*at].log);
        let decision = |record: &Record| match record {
            Record::Decision(decision) => Some((decision.instance().0, Arc::clone(decision))),
            _ => None,
        };
        records.filter_map(decision).collect()
    }

    fn effects(&mut self, at: usize) {
        while let Some(effect) = self.nodes[at].core.as_mut().and_then(Core::poll_effect) {
            self.effect(at, effect);
        }
    }

    fn say(&mut self, at: usize, to: usize, message: Message) {
        let message = (self.twist)(at, message);
        let message = Message::decode(&message.encode()).unwrap();
        let lost = self.chaos.as_mut().is_some_and(|(rng, loss)| rng.random_bool(*loss));
        if !lost && self.cut_off.contains(&at) == self.cut_off.contains(&to) {
            self.queue.push((to, Event::Message { from: ReplicaId(at as u16), message }));
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let node = &mut self.nodes[at];
        match effect {
            Effect::Persist { sequence, record } => {
                node.log.push(Record::decode(&record.encode()).unwrap());
                // At once and out of turn: what is lost with the power is the simulation's affair.
                self.queue.insert(0, (at, Event::Persisted { upto: sequence }));
            }
            Effect::Send { to, message } => self.say(at, usize::from(to.0), message),
            Effect::Broadcast { message } => {
                for to in (0..N).filter(|to| *to != at) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) => {
                assert_eq!(delivery.instance.0, node.upto + 1, "replica {at}");
                node.upto += 1;
                node.delivered.insert(node.upto, delivery);
            }
            Effect::Refused { request, reason } => node.refused.push((request, reason)),
            Effect::Misbehaved { replica, reason } => node.accused.push((replica, reason)),
            Effect::StateDiffers { .. } => node.differs = true,
            // The application's state is how far it has got.
            Effect::TakeCheckpoint { instance } => {
                let chunks = vec![Checkpoint::chunk_digest(&instance.0.to_le_bytes())];
                self.queue.push((at, Event::CheckpointTaken { instance, chunks }));
            }
            Effect::ReadChunk { peer, instance, chunk } => {
                let bytes = Some(instance.0.to_le_bytes().to_vec());
                self.queue.push((at, Event::ChunkRead { peer, instance, chunk, bytes }));
            }
            Effect::InstallCheckpoint { instance, .. } => {
                node.upto = instance.0;
                self.queue.push((at, Event::CheckpointInstalled { instance }));
            }
            Effect::Truncate { before } => node.truncated = node.truncated.max(before.0),
            Effect::ReadDecisions { peer, from, .. } => {
                let kept = from.0 >= node.truncated;
                let decisions: Vec<_> =
                    self.decisions(&[at]).split_off(&from.0).into_values().filter(|_| kept).collect();
                self.queue.push((at, Event::DecisionsRead { peer, decisions }));
            }
            _ => {}
        }
    }
}
