//! Planted bugs: real mistakes, put into every core by a switch that nothing shipped has. Each has to be caught; a
//! simulator that does not is to be mistrusted.

use crate::scenario::Scenario;
use crate::{Campaign, Failure};
use steeldb_ordering::PlantedBug;

/// A bug, and how it shows.
pub struct Plant {
    /// The bug.
    pub bug: PlantedBug,
    /// The invariants it breaks; that it breaks others first does not count.
    pub breaks: &'static [&'static str],
    /// What has to be so in a run for the bug to matter; nothing: any seed will do.
    pub needs: fn(&mut Scenario),
    /// Seeds within which it must be caught.
    pub seeds_max: u64,
}

fn anything(_: &mut Scenario) {}

/// Several instances in flight, and requests to fill them.
fn window(scenario: &mut Scenario) {
    scenario.window = scenario.window.max(4);
    scenario.clients.sessions += 2;
}

/// The table: one line per bug.
pub const PLANTS: &[Plant] = &[
    Plant { bug: PlantedBug::QuorumOneTooSmall, breaks: &["agreement"], needs: anything, seeds_max: 4000 },
    Plant { bug: PlantedBug::LockForgotten, breaks: &["agreement"], needs: anything, seeds_max: 4000 },
    Plant {
        bug: PlantedBug::ProofNotChecked,
        breaks: &["agreement", "integrity"],
        needs: anything,
        seeds_max: 4000,
    },
    Plant { bug: PlantedBug::SelectionNotChecked, breaks: &["agreement"], needs: anything, seeds_max: 4000 },
    Plant { bug: PlantedBug::DurabilityIgnored, breaks: &["agreement"], needs: anything, seeds_max: 4000 },
    Plant { bug: PlantedBug::SignatureNotChecked, breaks: &["integrity"], needs: anything, seeds_max: 4000 },
    Plant { bug: PlantedBug::InFlightIgnored, breaks: &["exactly once"], needs: window, seeds_max: 4000 },
    Plant { bug: PlantedBug::LockOfFirstOnly, breaks: &["agreement"], needs: window, seeds_max: 4000 },
    Plant { bug: PlantedBug::ExecutesTwice, breaks: &["exactly once"], needs: anything, seeds_max: 4000 },
];

/// What became of a plant.
pub struct Caught {
    /// After how many seeds.
    pub seeds: u64,
    /// How.
    pub failure: Failure,
}

impl Plant {
    /// The scenario of a seed with the bug in it.
    pub fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::from_seed(seed);
        scenario.planted_bug = Some(self.bug);
        (self.needs)(&mut scenario);
        scenario
    }

    /// Looks for a seed that shows the bug: the first one.
    pub fn hunt(&self) -> Option<Caught> {
        let mut from = 0;
        // In portions, so that the answer is the first seed whatever the number of processors.
        while from < self.seeds_max {
            let to = (from + 100).min(self.seeds_max);
            let scenario = |seed| Some(self.scenario(seed));
            let report = Campaign { scenario, from, to, time_max: None, stop_at_first: false }.run();
            let mut caught = report.violations.into_iter();
            if let Some((seed, failure)) = caught.find(|(_, f)| self.breaks.contains(&f.invariant)) {
                return Some(Caught { seeds: seed + 1, failure });
            }
            from = to;
        }
        None
    }
}
