//! Checkpoints, truncation, state transfer and damaged logs: four cores, their logs and a small application.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Checkpoint, Claim, Config, Core, Decision, Effect, Event, InstanceNumber, Message, Now, Part,
    Proposal, Record, Regency, Request, RequestId, Restored, Roster,
};
use steeldb_types::{ClientId, FaultModel, ReplicaId, SessionId, SessionKey, Timestamp, View, ViewNumber};
use steeldb_wire::auth::SecretKey;

const N: u16 = 4;
const INTERVAL: u64 = 5;

/// An application that remembers every payload, in chunks of two.
#[derive(Clone, Default)]
struct Application {
    executed: Vec<u8>,
    upto: u64,
    checkpoints: BTreeMap<InstanceNumber, Vec<Vec<u8>>>,
    fetched: BTreeMap<(InstanceNumber, u32), Vec<u8>>,
}

struct Replica {
    core: Option<Core>,
    log: Vec<Record>,
    application: Application,
    accused: Vec<(ReplicaId, String)>,
    differs: Option<InstanceNumber>,
    installed: Vec<InstanceNumber>,
    said: Vec<Message>,
}

struct Cluster {
    view: View,
    replicas: Vec<Replica>,
    queue: VecDeque<(usize, Event)>,
    now_us: u64,
    /// Changes or drops (nothing) what a replica says to another.
    twist: Box<dyn FnMut(usize, usize, Message) -> Option<Message>>,
    down: BTreeSet<usize>,
}

fn key(replica: usize) -> SecretKey {
    SecretKey::from_seed(&[replica as u8; 32])
}

fn client() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn request(sequence: u64) -> Arc<Request> {
    let session = SessionKey { client: ClientId(1), session: SessionId(1) };
    Arc::new(Request::signed(RequestId { session, sequence }, vec![sequence as u8], &client()))
}

fn config(me: usize, view: &View) -> Config {
    let publics = (0..usize::from(view.n())).map(|i| key(i).public()).collect();
    let clients = BTreeMap::from([(ClientId(1), client().public())]);
    let genesis = Roster::of_keys(view.clone(), publics).unwrap();
    let mut config = Config::new(ReplicaId(me as u16), genesis, key(me), clients);
    config.checkpoint_interval = INTERVAL;
    config.decisions_kept = 2;
    config.decisions_kept_bytes = 0;
    config
}

fn instance_of(record: &Record) -> Option<InstanceNumber> {
    match record {
        Record::Write { proposal, .. } => Some(proposal.instance),
        Record::Accept { instance, .. } => Some(*instance),
        Record::Decision(decision) => Some(decision.instance()),
        _ => None,
    }
}

impl Replica {
    fn new() -> Replica {
        Replica {
            core: None,
            log: Vec::new(),
            application: Application::default(),
            accused: Vec::new(),
            differs: None,
            installed: Vec::new(),
            said: Vec::new(),
        }
    }

    fn decisions(&self) -> Vec<Arc<Decision>> {
        let decision = |record: &Record| match record {
            Record::Decision(decision) => Some(Arc::clone(decision)),
            _ => None,
        };
        let decisions: BTreeMap<_, _> =
            self.log.iter().filter_map(decision).map(|decision| (decision.instance(), decision)).collect();
        decisions.into_values().collect()
    }
}

impl Cluster {
    fn new() -> Cluster {
        Cluster::of(View::of_size(N).unwrap())
    }

    fn of(view: View) -> Cluster {
        let n = usize::from(view.n());
        let mut cluster = Cluster {
            view,
            replicas: (0..n).map(|_| Replica::new()).collect(),
            queue: VecDeque::new(),
            now_us: 0,
            twist: Box::new(|_, _, message| Some(message)),
            down: BTreeSet::new(),
        };
        for replica in 0..n {
            cluster.start(replica);
        }
        cluster
    }

    fn start(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let delivered = InstanceNumber(replica.application.upto);
        replica.core =
            Some(Core::new(config(at, &self.view), Restored::new(delivered, replica.log.clone())).unwrap());
        self.down.remove(&at);
        self.effects(at);
        for peer in (0..self.replicas.len()).filter(|peer| *peer != at) {
            self.queue.push_back((at, Event::LinkUp(ReplicaId(peer as u16))));
            self.queue.push_back((peer, Event::LinkUp(ReplicaId(at as u16))));
        }
        self.run();
    }

