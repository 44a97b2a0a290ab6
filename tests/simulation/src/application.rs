//! The replicated application: a hash chain over what it executed, so that two replicas with one state executed the
//! same.

use steeldb_ordering::{Delivery, InstanceNumber, RequestKey};
use steeldb_types::{Digest, Hasher, Position};

/// What a replica tells a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reply {
    /// Where in the order the request was executed.
    pub position: Position,
    /// The state after it.
    pub state: Digest,
}

#[derive(Default)]
pub(crate) struct Application {
    applied: Vec<Delivery>,
    /// After each delivery.
    states: Vec<Digest>,
}

impl Application {
    /// The last instance executed.
    pub(crate) fn delivered(&self) -> InstanceNumber {
        InstanceNumber(self.applied.last().map_or(0, |delivery| delivery.instance.0))
    }

    pub(crate) fn apply(&mut self, delivery: &Delivery) {
        let before = self.states.last().copied().unwrap_or_default();
        let mut hasher = Hasher::new("simulation/application");
        hasher.part(&before.0).part(&delivery.timestamp.0.to_le_bytes());
        for (position, request) in &delivery.requests {
            hasher.number(position.0).part(request.payload());
        }
        self.states.push(hasher.finish());
        self.applied.push(delivery.clone());
    }

    /// The last executions were not durable.
    pub(crate) fn lose_last(&mut self, deliveries: usize) {
        let kept = self.applied.len().saturating_sub(deliveries);
        self.applied.truncate(kept);
        self.states.truncate(kept);
    }

    /// What it holds.
    pub(crate) fn applied(&self) -> &[Delivery] {
        &self.applied
    }

    /// The answer to a request that was executed; to the first of several copies.
    pub(crate) fn reply(&self, key: &RequestKey) -> Option<Reply> {
        self.applied.iter().zip(&self.states).find_map(|(delivery, state)| {
            let mut requests = delivery.requests.iter();
            let (position, _) = requests.find(|(_, request)| request.key() == *key)?;
            Some(Reply { position: *position, state: *state })
        })
    }
}
