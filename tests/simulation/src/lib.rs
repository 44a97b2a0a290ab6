//! Whole clusters of ordering cores in one thread: a virtual clock, a network that loses, delays, duplicates and
//! reorders, disks that lose what was not yet durable, power cuts, partitions, and replicas and clients that lie.
//!
//! A run is a function of its seed. First faults, with safety to be kept; then everything but the liars heals, and
//! what correct clients ask for has to be executed everywhere in bounded virtual time. The [`invariants`] share no
//! code with the core. A failing run names the command that reproduces it.
//!
//! Where things are: [`Scenario`] is what a seed means; `world` makes it happen to `node`s (core, disk, clock,
//! application); `adversaries` are the liars, one file each; `views` says anew who the members of each
//! view are; [`twins`] enumerates small scenarios exhaustively;
//! [`Campaign`] runs many.

mod adversaries;
mod application;
mod checkpoints;
mod clock;
mod disk;
mod history;
pub mod invariants;
mod node;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod scenario;
pub mod twins;
mod views;
mod workload;
mod world;

pub use application::Reply;
pub use history::{Batch, History, Observed};
pub use scenario::{
    AMBUSHES, Ambush, AmbushKind, CLIENT_FAULTS, Checkpoints, ClientFault, Clients, Clocks, FAULTS, Fault,
    Membership, Network, Power, Scenario,
};
use std::ops::AddAssign;
pub use steeldb_campaign::{Campaign, Failure, Report, Simulate, Trace};

/// What a run came to.
pub type Outcome = steeldb_campaign::Outcome<Counts>;

/// How much happened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Requests of correct clients that were acknowledged.
    pub acknowledged: u64,
    /// Regencies that a correct replica entered; in one run the highest it was in.
    pub regencies: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.acknowledged += other.acknowledged;
        self.regencies += other.regencies;
    }
}

impl steeldb_campaign::Counts for Counts {
    fn fields(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn sentence(&self) -> String {
        format!("{} requests acknowledged, regency {}", self.acknowledged, self.regencies)
    }
}

impl Simulate for Scenario {
    type Counts = Counts;

    const AT_THE_END: &'static [&'static str] = &[invariants::LIVENESS.0];

    fn simulate(&self, steps_max: Option<u64>, explain: bool) -> Outcome {
        world::World::new(self, explain).run(steps_max)
    }

    fn reproduce(&self) -> String {
        match &self.script {
            Some(script) => format!("steeldb-sim --twins {}", script.number),
            None => format!("steeldb-sim --seed {}", self.seed),
        }
    }
}

/// Runs one seed. `explain` keeps a line per event in the trace.
pub fn run(seed: u64, explain: bool) -> Outcome {
    Scenario::from_seed(seed).simulate(None, explain)
}
