//! Transactions that this replica has ended by itself and that are open in the order: read-only ones, those that their
//! client rolled back, and after a restart all that are not prepared here.
//!
//! Nothing of them can be prepared here any more. Where another replica differs and has one prepared, its locks wait for
//! an ordered outcome, which needs f + 1 votes: so a replica that hears of such a vote adds its own against it.

use super::Scheduler;
use std::collections::BTreeMap;
use steeldb_types::{Slot, TxId};
use steeldb_wire::transaction::{Vote, VoteKind};

/// By transaction. Bounded by the open transactions.
#[derive(Default)]
pub(super) struct Ended {
    transactions: BTreeMap<TxId, Entry>,
}

struct Entry {
    at_us: u64,
    /// A replica has voted on it since.
    contested: bool,
    /// This replica's vote, once cast.
    vote: Option<Vote>,
}

impl Ended {
    pub(super) fn remove(&mut self, tx: TxId) {
        self.transactions.remove(&tx);
    }

    /// A vote on it came.
    pub(super) fn contest(&mut self, tx: TxId) {
        if let Some(entry) = self.transactions.get_mut(&tx) {
            entry.contested = true;
        }
    }

    /// Votes cast, to be sent again.
    pub(super) fn votes(&self) -> impl Iterator<Item = Vote> {
        self.transactions.values().filter_map(|entry| entry.vote.clone())
    }
}

impl Scheduler {
    /// Notes that this replica has ended a transaction that is open in the order.
    pub(super) fn note_ended(&mut self, tx: TxId) {
        if self.open.slot(tx).is_some() {
            let entry = Entry { at_us: self.now_us, contested: false, vote: None };
            self.ended.transactions.insert(tx, entry);
        }
    }

    /// The same, of one that this replica votes against at once.
    pub(super) fn note_ended_with(&mut self, tx: TxId, vote: Vote) {
        let entry = Entry { at_us: self.now_us, contested: true, vote: Some(vote) };
        self.ended.transactions.insert(tx, entry);
    }

    /// Votes against what others still wait for. Not before T_vote: until then a read-only transaction's client may
    /// not have heard from f + 1 replicas, and a liar's vote would abort what it reads.
    pub(super) fn vote_on_ended(&mut self) {
        let (now, patience) = (self.now_us, self.config.vote_timeout_us);
        let due: Vec<(TxId, Slot)> = self
            .ended
            .transactions
            .iter()
            .filter(|(_, entry)| {
                entry.contested && entry.vote.is_none() && now.saturating_sub(entry.at_us) > patience
            })
            .filter_map(|(tx, _)| Some((*tx, self.open.slot(*tx)?)))
            .collect();
        for (tx, slot) in due {
            let vote = Vote { tx, slot, kind: VoteKind::Gone };
            if let Some(entry) = self.ended.transactions.get_mut(&tx) {
                entry.vote = Some(vote.clone());
            }
            self.cast.push((vote, None));
        }
    }
}
