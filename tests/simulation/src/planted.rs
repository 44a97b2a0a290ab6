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

/// The table: one line per bug.
pub const PLANTS: &[Plant] = &[
    plant(PlantedBug::QuorumOneTooSmall, &["agreement"], needs::equivocating_leader),
    plant(PlantedBug::WeightsMisSummed, &["agreement", "decision proofs"], needs::weighted),
    plant(PlantedBug::ReplayedVoteCounted, &["agreement", "decision proofs"], needs::repeated_messages),
    plant(PlantedBug::OldRegencyVoteCounted, &["agreement", "decision proofs"], needs::lost_accepts),
    plant(PlantedBug::AcceptSignatureNotChecked, &["decision proofs"], needs::vote_forger),
    plant(PlantedBug::StopDataNotVerified, &["agreement", "decision proofs"], needs::forging_successor),
    plant(PlantedBug::LockForgotten, &["agreement"], needs::ambush),
    plant(PlantedBug::ProofNotChecked, &["agreement", "integrity"], needs::anything),
    plant(PlantedBug::SignatureNotChecked, &["integrity"], needs::anything),
    plant(PlantedBug::InFlightIgnored, &["exactly once"], needs::window),
    plant(PlantedBug::LockOfFirstOnly, &["agreement"], needs::ambushed_window),
    plant(PlantedBug::BoundNotReproposed, &["agreement"], needs::ambush),
    plant(PlantedBug::BoundOnOneWord, &["agreement", "integrity"], needs::liars_bound),
    plant(PlantedBug::BatchNotMatched, &["agreement", "integrity", "decision proofs"], needs::lying_sender),
    plant(PlantedBug::DurabilityIgnored, &["agreement"], needs::power_cuts),
    plant(PlantedBug::OwnVotesForgotten, &["agreement", "durability"], needs::power_cuts),
    plant(PlantedBug::ValidityNotChecked, &["external validity"], needs::invalid_proposer),
    plant(PlantedBug::TimeNotChecked, &["time"], needs::invalid_proposer),
    plant(PlantedBug::QueueUnbounded, &["bounded memory"], needs::flood),
    plant(PlantedBug::SuspicionForgotten, &["liveness"], needs::silent_leader),
    plant(PlantedBug::CheckpointOfOne, &["state", "checkpoints", "agreement"], needs::lying_state_sender),
    plant(PlantedBug::OldViewQuorum, &["decision proofs", "agreement"], needs::changes),
    plant(PlantedBug::UnsignedChangeAccepted, &["integrity"], needs::forged_changes),
    plant(PlantedBug::ReplayedChangeAccepted, &["exactly once"], needs::forged_changes),
    plant(PlantedBug::ExecutesTwice, &["exactly once"], needs::repeating_leaders),
    plant(PlantedBug::TentativeTooEarly, &["tentative replies"], needs::belief),
    plant(PlantedBug::VotesInLeftRegency, &["agreement"], needs::late_writes),
    plant(PlantedBug::OutOfOrderDelivery, &["total order"], needs::window),
    plant(PlantedBug::ReplyBeforeDurable, &["agreement", "durability"], needs::power_loss),
    plant(PlantedBug::RegencyForgotten, &["agreement", "durability"], needs::relapse),
    plant(PlantedBug::SelectionNotChecked, &["agreement"], needs::forging_successor),
];

/// Seeds that are always enough.
const SEEDS_MAX: u64 = 200;

const fn plant(bug: PlantedBug, breaks: &'static [&'static str], needs: fn(&mut Scenario)) -> Plant {
    Plant { bug, breaks, needs, seeds_max: SEEDS_MAX }
}

/// What makes a bug matter: one option, over whatever else the seed has drawn.
mod needs {
    use crate::scenario::{Ambush, AmbushKind, Checkpoints, ClientFault, Fault, Membership, Scenario};
    use steeldb_types::{FaultModel, ReplicaId};

    fn of(scenario: &mut Scenario, model: FaultModel, n: u16) {
        (scenario.model, scenario.n) = (model, n);
        scenario.faulty.clear();
        scenario.membership = None;
        (scenario.power.slow_disk, scenario.power.away) = (None, None);
    }

    pub(super) fn anything(_: &mut Scenario) {}

    /// Some replica of a Byzantine cluster, with nobody faulty yet.
    fn byzantine(scenario: &mut Scenario) -> ReplicaId {
        let n = if scenario.model == FaultModel::Byzantine { scenario.n } else { 4 };
        of(scenario, FaultModel::Byzantine, n);
        ReplicaId((scenario.seed % u64::from(n)) as u16)
    }

