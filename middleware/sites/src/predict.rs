//! How long a transaction takes over given one-way latencies: its message steps, walked through one by one.
//!
//! 1. *BEGIN*: the client's request reaches the leader, which proposes it; WRITE and ACCEPT go from all to all; the master
//!    has decided on ACCEPTs of weight Q_v, runs the first statement and answers.
//! 2. *Statements*: a round trip to the master for each further one.
//! 3. *Votes*: the Finish reaches the replicas. Each votes once it has the Finish, the master's stream and the BEGIN, and
//!    sends its vote to all. The leader has a certificate on votes of weight Q_v. Replicas do not pass certificates on
//!    before a time-out, so the leader's own is what counts.
//! 4. *Outcome*: PROPOSE, WRITE and ACCEPT again, and the client believes replies of weight Q_v.
//!
//! A replica considers a proposal once the instance before it is decided there (one instance in flight, as the database
//! has it). What is left out: disks, processors, queues and bandwidth, and waiting for a batch that is in flight. So what
//! comes out is a bound of the network alone, for one transaction at a time.

use std::collections::BTreeMap;
use steeldb_types::{ReplicaId, View};

/// One-way latencies, milliseconds. What is not known is never: such a message does not arrive.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Distances {
    between: BTreeMap<(ReplicaId, ReplicaId), f64>,
    to_replica: BTreeMap<ReplicaId, f64>,
    to_client: BTreeMap<ReplicaId, f64>,
}

impl Distances {
    /// From one replica to another.
    pub fn set(&mut self, from: ReplicaId, to: ReplicaId, ms: f64) {
        self.between.insert((from, to), ms);
    }

    /// Between the client and a replica, there and back.
    pub fn set_client(&mut self, replica: ReplicaId, there_ms: f64, back_ms: f64) {
        self.to_replica.insert(replica, there_ms);
        self.to_client.insert(replica, back_ms);
    }

    /// The same with one replica silent.
    #[must_use]
    pub fn without(&self, silent: ReplicaId) -> Distances {
        let mut left = self.clone();
        left.between.retain(|(from, to), _| *from != silent && *to != silent);
        left.to_replica.remove(&silent);
        left.to_client.remove(&silent);
        left
    }

    /// From one replica to another; nothing from one to itself.
    pub fn between(&self, from: ReplicaId, to: ReplicaId) -> f64 {
        if from == to {
            return 0.0;
        }
        self.between.get(&(from, to)).copied().unwrap_or(f64::INFINITY)
    }

    /// From the client to a replica.
    pub fn there(&self, replica: ReplicaId) -> f64 {
        self.to_replica.get(&replica).copied().unwrap_or(f64::INFINITY)
    }

    /// From a replica to the client.
    pub fn back(&self, replica: ReplicaId) -> f64 {
        self.to_client.get(&replica).copied().unwrap_or(f64::INFINITY)
    }
}

/// When replicas tell the client of the outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    /// Once it is decided and applied, as the database does.
    #[default]
    Decided,
    /// On a WRITE quorum (WHEAT's tentative replies).
    Tentative,
}

/// The transaction that is walked through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Statements, one round trip each; the first goes with BEGIN. At least 1.
    pub statements: u32,
    /// When replicas tell of the outcome.
    pub replies: Replies,
}

impl Default for Transaction {
    fn default() -> Transaction {
        Transaction { statements: 1, replies: Replies::Decided }
    }
}

/// One part of a transaction.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// How long it takes, milliseconds.
    pub ms: f64,
    /// Whose messages made the quorum at its end, in the order of their arrival.
    pub counted: Vec<ReplicaId>,
}

/// How long a transaction takes. Infinite where there is no quorum.
#[derive(Clone, PartialEq, Debug)]
pub struct Prediction {
    /// From the first statement's departure to its answer. Counted: the ACCEPTs at the master.
    pub begin: Step,
    /// The other statements, milliseconds.
    pub statements_ms: f64,
    /// From COMMIT's departure to the certificate at the leader. Counted: the votes there.
    pub votes: Step,
    /// From there to the client's certainty. Counted: the replies.
    pub outcome: Step,
}

impl Prediction {
    /// From the first statement's departure to the client's certainty, milliseconds.
    pub fn total_ms(&self) -> f64 {
        self.begin.ms + self.statements_ms + self.votes.ms + self.outcome.ms
    }
}

