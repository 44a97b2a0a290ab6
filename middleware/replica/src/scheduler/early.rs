//! What comes before its transaction is known here: votes from ahead of what is delivered, and the master's stream
//! ahead of the client's own messages. Both are bounded, whatever a liar sends (no room of one is taken by another).

use super::draws::weight;
use std::collections::{BTreeMap, VecDeque};
use steeldb_types::{ReplicaId, Slot, TxId};
use steeldb_wire::transaction::{Executed, SignedVote};

/// Votes kept per replica for BEGINs that are not delivered yet. Past it those of the furthest slots go.
const VOTES_MAX: usize = 4096;

/// Stream entries kept for transactions that are not known yet. Past it the oldest transaction's go.
const ENTRIES_MAX: usize = 65_536;

/// Votes by replica, then by slot, transaction and whether they are against it.
#[derive(Default)]
pub(super) struct EarlyVotes {
    by_replica: BTreeMap<ReplicaId, BTreeMap<(Slot, TxId, bool), SignedVote>>,
}

impl EarlyVotes {
    /// Keeps a vote for a slot that is not delivered; the first of its kind.
    pub(super) fn keep(&mut self, vote: SignedVote) {
        let votes = self.by_replica.entry(vote.replica).or_default();
        let key = (vote.vote.slot, vote.vote.tx, vote.vote.kind.is_against());
        votes.entry(key).or_insert(vote);
        if votes.len() > VOTES_MAX {
            votes.pop_last();
        }
    }

    /// The votes on the BEGIN that is delivered at `slot`. Those of slots up to there are dropped.
    pub(super) fn take(&mut self, slot: Slot, tx: TxId) -> Vec<SignedVote> {
        let mut taken = Vec::new();
        for votes in self.by_replica.values_mut() {
            for against in [false, true] {
                taken.extend(votes.remove(&(slot, tx, against)));
            }
            *votes = votes.split_off(&(slot.next(), TxId::default(), false));
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.by_replica.values().map(BTreeMap::len).sum()
    }
}

/// Stream entries by transaction.
#[derive(Default)]
pub(super) struct EarlyStream {
    by_tx: BTreeMap<TxId, Vec<Executed>>,
    order: VecDeque<TxId>,
    entries: usize,
}

impl EarlyStream {
    /// Keeps an entry of a transaction that is not known.
    pub(super) fn keep(&mut self, entry: Executed) {
        let tx = entry.tx;
        let entries = self.by_tx.entry(tx).or_default();
        if entries.is_empty() {
            self.order.push_back(tx);
        }
        self.entries += weight(&entry);
        entries.push(entry);
        while self.entries > ENTRIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries -= self.by_tx.remove(&oldest).map_or(0, |entries| entries.iter().map(weight).sum());
        }
    }

    /// The entries of a transaction that has become known.
    pub(super) fn take(&mut self, tx: TxId) -> Vec<Executed> {
        let taken = self.by_tx.remove(&tx).unwrap_or_default();
        if !taken.is_empty() {
            self.entries -= taken.iter().map(weight).sum::<usize>();
            self.order.retain(|other| *other != tx);
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }
}
