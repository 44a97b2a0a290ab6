//! What a core is told when it starts.

use crate::Roster;
use crate::clients::{FIRST_JOINED_CLIENT, RegistryConfig, Rules};
use crate::timeouts::{DOUBLINGS_MAX, Timeouts};
use std::collections::BTreeMap;
use std::time::Duration;
use steeldb_types::{ClientId, ReplicaId, limits};
use steeldb_wire::auth::{PublicKey, SecretKey};

/// A replica's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which replica this is.
    pub me: ReplicaId,
    /// The view that the cluster's life began with, and who its replicas are. Later ones are in the order.
    pub genesis: Roster,
    /// This replica's key.
    pub key: SecretKey,
    /// The clients' public keys.
    pub client_keys: BTreeMap<ClientId, PublicKey>,
    /// How further clients may join; nothing: none may. The same on every replica, for ever.
    pub registry: Option<RegistryConfig>,
    /// The keys that sign changes of the membership. The same on every replica, for ever.
    pub administrators: Vec<PublicKey>,
    /// How long a request waits before it is forwarded; as long again before the leader is suspected.
    pub request_timeout: Duration,
    /// How far that falls when decisions take much less; nothing: to the half.
    pub request_timeout_min: Option<Duration>,
    /// How far that rises with every regency that is entered; nothing: to 32 times.
    pub request_timeout_max: Option<Duration>,
    /// How often messages are sent again while something waits and nothing is decided.
    pub resend_interval: Duration,
    /// How far a proposal's timestamp may be from this replica's clock (A14).
    pub clock_tolerance: Duration,
    /// Requests in a batch this replica proposes; at most [`limits::BATCH_REQUESTS_MAX`].
    pub batch_requests_max: usize,
    /// Consensus instances in flight, at most [`limits::WINDOW_MAX`]; 1: one after the other, as in the thesis. The same
    /// on every replica.
    pub window: usize,
    /// Whether batches are delivered tentatively as well, before they are decided.
    pub tentative: bool,
    /// Requests that may wait.
    pub pending_requests_max: usize,
    /// Requests of one client that may wait.
    pub pending_requests_per_client_max: usize,
    /// Sessions remembered per client. The same on every replica, for ever.
    pub sessions_remembered_max: usize,
    /// Bytes of decided batches kept in memory for replicas that are behind.
    pub decisions_kept_bytes: usize,
    /// How many instances lie between two checkpoints; 0: the application takes none, and no decision is ever let go
    /// of. The same on every replica.
    pub checkpoint_interval: u64,
    /// How many instances before a stable checkpoint are kept in the log for replicas that are a little behind.
    pub decisions_kept: u64,
    /// A bug to plant.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<PlantedBug>,
}

/// Bugs for the simulation to catch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// A WRITE or ACCEPT quorum needs one replica less.
    QuorumOneTooSmall,
    /// A new leader is told of no bound value.
    LockForgotten,
    /// A decision's proof is not checked.
    ProofNotChecked,
    /// A leader's SYNC is not checked against the STOPDATAs.
    SelectionNotChecked,
    /// Messages do not wait for what they depend on to be durable.
    DurabilityIgnored,
    /// Clients' signatures in a proposal are not checked.
    SignatureNotChecked,
    /// Executed requests are executed again.
    ExecutesTwice,
    /// What is in flight is proposed again, and is not looked for when a batch is judged or executed.
    InFlightIgnored,
    /// A tentative delivery does not wait for the record that binds its value.
    TentativeTooEarly,
    /// A new leader is told of the votes in the first instance in flight alone.
    LockOfFirstOnly,
    /// An ACCEPT that comes again counts again.
    ReplayedVoteCounted,
    /// ACCEPTs for a value count whatever their regency.
    OldRegencyVoteCounted,
    /// ACCEPTs go out for a regency that was left.
    VotesInLeftRegency,
    /// Signatures of ACCEPTs are not checked.
    AcceptSignatureNotChecked,
    /// STOPDATAs in a SYNC are not verified.
    StopDataNotVerified,
    /// A bound value is not proposed again, and nobody minds.
    BoundNotReproposed,
    /// One replica's word is enough for a value to be bound.
    BoundOnOneWord,
    /// A batch is taken for the one that a proof is about.
    BatchNotMatched,
    /// What is decided is delivered at once, though instances before it are not decided.
    OutOfOrderDelivery,
    /// After a restart, a replica does not know what it voted for.
    OwnVotesForgotten,
    /// After a restart, a replica does not know which regency it was in.
    RegencyForgotten,
    /// Batches are delivered, and so answered, before what they depend on is durable.
    ReplyBeforeDurable,
    /// A proposal's timestamp is not compared with the clock.
    TimeNotChecked,
    /// The application is not asked what it refuses.
    ValidityNotChecked,
    /// Any number of requests may wait.
    QueueUnbounded,
    /// A request that times out twice makes nobody suspect the leader.
    SuspicionForgotten,
    /// A checkpoint counts when one replica vouches for it.
    CheckpointOfOne,
    /// After a change of the membership, quorums are still counted with the weights of the view before.
    OldViewQuorum,
    /// Replicas are counted, not their weights, and 2f + 1 of any weight are enough.
    WeightsMisSummed,
    /// Anyone may change the membership.
    UnsignedChangeAccepted,
    /// A change of the membership may name another view than the current one.
    ReplayedChangeAccepted,
    /// A join is confirmed by any challenge.
    ChallengeNotChecked,
    /// A client leaves whoever asks for it.
    ForgedLeaveAccepted,
    /// What a client that left had in flight is executed.
    WithdrawnRightExecuted,
}

