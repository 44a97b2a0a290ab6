//! What is done to the cluster, in which order: a function of the seed. When each fault comes is not, since the next one
//! waits until the cluster is whole again: never more than one replica is faulty at a time, and one that catches up
//! still is.

use clap::ValueEnum;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::time::Duration;
use steeldb_types::ReplicaId;

/// What can be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Kind {
    /// SIGKILL of an agent; its PostgreSQL dies with it. Started again after a while.
    AgentKilled,
    /// SIGKILL of a PostgreSQL server alone. If the agent ends of it, it is started again.
    ServerKilled,
    /// SIGSTOP of an agent, SIGCONT after a while.
    AgentStopped,
    /// SIGSTOP of a PostgreSQL server and its backends, SIGCONT after a while.
    ServerStopped,
    /// A replica is cut off from the other replicas; proxies reach it.
    Partitioned,
    /// A replica is cut off from everybody.
    Isolated,
    /// A row is changed on one replica, behind its agent.
    Tampered,
    /// A replica lies, in one of several ways, until it is restarted.
    Byzantine,
    /// SIGKILL of a proxy, started again at once. No replica is faulty meanwhile.
    ProxyKilled,
}

impl Kind {
    /// Its name, as on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }
}

/// How a replica lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lie {
    /// It votes Mismatch on everything.
    Mismatch,
    /// Its votes and what it tells clients have wrong transcripts.
    Transcripts,
    /// It tells clients wrong outcomes.
    Outcomes,
    /// It says nothing about transactions to anyone.
    Silent,
}

impl Lie {
    /// All.
    pub const ALL: [Lie; 4] = [Lie::Mismatch, Lie::Transcripts, Lie::Outcomes, Lie::Silent];

    /// As the replica's environment says it.
    pub fn name(self) -> &'static str {
        match self {
            Lie::Mismatch => "mismatch",
            Lie::Transcripts => "transcripts",
            Lie::Outcomes => "outcomes",
            Lie::Silent => "silent",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom; for [`Kind::ProxyKilled`] the number is the proxy's.
    pub replica: ReplicaId,
    /// How it lies, for [`Kind::Byzantine`].
    pub lie: Lie,
    /// How long it lasts.
    pub hold: Duration,
    /// How long nothing is done before it.
    pub pause: Duration,
    /// What else is to be chosen, such as a row.
    pub choice: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hold = self.hold.as_millis();
        match self.kind {
            Kind::ProxyKilled => write!(f, "proxy {} killed", self.replica.0 + 1),
            Kind::Byzantine => {
                write!(f, "replica {} byzantine ({}) for {hold} ms", self.replica.0, self.lie.name())
            }
            kind => write!(f, "replica {} {} for {hold} ms", self.replica.0, kind.name()),
        }
    }
}

/// The faults, without end.
pub struct Schedule {
    rng: ChaCha8Rng,
    kinds: Vec<Kind>,
    replicas: Vec<ReplicaId>,
    hold_ms_max: u64,
}

impl Schedule {
    /// The faults of these kinds, done to these replicas. Each kind is as likely as another; none, and nothing is done.
    pub fn new(seed: u64, kinds: &[Kind], replicas: &[ReplicaId], hold_max: Duration) -> Schedule {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        kinds.dedup();
        let hold_ms_max = u64::try_from(hold_max.as_millis()).unwrap_or(u64::MAX).max(200);
        Schedule { rng: ChaCha8Rng::seed_from_u64(seed), kinds, replicas: replicas.to_vec(), hold_ms_max }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let kind = *self.kinds.choose(&mut self.rng)?;
        let replica = match kind {
            Kind::ProxyKilled => ReplicaId(0),
            _ => *self.replicas.choose(&mut self.rng)?,
        };
        let lie = Lie::ALL[self.rng.random_range(0..Lie::ALL.len())];
        let hold = Duration::from_millis(self.rng.random_range(100..=self.hold_ms_max));
        let pause = Duration::from_millis(self.rng.random_range(200..=1000));
        Some(Fault { kind, replica, lie, hold, pause, choice: self.rng.random() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64) -> Vec<Fault> {
        let replicas = [ReplicaId(1), ReplicaId(3)];
        Schedule::new(seed, Kind::value_variants(), &replicas, Duration::from_secs(2)).take(500).collect()
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }

    #[test]
    fn every_kind_comes_and_only_the_replicas_named_are_touched() {
        let faults = schedule(1);
        for kind in Kind::value_variants() {
            assert!(faults.iter().any(|fault| fault.kind == *kind), "{kind:?}");
        }
        for lie in Lie::ALL {
            assert!(faults.iter().any(|fault| fault.kind == Kind::Byzantine && fault.lie == lie), "{lie:?}");
        }
        let touched = faults.iter().filter(|fault| fault.kind != Kind::ProxyKilled);
        assert!(touched.into_iter().all(|fault| [1, 3].contains(&fault.replica.0)));
        assert_eq!(Schedule::new(1, &[], &[ReplicaId(1)], Duration::ZERO).next(), None);
    }
}
