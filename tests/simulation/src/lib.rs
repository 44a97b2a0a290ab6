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
mod campaign;
mod checkpoints;
mod clock;
mod disk;
mod history;
pub mod invariants;
mod node;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod scenario;
mod trace;
pub mod twins;
mod views;
mod workload;
mod world;

pub use application::Reply;
pub use campaign::{Campaign, Report};
pub use history::{Batch, History, Observed};
pub use scenario::{
    AMBUSHES, Ambush, AmbushKind, CLIENT_FAULTS, Checkpoints, ClientFault, Clients, Clocks, FAULTS, Fault,
    Membership, Network, Power, Scenario,
};
pub use trace::Trace;

use std::fmt;

/// What a run came to.
pub struct Outcome {
    /// Requests of correct clients that were acknowledged.
    pub delivered: usize,
    /// The highest regency a correct replica was in.
    pub regency: u64,
    /// Events handled.
    pub steps: u64,
    /// Virtual time at the end, microseconds.
    pub ended_us: u64,
    /// What happened.
    pub trace: Trace,
    /// The invariant that did not hold, if any.
    pub failure: Option<Failure>,
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What makes `steeldb-sim` run it again.
    pub reproduce: String,
    /// How many events it takes; nothing: all there are.
    pub steps: Option<u64>,
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}\nsteeldb-sim {}", self.invariant, self.what, self.reproduce)?;
        if let Some(steps) = self.steps {
            write!(f, " --steps {steps}")?;
        }
        f.write_str(" --explain")
    }
}

/// Runs one seed. `explain` keeps a line per event in the trace.
pub fn run(seed: u64, explain: bool) -> Outcome {
    run_scenario(&Scenario::from_seed(seed), None, explain)
}

/// Runs a scenario, up to `steps_max` events if given.
pub fn run_scenario(scenario: &Scenario, steps_max: Option<u64>, explain: bool) -> Outcome {
    world::World::new(scenario, explain).run(steps_max)
}
