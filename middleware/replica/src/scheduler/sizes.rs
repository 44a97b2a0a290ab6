//! How much a scheduler holds: for whoever watches its bounds, and to see that nothing is left over.

use super::Scheduler;
use super::transaction::Phase;
use steeldb_types::Position;

/// What a scheduler holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// Sessions.
    pub sessions: usize,
    /// Transactions that execute, are prepared or may be, or whose outcome is not applied.
    pub unsettled: usize,
    /// Transactions that are given up here and wait for an outcome.
    pub given_up: usize,
    /// Permits to prepare that are taken.
    pub permits: usize,
    /// Anchors.
    pub anchors: usize,
    /// Bytes kept for clients.
    pub bytes: usize,
    /// Stream entries held.
    pub entries: usize,
    /// Places in the master's order that others may wait for.
    pub places: usize,
    /// Transactions that wait for a permit.
    pub queued: usize,
    /// Votes of slots that are not delivered.
    pub early_votes: usize,
    /// Stream entries of transactions that are not known.
    pub early_entries: usize,
}

/// How often what happened since the scheduler began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Speculations that were undone.
    pub undone: u64,
    /// Those of them that were begun again.
    pub redone: u64,
}

impl Sizes {
    /// Whether nothing is under way: no session, no lock, nothing to be applied.
    pub fn is_settled(&self) -> bool {
        let Sizes { sessions, unsettled, permits, anchors, bytes, places, queued, .. } = *self;
        // One anchor stays for the next BEGIN.
        sessions + unsettled + permits + bytes + places + queued == 0 && anchors <= 1
    }
}

impl Scheduler {
    /// How often what happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Up to where COMMIT PREPARED has been issued.
    pub fn issued(&self) -> Position {
        self.applying.issued_upto()
    }

    /// How many transactions are open in the order.
    pub fn open(&self) -> usize {
        self.open.iter().count()
    }

    /// How much it holds.
    pub fn sizes(&self) -> Sizes {
        let given_up = self
            .transactions
            .values()
            .filter(|transaction| transaction.phase == Phase::GivenUp && transaction.outcome.is_none())
            .count();
        Sizes {
            sessions: self.sessions.len(),
            unsettled: self.transactions.len() - given_up,
            given_up,
            permits: self.permits_used,
            anchors: self.anchors.len(),
            bytes: self.bytes_by_client.values().sum(),
            entries: self.entries_held,
            places: self.speculation.places(),
            queued: self.permit_queue.len(),
            early_votes: self.early_votes.len(),
            early_entries: self.early_stream.len(),
        }
    }
}
