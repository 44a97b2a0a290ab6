//! The figures, cases counted by hand, and all small cases against messages that are really sent, one by one.

use super::*;
use crate::{EC2, Matrix, Members};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeSet, BinaryHeap};
use steeldb_types::{FaultModel, ViewNumber};

const SITES: [&str; 5] = ["oregon", "ireland", "sydney", "sao-paulo", "virginia"];
const OREGON: u16 = 0;
const IRELAND: u16 = 1;
const SYDNEY: u16 = 2;
const SAO_PAULO: u16 = 3;
const VIRGINIA: u16 = 4;

fn ids(list: &[u16]) -> Vec<ReplicaId> {
    list.iter().map(|id| ReplicaId(*id)).collect()
}

/// The shipped matrix, with nothing between processes of one site.
fn ec2(client: &str, replicas: usize) -> Distances {
    let text = EC2.replace("latency_ms = 0.1", "latency_ms = 0");
    assert_ne!(text, EC2);
    let sites = (0u16..).map(ReplicaId).zip(SITES).take(replicas);
    Matrix::parse(&text).unwrap().distances(sites, client).unwrap()
}

fn view(n: u16, heavy: &[u16], leader: u16) -> View {
    let members = (0..n).map(ReplicaId).collect();
    View::of_members(ViewNumber(0), FaultModel::Byzantine, members, 1, ids(heavy), ReplicaId(leader)).unwrap()
}

fn tentative() -> Transaction {
    Transaction { statements: 1, replies: Replies::Tentative }
}

fn steps(prediction: &Prediction) -> [f64; 3] {
    [prediction.begin.ms, prediction.votes.ms, prediction.outcome.ms]
}

/// BEGIN 171 + votes 171 + outcome 171 = 513 ms for WHEAT from Oregon.
#[test]
fn wheat_from_oregon_takes_three_times_171_ms() {
    let view = view(5, &[OREGON, VIRGINIA], OREGON);
    let distances = ec2("oregon", 5);
    let prediction = predict(&view, ReplicaId(OREGON), &distances, tentative());
    assert_eq!(steps(&prediction), [171.0, 171.0, 171.0]);
    assert_eq!(prediction.total_ms(), 513.0);
    // Two heavy ones and the nearest light one. Virginia's ACCEPT comes first: its WRITE quorum is Oregon's, its own, and
    // Ireland's, which is 44 ms away.
    assert_eq!(prediction.begin.counted, ids(&[VIRGINIA, OREGON, IRELAND]));
    assert_eq!(prediction.votes.counted, ids(&[OREGON, VIRGINIA, IRELAND]));
    assert_eq!(prediction.outcome.counted, ids(&[VIRGINIA, OREGON, IRELAND]));
}

/// The database replies once it has decided: Ireland's ACCEPT quorum needs Oregon's ACCEPT, which leaves after 171 ms.
/// 171 + 85.5 there, and 85.5 back.
#[test]
fn without_tentative_replies_the_outcome_takes_twice_as_long() {
    let view = view(5, &[OREGON, VIRGINIA], OREGON);
    let prediction = predict(&view, ReplicaId(OREGON), &ec2("oregon", 5), Transaction::default());
    assert_eq!(steps(&prediction), [171.0, 171.0, 342.0]);
    assert_eq!(prediction.outcome.counted, ids(&[OREGON, VIRGINIA, IRELAND]));
}

