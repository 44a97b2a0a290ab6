//! Scenarios: everything that is drawn from a seed before a run begins.

mod swarm;

use crate::twins::Script;
use steeldb_types::{FaultModel, ReplicaId};

/// What a faulty replica does. Those of one run work together: each knows the others' keys and what they have heard,
/// and no other key. One replica may do several of these at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Stops for good at some time. The only one in the crash model.
    Crash,
    /// Its disk rots: at a crash, what it reads back ends early.
    BitRot,
    /// Loses its disk and starts as if for the first time.
    Amnesia,
    /// Never says anything.
    Silent,
    /// Leaves out some replicas when it leads, and some clients' requests.
    WithholdingLeader,
    /// Proposes different batches to different replicas, and votes for each before its half.
    Equivocator,
    /// Proposes forged, refused, repeated and ill-timed requests.
    InvalidProposer,
    /// Says again what it, or another, said long ago.
    Replayer,
    /// Votes for what nobody proposed, before it may, twice, and with signatures that do not hold.
    VoteForger,
    /// Forgets its votes in STOPDATA, makes others' up, and shows proofs that prove nothing.
    ProofForger,
    /// Answers who is behind with altered, shuffled and invented decisions and states, and vouches for states that never
    /// were.
    LyingSender,
    /// Leads as slowly as it can without being suspected, or a little more slowly.
    SlowLeader,
    /// Runs twice with one identity, each copy before some of the others (Bano et al., Twins).
    Twins,
    /// Sends whatever may fill a queue.
    Flooder,
}

/// Every fault of the Byzantine model.
pub const FAULTS: [Fault; 14] = [
    Fault::Crash,
    Fault::BitRot,
    Fault::Amnesia,
    Fault::Silent,
    Fault::WithholdingLeader,
    Fault::Equivocator,
    Fault::InvalidProposer,
    Fault::Replayer,
    Fault::VoteForger,
    Fault::ProofForger,
    Fault::LyingSender,
    Fault::SlowLeader,
    Fault::Twins,
    Fault::Flooder,
];

/// What a faulty client does, with its own key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientFault {
    /// Asks one replica only, each time another.
    SomeReplicasOnly,
    /// Signs different requests under one sequence number, for different replicas.
    TwoFaced,
    /// Asks for far more than it may have waiting, in any order.
    Flood,
    /// Signs wrongly.
    WrongSignature,
}

/// Every fault of a client.
pub const CLIENT_FAULTS: [ClientFault; 4] =
    [ClientFault::SomeReplicasOnly, ClientFault::TwoFaced, ClientFault::Flood, ClientFault::WrongSignature];

/// What the network and the power supply conspire to do around a chosen instance: the worst that may happen to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ambush {
    /// Which instance springs it.
    pub instance: u64,
    /// How.
    pub kind: AmbushKind,
}

/// The kinds of ambush. "The first to decide" is the first correct replica that delivers the instance; who is cut off is
/// so until the faults end, and ACCEPTs of a regency in which somebody was cut off no longer arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AmbushKind {
    /// The first to decide is cut off.
    CutOff,
    /// The first to decide is cut off, and all others lose power, and whatever their disks had not confirmed.
    Blackout,
    /// One replica hears of no vote; the first to decide loses power, and whoever accepted with it is cut off.
    PowerLoss,
    /// When enough replicas have replied tentatively for a client to believe it, all lose power, and the leader is cut off.
    Believed,
    /// WRITEs of the first regency are late: they arrive when the next leader sends its SYNC. Then the first to decide is
    /// cut off.
    LateWrites,
    /// WRITEs of the first regency are late, and when the next leader sends its SYNC all others lose power; they do not hear
    /// it before one has decided, which is cut off.
    Relapse,
}

/// Every kind of ambush.
pub const AMBUSHES: [AmbushKind; 6] = [
    AmbushKind::CutOff,
    AmbushKind::Blackout,
    AmbushKind::PowerLoss,
    AmbushKind::Believed,
    AmbushKind::LateWrites,
    AmbushKind::Relapse,
];

/// What the links do while faults happen. Afterwards they are reliable and fast.
#[derive(Clone, PartialEq, Debug)]
pub struct Network {
    /// How likely a message is lost.
    pub loss: f64,
    /// How likely an ACCEPT is lost: some decide, and others do not know.
    pub accepts_lost: f64,
    /// How likely a message arrives twice.
    pub duplication: f64,
    /// The longest way of a message, microseconds.
    pub delay_max_us: u64,
    /// Whether a link keeps its messages in order, as TCP does; otherwise they overtake each other.
    pub in_order: bool,
    /// Whether every message is encoded and decoded on its way.
    pub encoded: bool,
    /// How many times the replicas fall into two groups, and are one again.
    pub partitions: u32,
    /// How many times some replicas are not heard by some others, though they hear them.
    pub one_way_partitions: u32,
}

