//! How much a core holds: what operators and the simulator watch.

use crate::core::Core;

/// How long each queue is that somebody else can fill. Each has a bound.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct QueueSizes {
    /// Requests that wait to be ordered.
    pub pending_requests: usize,
    /// Senders and instances for which messages are kept that came too early.
    pub early_senders: usize,
    /// WRITEs and ACCEPTs of the instances in flight.
    pub votes: usize,
    /// Values this replica wrote in the instances in flight.
    pub written_values: usize,
    /// STOPs.
    pub stops: usize,
    /// STOPDATAs, for a leader to be.
    pub stop_data: usize,
    /// Replicas that seem to be ahead.
    pub ahead: usize,
    /// Effects that wait for the disk.
    pub effects: usize,
    /// Decided batches kept in memory, bytes.
    pub decisions_kept_bytes: usize,
}

impl QueueSizes {
    /// The larger of each.
    pub fn max(self, other: QueueSizes) -> QueueSizes {
        QueueSizes {
            pending_requests: self.pending_requests.max(other.pending_requests),
            early_senders: self.early_senders.max(other.early_senders),
            votes: self.votes.max(other.votes),
            written_values: self.written_values.max(other.written_values),
            stops: self.stops.max(other.stops),
            stop_data: self.stop_data.max(other.stop_data),
            ahead: self.ahead.max(other.ahead),
            effects: self.effects.max(other.effects),
            decisions_kept_bytes: self.decisions_kept_bytes.max(other.decisions_kept_bytes),
        }
    }
}

impl Core {
    /// How much this core holds now.
    pub fn queue_sizes(&self) -> QueueSizes {
        let (stops, stop_data) = self.sync.sizes();
        QueueSizes {
            pending_requests: self.pending.len(),
            early_senders: self.early.len(),
            votes: self.window.iter().map(|instance| instance.writes.len() + instance.accepts.len()).sum(),
            written_values: self.window.iter().map(|instance| instance.written.len()).sum(),
            stops,
            stop_data,
            ahead: self.catchup.ahead_len(),
            effects: self.effects.len(),
            decisions_kept_bytes: self.log.kept_bytes(),
        }
    }
}