/// Equal weights, without Virginia: the third of four replicas is Sydney, 205 ms away. ACCEPT: Ireland's WRITE quorum is
/// Oregon's, its own, and São Paulo's (108.5 + 105.5 = 214); it is in Oregon at 299.5. Sydney's is Oregon's, its own, and
/// Ireland's (85.5 + 170 = 255.5); in Oregon at 358. São Paulo's: Oregon's, its own, and Ireland's (191); in Oregon at
/// 299.5. Oregon's own WRITE quorum: its own, Ireland's (171), Sydney's (205). So Oregon decides at 299.5.
#[test]
fn equal_weights_from_oregon_need_the_third_replica() {
    let prediction =
        predict(&view(4, &[], OREGON), ReplicaId(OREGON), &ec2("oregon", 4), Transaction::default());
    assert_eq!(prediction.begin.ms, 299.5);
    assert_eq!(prediction.begin.counted, ids(&[OREGON, IRELAND, SAO_PAULO]));
    assert_eq!(prediction.begin.counted.len(), 3);
    assert!(prediction.votes.ms >= 205.0 && prediction.votes.counted.contains(&ReplicaId(OREGON)));
    assert!(!prediction.begin.counted.contains(&ReplicaId(SYDNEY)));
}

/// All 10 ms apart, the client beside the leader. BEGIN: PROPOSE is everywhere at 10. Oregon's WRITE quorum: its own and
/// two that left at 10, so 20. Others: Oregon's WRITE and their own at 10, a third at 20. ACCEPTs: its own at 20, others'
/// leave at 20 and arrive at 30. Votes: there at 10, back at 20; but others have decided BEGIN at 30, at the same time as
/// the leader: no wait. Outcome: decided everywhere at 30, and 10 back, but for the leader's own.
#[test]
fn equal_distances_are_counted_by_hand() {
    let mut distances = Distances::default();
    for a in 0..4u16 {
        let client = if a == 0 { 0.0 } else { 10.0 };
        distances.set_client(ReplicaId(a), client, client);
        (0..4).for_each(|b| distances.set(ReplicaId(a), ReplicaId(b), 10.0));
    }
    let view = view(4, &[], 0);
    let prediction = predict(&view, ReplicaId(0), &distances, Transaction::default());
    assert_eq!(steps(&prediction), [30.0, 20.0, 40.0]);
    assert_eq!(steps(&predict(&view, ReplicaId(0), &distances, tentative())), [30.0, 20.0, 30.0]);
    // A master elsewhere: decided there at 30, and 10 back. Each further statement is a round trip.
    let transaction = Transaction { statements: 4, ..Transaction::default() };
    let elsewhere = predict(&view, ReplicaId(2), &distances, transaction);
    assert_eq!((elsewhere.begin.ms, elsewhere.statements_ms), (40.0, 60.0));
    assert_eq!(elsewhere.total_ms(), 40.0 + 60.0 + 20.0 + 40.0);
}

#[test]
fn f_silent_replicas_cost_time_and_one_more_costs_everything() {
    let view = view(4, &[], OREGON);
    let complete = ec2("oregon", 4);
    let without = |silent: &[u16]| {
        let distances = silent.iter().fold(complete.clone(), |left, id| left.without(ReplicaId(*id)));
        predict(&view, ReplicaId(OREGON), &distances, Transaction::default())
    };
    let (all, three) = (without(&[]), without(&[IRELAND]));
    assert!(three.total_ms() > all.total_ms() && three.total_ms().is_finite());
    assert!(!three.votes.counted.contains(&ReplicaId(IRELAND)));
    assert!(without(&[IRELAND, SYDNEY]).total_ms().is_infinite());
}