    fn stop(&mut self, at: usize) {
        self.replicas[at].core = None;
        self.down.insert(at);
    }

    fn run(&mut self) {
        while let Some((at, event)) = self.queue.pop_front() {
            let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
            let Some(core) = &mut self.replicas[at].core else { continue };
            core.handle(now, event, &AcceptAll);
            self.effects(at);
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        self.queue.extend((0..self.replicas.len()).map(|at| (at, Event::Tick)));
        self.run();
    }

    /// Orders requests one after the other.
    fn order(&mut self, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            self.queue.extend((0..self.replicas.len()).map(|at| (at, Event::Request(request(sequence)))));
            self.run();
        }
    }

    fn effects(&mut self, at: usize) {
        while let Some(effect) = self.replicas[at].core.as_mut().and_then(Core::poll_effect) {
            self.effect(at, effect);
        }
    }

    fn say(&mut self, at: usize, to: usize, message: Message) {
        self.replicas[at].said.push(message.clone());
        if let Some(message) = (self.twist)(at, to, message) {
            let message = Message::decode(&message.encode()).unwrap();
            self.queue.push_back((to, Event::Message { from: ReplicaId(at as u16), message }));
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let replica = &mut self.replicas[at];
        let application = &mut replica.application;
        match effect {
            Effect::Persist { sequence, record } => {
                replica.log.push(Record::decode(&record.encode()).unwrap());
                self.queue.push_back((at, Event::Persisted { upto: sequence }));
            }
            Effect::Send { to, message } => self.say(at, usize::from(to.0), message),
            Effect::Broadcast { message } => {
                for to in (0..self.replicas.len()).filter(|to| *to != at) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) => {
                assert_eq!(delivery.instance.0, application.upto + 1, "replica {at}");
                application.upto += 1;
                application.executed.extend(delivery.requests.iter().flat_map(|(_, r)| r.payload().to_vec()));
            }
            Effect::TakeCheckpoint { instance } => {
                assert_eq!(instance.0, application.upto);
                let chunks: Vec<Vec<u8>> = application.executed.chunks(2).map(<[u8]>::to_vec).collect();
                let digests = chunks.iter().map(|chunk| Checkpoint::chunk_digest(chunk)).collect();
                application.checkpoints.insert(instance, chunks);
                self.queue.push_back((at, Event::CheckpointTaken { instance, chunks: digests }));
            }
            Effect::ReadChunk { peer, instance, chunk } => {
                let chunks = application.checkpoints.get(&instance);
                let bytes = chunks.and_then(|chunks| chunks.get(chunk as usize)).cloned();
                self.queue.push_back((at, Event::ChunkRead { peer, instance, chunk, bytes }));
            }
            Effect::StoreChunk { instance, chunk, bytes } => {
                application.fetched.insert((instance, chunk), bytes);
            }
            Effect::InstallCheckpoint { instance, chunks } => {
                let got: Vec<Vec<u8>> =
                    (0..chunks).map(|chunk| application.fetched[&(instance, chunk)].clone()).collect();
                application.executed = got.concat();
                application.upto = instance.0;
                application.checkpoints.insert(instance, got);
                replica.installed.push(instance);
                self.queue.push_back((at, Event::CheckpointInstalled { instance }));
            }
            Effect::DropCheckpoints { before } => {
                application.checkpoints = application.checkpoints.split_off(&before);
                application.fetched.retain(|(instance, _), _| *instance >= before);
            }
            Effect::Truncate { before } => {
                let stable = |record: &Record| matches!(record, Record::Checkpoint(_));
                assert!(replica.log.iter().any(stable), "cut before a stable checkpoint was durable");
                let last = replica.log.iter().rposition(stable).unwrap();
                let mut index = 0;
                replica.log.retain(|record| {
                    index += 1;
                    (instance_of(record).is_none_or(|instance| instance >= before)
                        && !(stable(record) && index <= last))
                        || matches!(record, Record::Regency(_))
                });
            }
            Effect::ReadDecisions { peer, from, .. } => {
                let all = replica.decisions();
                let decisions = all.into_iter().skip_while(|d| d.instance() < from);
                let consecutive = decisions.zip(from.0..).take_while(|(d, i)| d.instance().0 == *i);
                let decisions = consecutive.map(|(decision, _)| decision).take(3).collect();
                self.queue.push_back((at, Event::DecisionsRead { peer, decisions }));
            }
            Effect::Misbehaved { replica: who, reason } => replica.accused.push((who, reason)),
            Effect::StateDiffers { instance } => replica.differs = Some(instance),
            _ => {}
        }
    }

    fn executed(&self, at: usize) -> &[u8] {
        &self.replicas[at].application.executed
    }

    /// Replica 3 is away for long: what it needs is not in any log.
    fn away() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.order(1..=1);
        cluster.stop(3);
        cluster.order(2..=22);
        assert!(cluster.replicas[0].decisions()[0].instance() > InstanceNumber(5));
        cluster
    }
}

