//! The links that all sessions share, behind a trait, so that tests put replicas in the same process.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use steeldb_transport::{ClientLinks, ReplicaAddress, Traffic};
use steeldb_types::ReplicaId;

/// Ordered links to the replicas. What happens on them comes as [`steeldb_transport::ClientEvent`]s.
pub trait Links: Send + Sync + 'static {
    /// Sends a frame; it is dropped when the link is down.
    fn send(&self, replica: ReplicaId, frame: Bytes);

    /// Sends a frame that the replica does nothing with yet; it may wait so long for company, in its place.
    fn send_relaxed(&self, replica: ReplicaId, frame: Bytes, patience: Duration) {
        let _ = patience;
        self.send(replica, frame);
    }

    /// Bytes that wait to be sent; 0 when the link is down.
    fn backlog(&self, replica: ReplicaId) -> usize;

    /// The replicas are others from now on.
    fn set_replicas(&self, replicas: Vec<ReplicaAddress>) {
        let _ = replicas;
    }

    /// What went over them; nothing over links that do not count.
    fn traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        BTreeMap::new()
    }
}

impl Links for ClientLinks {
    fn send(&self, replica: ReplicaId, frame: Bytes) {
        ClientLinks::send(self, replica, frame);
    }

    fn send_relaxed(&self, replica: ReplicaId, frame: Bytes, patience: Duration) {
        ClientLinks::send_relaxed(self, replica, frame, patience);
    }

    fn backlog(&self, replica: ReplicaId) -> usize {
        ClientLinks::backlog(self, replica).unwrap_or(0)
    }

    fn set_replicas(&self, replicas: Vec<ReplicaAddress>) {
        if let Err(error) = ClientLinks::set_replicas(self, replicas) {
            // A view's members have distinct numbers and keys.
            tracing::error!(%error, "links cannot follow the new view");
        }
    }

    fn traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        ClientLinks::traffic(self)
    }
}
