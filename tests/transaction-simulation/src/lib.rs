//! Whole clusters of schedulers and client shims in one thread: a virtual clock, links that break, crashes at every step, an
//! in-memory snapshot-isolation store in PostgreSQL's place, and replicas and clients that lie.
//!
//! A run is a function of its seed. First faults, with safety to be kept; then everything but the liars heals, and
//! whatever correct clients began has to end, with nothing left open or prepared. The [`invariants`] share no code with
//! the scheduler. A failing run names the command that reproduces it.
//!
//! Where things are: [`Scenario`] is what a seed means; `world` makes it happen to `node`s (scheduler, store, log) and
//! `client`s (shim); `store` is the database; `sequencer` an ideal order, which most seeds use in place of ordering cores;
//! `adversaries` are the liars, one file each; [`Campaign`] runs many.

mod adversaries;
mod campaign;
mod client;
mod disk;
mod history;
pub mod invariants;
mod node;
#[cfg(feature = "planted-bugs")]
pub mod planted;
mod scenario;
mod sequencer;
mod sql;
mod store;
mod trace;
mod workload;
mod world;

pub use campaign::{Campaign, Report};
pub use client::{Attempt, Ended, Shown};
pub use history::{Change, Commit, Counts, Held, History, Ordinal, Snapshot, Start, Unprepared};
pub use scenario::{
    CLIENT_FAULTS, ClientFault, Clients, CrashAt, FAULTS, Fault, MASTER, Network, Power, STEPS, Scenario,
    Step,
};
pub use sql::{Key, Statement, Value};
pub use trace::Trace;

use std::fmt;
use steeldb_postgres::transaction::gid;

/// What a run came to.
pub struct Outcome {
    /// How much happened.
    pub counts: Counts,
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
    /// The seed.
    pub seed: u64,
    /// How many events it takes; nothing: all there are.
    pub steps: Option<u64>,
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}\nsteeldb-txsim --seed {}", self.invariant, self.what, self.seed)?;
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
    match world::World::new(scenario, explain) {
        Ok(world) => world.run(steps_max),
        Err(what) => Outcome {
            counts: Counts::default(),
            steps: 0,
            ended_us: 0,
            trace: Trace::new(explain),
            failure: Some(Failure { seed: scenario.seed, steps: None, invariant: "scenario", what }),
        },
    }
}
