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
mod workload;
mod world;

pub use client::{Attempt, Ended, Shown};
pub use history::{Change, Commit, Counts, Held, History, Ordinal, Snapshot, Start, Unprepared};
pub use scenario::{
    CLIENT_FAULTS, ClientFault, Clients, CrashAt, FAULTS, Fault, Kind, MASTER, Network, Power, STEPS,
    Scenario, Step,
};
pub use sql::{Key, Statement, Value};
pub use steeldb_campaign::{Campaign, Failure, Report, Simulate, Trace};
use steeldb_postgres::transaction::gid;

/// What a run came to.
pub type Outcome = steeldb_campaign::Outcome<Counts>;

/// Keeps the digests of its traces apart from other simulators'.
const TRACE: &str = "steeldb/transaction-simulation";

impl Simulate for Scenario {
    type Counts = Counts;

    const AT_THE_END: &'static [&'static str] = &["liveness", "contents"];

    fn simulate(&self, steps_max: Option<u64>, explain: bool) -> Outcome {
        match world::World::new(self, explain) {
            Ok(world) => world.run(steps_max),
            Err(what) => Outcome {
                counts: Counts::default(),
                steps: 0,
                ended_us: 0,
                trace: Trace::new(TRACE, explain),
                failure: Some(Failure {
                    reproduce: self.reproduce(),
                    steps: None,
                    invariant: "scenario",
                    what,
                }),
            },
        }
    }

    fn reproduce(&self) -> String {
        let kind = match self.kind {
            Kind::Any => "",
            Kind::ToldEarly => " --told-early",
            Kind::Moved => " --moved",
        };
        format!("steeldb-txsim{kind} --seed {}", self.seed)
    }
}

/// Runs one seed. `explain` keeps a line per event in the trace.
pub fn run(seed: u64, explain: bool) -> Outcome {
    Scenario::from_seed(seed).simulate(None, explain)
}