/// Why a core cannot start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error("configuration: {0}")]
    Config(String),
    /// The records are no prefix of what this replica wrote.
    #[error("the log is damaged: {0}")]
    Log(String),
}

impl Config {
    /// The configuration of replica `me` with default limits and time-outs.
    pub fn new(
        me: ReplicaId,
        genesis: Roster,
        key: SecretKey,
        client_keys: BTreeMap<ClientId, PublicKey>,
    ) -> Config {
        Config {
            me,
            genesis,
            key,
            client_keys,
            registry: None,
            administrators: Vec::new(),
            request_timeout: limits::REQUEST_TIMEOUT,
            request_timeout_min: None,
            request_timeout_max: None,
            resend_interval: limits::REQUEST_TIMEOUT / 4,
            clock_tolerance: limits::CLOCK_TOLERANCE,
            batch_requests_max: limits::BATCH_REQUESTS_MAX,
            window: 1,
            tentative: false,
            pending_requests_max: limits::PENDING_REQUESTS_MAX,
            pending_requests_per_client_max: limits::PENDING_REQUESTS_PER_CLIENT_MAX,
            sessions_remembered_max: limits::SESSIONS_REMEMBERED_MAX,
            decisions_kept_bytes: limits::DECISIONS_KEPT_BYTES,
            checkpoint_interval: 0,
            decisions_kept: limits::DECISIONS_KEPT,
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        }
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        let configured = self.request_timeout;
        let min = self.request_timeout_min.unwrap_or(configured / 2);
        let max = self.request_timeout_max.unwrap_or(configured.saturating_mul(1 << DOUBLINGS_MAX));
        Timeouts::new(configured, min, max)
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let wrong = |reason: &str| Err(StartError::Config(reason.into()));
        // One that is not in the genesis view has been added since, or will be.
        if self.genesis.key(self.me).is_some_and(|key| *key != self.key.public()) {
            return wrong("this replica is in the view with another key");
        }
        if self.request_timeout.is_zero() || self.resend_interval.is_zero() {
            return wrong("time-outs must not be zero");
        }
        if self.batch_requests_max == 0 || self.batch_requests_max > limits::BATCH_REQUESTS_MAX {
            return wrong("a batch holds between one request and the limit");
        }
        if self.window == 0 || self.window > limits::WINDOW_MAX {
            return wrong("between one instance and the limit may be in flight");
        }
        if self.sessions_remembered_max == 0 {
            return wrong("at least one session per client must be remembered");
        }
        if let Some(registry) = &self.registry {
            registry.check().map_err(StartError::Config)?;
            if self.client_keys.keys().any(|client| *client >= FIRST_JOINED_CLIENT) {
                return wrong("a listed client has a number of those that are kept for joined ones");
            }
        }
        Ok(())
    }

    /// The rules of the clients' registry that hold.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            any_challenge: self.has(PlantedBug::ChallengeNotChecked),
            anyone_removes: self.has(PlantedBug::ForgedLeaveAccepted),
            rights_last: self.has(PlantedBug::WithdrawnRightExecuted),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.planted_bug == Some(bug)
    }

    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn has(&self, _bug: PlantedBug) -> bool {
        false
    }
}
