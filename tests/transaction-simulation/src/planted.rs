//! Planted bugs: real mistakes, put into every replica or every client by a switch that nothing shipped has. Each has to be
//! caught; a simulator that does not is to be mistrusted.

use crate::scenario::{CrashAt, Fault, MASTER, Scenario, Step};
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
    replicas(InReplicas::InDoubtNotMatched, &["effects", "contents"], crashes_in_doubt),
    replicas(InReplicas::FinishNotCompared, &["answers", "computed answers"], lying_master),
    replicas(InReplicas::FinishNotVerified, &["answers", "reported aborts", "votes"], forged_finishes),
    replicas(InReplicas::SnapshotInsideWave, &["snapshots"], anything),
    replicas(InReplicas::CommitPassesBegin, &["snapshots"], anything),
    replicas(InReplicas::RollsBackOnItsOwn, &["ordered outcomes"], anything),
    replicas(
        InReplicas::SecondOutcomeHonoured,
        &["ordered outcomes", "effects", "reported aborts", "contents"],
        both_outcomes,
    ),
    replicas(InReplicas::PreparedAfterAgainst, &["votes"], late_votes),
    replicas(InReplicas::CatchUpBesidePrepared, &["divergence", "liveness"], anything),
    replicas(InReplicas::PreparedForgotten, &["liveness", "divergence"], crashes),
    replicas(InReplicas::PermitsIgnored, &["bounded memory"], anything),
    replicas(InReplicas::WritesOverlooked, &["answers"], anything),
    replicas(InReplicas::RollbackPrepared, &["reported aborts"], anything),
    clients(InClients::CommitOnOneWord, &["acknowledged commits"], forged_outcomes),
    clients(InClients::AbortOnOneWord, &["reported aborts"], forged_outcomes),
    clients(InClients::RollbackUnverified, &["answers", "computed answers"], lying_master),
    replicas(InReplicas::PermitReturnedEarly, &["bounded memory"], few_permits),
    replicas(InReplicas::UndoneByWordAlone, &["snapshots"], speculation),
    replicas(InReplicas::BarrierIgnored, &["barriers"], speculation),
    replicas(InReplicas::DeposeOnOneWord, &["terms"], false_accusations),
    clients(InClients::SentCommitGivenUp, &["reported aborts"], false_terms),
    clients(InClients::PositionsNotCompared, &["acknowledged commits"], forged_outcomes),
    clients(InClients::ReadOnlyOnOneWord, &["answers", "computed answers"], forged_outcomes),
    clients(InClients::ToldOnOneWord, &["questions"], forged_outcomes),
    replicas(InReplicas::TentativeOutOfTurn, &["acknowledged commits"], both_outcomes_told_early),
    replicas(InReplicas::AppliedBeforeItsRecord, &["restart", "snapshots"], crashes_behind_commits),
    replicas(InReplicas::FinishIsNoWord, &["in time"], moves),
    clients(InClients::TentativeOnOneCorrect, &["acknowledged commits"], told_early),
];

fn anything(_: &mut Scenario) {}

fn moves(scenario: &mut Scenario) {
    *scenario = Scenario::moved(scenario.seed);
}

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

fn false_accusations(scenario: &mut Scenario) {
    let replica = other(scenario);
    faulty(scenario, replica, Fault::Accuser);
}

fn false_terms(scenario: &mut Scenario) {
    faulty(scenario, MASTER, Fault::TermForger);
}

/// Every replica crashes once at a step of this kind.
fn all_crash_at(scenario: &mut Scenario, step: Step) {
    (scenario.n, scenario.faulty) = (4, Vec::new());
    (scenario.clients.correct, scenario.clients.transactions) = (4, 4);
    let crash = |(replica, at): (ReplicaId, u64)| {
        let nth = 1 + ((scenario.seed / 7 + at) % 6) as u32;
        CrashAt { replica, step, nth, store_first: false }
    };
    scenario.power.at_steps = scenario.replicas().zip(0..).map(crash).collect();
}

/// Behind one of its votes: then it does not know any more what it prepared.
fn crashes_in_doubt(scenario: &mut Scenario) {
    all_crash_at(scenario, Step::Voted);
}

fn crashes_behind_commits(scenario: &mut Scenario) {
    all_crash_at(scenario, Step::Committed);
}

/// A quorum takes the vote of a replica that is so slow that it comes about when T_vote ends at the others.
fn late_votes(scenario: &mut Scenario) {
    faulty(scenario, ReplicaId(1), Fault::Silent);
    let pick = |from: &[u64]| from[scenario.seed as usize % from.len()];
    (scenario.permits, scenario.network.delay_max_us) = (pick(&[1, 2, 8]) as usize, 20_000);
    scenario.network.slow = Some((ReplicaId(2), pick(&[30, 60, 120, 200])));
    (scenario.clients.correct, scenario.clients.transactions) = (4, 4);
}

/// Of a transaction that one replica is too slow for, a liar has both outcomes ordered.
fn both_outcomes(scenario: &mut Scenario) {
    faulty(scenario, ReplicaId(1), Fault::VoteDelayer);
    (scenario.permits, scenario.network.delay_max_us) = (8, 20_000);
    scenario.network.slow = Some((ReplicaId(2), 200));
    (scenario.clients.correct, scenario.clients.transactions) = (4, 4);
}

/// Both come into one batch, and replicas tell of commits in it.
fn both_outcomes_told_early(scenario: &mut Scenario) {
    both_outcomes(scenario);
    scenario.tentative = true;
}

/// Replicas tell of commits before their decision, and a liar with them.
fn told_early(scenario: &mut Scenario) {
    late_votes(scenario);
    scenario.tentative = true;
    faulty(scenario, ReplicaId(1), Fault::OutcomeForger);
}

fn few_permits(scenario: &mut Scenario) {
    scenario.permits = 1;
}

fn crashes(scenario: &mut Scenario) {
    scenario.power.crashes = 4;
    scenario.power.blackouts = 1;
}

/// Replicas with a bug in what they count judge certificates with it, too.
pub(crate) fn judge(mut sequencer: Sequencer, scenario: &Scenario) -> Sequencer {
    sequencer.any_number = matches!(
        scenario.replica_bug,
        Some(InReplicas::CommitOnOneCorrect | InReplicas::AbortOnOneVote | InReplicas::DeposeOnOneWord)
    );
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
            Some(scenario)
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
            let scenario = |seed| Some(self.scenario(seed));
            let report = Campaign { scenario, from, to, time_max: None, shorten: false }.run();
            let mut caught = report.violations.into_iter();
            if let Some((seed, failure)) = caught.find(|(_, f)| self.breaks.contains(&f.invariant)) {
                return Some(Caught { seeds: seed + 1, failure });
            }
            from = to;
        }
        None
    }
}