/// Every choice over every placement of two round trips on four replicas, and over random ones on five: the same times
/// as if the messages were sent.
#[test]
fn small_cases_take_as_long_as_their_messages() {
    let pairs: Vec<(u16, u16)> = (0..4).flat_map(|a| (a + 1..4).map(move |b| (a, b))).collect();
    for placement in 0u32..1 << pairs.len() {
        let mut distances = Distances::default();
        for (index, (a, b)) in pairs.iter().enumerate() {
            let ms = if placement >> index & 1 == 1 { 16.0 } else { 1.0 };
            distances.set(ReplicaId(*a), ReplicaId(*b), ms);
            distances.set(ReplicaId(*b), ReplicaId(*a), ms);
        }
        // The client beside replica 0.
        for a in 0..4 {
            let ms = distances.between(ReplicaId(0), ReplicaId(a));
            distances.set_client(ReplicaId(a), ms, ms);
        }
        compare(4, &distances);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..20 {
        let mut distances = Distances::default();
        for a in 0..5 {
            // Powers of two: their sums are exact.
            let mut ms = || f64::from(1u32 << rng.random_range(0..6));
            distances.set_client(ReplicaId(a), ms(), ms());
            (0..5).for_each(|b| distances.set(ReplicaId(a), ReplicaId(b), ms()));
        }
        compare(5, &distances);
    }
}

fn compare(n: u16, distances: &Distances) {
    let members =
        Members { replicas: (0..n).map(ReplicaId).collect(), faults: 1, model: FaultModel::Byzantine };
    for choice in members.choices().unwrap() {
        let view = members.view(choice.leader, choice.heavy.clone()).unwrap();
        for (statements, replies) in [(1, Replies::Decided), (3, Replies::Tentative)] {
            let transaction = Transaction { statements, replies };
            let prediction = predict(&view, choice.master, distances, transaction);
            let played = Played::of(&view, choice.master, distances, transaction);
            let finish = prediction.begin.ms + prediction.statements_ms;
            let said = [prediction.begin.ms, finish, finish + prediction.votes.ms, prediction.total_ms()];
            assert_eq!(said, [played.begun, played.finish, played.certified, played.told], "{choice:?}");
        }
    }
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Message {
    Request,
    Propose(u8),
    Write(u8),
    Accept(u8),
    /// The answer to a statement, with its number.
    Answer(u32),
    Statement(u32),
    /// The master's stream is complete.
    Stream,
    Finish,
    Vote,
    Reply,
}

/// A message under way. The heap gives the earliest first.
#[derive(PartialEq)]
struct Arrival {
    at: f64,
    number: u32,
    /// Nothing: the client.
    from: Option<ReplicaId>,
    to: Option<ReplicaId>,
    message: Message,
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Arrival) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Arrival) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at).then(other.number.cmp(&self.number))
    }
}

#[derive(Default)]
struct Replica {
    heard: BTreeSet<(Message, ReplicaId)>,
    did: BTreeSet<Message>,
    decided: [bool; 2],
}

/// A transaction whose messages are delivered one by one.
struct Played<'a> {
    view: &'a View,
    master: ReplicaId,
    distances: &'a Distances,
    transaction: Transaction,
    under_way: BinaryHeap<Arrival>,
    sent: u32,
    now: f64,
    replicas: BTreeMap<ReplicaId, Replica>,
    replies: BTreeSet<ReplicaId>,
    begun: f64,
    finish: f64,
    certified: f64,
    told: f64,
}