/// How many times power fails, while faults happen, and how slow disks are.
#[derive(Clone, PartialEq, Debug)]
pub struct Power {
    /// Single correct replicas that crash and start again.
    pub crashes: u32,
    /// Failures at all correct replicas but one.
    pub blackouts: u32,
    /// Failures at all replicas at once.
    pub restarts_of_all: u32,
    /// A replica that is off, if it is a correct one, from some early moment on until the faults end.
    pub away: Option<ReplicaId>,
    /// The slowest disk write, microseconds.
    pub disk_max_us: u64,
    /// A replica whose disk is twenty times slower than the others'.
    pub slow_disk: Option<ReplicaId>,
}

/// How wrong clocks are, all the time.
#[derive(Clone, PartialEq, Debug)]
pub struct Clocks {
    /// The largest error of a wall clock, microseconds.
    pub skew_max_us: i64,
    /// How much faster or slower than others a clock runs at most, millionths.
    pub drift_max_ppm: i64,
}

/// How often states are kept, and logs cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoints {
    /// Instances between two of them.
    pub interval: u64,
    /// Instances before the last one whose decisions stay in the log.
    pub kept: u64,
}

/// How the membership changes while faults happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Membership {
    /// Replicas that are not in the genesis view, and may be added.
    pub spares: u16,
    /// How many times an administrator asks for some change.
    pub changes: u32,
}

/// Who asks for what.
#[derive(Clone, PartialEq, Debug)]
pub struct Clients {
    /// Sessions of correct clients.
    pub sessions: u32,
    /// Requests per session, one after the other.
    pub requests_per_session: u64,
    /// Certified requests, from the application.
    pub certified: u32,
    /// Clients that misbehave.
    pub faulty: Vec<ClientFault>,
}

/// The parameters of a run, drawn from its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed: of these parameters, and of everything that happens in the run.
    pub seed: u64,
    /// What faulty replicas may do.
    pub model: FaultModel,
    /// Replicas: 4, 5 (weighted), 7 or 10; in the crash model 3 or 5.
    pub n: u16,
    /// Those that are faulty, at most f, and what each does.
    pub faulty: Vec<(ReplicaId, Vec<Fault>)>,
    /// How long faults happen, virtual microseconds.
    pub faults_us: u64,
    /// The links.
    pub network: Network,
    /// Power and disks.
    pub power: Power,
    /// The clocks.
    pub clocks: Clocks,
    /// The clients.
    pub clients: Clients,
    /// Consensus instances in flight.
    pub window: usize,
    /// Whether replicas take checkpoints, and how often.
    pub checkpoints: Option<Checkpoints>,
    /// Whether the membership changes, and how.
    pub membership: Option<Membership>,
    /// What happens around a chosen instance.
    pub ambush: Option<Ambush>,
    /// Who can talk to whom in each regency, in a scenario of the Twins kind.
    pub script: Option<Script>,
    /// The bug to plant in every core.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<steeldb_ordering::PlantedBug>,
}

impl Scenario {
    /// What `seed` means.
    pub fn from_seed(seed: u64) -> Scenario {
        swarm::draw(seed)
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
        match self.model {
            FaultModel::Byzantine => (self.n - 1) / 3,
            FaultModel::Crash => (self.n - 1) / 2,
        }
    }

    /// What is wrong with a replica; nothing: it is correct.
    pub fn faults(&self, replica: ReplicaId) -> &[Fault] {
        let found = self.faulty.iter().find(|(faulty, _)| *faulty == replica);
        found.map(|(_, faults)| faults.as_slice()).unwrap_or_default()
    }

    /// Whether a replica does `fault`.
    pub fn does(&self, replica: ReplicaId, fault: Fault) -> bool {
        self.faults(replica).contains(&fault)
    }

    /// How many replicas there are, those that may join included.
    pub fn nodes(&self) -> u16 {
        self.n + self.membership.map_or(0, |membership| membership.spares)
    }

    /// The replicas, ascending, those that may join included.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.nodes()).map(ReplicaId)
    }

    /// The correct replicas, ascending.
    pub fn correct(&self) -> Vec<ReplicaId> {
        self.replicas().filter(|replica| self.faults(*replica).is_empty()).collect()
    }
}
