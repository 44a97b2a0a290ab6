//! Whole clusters whose logs are on simulated disks: power cuts with torn writes, rot, checkpoints every few instances,
//! truncation, restarts of one and of all, a liar among those who hand out state. One oracle: after an instance, every
//! application that has got there is in the same state, whatever happened; and once faults end, all get everywhere.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{
    AcceptAll, Checkpoint, CheckpointCertificate, Config, Core, Effect, Event, InstanceNumber, Message, Now,
    Part, Request, RequestId, Restored, Roster,
};
use steeldb_ordering_log::{Disk, Log, LogError, Options, SimulatedDisk};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::SecretKey;

const OPTIONS: Options = Options { segment_bytes: 3000, sync: true };
const SESSIONS: u64 = 3;
const HEALED_US: u64 = 4_000_000;
const END_US: u64 = 200_000_000;

#[derive(Clone, Default)]
struct Application {
    executed: Vec<u8>,
    upto: u64,
    /// By instance, the chunks of a state that a restart can begin with.
    saved: BTreeMap<InstanceNumber, Vec<Vec<u8>>>,
    fetched: BTreeMap<(InstanceNumber, u32), Vec<u8>>,
}

struct Replica {
    config: Config,
    disk: SimulatedDisk,
    running: Option<(Core, Log)>,
    application: Application,
    life: u32,
    tick_at: Option<u64>,
    /// Its log could not be opened: it is rebuilt by nobody.
    lost: bool,
}

enum Happening {
    Arrive(usize, Event),
    /// Only in the same life.
    Own(usize, u32, Event),
    Flush(usize, u32, u64),
    Tick(usize, u32),
    Ask(u64),
    Crash(usize, Crash),
    Start(usize),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Crash {
    Power,
    Rot,
}

#[derive(Default, Debug)]
struct Seen {
    installed: usize,
    passive: usize,
    damaged: usize,
    lost: usize,
    torn: usize,
    lies: usize,
}

struct World {
    seed: u64,
    rng: ChaCha8Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    replicas: Vec<Replica>,
    /// After each instance, the one state.
    states: BTreeMap<u64, Vec<u8>>,
    /// Whose log may rot, and who lies: never more than f.
    weak: BTreeSet<usize>,
    liar: Option<usize>,
    loss: f64,
    requests: u64,
    /// By session, how far it has got.
    done: BTreeMap<u64, u64>,
    client: SecretKey,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n: u16 = *[4, 4, 5, 7].choose(&mut rng).unwrap();
        let f = usize::from((n - 1) / 3);
        let keys: Vec<SecretKey> = (0..n).map(|i| SecretKey::from_seed(&[i as u8 + 1; 32])).collect();
        let client = SecretKey::from_seed(&[99; 32]);
        let view = View::of_size(n).unwrap();
        let genesis = Roster::of_keys(view, keys.iter().map(SecretKey::public).collect()).unwrap();
        let interval = rng.random_range(2..6);
        let kept = rng.random_range(0..4);
        let window = rng.random_range(1..5);
        let replica = |(number, key): (usize, &SecretKey)| {
            let clients = BTreeMap::from([(ClientId(1), client.public())]);
            let mut config = Config::new(ReplicaId(number as u16), genesis.clone(), key.clone(), clients);
            config.request_timeout = Duration::from_millis(200);
            config.resend_interval = Duration::from_millis(50);
            config.decisions_kept_bytes = 0;
            config.batch_requests_max = 2;
            config.window = window;
            config.checkpoint_interval = interval;
            config.decisions_kept = kept;
            Replica {
                config,
                disk: SimulatedDisk::new(),
                running: None,
                application: Application::default(),
                life: 0,
                tick_at: None,
                lost: false,
            }
        };
        let replicas: Vec<Replica> = keys.iter().enumerate().map(replica).collect();
        let mut all: Vec<usize> = (0..usize::from(n)).collect();
        let liar = rng.random_bool(0.3).then(|| all.remove(rng.random_range(0..all.len())));
        let weak_max = f - usize::from(liar.is_some());
        let weak = (0..weak_max).map(|_| all.remove(rng.random_range(0..all.len()))).collect();
        World {
            seed,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            replicas,
            states: BTreeMap::new(),
            weak,
            liar,
            loss: *[0.0, 0.05, 0.2].choose(&mut rng).unwrap(),
            requests: rng.random_range(5..30),
            done: BTreeMap::new(),
            client,
            seen: Seen::default(),
            rng,
        }
    }