fn bytes(upto: u8) -> Vec<u8> {
    (1..=upto).collect()
}

#[test]
fn a_stable_checkpoint_lets_go_of_older_decisions_and_a_restart_needs_only_what_is_left() {
    let mut cluster = Cluster::new();
    cluster.order(1..=12);
    for at in 0..usize::from(N) {
        let kept: Vec<u64> = cluster.replicas[at].decisions().iter().map(|d| d.instance().0).collect();
        assert_eq!(kept, [9, 10, 11, 12], "replica {at}: two before the checkpoint at 10");
        assert_eq!(cluster.replicas[at].application.checkpoints.len(), 2, "10 and, for who fetches it, 5");
    }
    for at in 0..usize::from(N) {
        cluster.stop(at);
    }
    // Of one replica, the application lost what came after its checkpoint.
    let application = &mut cluster.replicas[1].application;
    (application.executed, application.upto) = (bytes(10), 10);
    for at in 0..usize::from(N) {
        cluster.start(at);
    }
    cluster.order(10..=14);
    for at in 0..usize::from(N) {
        assert_eq!(cluster.executed(at), bytes(14), "replica {at}: 10 to 12 only once");
        assert!(cluster.replicas[at].installed.is_empty());
    }
}

#[test]
fn a_replica_that_was_away_gets_the_checkpoint_then_decisions() {
    let mut cluster = Cluster::away();
    cluster.start(3);
    assert_eq!(cluster.replicas[3].installed, [InstanceNumber(20)]);
    assert_eq!(cluster.executed(3), bytes(22));
    cluster.order(21..=31);
    assert_eq!(cluster.executed(3), bytes(31));
    // It takes checkpoints like the others, and starts again from them.
    assert!(cluster.replicas[3].application.checkpoints.contains_key(&InstanceNumber(30)));
    cluster.stop(3);
    cluster.start(3);
    cluster.order(32..=32);
    assert_eq!(cluster.executed(3), bytes(32));
    assert!(cluster.replicas.iter().all(|replica| replica.accused.is_empty()));
}

/// Where nobody lies, there need not be two that offer a state: of three, one may have crashed for good.
#[test]
fn in_the_crash_model_the_only_other_replica_is_enough() {
    let mut cluster = Cluster::of(View::new(ViewNumber(0), FaultModel::Crash, 3, 1, vec![]).unwrap());
    cluster.stop(2);
    cluster.order(1..=22);
    cluster.stop(1);
    cluster.start(2);
    for _ in 0..20 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.replicas[2].installed, [InstanceNumber(20)]);
    cluster.order(23..=23);
    for _ in 0..20 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.executed(2), bytes(23), "it asks for what lies between once it hears of more");
}

#[test]
fn an_empty_replica_gets_everything() {
    let mut cluster = Cluster::away();
    cluster.replicas[3] = Replica::new();
    cluster.start(3);
    assert_eq!(cluster.executed(3), bytes(22));
}

#[test]
fn an_application_that_lost_its_state_is_given_it_again() {
    let mut cluster = Cluster::new();
    cluster.order(1..=12);
    cluster.stop(2);
    cluster.replicas[2].application = Application::default();
    cluster.start(2);
    for _ in 0..20 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.replicas[2].installed, [InstanceNumber(10)]);
    cluster.order(13..=13);
    assert_eq!(cluster.executed(2), bytes(13));
}

