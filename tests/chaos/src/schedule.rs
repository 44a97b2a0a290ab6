//! What is done to the cluster, in which order: a function of the seed. When each fault comes is not, since the next one
//! waits until the cluster is whole again: never more than one replica is faulty at a time, and one that catches up
//! still is.

use clap::ValueEnum;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::time::Duration;
use steeldb_types::ReplicaId;

/// What can be done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Kind {
    /// SIGKILL of an agent; its PostgreSQL ends with it. Started again after a while.
    AgentKilled,
    /// SIGKILL of a PostgreSQL server alone. Its agent starts it again.
    ServerKilled,
    /// SIGKILL of an agent and of all of its server's processes at once. Started again after a while.
    HostKilled,
    /// An agent is stopped in good order, and started again after a while.
    AgentRestarted,
    /// SIGSTOP of an agent, SIGCONT after a while.
    AgentStopped,
    /// SIGSTOP of a PostgreSQL server and its backends, SIGCONT after a while.
    ServerStopped,
    /// SIGSTOP of an agent and its server, SIGCONT after a while.
    HostStopped,
    /// A replica is cut off from the other replicas; proxies reach it.
    Partitioned,
    /// A replica is cut off from everybody.
    Isolated,
    /// A row is changed on one replica, behind its agent.
    Tampered,
    /// A replica lies for a while, in one of several ways, and is started again.
    Byzantine,
    /// SIGKILL of a proxy, started again at once. No replica is faulty meanwhile.
    ProxyKilled,
    /// The master's host is killed, while another one leads the order; started again once there was a commit.
    MasterKilled,
    /// The host of the ordering leader is killed, while another one is the master.
    LeaderKilled,
    /// The host that is both is killed.
    BothKilled,
    /// A host that is neither is killed.
    FollowerKilled,
}

impl Kind {
    /// Those that time how long the next commit takes after a kill. They are no more than `HostKilled` with the victim's
    /// part chosen, so they are done when asked for.
    pub const TIMED: [Kind; 4] =
        [Kind::MasterKilled, Kind::LeaderKilled, Kind::BothKilled, Kind::FollowerKilled];

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
    /// It shows clients other values than its server gave.
    Answers,
    /// It says nothing about transactions to anyone.
    Silent,
}

impl Lie {
    /// All.
    pub const ALL: [Lie; 5] = [Lie::Mismatch, Lie::Transcripts, Lie::Outcomes, Lie::Answers, Lie::Silent];

    /// As the replica is told.
    pub fn name(self) -> &'static str {
        match self {
            Lie::Mismatch => "mismatch",
            Lie::Transcripts => "transcripts",
            Lie::Outcomes => "outcomes",
            Lie::Answers => "answers",
            Lie::Silent => "silent",
        }
    }
}

/// What COMMIT waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Replies {
    /// Its decision, one consensus instance after the other.
    Decided,
    /// Until nothing else can be decided (WHEAT's tentative replies), with four instances in flight.
    Tentative,
}

impl Replies {
    /// What a seed chooses: tentative replies in a third of them. The faults that it chooses do not depend on it.
    pub fn chosen_by(seed: u64) -> Replies {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        match rng.random_ratio(1, 3) {
            true => Replies::Tentative,
            false => Replies::Decided,
        }
    }

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Replies::Decided => "decided",
            Replies::Tentative => "tentative",
        }
    }

    /// What `steeldb init` is told.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Replies::Decided => &[],
            Replies::Tentative => &["--tentative", "--window", "4"],
        }
    }
}

/// One fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom. Of a proxy killed the number less one; of [`Kind::TIMED`] it is chosen when it is done.
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

/// The faults, without end. Each kind comes once before one comes again, and likewise each replica, proxy and lie.
pub struct Schedule {
    rng: ChaCha8Rng,
    kinds: Deck<Kind>,
    replicas: Deck<ReplicaId>,
    proxies: Deck<ReplicaId>,
    lies: Deck<Lie>,
    hold_ms_max: u64,
}

impl Schedule {
    /// The faults of these kinds, done to these replicas and so many proxies. Without kinds nothing is done.
    pub fn new(
        seed: u64,
        kinds: &[Kind],
        replicas: &[ReplicaId],
        proxies: u16,
        hold_max: Duration,
    ) -> Schedule {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        kinds.dedup();
        Schedule {
            rng: ChaCha8Rng::seed_from_u64(seed),
            kinds: Deck::new(kinds),
            replicas: Deck::new(replicas.to_vec()),
            proxies: Deck::new((0..proxies).map(ReplicaId).collect()),
            lies: Deck::new(Lie::ALL.to_vec()),
            hold_ms_max: u64::try_from(hold_max.as_millis()).unwrap_or(u64::MAX).max(200),
        }
    }
}

impl Iterator for Schedule {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        let rng = &mut self.rng;
        let kind = self.kinds.draw(rng)?;
        let replica = match kind {
            Kind::ProxyKilled => self.proxies.draw(rng)?,
            _ => self.replicas.draw(rng)?,
        };
        let lie = match kind {
            Kind::Byzantine => self.lies.draw(rng)?,
            _ => Lie::Mismatch,
        };
        let hold = Duration::from_millis(rng.random_range(100..=self.hold_ms_max));
        let pause = Duration::from_millis(rng.random_range(200..=1000));
        Some(Fault { kind, replica, lie, hold, pause, choice: rng.random() })
    }
}

/// Things that are drawn in random order, all of them before one comes again.
struct Deck<T> {
    all: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    fn new(all: Vec<T>) -> Deck<T> {
        Deck { all, left: Vec::new() }
    }

    fn draw(&mut self, rng: &mut ChaCha8Rng) -> Option<T> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(rng);
        }
        self.left.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(seed: u64, count: usize) -> Vec<Fault> {
        let replicas = [ReplicaId(1), ReplicaId(3)];
        let schedule = Schedule::new(seed, Kind::value_variants(), &replicas, 2, Duration::from_secs(2));
        schedule.take(count).collect()
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(schedule(7, 500), schedule(7, 500));
        assert_ne!(schedule(7, 500), schedule(8, 500));
    }

    #[test]
    fn a_third_of_the_seeds_choose_tentative_replies() {
        let tentative = (0..3000).filter(|seed| Replies::chosen_by(*seed) == Replies::Tentative).count();
        assert!((900..1100).contains(&tentative), "{tentative}");
        for replies in Replies::value_variants() {
            assert_eq!(Replies::from_str(replies.name(), false), Ok(*replies));
        }
    }

    #[test]
    fn every_kind_comes_once_before_one_comes_again() {
        let kinds = Kind::value_variants();
        let faults = schedule(1, kinds.len());
        for kind in kinds {
            assert_eq!(faults.iter().filter(|fault| fault.kind == *kind).count(), 1, "{kind:?}");
        }
    }

    #[test]
    fn every_lie_comes_and_only_the_replicas_named_are_touched() {
        let faults = schedule(1, Kind::value_variants().len() * Lie::ALL.len());
        for lie in Lie::ALL {
            assert!(faults.iter().any(|fault| fault.kind == Kind::Byzantine && fault.lie == lie), "{lie:?}");
        }
        let touched = faults.iter().filter(|fault| fault.kind != Kind::ProxyKilled);
        assert!(touched.into_iter().all(|fault| [1, 3].contains(&fault.replica.0)));
        assert_eq!(Schedule::new(1, &[], &[ReplicaId(1)], 2, Duration::ZERO).next(), None);
    }
}