/// Walks a transaction through a view led by its [`first_leader`](View::first_leader).
pub fn predict(
    view: &View,
    master: ReplicaId,
    distances: &Distances,
    transaction: Transaction,
) -> Prediction {
    let leader = view.first_leader();
    let at = |time: f64| Times::of(view, |_| time);

    let begin = consensus(view, distances, distances.there(leader), &at(0.0));
    let begun = &begin.decided;
    let answered = begun.time(master).max(distances.there(master)) + distances.back(master);

    let round_trip = distances.there(master) + distances.back(master);
    let statements_ms = match transaction.statements.saturating_sub(1) {
        0 => 0.0,
        more => f64::from(more) * round_trip,
    };
    let finish = answered + statements_ms;

    let last_executed = finish - distances.back(master);
    let voted = Times::of(view, |replica| {
        let streamed = last_executed + distances.between(master, replica);
        begun.time(replica).max(streamed).max(finish + distances.there(replica))
    });
    let votes = quorum(view, |replica| voted.time(replica) + distances.between(replica, leader));
    let certified = votes.at.max(begun.time(leader));

    let order = consensus(view, distances, certified, begun);
    let ordered = match transaction.replies {
        Replies::Decided => &order.decided,
        Replies::Tentative => &order.written,
    };
    // What is not prepared there yet waits for it.
    let replies =
        quorum(view, |replica| ordered.time(replica).max(voted.time(replica)) + distances.back(replica));
    Prediction {
        begin: Step { ms: answered, counted: begin.deciders(view, distances, master) },
        statements_ms,
        votes: Step { ms: since(finish, certified), counted: votes.who },
        outcome: Step { ms: since(certified, replies.at), counted: replies.who },
    }
}

/// Never stays never.
fn since(start: f64, end: f64) -> f64 {
    if end.is_finite() { end - start } else { f64::INFINITY }
}

/// When something happens at each replica.
struct Times(BTreeMap<ReplicaId, f64>);

impl Times {
    fn of(view: &View, time: impl Fn(ReplicaId) -> f64) -> Times {
        Times(view.members().iter().map(|replica| (*replica, time(*replica))).collect())
    }

    fn time(&self, replica: ReplicaId) -> f64 {
        self.0.get(&replica).copied().unwrap_or(f64::INFINITY)
    }
}

/// One instance: when each replica has its WRITE quorum, and when it has decided.
struct Consensus {
    written: Times,
    decided: Times,
}

impl Consensus {
    /// Whose ACCEPTs decided it at `replica`.
    fn deciders(&self, view: &View, distances: &Distances, replica: ReplicaId) -> Vec<ReplicaId> {
        quorum(view, |from| self.written.time(from) + distances.between(from, replica)).who
    }
}

/// PROPOSE from the leader, WRITE and ACCEPT from all to all. `ready`: when each replica has decided the instance before.
fn consensus(view: &View, distances: &Distances, proposed: f64, ready: &Times) -> Consensus {
    let leader = view.first_leader();
    let considered =
        Times::of(view, |replica| (proposed + distances.between(leader, replica)).max(ready.time(replica)));
    // A quorum counts once the proposal itself is there.
    let gather = |sent: &Times| {
        Times::of(view, |replica| {
            let reached = quorum(view, |from| sent.time(from) + distances.between(from, replica));
            reached.at.max(considered.time(replica))
        })
    };
    let written = gather(&considered);
    let decided = gather(&written);
    Consensus { written, decided }
}

/// A quorum of arrivals.
struct Quorum {
    at: f64,
    who: Vec<ReplicaId>,
}

fn quorum(view: &View, arrival: impl Fn(ReplicaId) -> f64) -> Quorum {
    let mut arrivals: Vec<(f64, ReplicaId)> =
        view.members().iter().map(|replica| (arrival(*replica), *replica)).collect();
    arrivals.retain(|(at, _)| at.is_finite());
    arrivals.sort_by(|(a, one), (b, other)| a.total_cmp(b).then(one.cmp(other)));
    let sequence: Vec<ReplicaId> = arrivals.iter().map(|(_, replica)| *replica).collect();
    match view.quorum_within(&sequence) {
        Some(count) => Quorum { at: arrivals[count - 1].0, who: sequence[..count].to_vec() },
        None => Quorum { at: f64::INFINITY, who: Vec::new() },
    }
}

#[cfg(test)]
mod tests;