#[test]
fn a_crash_between_the_checkpoint_and_its_installation_is_made_good() {
    let mut cluster = Cluster::away();
    cluster.twist = Box::new(|_, to, message| (to != 3 || message.name() != "STATE").then_some(message));
    cluster.start(3);
    assert!(cluster.replicas[3].installed.is_empty());
    let certified = cluster.replicas[0].log.iter().find(|r| matches!(r, Record::Checkpoint(_))).cloned();
    cluster.stop(3);
    cluster.replicas[3].log.extend(certified);
    cluster.twist = Box::new(|_, _, message| Some(message));
    cluster.start(3);
    for _ in 0..20 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.executed(3), bytes(22));
}

#[test]
fn one_offer_starts_nothing() {
    let mut cluster = Cluster::away();
    cluster.twist =
        Box::new(|from, _, message| (from == 0 || message.name() != "CHECKPOINT-OFFER").then_some(message));
    cluster.start(3);
    for _ in 0..20 {
        cluster.pass(1_000_000);
    }
    assert!(!cluster.replicas[3].said.iter().any(|message| message.name() == "FETCH-STATE"));
}

#[test]
fn a_liar_is_found_out_and_another_sender_used() {
    let lies: [fn(Message) -> Option<Message>; 6] = [
        // Silence.
        |message| (message.name() != "STATE").then_some(message),
        // Other bytes.
        |message| match message {
            Message::State { instance, part, mut bytes } => {
                bytes.push(0);
                Some(Message::State { instance, part, bytes })
            }
            other => Some(other),
        },
        // Other bytes in chunks alone.
        |message| match message {
            Message::State { instance, part: part @ Part::Chunk(_), mut bytes } => {
                bytes[0] ^= 1;
                Some(Message::State { instance, part, bytes })
            }
            other => Some(other),
        },
        // Other chunks, without end.
        |message| match message {
            Message::State { instance, part: Part::Chunk(_), bytes } => {
                Some(Message::State { instance, part: Part::Chunk(1_000_000), bytes })
            }
            other => Some(other),
        },
        // Another checkpoint under the certificate.
        |message| match message {
            Message::CheckpointOffer { certificate, views } => {
                let mut certificate = (*certificate).clone();
                certificate.digest.0[0] ^= 1;
                Some(Message::CheckpointOffer { certificate: certificate.into(), views })
            }
            other => Some(other),
        },
        // Only its own signature, twice.
        |message| match message {
            Message::CheckpointOffer { certificate, views } => {
                let mut certificate = (*certificate).clone();
                certificate.signatures.truncate(1);
                let own = certificate.signatures[0];
                certificate.signatures.push(own);
                Some(Message::CheckpointOffer { certificate: certificate.into(), views })
            }
            other => Some(other),
        },
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        for liar in 0..3 {
            let mut cluster = Cluster::away();
            cluster.twist = Box::new(
                move |from, to, message| if (from, to) == (liar, 3) { lie(message) } else { Some(message) },
            );
            cluster.start(3);
            for _ in 0..30 {
                cluster.pass(1_000_000);
            }
            assert_eq!(cluster.executed(3), bytes(22), "lie {number} of {liar}");
            assert!(cluster.replicas[3].accused.iter().all(|(who, _)| usize::from(who.0) == liar));
        }
    }
}

#[test]
fn a_state_that_differs_is_noticed_and_its_log_kept() {
    let mut cluster = Cluster::new();
    cluster.order(1..=3);
    cluster.replicas[2].application.executed[0] = 77;
    cluster.order(4..=12);
    assert_eq!(cluster.replicas[2].differs, Some(InstanceNumber(5)));
    assert_eq!(cluster.replicas[2].decisions()[0].instance(), InstanceNumber(1));
    for at in [0, 1, 3] {
        assert_eq!(cluster.replicas[at].differs, None);
        assert_eq!(cluster.replicas[at].decisions()[0].instance(), InstanceNumber(9));
    }
}

