//! Four schedulers over fake backends, a fake total order and links that delay at random, from one seed. One replica
//! lies. What must hold at the end is checked against the order alone, not against any scheduler.

use super::backend::Backend;
use super::*;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const N: usize = 4;

/// Something on its way.
pub(super) enum Message {
    ToReplica(usize, Event),
    ToOrder(Ordered),
    ToClient(SessionKey, usize, ReplicaMessage),
    /// A client looks at its clock.
    Alarm(SessionKey),
    Tick,
}

pub(super) struct World {
    pub rng: ChaCha8Rng,
    pub now: u64,
    pub replicas: Vec<Scheduler>,
    pub backends: Vec<Backend>,
    pub liar: usize,
    /// The order: position i + 1 holds request i.
    pub ordered: Vec<Ordered>,
    /// When the last message on a link arrives: links are first in, first out.
    links: BTreeMap<(usize, usize, u64), u64>,
    queue: BTreeMap<(u64, u64), Message>,
    sent: u64,
    /// Connections of sessions, by number.
    pub connections: BTreeMap<u64, SessionKey>,
    /// When each replica is woken next.
    wakes: [u64; N],
    /// Links to it delay more often than others.
    slow: usize,
    /// Clients define things, too.
    pub defines: bool,
}

/// Ends of links that are no replicas.
const ORDER: usize = 100;
const CLIENT_END: usize = 101;
const BACKEND: usize = 102;

impl World {
    pub(super) fn new(mut rng: ChaCha8Rng) -> World {
        let execution = if rng.random() { Execution::Speculative } else { Execution::Deferred };
        let configs = (0..N as u16).map(|me| Config {
            execution,
            vote_timeout_us: 2 * SECOND,
            idle_timeout_us: 20 * SECOND,
            permits: 3,
            ..config(me, 0)
        });
        let replicas = configs.map(Scheduler::new).collect();
        let (liar, slow) = (rng.random_range(0..N), rng.random_range(0..N));
        World {
            rng,
            now: SECOND,
            replicas,
            backends: (0..N).map(|_| Backend::default()).collect(),
            liar,
            ordered: Vec::new(),
            links: BTreeMap::new(),
            queue: BTreeMap::new(),
            sent: 0,
            connections: BTreeMap::new(),
            wakes: [0; N],
            slow,
            defines: false,
        }
    }

    /// Clients define things that writes reach, or nothing does; some replicas do not know which.
    pub(super) fn define(&mut self) {
        self.defines = true;
        let table = if self.rng.random() { "t" } else { "u" };
        for backend in &mut self.backends {
            let knows = self.rng.random_range(0..5) > 0;
            backend.names = knows.then(|| format!("r{}", hex::encode(table)));
        }
    }

    pub(super) fn at(&mut self, time: u64, message: Message) {
        self.sent += 1;
        self.queue.insert((time.max(self.now), self.sent), message);
    }

    /// Sends over a link of its own kind, in order.
    fn send(&mut self, link: (usize, usize, u64), message: Message) {
        let mut delay = self.rng.random_range(100..20_000);
        let slow = link.1 == self.slow && self.rng.random_range(0..30) == 0;
        if slow || self.rng.random_range(0..300) == 0 {
            delay = self.rng.random_range(20_000..3 * SECOND);
        }
        let last = self.links.get(&link).copied().unwrap_or_default();
        let time = (self.now + delay).max(last);
        self.links.insert(link, time);
        self.at(time, message);
    }

    pub(super) fn client_to(&mut self, replica: usize, connection: u64, message: ClientMessage) {
        let event = Event::Client { connection: Connection(connection), client: CLIENT, message };
        self.send((CLIENT_END, replica, connection), Message::ToReplica(replica, event));
    }

    pub(super) fn disconnect(&mut self, replica: usize, connection: u64) {
        let event = Event::ConnectionLost(Connection(connection));
        self.send((CLIENT_END, replica, connection), Message::ToReplica(replica, event));
    }

    pub(super) fn order(&mut self, request: Ordered) {
        let jitter = self.rng.random_range(100..50_000);
        self.at(self.now + jitter, Message::ToOrder(request));
    }

    /// The next thing that happens; nothing is left or `until` is reached: none.
    pub(super) fn next(&mut self, until: u64) -> Option<Message> {
        let ((time, _), _) = self.queue.first_key_value()?;
        if *time > until {
            return None;
        }
        let ((time, _), message) = self.queue.pop_first()?;
        self.now = time;
        Some(message)
    }

