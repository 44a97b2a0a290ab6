//! Planted bugs: real mistakes, put into every replica or every client by a switch that nothing shipped has. Each has to be
//! caught; a simulator that does not is to be mistrusted.

use crate::scenario::{Fault, MASTER, Scenario};
use crate::sequencer::Sequencer;
use crate::{Campaign, Failure};
use std::fmt;
use steeldb_client_shim::PlantedBug as InClients;
use steeldb_replica::scheduler::PlantedBug as InReplicas;
use steeldb_types::{Execution, ReplicaId};

/// Seeds that are always enough.
const SEEDS_MAX: u64 = 600;

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// In every replica.
    Replicas(InReplicas),
    /// In every client.
    Clients(InClients),
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bug::Replicas(bug) => write!(f, "{bug:?}"),
            Bug::Clients(bug) => write!(f, "client: {bug:?}"),
        }
    }
}

/// A bug, and how it shows.
pub struct Plant {
    /// The bug.
    pub bug: Bug,
    /// The invariants it breaks; that it breaks others first does not count.
    pub breaks: &'static [&'static str],
    /// What has to be so in a run for the bug to matter; nothing: any seed will do.
    pub needs: fn(&mut Scenario),
}

const fn replicas(bug: InReplicas, breaks: &'static [&'static str], needs: fn(&mut Scenario)) -> Plant {
    Plant { bug: Bug::Replicas(bug), breaks, needs }
}

const fn clients(bug: InClients, breaks: &'static [&'static str], needs: fn(&mut Scenario)) -> Plant {
    Plant { bug: Bug::Clients(bug), breaks, needs }
}

/// The table: one line per bug.
pub const PLANTS: &[Plant] = &[
    replicas(InReplicas::CommitOnOneCorrect, &["certificates"], anything),
    replicas(InReplicas::AbortOnOneVote, &["certificates"], anything),
    replicas(InReplicas::EffectsLeftOut, &["votes", "effects", "contents"], anything),
    replicas(InReplicas::EffectsNotMatched, &["effects"], anything),
    replicas(InReplicas::InDoubtNotMatched, &["effects"], crashes),
    replicas(InReplicas::FinishNotCompared, &["answers", "computed answers"], lying_master),
    replicas(InReplicas::FinishNotVerified, &["answers", "reported aborts", "votes"], forged_finishes),
    replicas(InReplicas::SnapshotInsideWave, &["snapshots"], anything),
    replicas(InReplicas::CommitPassesBegin, &["snapshots"], anything),
    replicas(InReplicas::RollsBackOnItsOwn, &["ordered outcomes"], anything),
    replicas(InReplicas::SecondOutcomeHonoured, &["ordered outcomes", "effects"], anything),
    replicas(InReplicas::PreparedAfterAgainst, &["votes"], anything),
    replicas(InReplicas::CatchUpBesidePrepared, &["divergence", "liveness"], anything),
    replicas(InReplicas::PreparedForgotten, &["liveness", "divergence"], crashes),
    replicas(InReplicas::PermitsIgnored, &["bounded memory"], anything),
    replicas(InReplicas::WritesOverlooked, &["answers"], anything),
    replicas(InReplicas::RollbackPrepared, &["reported aborts"], anything),
    clients(InClients::CommitOnOneWord, &["acknowledged commits"], forged_outcomes),
    clients(InClients::AbortOnOneWord, &["reported aborts"], forged_outcomes),
    clients(InClients::RollbackUnverified, &["answers", "computed answers"], lying_master),
    clients(InClients::PositionsNotCompared, &["acknowledged commits"], forged_outcomes),
];

/// Bugs that are planted and have not been shown to be caught: they cost speed, or make transactions abort that need not, and
/// no invariant looks at that; or the scenario that shows them is still to be found.
pub const UNPROVEN: &[Plant] = &[
    replicas(InReplicas::SlotNotBound, &["ordered outcomes", "effects"], anything),
    replicas(InReplicas::UndoneByWordAlone, &["answers", "effects", "liveness"], speculation),
    replicas(InReplicas::BarrierIgnored, &["answers", "effects", "liveness"], speculation),
    clients(InClients::ReadOnlyOnOneWord, &["answers", "acknowledged commits"], forged_outcomes),
    clients(InClients::ReadOnlyNotCompared, &["answers", "computed answers"], lying_master),
];

fn anything(_: &mut Scenario) {}

fn speculation(scenario: &mut Scenario) {
    scenario.execution = Execution::Speculative;
}

fn faulty(scenario: &mut Scenario, replica: ReplicaId, fault: Fault) {
    (scenario.n, scenario.faulty) = (4, vec![(replica, vec![fault])]);
}

/// A replica other than the master, the seed says which.
fn other(scenario: &Scenario) -> ReplicaId {
    ReplicaId(1 + (scenario.seed % 3) as u16)
}

fn lying_master(scenario: &mut Scenario) {
    let lies = [Fault::TwoFaced, Fault::WrongRows, Fault::MissingRows];
    faulty(scenario, MASTER, lies[scenario.seed as usize % lies.len()]);
}

fn forged_outcomes(scenario: &mut Scenario) {
    let replica = other(scenario);
    faulty(scenario, replica, Fault::OutcomeForger);
}

fn forged_finishes(scenario: &mut Scenario) {
    faulty(scenario, MASTER, Fault::FinishForger);
}

fn crashes(scenario: &mut Scenario) {
    scenario.power.crashes = 4;
    scenario.power.blackouts = 1;
}

/// Replicas with a bug in what they count judge certificates with it, too.
pub(crate) fn judge(mut sequencer: Sequencer, scenario: &Scenario) -> Sequencer {
    sequencer.any_number =
        matches!(scenario.replica_bug, Some(InReplicas::CommitOnOneCorrect | InReplicas::AbortOnOneVote));
    sequencer
}

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
        // Cores judge certificates by themselves, and rightly.
        scenario.cores = false;
        (self.needs)(&mut scenario);
        match self.bug {
            Bug::Replicas(bug) => scenario.replica_bug = Some(bug),
            Bug::Clients(bug) => scenario.client_bug = Some(bug),
        }
        scenario
    }

    /// What breaks in so many of its scenarios without the bug.
    pub fn control(&self, seeds: u64) -> Vec<String> {
        let scenario = |seed| {
            let mut scenario = self.scenario(seed);
            (scenario.replica_bug, scenario.client_bug) = (None, None);
            scenario
        };
        let report = Campaign { scenario, from: 0, to: seeds, time_max: None, shorten: false }.run();
        report.violations.iter().map(|(_, failure)| failure.to_string()).collect()
    }

    /// Looks for a seed that shows the bug: the first one.
    pub fn hunt(&self) -> Option<Caught> {
        let mut from = 0;
        // In portions, so that the answer is the first seed whatever the number of processors.
        while from < SEEDS_MAX {
            let to = (from + 30).min(SEEDS_MAX);
            let report =
                Campaign { scenario: |seed| self.scenario(seed), from, to, time_max: None, shorten: false }
                    .run();
            let mut caught = report.violations.into_iter();
            if let Some((seed, failure)) = caught.find(|(_, f)| self.breaks.contains(&f.invariant)) {
                return Some(Caught { seeds: seed + 1, failure });
            }
            from = to;
        }
        None
    }
}
