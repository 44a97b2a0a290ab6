//! What observers saw: the input of the invariants.

use crate::application::Reply;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_ordering::{Delivery, InstanceNumber, QueueSizes, Request, RequestKey, Tentative};
use steeldb_types::{FaultModel, Position, ReplicaId, Timestamp};
use steeldb_wire::auth::PublicKey;

/// A delivery at a correct replica.
pub struct Observed {
    /// Where.
    pub replica: ReplicaId,
    /// When, virtual microseconds.
    pub at_us: u64,
    /// What a perfect wall clock said, microseconds since 1970.
    pub wall_us: i64,
    /// What.
    pub delivery: Delivery,
}

/// A batch that was executed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// In which instance.
    pub instance: InstanceNumber,
    /// When, by the agreed time.
    pub timestamp: Timestamp,
    /// What, and where in the order.
    pub requests: Vec<(Position, Arc<Request>)>,
}

impl Batch {
    /// What a delivery is to the application.
    pub fn of(delivery: &Delivery) -> Batch {
        Batch {
            instance: delivery.instance,
            timestamp: delivery.timestamp,
            requests: delivery.requests.clone(),
        }
    }
}

/// Everything the invariants look at.
pub struct History {
    /// What faulty replicas may do.
    pub model: FaultModel,
    /// How many replicas the genesis view has.
    pub n: u16,
    /// How many of them may be faulty.
    pub f: u16,
    /// How many replicas there are, those that may join included.
    pub nodes: u16,
    /// Consensus instances in flight.
    pub window: usize,
    /// The correct ones.
    pub correct: BTreeSet<ReplicaId>,
    /// The replicas' keys.
    pub replica_keys: Vec<PublicKey>,
    /// The largest error of a wall clock, microseconds.
    pub skew_max_us: i64,
    /// What clients signed and applications asked for, by identity: faulty clients may sign several things under one.
    pub signed: BTreeMap<RequestKey, Vec<Request>>,
    /// What correct clients and applications want executed.
    pub wanted: Vec<RequestKey>,
    /// What correct clients hold for executed, with the answer that convinced them.
    pub acknowledged: BTreeMap<RequestKey, Reply>,
    /// Tentative replies of correct replicas.
    pub vouched: Vec<(ReplicaId, Tentative)>,
    /// Every delivery at a correct replica, in the order seen, those that its application lost in a crash included.
    pub observed: Vec<Observed>,
    /// By correct replica, what its application holds now.
    pub applied: BTreeMap<ReplicaId, Vec<Batch>>,
    /// The most that was ever in each queue of a correct replica.
    pub queues: QueueSizes,
    /// Accusations of a correct replica by another.
    pub accusations: Vec<String>,
}