    pub(super) fn run(&mut self, message: Message) {
        match message {
            Message::ToReplica(replica, event) => {
                self.backends[replica].see(&event);
                self.replicas[replica].handle(self.now, event);
                self.settle(replica);
            }
            Message::ToOrder(payload) => {
                self.ordered.push(payload.clone());
                let position = Position(self.ordered.len() as u64);
                for replica in 0..N {
                    let payload = payload.clone();
                    let timestamp = Timestamp(self.now as i64);
                    let late = self.rng.random_range(0..20) == 0;
                    let event = Event::Delivered { position, timestamp, late, request: None, payload };
                    self.send((ORDER, replica, 0), Message::ToReplica(replica, event));
                }
            }
            Message::Tick => {
                for replica in 0..N {
                    self.replicas[replica].handle(self.now, Event::Tick);
                    self.settle(replica);
                }
                self.at(self.now + SECOND / 4, Message::Tick);
            }
            Message::ToClient(..) | Message::Alarm(_) => {}
        }
    }

    fn settle(&mut self, replica: usize) {
        loop {
            self.replicas[replica].flush();
            let Some(effect) = self.replicas[replica].poll_effect() else { break };
            for event in self.backends[replica].effect(&effect) {
                // Reports of a session come in order; what is applied and decoded, whenever.
                self.sent += 1;
                let lane = match &event {
                    Event::Backend { session, .. } => session.session.0,
                    Event::Decoded { .. } => 1_000_000,
                    _ => 2_000_000 + self.sent,
                };
                self.send((BACKEND, replica, lane), Message::ToReplica(replica, event));
            }
            self.effect(replica, effect);
        }
        if let Some(at) = self.replicas[replica].next_wake()
            && !(self.now..=at).contains(&self.wakes[replica])
        {
            self.wakes[replica] = at;
            self.at(at, Message::ToReplica(replica, Event::Wake));
        }
    }

    fn effect(&mut self, from: usize, effect: Effect) {
        match effect {
            Effect::Submit(ordered) => self.order(*ordered),
            Effect::SendVotes(bundle) => {
                for to in (0..N).filter(|to| *to != from) {
                    let bundle = if from == self.liar { self.lie(&bundle) } else { bundle.clone() };
                    if self.rng.random_range(0..100) == 0 {
                        self.break_link(from, to);
                    } else {
                        self.send_votes(from, to, bundle);
                    }
                }
            }
            Effect::ResendVotes { to, bundle } => self.send_votes(from, usize::from(to.0), bundle),
            Effect::SendStream(stream) => {
                for to in (0..N).filter(|to| *to != from) {
                    if self.rng.random_range(0..200) == 0 {
                        self.break_link(from, to);
                    } else {
                        let (epoch, entries) = (stream.epoch, stream.entries.clone());
                        let event = Event::Stream { from: ReplicaId(from as u16), epoch, entries };
                        self.send((from, to, 0), Message::ToReplica(to, event));
                    }
                }
            }
            Effect::SendAccusation(signed) => {
                for to in (0..N).filter(|to| *to != from) {
                    self.send((from, to, 0), Message::ToReplica(to, Event::Accused(signed)));
                }
            }
            Effect::TermBegan(term) => {
                for (connection, session) in self.connections.clone() {
                    let message = Message::ToClient(session, from, ReplicaMessage::Term(term));
                    self.send((from, CLIENT_END, connection), message);
                }
            }
            Effect::SkipSequences { database } => {
                let event = Event::SequencesSkipped { database };
                self.send((BACKEND, from, 4_000_000), Message::ToReplica(from, event));
            }
            Effect::Reply { connection, message } => {
                if let Some(session) = self.connections.get(&connection.0).copied() {
                    let link = (from, CLIENT_END, connection.0);
                    self.send(link, Message::ToClient(session, from, message));
                }
            }
            Effect::FindBlockers { tx, .. } => {
                // Anybody's backend might be in the way.
                let blockers =
                    (0..9).filter(|_| self.rng.random()).map(|of| backend::process_of(session(of)));
                let event = Event::Blockers { tx, blockers: blockers.collect() };
                self.send((BACKEND, from, 3_000_000), Message::ToReplica(from, event));
            }
            _ => {}
        }
    }

    fn send_votes(&mut self, from: usize, to: usize, bundle: VoteBundle) {
        let key = replica_key(from as u16).public();
        let votes = bundle.open(ReplicaId(from as u16), &key, &mut SignatureMemo::new(1)).unwrap();
        self.send((from, to, 0), Message::ToReplica(to, Event::Votes(votes)));
    }

    /// A frame is lost with its link, and the link comes back.
    fn break_link(&mut self, from: usize, to: usize) {
        let back = self.now + self.rng.random_range(SECOND..3 * SECOND);
        for (here, there) in [(from, to), (to, from)] {
            self.at(back, Message::ToReplica(here, Event::PeerUp(ReplicaId(there as u16))));
        }
    }

