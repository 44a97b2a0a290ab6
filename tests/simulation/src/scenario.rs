//! Scenarios: what a seed means.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use steeldb_types::ReplicaId;

/// What a faulty replica does. It holds its own key and nobody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Stops for good at some time.
    Crash,
    /// Never says anything.
    Silent,
    /// Follows the protocol, but neither proposes nor synchronizes when it leads.
    SilentLeader,
    /// Proposes different batches to different replicas, and votes for each before its half.
    Equivocator,
    /// Proposes forged, refused, repeated and ill-timed requests.
    InvalidProposer,
    /// Signs some ACCEPTs wrongly, forgets its votes in STOPDATA, ignores others' as a leader, and answers questions with forged decisions.
    Liar,
}

const FAULTS: [Fault; 6] = [
    Fault::Crash,
    Fault::Silent,
    Fault::SilentLeader,
    Fault::Equivocator,
    Fault::InvalidProposer,
    Fault::Liar,
];

/// What the network and the power supply conspire to do the moment a chosen instance is first decided somewhere: the
/// replica that decided is cut off until the faults end, and ACCEPTs of that regency no longer arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ambush {
    /// Which instance springs it.
    pub instance: u64,
    /// Whether all others lose power at that moment, and whatever their disks had not confirmed.
    pub blackout: bool,
}

/// The parameters of a run, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed: of these parameters, and of everything that happens in the run.
    pub seed: u64,
    /// Replicas: 4, 5 (weighted) or 7.
    pub n: u16,
    /// Those that are faulty, at most f.
    pub faulty: Vec<(ReplicaId, Fault)>,
    /// How long faults happen, virtual microseconds.
    pub faults_us: u64,
    /// How likely a message is lost while they do.
    pub loss: f64,
    /// How likely an ACCEPT is lost while they do: some decide, and others do not know.
    pub accepts_lost: f64,
    /// How likely a message arrives twice.
    pub duplication: f64,
    /// The longest way of a message, microseconds.
    pub delay_max_us: u64,
    /// How many partitions happen.
    pub partitions: u32,
    /// How many times correct replicas crash and start again.
    pub crashes: u32,
    /// How many times the power of all but a few replicas fails.
    pub blackouts: u32,
    /// What happens at a first decision.
    pub ambush: Option<Ambush>,
    /// The slowest disk write, microseconds.
    pub disk_max_us: u64,
    /// Sessions of clients, and requests of each, one after the other.
    pub sessions: u32,
    /// Requests per session.
    pub requests_per_session: u64,
    /// Certified requests.
    pub certified: u32,
    /// The bug to plant in every core.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<steeldb_ordering::PlantedBug>,
}

impl Scenario {
    /// What `seed` means.
    pub fn from_seed(seed: u64) -> Scenario {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = *[4, 4, 4, 5, 5, 7].choose(&mut rng).unwrap_or(&4);
        let f = (n - 1) / 3;
        let mut replicas: Vec<u16> = (0..n).collect();
        replicas.shuffle(&mut rng);
        let liars = if rng.random_bool(0.8) { rng.random_range(1..=f) } else { 0 };
        // The first leaders are the interesting ones.
        if rng.random_bool(0.5) {
            replicas.sort();
            replicas.rotate_left(rng.random_range(0..=1));
        }
        let faulty = replicas[..usize::from(liars)]
            .iter()
            .map(|replica| (ReplicaId(*replica), *FAULTS.choose(&mut rng).unwrap_or(&Fault::Silent)))
            .collect();
        let calm = rng.random_bool(0.2);
        let mut some = |most: u32| if calm { 0 } else { rng.random_range(0..=most) };
        let (partitions, crashes, blackouts) = (some(2), some(2), some(1));
        let ambush = (!calm && rng.random_bool(0.4))
            .then(|| Ambush { instance: rng.random_range(1..=3), blackout: rng.random_bool(0.4) });
        let faults_us = rng.random_range(300_000..=1_500_000) + if ambush.is_some() { 1_000_000 } else { 0 };
        Scenario {
            seed,
            n,
            faulty,
            faults_us,
            loss: if calm { 0.0 } else { *[0.0, 0.05, 0.2, 0.4].choose(&mut rng).unwrap_or(&0.0) },
            accepts_lost: if calm { 0.0 } else { *[0.0, 0.0, 0.6, 0.9].choose(&mut rng).unwrap_or(&0.0) },
            duplication: *[0.0, 0.1].choose(&mut rng).unwrap_or(&0.0),
            delay_max_us: *[2_000, 20_000, 120_000].choose(&mut rng).unwrap_or(&2_000),
            ambush,
            disk_max_us: *[3_000, 50_000].choose(&mut rng).unwrap_or(&3_000),
            partitions,
            crashes,
            blackouts,
            sessions: rng.random_range(1..=3),
            requests_per_session: rng.random_range(1..=3),
            certified: rng.random_range(0..=1),
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        }
    }

    /// Whether a bug is planted: correct replicas may accuse each other then.
    pub(crate) fn has_planted_bug(&self) -> bool {
        #[cfg(feature = "planted-bugs")]
        return self.planted_bug.is_some();
        #[cfg(not(feature = "planted-bugs"))]
        false
    }

    /// How many replicas may be faulty.
    pub fn f(&self) -> u16 {
        (self.n - 1) / 3
    }

    /// What is wrong with a replica; nothing: it is correct.
    pub fn fault(&self, replica: ReplicaId) -> Option<Fault> {
        self.faulty.iter().find(|(faulty, _)| *faulty == replica).map(|(_, fault)| *fault)
    }

    /// The correct replicas, ascending.
    pub fn correct(&self) -> Vec<ReplicaId> {
        (0..self.n).map(ReplicaId).filter(|replica| self.fault(*replica).is_none()).collect()
    }
}
