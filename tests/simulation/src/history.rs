//! What observers saw: the input of the invariants.

use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::{Delivery, Request, RequestKey};
use steeldb_types::{ClientId, ReplicaId};
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

/// Everything the invariants look at.
pub struct History {
    /// How many replicas.
    pub n: u16,
    /// The correct ones.
    pub correct: BTreeSet<ReplicaId>,
    /// The replicas' keys.
    pub replica_keys: Vec<PublicKey>,
    /// The clients' keys.
    pub client_keys: BTreeMap<ClientId, PublicKey>,
    /// What clients and applications asked for, by the request's identity.
    pub submitted: BTreeMap<RequestKey, Request>,
    /// Every delivery at a correct replica, in the order seen, those that its application lost in a crash included.
    pub observed: Vec<Observed>,
    /// By correct replica, what its application holds now.
    pub applied: BTreeMap<ReplicaId, Vec<Delivery>>,
}