    /// What the liar says instead, differently to each.
    fn lie(&mut self, bundle: &VoteBundle) -> VoteBundle {
        let mut votes = bundle.votes.clone();
        for (vote, _) in &mut votes {
            vote.kind = match (self.rng.random_range(0..5), vote.kind) {
                (0, _) => VoteKind::Gone,
                (1, _) => VoteKind::Mismatch { operation: 1 },
                (2, VoteKind::Prepared { operations, transcript, wall, .. }) => {
                    let write_set = Digest([self.rng.random_range(0..3); 32]);
                    VoteKind::Prepared { operations, transcript, write_set, wall }
                }
                (_, kind) => kind,
            };
            if self.rng.random_range(0..20) == 0 {
                vote.slot = Position(self.rng.random_range(1..1000));
            }
        }
        VoteBundle::new(votes, &replica_key(self.liar as u16)).unwrap()
    }

    /// A backend dies.
    pub(super) fn kill_backend(&mut self, replica: usize, session: SessionKey) {
        let report = BackendReport::Lost { sqlstate: SqlState::parse("57P01"), message: String::new() };
        let event = Event::Backend { session, report };
        let lane = session.session.0;
        self.backends[replica].sessions.remove(&session);
        self.send((BACKEND, replica, lane), Message::ToReplica(replica, event));
    }

    /// The commits that the order holds, by position: their transactions and write sets.
    pub(super) fn commits(&self) -> BTreeMap<Position, (TxId, Digest)> {
        let mut open = OpenTransactions::new(ReplicaId(0), View::of_size(4).unwrap());
        let positions = (1..).map(Position);
        let mut replay = |position, payload| {
            let commit = open.replay(position, Timestamp(1), payload)?.certificate;
            Some((position, (commit.tx, commit.write_set)))
        };
        positions.zip(&self.ordered).filter_map(|(position, payload)| replay(position, payload)).collect()
    }

    /// What must hold when clients are quiet and time has passed.
    pub(super) fn check(&self, acknowledged: &BTreeMap<TxId, Position>) {
        let commits = self.commits();
        let all: BTreeMap<TxId, Digest> = commits.values().copied().collect();
        for (tx, position) in acknowledged {
            assert_eq!(
                commits.get(position).map(|(of, _)| of),
                Some(tx),
                "{tx} was acknowledged at {position}"
            );
        }
        let slots: BTreeMap<TxId, Vec<Position>> =
            (1..).map(Position).zip(&self.ordered).fold(BTreeMap::new(), |mut slots, (position, payload)| {
                if let Ordered::Begin { tx, .. } = payload {
                    slots.entry(*tx).or_insert_with(Vec::new).push(position);
                }
                slots
            });
        for replica in (0..N).filter(|replica| *replica != self.liar) {
            let (scheduler, backend) = (&self.replicas[replica], &self.backends[replica]);
            assert_eq!(scheduler.diverged(), None, "r{replica}");
            assert_eq!(
                scheduler.applied(),
                Position(self.ordered.len() as u64),
                "r{replica} has applied all"
            );
            assert_eq!(backend.applied.len(), all.len(), "r{replica} applies each commit once");
            assert_eq!(backend.effects, all, "r{replica} has the effects that were vouched for");
            // A6: each snapshot holds the commits ordered before its slot, and no others.
            for (tx, snapshot) in &backend.snapshots {
                let before = |slot: &Position| {
                    let before = commits.range(..slot).map(|(_, (tx, _))| *tx);
                    format!("{:?}", before.collect::<BTreeSet<TxId>>())
                };
                assert!(
                    slots[tx].iter().any(|slot| before(slot) == *snapshot),
                    "r{replica}, {tx}: {snapshot}"
                );
            }
            assert!(backend.prepared.is_empty(), "r{replica} holds locks");
            assert!(backend.sessions.is_empty(), "r{replica} has sessions");
            assert!(scheduler.sessions.is_empty(), "r{replica} has sessions");
            assert_eq!(scheduler.permits_used, 0, "r{replica}");
            assert!(scheduler.anchors.len() <= 1, "r{replica}");
            assert_eq!(scheduler.bytes_by_client.values().sum::<usize>(), 0, "r{replica}");
            assert!(scheduler.speculation.is_empty(), "r{replica}");
            assert!(scheduler.by_gid.is_empty() && scheduler.permit_queue.is_empty(), "r{replica}");
            for transaction in scheduler.transactions.values() {
                assert_eq!(transaction.phase, transaction::Phase::GivenUp, "r{replica}, {}", transaction.tx);
                assert!(transaction.outcome.is_none(), "r{replica}, {}", transaction.tx);
            }
        }
    }
}
