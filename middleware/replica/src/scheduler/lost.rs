//! A replica whose server has lost what it voted for (A12): prepared transactions that vanished, with data restored from
//! an older state or with a disk that did not keep its word.
//!
//! Its Prepared votes promised to hold locks that it does not hold any more, so its word on what conflicts with them is
//! void: it vouches for nothing until every transaction that was open then has an ordered outcome. Votes against bind to
//! nothing, so it casts those, which ends them. It goes on ordering: its journal is whole (one that is not stops it).

use super::transaction::Phase;
use super::{Effect, Scheduler};
use std::collections::BTreeSet;
use steeldb_types::{Slot, TxId};
use steeldb_wire::transaction::{Vote, VoteKind};

impl Scheduler {
    /// The server was started again: is all there that was prepared?
    pub(super) fn server_restarted(&mut self) {
        // Nothing was committed since they were taken, and nothing holds them any more.
        self.pass_anchors();
        let prepared = |phase: &Phase| match phase {
            Phase::Prepared { .. } | Phase::InDoubt { prepared: true, .. } => true,
            Phase::Preparing { prepared, .. } => prepared.is_some(),
            _ => false,
        };
        let gids: Vec<String> = self
            .transactions
            .values()
            .filter(|transaction| prepared(&transaction.phase))
            .map(|transaction| transaction.gid())
            .collect();
        if !gids.is_empty() {
            self.push(Effect::LookForPrepared { gids });
        }
    }

    /// These were prepared here, and are not any more.
    pub(super) fn vanished(&mut self, gids: Vec<String>) {
        // What was being committed is, and its answer was lost.
        let vanished: Vec<TxId> = gids
            .iter()
            .filter_map(|gid| self.by_gid.get(gid).copied())
            .filter(|tx| self.applying.under_way(*tx).is_none())
            .collect();
        for tx in &vanished {
            self.set_phase(*tx, Phase::GivenUp);
            self.return_permit_of(*tx);
        }
        if !vanished.is_empty() {
            self.lose_votes(&vanished);
        }
        self.pump();
    }

    /// Counts itself faulty until all that is open now has its outcome.
    pub(super) fn lose_votes(&mut self, vanished: &[TxId]) {
        tracing::error!(
            ?vanished,
            open = self.open.iter().count(),
            "transactions that this replica voted for are prepared no more; it vouches for nothing until all that is open has an outcome"
        );
        let open: Vec<(TxId, Slot)> = self.open.iter().collect();
        for (tx, slot) in open {
            self.lost.insert(tx);
            if self.transactions.contains_key(&tx) {
                self.cast_against(tx, VoteKind::Expired);
            } else {
                let vote = Vote { tx, slot, kind: VoteKind::Expired };
                self.note_ended_with(tx, vote.clone());
                self.cast.push((vote, None));
            }
        }
    }

    /// Whether this replica's word for a transaction counts for something.
    pub fn may_vouch(&self) -> bool {
        self.diverged.is_none() && self.lost.is_empty()
    }

    /// Forgets those that have their outcome.
    pub(super) fn look_at_lost(&mut self) {
        if self.lost.is_empty() {
            return;
        }
        let open: BTreeSet<TxId> =
            self.lost.iter().copied().filter(|tx| self.open.slot(*tx).is_some()).collect();
        self.lost = open;
        if self.lost.is_empty() {
            tracing::info!(
                "all that was open when votes were lost has its outcome; this replica votes again"
            );
        }
    }
}
