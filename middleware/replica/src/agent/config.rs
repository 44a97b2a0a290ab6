//! What an agent is configured with.

use super::controls::Controls;
use super::hook::Hook;
use super::monitor::Monitor;
use crate::scheduler::ClientRights;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_ordering::{Member, Roster, RosterError};
use steeldb_postgres::ServerConfig;
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ClientId, Execution, ReplicaId, View};
use steeldb_wire::auth::{PublicKey, SecretKey};

/// A replicated database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
}

/// Everything an agent needs. All replicas of a cluster agree on all but `me`, `key`, `listen`, `data_dir` and `server`.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// This replica.
    pub me: ReplicaId,
    /// Its key.
    pub key: SecretKey,
    /// Where it listens: host:port.
    pub listen: String,
    /// The view.
    pub view: View,
    /// The master of the first term.
    pub master: ReplicaId,
    /// All replicas, by number, with the keys that links and votes are verified with.
    pub replicas: Vec<ReplicaAddress>,
    /// The clients and what they may use.
    pub clients: BTreeMap<ClientId, ClientRights>,
    /// The keys that sign changes of the membership.
    pub administrators: Vec<PublicKey>,
    /// The replicas' shared secret.
    pub cluster_key: [u8; 32],
    /// The databases, made when they are not there.
    pub databases: Vec<DatabaseConfig>,
    /// Where the journal is.
    pub data_dir: PathBuf,
    /// The PostgreSQL server beside the agent.
    pub server: ServerConfig,
    /// How long a request waits before it is forwarded; as long again before the leader is changed.
    pub request_timeout: Duration,
    /// T_vote.
    pub vote_timeout: Duration,
    /// Idle in transaction.
    pub idle_timeout: Duration,
    /// How long DDL waits for other transactions to end.
    pub ddl_drain_timeout: Duration,
    /// When this replica executes what another one, the master, answers. The same on all replicas, or commits take
    /// longer than they need to.
    pub execution: Execution,
    /// Whether COMMIT is answered when the order is bound to say so, before it has (A7).
    pub tentative_replies: bool,
    /// Consensus instances in flight, at most [`steeldb_types::limits::WINDOW_MAX`]. The same on all replicas.
    pub window: usize,
    /// T_soft (rule 5).
    pub soft_barrier: Duration,
    /// COPY data that a transaction may have, bytes. The same on all replicas.
    pub bulk_bytes_max: u64,
    /// Where a test stops it; nowhere otherwise.
    pub hook: Hook,
    /// Where it tells how it is.
    pub monitor: Monitor,
    /// What can be changed while it runs.
    pub controls: Controls,
    /// How long a master may be silent before it is accused.
    pub master_silence: Duration,
    /// How far the leader's timestamps may be from this replica's clock.
    pub clock_tolerance: Duration,
}

impl AgentConfig {
    pub(super) fn roster(&self) -> Result<Roster, RosterError> {
        let member = |replica: &ReplicaAddress| Member {
            id: replica.id,
            key: replica.key,
            address: replica.address.clone(),
        };
        Roster::new(self.view.clone(), self.replicas.iter().map(member).collect())
    }

    pub(super) fn replica_keys(&self) -> Vec<PublicKey> {
        self.replicas.iter().map(|replica| replica.key).collect()
    }
}
