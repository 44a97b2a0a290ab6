//! Whole clusters of ordering cores in one thread: a virtual clock, a network that loses, delays, duplicates and
//! reorders, disks that lose what was not yet durable, power cuts, partitions, and replicas that lie.
//!
//! A run is a function of its seed. First faults, with safety to be kept; then everything but the liars heals, and
//! every request has to be delivered everywhere in bounded virtual time. The [`invariants`] share no code with the
//! core. A failing run names the command that reproduces it.

mod adversary;
mod history;
pub mod invariants;
mod node;
mod scenario;
mod trace;
mod workload;
mod world;

pub use history::{History, Observed};
pub use scenario::{Ambush, Fault, Scenario};
pub use trace::Trace;

use std::fmt;

/// What a run came to.
pub struct Outcome {
    /// Requests delivered by every correct replica.
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
    /// The run's seed.
    pub seed: u64,
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} broken: {}\nreproduce with: steeldb-sim --seed {} --explain",
            self.invariant, self.what, self.seed
        )
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