#[test]
fn forged_checkpoint_messages_count_for_nothing() {
    let mut cluster = Cluster::new();
    cluster.twist = Box::new(|from, _, message| match message {
        Message::Checkpoint { instance, digest, mut signature } if from != 0 => {
            signature.0[5] ^= 1;
            Some(Message::Checkpoint { instance, digest, signature })
        }
        other => Some(other),
    });
    cluster.order(1..=6);
    let stable = |at: usize| cluster.replicas[at].log.iter().any(|r| matches!(r, Record::Checkpoint(_)));
    assert!(!stable(0), "its own is not enough");
    assert!(stable(1) && stable(2) && stable(3), "with that of 0 theirs are");
    assert!(cluster.replicas[0].accused.len() >= 3);
}

#[test]
fn a_hole_is_filled_by_others_and_the_rest_read_from_the_own_log() {
    let mut cluster = Cluster::new();
    for at in 0..usize::from(N) {
        cluster.stop(at);
        cluster.replicas[at] = Replica::new();
    }
    for at in 0..usize::from(N) {
        cluster.start(at);
    }
    cluster.order(1..=4);
    cluster.stop(1);
    cluster.replicas[1].log.retain(|record| instance_of(record) != Some(InstanceNumber(2)));
    cluster.replicas[1].application = Application::default();
    cluster.start(1);
    assert_eq!(cluster.executed(1), bytes(4));
    let holes = cluster.replicas[1].log.iter();
    let again: Vec<_> = holes.filter_map(instance_of).filter(|i| i.0 == 2).collect();
    assert_eq!(again, [InstanceNumber(2)], "written again once");
}

#[test]
fn where_votes_may_have_been_lost_none_are_cast() {
    let mut cluster = Cluster::new();
    cluster.order(1..=3);
    cluster.stop(1);
    cluster.replicas[1].log.push(Record::Passive { upto: InstanceNumber(5) });
    cluster.start(1);
    cluster.replicas[1].said.clear();
    cluster.order(4..=5);
    let votes = |cluster: &Cluster| {
        let said = cluster.replicas[1].said.iter();
        said.filter(|message| ["WRITE", "ACCEPT", "PROPOSE", "STOPDATA"].contains(&message.name())).count()
    };
    assert_eq!(votes(&cluster), 0);
    assert_eq!(cluster.executed(1), bytes(5), "it learns what is decided all the same");
    cluster.order(6..=6);
    assert!(votes(&cluster) > 0);
    assert_eq!(cluster.executed(1), bytes(6));
}

#[test]
fn a_passive_replica_sends_no_stopdata_and_leads_nothing() {
    let mut cluster = Cluster::new();
    cluster.stop(1);
    cluster.replicas[1].log.push(Record::Passive { upto: InstanceNumber(1) });
    cluster.start(1);
    cluster.replicas[1].said.clear();
    cluster.stop(0);
    cluster.queue.extend((1..4).map(|at| (at, Event::Request(request(1)))));
    cluster.run();
    for _ in 0..40 {
        cluster.pass(1_000_000);
    }
    let said = |name: &str| cluster.replicas[1].said.iter().filter(|m| m.name() == name).count();
    assert_eq!((said("STOPDATA"), said("PROPOSE"), said("WRITE"), said("ACCEPT")), (0, 0, 0, 0));
    assert!(said("STOP") > 0);
    // Two of four are no quorum; with the first one back, there is one without it.
    cluster.start(0);
    for _ in 0..40 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.executed(1), bytes(1));
}

#[test]
fn votes_behind_a_hole_are_still_kept() {
    let mut cluster = Cluster::new();
    cluster.order(1..=2);
    cluster.stop(1);
    let requests = vec![request(3)];
    let value = Arc::new(Proposal { instance: InstanceNumber(3), timestamp: Timestamp(50), requests });
    let replica = &mut cluster.replicas[1];
    replica.log.retain(|record| instance_of(record) != Some(InstanceNumber(1)));
    replica.log.push(Record::Write { regency: Regency::default(), proposal: value });
    replica.application = Application::default();
    cluster.start(1);
    assert_eq!(cluster.executed(1), bytes(2));
    cluster.replicas[1].said.clear();
    cluster.order(3..=3);
    // The leader proposes another value in the regency in which it wrote before.
    let wrote = |message: &Message| matches!(message, Message::Write { claim: Claim { .. }, .. });
    assert!(!cluster.replicas[1].said.iter().any(wrote));
    for _ in 0..5 {
        cluster.pass(1_000_000);
    }
    assert_eq!(cluster.executed(1), bytes(3));
}
