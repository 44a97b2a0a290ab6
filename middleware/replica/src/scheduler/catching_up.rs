//! Catching up: a committed transaction that cannot be prepared here in time is made of what peers keep of it.

use super::planted::PlantedBug;
use super::transaction::{Decided, Phase, Transaction};
use super::{CatchUpError, Effect, Reexecution, Scheduler};
use steeldb_types::{Position, ReplicaId, TxId};
use steeldb_wire::transaction::{VoteKind, Wall};

/// How often a write set may fail to be applied before this replica counts itself diverged.
const CATCH_UP_TRIES: u32 = 5;

/// How long after a failure it is tried again, microseconds.
const CATCH_UP_PAUSE_US: u64 = 1_000_000;

/// The same for one that only waits for locks. What holds them is prepared then, and its outcome may take a while.
const BLOCKED_TRIES: u32 = 100;
const BLOCKED_PAUSE_US: u64 = 100_000;

/// After a client was waited for in vain, it is not waited for again so many T_votes long.
pub(super) const IMPATIENCE_FACTOR: u64 = 12;

impl Scheduler {
    /// Takes a committed transaction's effects from a peer. What it holds here goes first.
    pub(super) fn catch_up(&mut self, position: Position, tx: TxId, alone: bool, reason: &'static str) {
        self.set_under_way(position, tx, alone);
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return };
        let rows = !certificate.wall.is_scripted();
        let waited = !transaction.stranded && !self.has_gone_on(tx);
        if waited && transaction.phase.needs_backend() && transaction.received < certificate.operations {
            let until = self.now_us + IMPATIENCE_FACTOR * self.config.vote_timeout_us;
            self.impatient_until_us.insert(tx.session.client, until);
        }
        let (gid, database) = (transaction.gid(), transaction.database.clone());
        let (received, sent, executed) = (transaction.received, transaction.sent, transaction.executed());
        tracing::warn!(
            %tx, %position, reason, wall = ?certificate.wall, received, sent, executed,
            "catching up by what a peer keeps"
        );
        if transaction.phase.may_be_prepared() {
            self.set_phase(tx, Phase::GivenUp);
            if !self.config.has(PlantedBug::CatchUpBesidePrepared) {
                self.roll_back(tx, gid, database);
            }
        } else {
            self.give_up(tx);
        }
        if rows {
            self.applying.rows.insert(position);
        }
        self.catch_up_again(tx);
    }

    /// The link to the master is new: what it has streamed until now may be lost here, and it does not stream it again.
    pub(super) fn stream_missed(&mut self, from: ReplicaId) {
        if from == self.open.term().master {
            self.transactions.values_mut().for_each(Transaction::strand);
            self.pump();
        }
    }

    /// A write set was applied, or could not be.
    pub(super) fn caught_up(&mut self, tx: TxId, result: Result<(), CatchUpError>) {
        let Err(error) = result else { return self.commit_applied(tx, Ok(())) };
        let Some(position) = self.applying.under_way(tx) else { return };
        let now = self.now_us;
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let (tries, tries_max, pause) = match error {
            CatchUpError::Blocked => (&mut transaction.catch_up_blocked, BLOCKED_TRIES, BLOCKED_PAUSE_US),
            CatchUpError::Failed(_) => {
                (&mut transaction.catch_up_failures, CATCH_UP_TRIES, CATCH_UP_PAUSE_US)
            }
        };
        *tries += 1;
        if *tries >= tries_max {
            return self.diverge(position, tx, format!("catching up failed: {error}"));
        }
        tracing::warn!(%tx, %error, "catching up failed; it is tried again");
        transaction.catch_up_again_us = Some(now + pause);
        if error == CatchUpError::Blocked {
            self.clear_the_way(tx);
        }
    }

    /// What a quorum vouched for waits for locks here (A11). Who may hold them, in three kinds:
    fn clear_the_way(&mut self, tx: TxId) {
        let others: Vec<TxId> = self.transactions.keys().copied().filter(|other| *other != tx).collect();
        for other in others {
            let Some(transaction) = self.transactions.get(&other) else { continue };
            match (&transaction.phase, &transaction.outcome) {
                // Prepared, and it conflicts: a word towards its Abort.
                (phase, None) if phase.may_be_prepared() => self.cast_against(other, VoteKind::Blocked),
                // Prepared too early here, and to be committed later: its rows will be taken instead.
                (Phase::Prepared { .. }, Some(Decided::Commit { certificate }))
                    if !certificate.wall.is_scripted() && self.applying.under_way(other).is_none() =>
                {
                    let (gid, database) = (transaction.gid(), transaction.database.clone());
                    self.set_phase(other, Phase::GivenUp);
                    self.roll_back(other, gid, database);
                }
                // Not prepared: it can be done again.
                (Phase::Running | Phase::Completing, _) if transaction.begun => self.make_way(other, tx),
                _ => {}
            }
        }
    }

    pub(super) fn catch_up_again(&mut self, tx: TxId) {
        let Some(position) = self.applying.under_way(tx) else { return };
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        transaction.catch_up_again_us = None;
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return };
        let (certificate, database) = (certificate.clone(), transaction.database.clone());
        let (attempt, timestamp, anchor) =
            (transaction.catch_up_failures, transaction.timestamp, transaction.anchor);
        let reexecution = certificate.wall.is_scripted().then(|| Reexecution {
            by_script: certificate.wall == Wall::Session,
            operations: certificate.operations,
            transcript: certificate.transcript,
            snapshot: anchor.and_then(|anchor| self.anchors.snapshot(anchor)).map(str::to_string),
            timestamp,
            seed: self.seed(tx, certificate.slot),
        });
        if reexecution.is_some() {
            // Decoding will show it under its name.
            self.set_phase(tx, Phase::InDoubt { decoded: None, prepared: false });
            self.take_permit(tx);
        }
        let (slot, write_set) = (certificate.slot, certificate.write_set);
        self.push(Effect::CatchUp { position, tx, slot, database, write_set, attempt, reexecution });
    }

    /// What is executed again may wait for the locks of what is not committed before it.
    pub(super) fn reexecution_waits(&mut self, tx: TxId) {
        if self.applying.under_way(tx).is_some() {
            self.clear_the_way(tx);
        }
    }
}