    fn at(&mut self, after_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now_us + after_us, self.queued), happening);
    }

    fn run(mut self) -> Seen {
        let n = self.replicas.len();
        for replica in 0..n {
            self.at(0, Happening::Start(replica));
        }
        for session in 1..=SESSIONS {
            self.at(0, Happening::Ask(session));
        }
        let mut crashes = Vec::new();
        for _ in 0..self.rng.random_range(0..8) {
            crashes.push((self.rng.random_range(0..HEALED_US - 1), vec![self.rng.random_range(0..n)]));
        }
        if self.rng.random_bool(0.5) {
            crashes.push((self.rng.random_range(0..HEALED_US - 1), (0..n).collect()));
        }
        for (at_us, replicas) in crashes {
            for replica in replicas {
                let rots = self.weak.contains(&replica) && self.rng.random_bool(0.7);
                self.at(at_us, Happening::Crash(replica, if rots { Crash::Rot } else { Crash::Power }));
                // Some are away until the end of the faults: the others' logs do not wait.
                let down_us = *[30_000, 300_000, HEALED_US].choose(&mut self.rng).unwrap();
                self.at((at_us + down_us).min(HEALED_US), Happening::Start(replica));
            }
        }
        while let Some(((at_us, _), happening)) = self.queue.pop_first() {
            self.now_us = at_us;
            assert!(
                at_us < END_US,
                "seed {}: not everything got everywhere: {:?}",
                self.seed,
                self.progress()
            );
            self.happen(happening);
            if at_us > HEALED_US && self.is_done() {
                break;
            }
        }
        self.seen
    }

    fn healed(&self) -> bool {
        self.now_us >= HEALED_US
    }

    fn correct(&self) -> impl Iterator<Item = &Replica> {
        let liar = self.liar;
        let all = self.replicas.iter().enumerate();
        all.filter(move |(number, replica)| Some(*number) != liar && !replica.lost)
            .map(|(_, replica)| replica)
    }

    fn is_done(&self) -> bool {
        let asked = (1..=SESSIONS).all(|session| self.done.get(&session) == Some(&self.requests));
        let last = self.states.last_key_value().map_or(0, |(instance, _)| *instance);
        asked && self.correct().all(|replica| replica.application.upto == last)
    }

    fn progress(&self) -> Vec<String> {
        let of = |replica: &Replica| match &replica.running {
            Some((core, _)) => {
                let (regency, pending) = (core.regency(), core.pending_requests());
                format!("{} {} {regency:?} {pending} waiting", replica.application.upto, core.last_decided())
            }
            None => format!("{} down, lost {}", replica.application.upto, replica.lost),
        };
        self.replicas.iter().map(of).collect()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(to, event) => self.handle(to, event),
            Happening::Own(at, life, event) if self.replicas[at].life == life => self.handle(at, event),
            Happening::Flush(at, life, upto) if self.replicas[at].life == life => {
                if let Some((_, log)) = &mut self.replicas[at].running {
                    log.commit().unwrap();
                    if self.rng.random_bool(0.3) {
                        log.confirm().unwrap();
                    }
                    self.handle(at, Event::Persisted { upto });
                }
            }
            Happening::Tick(at, life) if self.replicas[at].life == life => {
                self.replicas[at].tick_at = None;
                self.handle(at, Event::Tick);
            }
            Happening::Ask(session) => self.ask(session),
            Happening::Crash(at, crash) => self.crash(at, crash),
            Happening::Start(at) => self.start(at),
            Happening::Own(..) | Happening::Flush(..) | Happening::Tick(..) => {}
        }
    }

    fn ask(&mut self, session: u64) {
        let sequence = self.done.get(&session).copied().unwrap_or(0) + 1;
        if sequence > self.requests {
            return;
        }
        let key = SessionKey { client: ClientId(1), session: SessionId(session) };
        let payload = vec![session as u8, sequence as u8];
        let request = Arc::new(Request::signed(RequestId { session: key, sequence }, payload, &self.client));
        for replica in 0..self.replicas.len() {
            if self.healed() || self.rng.random_bool(0.7) {
                self.at(100, Happening::Arrive(replica, Event::Request(Arc::clone(&request))));
            }
        }
        self.at(400_000, Happening::Ask(session));
    }

    fn crash(&mut self, at: usize, crash: Crash) {
        let Some((_, mut log)) = self.replicas[at].running.take() else { return };
        let replica = &mut self.replicas[at];
        let rng = &mut self.rng;
        match crash {
            Crash::Power => {
                if rng.random_bool(0.5) {
                    // What was handed to the log is on its way to the disk.
                    replica.disk.stop_syncing();
                    log.commit().unwrap();
                }
                replica.disk.cut_power(&mut |n| rng.random_range(0..n));
            }
            Crash::Rot => {
                log.confirm().unwrap();
                replica.disk.write_back();
                let file = replica.disk.list().unwrap().choose(rng).unwrap().clone();
                let length = replica.disk.read(&file).unwrap().len();
                for _ in 0..rng.random_range(1..4) {
                    replica.disk.rot(&file, rng.random_range(0..length), 1 << rng.random_range(0..8));
                }
            }
        }
        // The application begins again with what it has saved, or has kept everything, or has lost it.
        let application = &mut replica.application;
        application.fetched.clear();
        match rng.random_range(0..4) {
            0 => {
                let saved = application.saved.last_key_value();
                let (instance, chunks) = saved.map(|(i, chunks)| (i.0, chunks.concat())).unwrap_or_default();
                (application.upto, application.executed) = (instance, chunks);
            }
            1 if rng.random_bool(0.3) => *application = Application::default(),
            _ => {}
        }
    }

    fn start(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        if replica.running.is_some() || replica.lost {
            return;
        }
        replica.life += 1;
        replica.tick_at = None;
        let delivered = InstanceNumber(replica.application.upto);
        let (log, recovered) = match Log::open(Arc::new(replica.disk.clone()), OPTIONS) {
            Ok(opened) => opened,
            Err(LogError::Lost { .. }) if self.weak.contains(&at) => {
                replica.lost = true;
                self.seen.lost += 1;
                return;
            }
            Err(error) => panic!("seed {}: replica {at}: {error}", self.seed),
        };
        assert!(
            recovered.damage.is_empty() || self.weak.contains(&at),
            "seed {}: replica {at}: {:?}",
            self.seed,
            recovered.damage
        );
        self.seen.damaged += usize::from(!recovered.damage.is_empty());
        self.seen.torn += usize::from(recovered.torn_bytes > 0);
        let core = Core::new(replica.config.clone(), Restored::new(delivered, recovered.records(delivered)));
        let core = core.unwrap_or_else(|error| panic!("seed {}: replica {at}: {error}", self.seed));
        replica.running = Some((core, log));
        self.effects(at);
        for peer in (0..self.replicas.len()).filter(|peer| *peer != at) {
            self.at(200, Happening::Arrive(at, Event::LinkUp(ReplicaId(peer as u16))));
            self.at(200, Happening::Arrive(peer, Event::LinkUp(ReplicaId(at as u16))));
        }
    }

    fn handle(&mut self, at: usize, event: Event) {
        let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
        let Some((core, _)) = &mut self.replicas[at].running else { return };
        core.handle(now, event, &AcceptAll);
        self.effects(at);
    }

    fn effects(&mut self, at: usize) {
        while let Some(effect) = self.replicas[at].running.as_mut().and_then(|(core, _)| core.poll_effect()) {
            self.effect(at, effect);
        }
        let replica = &mut self.replicas[at];
        let Some(due) = replica.running.as_ref().and_then(|(core, _)| core.next_timeout()) else { return };
        let due = due.max(self.now_us + 1);
        if replica.tick_at.is_none_or(|at| due < at) {
            replica.tick_at = Some(due);
            let life = replica.life;
            self.at(due - self.now_us, Happening::Tick(at, life));
        }
    }

    fn say(&mut self, from: usize, to: usize, message: Message) {
        if !self.healed() && self.rng.random_bool(self.loss) {
            return;
        }
        let message = if self.liar == Some(from) { self.lie(message) } else { Some(message) };
        let Some(message) = message else { return };
        let delay_us = self.rng.random_range(100..8000);
        let from = ReplicaId(from as u16);
        self.at(delay_us, Happening::Arrive(to, Event::Message { from, message }));
    }

    /// It orders as it should, and lies to those who are behind.
    fn lie(&mut self, message: Message) -> Option<Message> {
        let before = self.seen.lies;
        self.seen.lies += 1;
        match (message, self.rng.random_range(0..4)) {
            (Message::State { .. } | Message::Decisions { .. }, 0) => None,
            (Message::State { instance, part: Part::Contents, mut bytes }, _) => {
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1;
                Some(Message::State { instance, part: Part::Contents, bytes })
            }
            (Message::State { instance, part: Part::Chunk(chunk), .. }, choice) => {
                let bytes = vec![7; choice];
                Some(Message::State { instance, part: Part::Chunk(chunk), bytes })
            }
            (Message::CheckpointOffer { certificate, views }, _) => {
                let mut certificate = CheckpointCertificate::clone(&certificate);
                certificate.instance = InstanceNumber(certificate.instance.0 + 1000);
                Some(Message::CheckpointOffer { certificate: certificate.into(), views })
            }
            (Message::Checkpoint { instance, mut digest, signature }, _) => {
                digest.0[3] ^= 1;
                Some(Message::Checkpoint { instance, digest, signature })
            }
            (other, _) => {
                self.seen.lies = before;
                Some(other)
            }
        }
    }

    fn own(&mut self, at: usize, event: Event) {
        let (delay_us, life) = (self.rng.random_range(10..2000), self.replicas[at].life);
        self.at(delay_us, Happening::Own(at, life, event));
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let life = self.replicas[at].life;
        let flush_us = self.rng.random_range(50..5000);
        let replica = &mut self.replicas[at];
        let Some((_, log)) = &mut replica.running else { return };
        let application = &mut replica.application;
        match effect {
            Effect::Persist { sequence, record } => {
                log.append(&record).unwrap();
                self.at(flush_us, Happening::Flush(at, life, sequence));
            }
            Effect::Truncate { before } => {
                // Between two commits, as a journal does it.
                log.commit().unwrap();
                log.truncate(before).unwrap();
            }
            Effect::Send { to, message } => self.say(at, usize::from(to.0), message),
            Effect::Broadcast { message } => {
                for to in (0..self.replicas.len()).filter(|to| *to != at) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) => {
                assert_eq!(delivery.instance.0, application.upto + 1, "seed {}: replica {at}", self.seed);
                application.upto += 1;
                for (_, request) in &delivery.requests {
                    application.executed.extend(request.payload());
                }
                let (upto, state) = (application.upto, application.executed.clone());
                self.settle(at, upto, state);
            }
            Effect::TakeCheckpoint { instance } => {
                assert_eq!(instance.0, application.upto);
                let chunks: Vec<Vec<u8>> = application.executed.chunks(7).map(<[u8]>::to_vec).collect();
                let digests = chunks.iter().map(|chunk| Checkpoint::chunk_digest(chunk)).collect();
                application.saved.insert(instance, chunks);
                self.own(at, Event::CheckpointTaken { instance, chunks: digests });
            }
            Effect::ReadChunk { peer, instance, chunk } => {
                let chunks = application.saved.get(&instance);
                let bytes = chunks.and_then(|chunks| chunks.get(chunk as usize)).cloned();
                self.own(at, Event::ChunkRead { peer, instance, chunk, bytes });
            }
            Effect::StoreChunk { instance, chunk, bytes } => {
                application.fetched.insert((instance, chunk), bytes);
            }
            Effect::InstallCheckpoint { instance, chunks } => {
                let got: Vec<Vec<u8>> =
                    (0..chunks).map(|chunk| application.fetched[&(instance, chunk)].clone()).collect();
                (application.executed, application.upto) = (got.concat(), instance.0);
                application.saved.insert(instance, got);
                self.seen.installed += 1;
                let (upto, state) = (instance.0, self.replicas[at].application.executed.clone());
                self.settle(at, upto, state);
                self.own(at, Event::CheckpointInstalled { instance });
            }
            Effect::DropCheckpoints { before } => {
                application.saved = application.saved.split_off(&before);
            }
            Effect::ReadDecisions { peer, from, bytes_max } => {
                let read = log.reader().decisions(from, bytes_max, 5);
                let decisions = read.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
                self.seen.passive += usize::from(usize::from(peer.0) == at);
                self.own(at, Event::DecisionsRead { peer, decisions });
            }
            Effect::StateDiffers { instance } => {
                panic!("seed {}: replica {at} differs at {instance}", self.seed);
            }
            _ => {}
        }
    }

    /// The oracle.
    fn settle(&mut self, at: usize, upto: u64, state: Vec<u8>) {
        let known = self.states.entry(upto).or_insert_with(|| state.clone());
        assert_eq!(*known, state, "seed {}: replica {at} after instance {upto}", self.seed);
        for session in 1..=SESSIONS {
            let count = state.chunks(2).filter(|id| u64::from(id[0]) == session).count() as u64;
            let done = self.done.entry(session).or_default();
            if count > *done {
                *done = count;
                self.at(1000, Happening::Ask(session));
            }
        }
    }
}

fn run(seeds: std::ops::Range<u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = World::new(seed).run();
        all.installed += seen.installed;
        all.passive += seen.passive;
        all.damaged += seen.damaged;
        all.lost += seen.lost;
        all.torn += seen.torn;
        all.lies += seen.lies;
    }
    all
}

#[test]
fn clusters_agree_through_power_cuts_rot_and_state_transfer() {
    let seeds: u64 = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    let first = std::env::var("FIRST").ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    let seen = run(first..first + seeds);
    println!("{seen:?}");
    let enough = [seen.installed, seen.passive, seen.damaged, seen.torn, seen.lies];
    assert!(enough.iter().all(|count| *count > 5), "{seen:?}");
}