impl<'a> Played<'a> {
    fn of(
        view: &'a View,
        master: ReplicaId,
        distances: &'a Distances,
        transaction: Transaction,
    ) -> Played<'a> {
        let never = f64::INFINITY;
        let replicas = view.replicas().map(|id| (id, Replica::default())).collect();
        let mut played = Played {
            view,
            master,
            distances,
            transaction,
            under_way: BinaryHeap::new(),
            sent: 0,
            now: 0.0,
            replicas,
            replies: BTreeSet::new(),
            begun: never,
            finish: never,
            certified: never,
            told: never,
        };
        played.broadcast(None, Message::Request);
        while let Some(arrival) = played.under_way.pop() {
            played.now = arrival.at;
            match arrival.to {
                Some(replica) => played.at_replica(replica, arrival.from, arrival.message),
                None => played.at_client(arrival.from.unwrap(), arrival.message),
            }
        }
        played
    }

    fn send(&mut self, from: Option<ReplicaId>, to: Option<ReplicaId>, message: Message) {
        let ms = match (from, to) {
            (None, Some(to)) => self.distances.there(to),
            (Some(from), None) => self.distances.back(from),
            (Some(from), Some(to)) => self.distances.between(from, to),
            (None, None) => 0.0,
        };
        self.sent += 1;
        self.under_way.push(Arrival { at: self.now + ms, number: self.sent, from, to, message });
    }

    fn broadcast(&mut self, from: Option<ReplicaId>, message: Message) {
        for to in self.view.replicas() {
            self.send(from, Some(to), message);
        }
    }

    fn at_client(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Answer(number) => {
                if number == 1 {
                    self.begun = self.now;
                }
                if number == self.transaction.statements {
                    self.finish = self.now;
                    self.broadcast(None, Message::Finish);
                } else {
                    self.send(None, Some(self.master), Message::Statement(number + 1));
                }
            }
            Message::Reply => {
                self.replies.insert(from);
                if self.told.is_infinite() && self.view.is_quorum(self.replies.iter().copied()) {
                    self.told = self.now;
                }
            }
            other => panic!("a client gets no {other:?}"),
        }
    }

    fn at_replica(&mut self, me: ReplicaId, from: Option<ReplicaId>, message: Message) {
        // What the client says is noted as one's own.
        self.replicas.get_mut(&me).unwrap().heard.insert((message, from.unwrap_or(me)));
        if let Message::Statement(number) = message {
            self.executed(me, number);
        }
        while self.step(me) {}
    }

    fn executed(&mut self, me: ReplicaId, number: u32) {
        if number == self.transaction.statements {
            self.broadcast(Some(me), Message::Stream);
        }
        self.send(Some(me), None, Message::Answer(number));
    }

    fn has(&self, me: ReplicaId, message: Message) -> bool {
        self.replicas[&me].heard.iter().any(|(heard, _)| *heard == message)
    }

    fn quorum(&self, me: ReplicaId, message: Message) -> bool {
        let heard = &self.replicas[&me].heard;
        let from = heard.iter().filter(|(heard, _)| *heard == message).map(|(_, from)| *from);
        self.view.is_quorum(from)
    }

    /// Does `message`'s deed once, when `may`.
    fn once(&mut self, me: ReplicaId, message: Message, may: bool) -> bool {
        may && self.replicas.get_mut(&me).unwrap().did.insert(message)
    }

    /// One thing that can be done now.
    fn step(&mut self, me: ReplicaId) -> bool {
        let leads = me == self.view.first_leader();
        for instance in 0..2u8 {
            let before = instance == 0 || self.replicas[&me].decided[0];
            let asked = match instance {
                0 => self.has(me, Message::Request),
                _ => self.quorum(me, Message::Vote),
            };
            if self.once(me, Message::Propose(instance), leads && before && asked) {
                if instance == 1 {
                    self.certified = self.now;
                }
                self.broadcast(Some(me), Message::Propose(instance));
                return true;
            }
            let proposed = self.has(me, Message::Propose(instance)) && before;
            if self.once(me, Message::Write(instance), proposed) {
                self.broadcast(Some(me), Message::Write(instance));
                return true;
            }
            let written = proposed && self.quorum(me, Message::Write(instance));
            if self.once(me, Message::Accept(instance), written) {
                self.broadcast(Some(me), Message::Accept(instance));
                return true;
            }
            let decided = proposed && self.quorum(me, Message::Accept(instance));
            if decided && !self.replicas[&me].decided[usize::from(instance)] {
                self.replicas.get_mut(&me).unwrap().decided[usize::from(instance)] = true;
                return true;
            }
        }
        let [begun, ordered] = self.replicas[&me].decided;
        if me == self.master && self.once(me, Message::Answer(1), begun && self.has(me, Message::Request)) {
            self.executed(me, 1);
            return true;
        }
        let may_vote = begun && self.has(me, Message::Stream) && self.has(me, Message::Finish);
        if self.once(me, Message::Vote, may_vote) {
            self.broadcast(Some(me), Message::Vote);
            return true;
        }
        let ordered = match self.transaction.replies {
            Replies::Decided => ordered,
            Replies::Tentative => self.replicas[&me].did.contains(&Message::Accept(1)),
        };
        let voted = self.replicas[&me].did.contains(&Message::Vote);
        if self.once(me, Message::Reply, ordered && voted) {
            self.send(Some(me), None, Message::Reply);
            return true;
        }
        false
    }
}
