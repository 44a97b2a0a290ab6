//! The replicated application: a hash chain over what it executed, so that two replicas with one state executed the
//! same. Its state is all of that: what a replica has by a checkpoint can be compared like what it executed itself.

use crate::history::Batch;
use steeldb_ordering::{Delivery, InstanceNumber, RequestKey};
use steeldb_types::{Digest, Hasher, Position};
use steeldb_wire::codec;

/// No state of a run is as large.
const STATE_BYTES_MAX: usize = 1 << 20;

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
    applied: Vec<Batch>,
    /// After each batch.
    states: Vec<Digest>,
}

impl Application {
    /// The last instance executed.
    pub(crate) fn delivered(&self) -> InstanceNumber {
        InstanceNumber(self.applied.last().map_or(0, |batch| batch.instance.0))
    }

    pub(crate) fn apply(&mut self, delivery: &Delivery) {
        self.execute(Batch::of(delivery));
    }

    fn execute(&mut self, batch: Batch) {
        let before = self.states.last().copied().unwrap_or_default();
        let mut hasher = Hasher::new("simulation/application");
        hasher.part(&before.0).part(&batch.timestamp.0.to_le_bytes());
        for (position, request) in &batch.requests {
            hasher.number(position.0).part(request.payload());
        }
        self.states.push(hasher.finish());
        self.applied.push(batch);
    }

    /// The last executions were not durable.
    pub(crate) fn lose_last(&mut self, batches: usize) {
        let kept = self.applied.len().saturating_sub(batches);
        self.applied.truncate(kept);
        self.states.truncate(kept);
    }

    /// The state, for a checkpoint.
    pub(crate) fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.applied)
    }

    /// Takes over a state.
    pub(crate) fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let applied: Vec<Batch> = codec::decode(state, STATE_BYTES_MAX).map_err(|error| error.to_string())?;
        *self = Application::default();
        applied.into_iter().for_each(|batch| self.execute(batch));
        Ok(())
    }

    /// What it holds.
    pub(crate) fn applied(&self) -> &[Batch] {
        &self.applied
    }

    /// The answer to a request that was executed; to the first of several copies.
    pub(crate) fn reply(&self, key: &RequestKey) -> Option<Reply> {
        self.applied.iter().zip(&self.states).find_map(|(batch, state)| {
            let mut requests = batch.requests.iter();
            let (position, _) = requests.find(|(_, request)| request.key() == *key)?;
            Some(Reply { position: *position, state: *state })
        })
    }
}