    pub(super) fn equivocating_leader(scenario: &mut Scenario) {
        byzantine(scenario);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::Equivocator])];
    }

    pub(super) fn weighted(scenario: &mut Scenario) {
        of(scenario, FaultModel::Byzantine, 5);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::Equivocator])];
    }

    pub(super) fn repeated_messages(scenario: &mut Scenario) {
        equivocating_leader(scenario);
        scenario.network.duplication = 0.3;
    }

    pub(super) fn lost_accepts(scenario: &mut Scenario) {
        scenario.network.accepts_lost = 0.9;
        scenario.network.partitions = 2;
    }

    fn of_kind(scenario: &mut Scenario, kind: AmbushKind) {
        scenario.ambush = Some(Ambush { instance: 1 + scenario.seed % 3, kind });
        scenario.faults_us += 1_000_000;
    }

    pub(super) fn ambush(scenario: &mut Scenario) {
        of_kind(scenario, AmbushKind::CutOff);
    }

    /// An ambush, and else a quiet cluster whose disks are slow beside its network: nothing in between spoils it.
    fn sharp(scenario: &mut Scenario, kind: AmbushKind) {
        of_kind(scenario, kind);
        scenario.faults_us += 1_000_000;
        let (network, power) = (&mut scenario.network, &mut scenario.power);
        (network.loss, network.accepts_lost, network.delay_max_us) = (0.0, 0.0, 2_000);
        (network.partitions, network.one_way_partitions) = (0, 0);
        (power.crashes, power.blackouts, power.restarts_of_all, power.away) = (0, 0, 0, None);
        power.disk_max_us = 50_000;
        scenario.checkpoints = None;
        scenario.clients.sessions += 1;
        scenario.clients.faulty.clear();
    }

    pub(super) fn belief(scenario: &mut Scenario) {
        byzantine(scenario);
        sharp(scenario, AmbushKind::Believed);
    }

    pub(super) fn late_writes(scenario: &mut Scenario) {
        byzantine(scenario);
        sharp(scenario, AmbushKind::LateWrites);
    }

    pub(super) fn relapse(scenario: &mut Scenario) {
        byzantine(scenario);
        sharp(scenario, AmbushKind::Relapse);
    }

    pub(super) fn power_loss(scenario: &mut Scenario) {
        of(scenario, FaultModel::Crash, 3);
        sharp(scenario, AmbushKind::PowerLoss);
    }

    /// The first leaders propose again what was executed.
    pub(super) fn repeating_leaders(scenario: &mut Scenario) {
        of(scenario, FaultModel::Byzantine, 7);
        scenario.faulty = [0, 1].map(|leader| (ReplicaId(leader), vec![Fault::InvalidProposer])).into();
        scenario.clients.requests_per_session += 3;
    }

    pub(super) fn forging_successor(scenario: &mut Scenario) {
        byzantine(scenario);
        ambush(scenario);
        scenario.faulty = vec![(ReplicaId(1), vec![Fault::ProofForger])];
    }

    pub(super) fn liars_bound(scenario: &mut Scenario) {
        of(scenario, FaultModel::Byzantine, 7);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::Silent]), (ReplicaId(4), vec![Fault::ProofForger])];
    }

    pub(super) fn vote_forger(scenario: &mut Scenario) {
        let replica = byzantine(scenario);
        scenario.faulty = vec![(replica, vec![Fault::VoteForger])];
    }

    pub(super) fn lying_sender(scenario: &mut Scenario) {
        let replica = byzantine(scenario);
        scenario.faulty = vec![(replica, vec![Fault::LyingSender])];
    }

    pub(super) fn lying_state_sender(scenario: &mut Scenario) {
        lying_sender(scenario);
        scenario.checkpoints = Some(Checkpoints { interval: 1 + scenario.seed % 2, kept: 0 });
        scenario.power.away = scenario.correct().last().copied();
        scenario.clients.requests_per_session += 2;
    }

    pub(super) fn invalid_proposer(scenario: &mut Scenario) {
        byzantine(scenario);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::InvalidProposer])];
    }

    pub(super) fn silent_leader(scenario: &mut Scenario) {
        byzantine(scenario);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::Silent])];
    }

    pub(super) fn power_cuts(scenario: &mut Scenario) {
        scenario.power.disk_max_us = 50_000;
        scenario.power.crashes = 3;
        scenario.power.blackouts = 2;
        scenario.power.restarts_of_all = 2;
        of_kind(scenario, AmbushKind::Blackout);
    }

    /// A membership that changes while clients ask.
    pub(super) fn changes(scenario: &mut Scenario) {
        byzantine(scenario);
        of(scenario, FaultModel::Byzantine, if scenario.n == 4 { 4 } else { 5 });
        scenario.membership = Some(Membership { spares: 2, changes: 6 });
        scenario.clients.requests_per_session += 4;
    }

    /// And a leader that proposes old changes, and changes that nobody signed.
    pub(super) fn forged_changes(scenario: &mut Scenario) {
        changes(scenario);
        scenario.faulty = vec![(ReplicaId(0), vec![Fault::InvalidProposer])];
    }

    /// Several instances in flight, and requests to fill them.
    pub(super) fn window(scenario: &mut Scenario) {
        scenario.window = scenario.window.max(4);
        scenario.clients.sessions += 2;
    }

    /// The first to decide a later one of them is cut off, when others have decided none yet.
    pub(super) fn ambushed_window(scenario: &mut Scenario) {
        byzantine(scenario);
        window(scenario);
        sharp(scenario, AmbushKind::CutOff);
        scenario.ambush = Some(Ambush { instance: 2 + scenario.seed % 3, kind: AmbushKind::CutOff });
        scenario.network.accepts_lost = 0.5;
    }

    pub(super) fn flood(scenario: &mut Scenario) {
        scenario.clients.faulty = vec![ClientFault::Flood];
    }
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
        scenario.planted_bug = Some(self.bug);
        (self.needs)(&mut scenario);
        scenario
    }

    /// Looks for a seed that shows the bug: the first one.
    pub fn hunt(&self) -> Option<Caught> {
        let mut from = 0;
        // In portions, so that the answer is the first seed whatever the number of processors.
        while from < self.seeds_max {
            let to = (from + 40).min(self.seeds_max);
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
