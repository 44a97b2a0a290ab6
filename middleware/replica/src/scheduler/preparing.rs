//! Preparing: permits, PREPARE TRANSACTION, decoding, and the vote that both together allow (rule 6).

use super::event::DecodedSet;
use super::planted::PlantedBug;
use super::scripting::with_effects;
use super::transaction::{Phase, Undigested};
use super::{Command, Effect, Scheduler, draws};
use steeldb_types::{Digest, TxId};
use steeldb_wire::transaction::{SqlState, Vote, VoteKind, Wall};

impl Scheduler {
    /// Moves a transaction to another phase, keeping what is found by its name in step.
    pub(super) fn set_phase(&mut self, tx: TxId, phase: Phase) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let before = transaction.phase.may_be_prepared();
        let after = phase.may_be_prepared();
        transaction.phase = phase;
        if before != after {
            let gid = transaction.gid();
            if after {
                self.by_gid.insert(gid, tx);
            } else {
                self.by_gid.remove(&gid);
            }
        }
    }

    /// Lets queued transactions prepare, as far as PostgreSQL has room (B6).
    pub(super) fn grant_permits(&mut self) {
        while self.permits_used < self.config.permits || self.config.has(PlantedBug::PermitsIgnored) {
            let Some(tx) = self.permit_queue.pop_front() else { return };
            let Some(transaction) = self.transactions.get_mut(&tx) else { continue };
            let Phase::Queued { ddl } = transaction.phase else { continue };
            let (Some(slot), Some(transcript)) = (transaction.slot, transaction.transcript) else { continue };
            let command = Command::Prepare {
                tx,
                slot,
                operations: transcript.operations(),
                transcript: transcript.head(),
                gid: transaction.gid(),
                ddl,
                script: transaction.script.take(),
                marks: draws::marks(transaction),
            };
            self.set_phase(tx, Phase::Preparing { prepared: None, decoded: None });
            self.take_permit(tx);
            self.backend(tx.session, command);
            self.drop_copies(tx);
        }
    }

    /// A transaction is prepared, or may be, from now on.
    pub(super) fn take_permit(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && !std::mem::replace(&mut transaction.has_permit, true)
        {
            self.permits_used += 1;
        }
    }

    /// A transaction is not prepared any more.
    pub(super) fn return_permit_of(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && std::mem::take(&mut transaction.has_permit)
        {
            self.return_permit();
        }
    }

    pub(super) fn return_permit(&mut self) {
        self.permits_used = self.permits_used.saturating_sub(1);
        self.grant_permits();
    }

    /// Has a prepared transaction rolled back. Until that is done it takes its place, whatever becomes of it here: the next
    /// PREPARE could overtake it (B6).
    pub(super) fn roll_back(&mut self, tx: TxId, gid: String, database: String) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && std::mem::take(&mut transaction.has_permit)
        {
            self.rolling_back.insert(gid.clone());
            if self.config.has(PlantedBug::PermitReturnedEarly) {
                self.rolled_back(&gid);
            }
        }
        self.push(Effect::RollbackPrepared { gid, database });
    }

    /// ROLLBACK PREPARED is done.
    pub(super) fn rolled_back(&mut self, gid: &str) {
        if self.rolling_back.remove(gid) {
            self.return_permit();
        }
    }

    /// PREPARE TRANSACTION returned.
    pub(super) fn prepared(&mut self, tx: TxId, result: Result<Option<Digest>, SqlState>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Phase::Preparing { prepared, .. } = &mut transaction.phase else { return };
        match result {
            Ok(extra) => {
                *prepared = Some(extra);
                self.try_vote_prepared(tx);
                self.settle(tx);
            }
            Err(sqlstate) => {
                self.set_phase(tx, Phase::GivenUp);
                self.return_permit_of(tx);
                self.cast_against(tx, VoteKind::Failed { sqlstate });
                self.settle(tx);
            }
        }
        self.backend_free(tx.session);
    }

    /// The backend was lost while PREPARE TRANSACTION was under way: whether it was done, decoding will show. It keeps
    /// its permit, and its outcome rolls back whatever there is.
    pub(super) fn prepare_unanswered(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let Phase::Preparing { decoded, .. } = &transaction.phase else { return };
        tracing::warn!(%tx, "backend lost while preparing");
        let phase = match decoded {
            Some(Err(Undigested)) => Phase::Prepared { write_set: None },
            Some(Ok(set)) => Phase::InDoubt { decoded: Some(set.digest), prepared: true },
            None => Phase::InDoubt { decoded: None, prepared: false },
        };
        self.set_phase(tx, phase);
        self.settle(tx);
    }

    /// Decoding shows a prepared transaction's write set.
    pub(super) fn decoded(&mut self, gid: &str, write_set: Result<DecodedSet, String>) {
        let Some(tx) = self.by_gid.get(gid).copied() else { return };
        if let Err(reason) = &write_set {
            tracing::warn!(%tx, reason, "the write set cannot be digested");
            self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("0A000") });
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        match &mut transaction.phase {
            Phase::Preparing { decoded, .. } => {
                *decoded = Some(write_set.map_err(|_| Undigested));
                self.try_vote_prepared(tx);
            }
            Phase::InDoubt { decoded, prepared } => {
                *prepared = true;
                match write_set {
                    Ok(set) => *decoded = Some(set.digest),
                    Err(_) => self.set_phase(tx, Phase::Prepared { write_set: None }),
                }
                self.compare_reexecuted(tx);
            }
            _ => return,
        }
        self.settle(tx);
    }

    /// Votes once both PREPARE has returned and w is known (A2: a vote is sent after w is known).
    fn try_vote_prepared(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let Phase::Preparing { prepared: Some(extra), decoded: Some(decoded) } = &transaction.phase else {
            return;
        };
        let Ok(set) = decoded else {
            // It holds its locks until its outcome like any other, and is not vouched for.
            return self.set_phase(tx, Phase::Prepared { write_set: None });
        };
        let write_set = with_effects(set.digest, *extra);
        let wall = if transaction.ran_ddl { Wall::Database } else { set.wall };
        let unnamed = set.truncates;
        if let Some(transaction) = self.transactions.get_mut(&tx).filter(|_| unnamed) {
            transaction.names = None;
        }
        self.set_phase(tx, Phase::Prepared { write_set: Some(write_set) });
        self.tell_ahead(tx);
        let vouches = self.may_vouch();
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let (Some(slot), Some(transcript)) = (transaction.slot, transaction.transcript) else { return };
        let against =
            transaction.against_vote.is_some() && !self.config.has(PlantedBug::PreparedAfterAgainst);
        if transaction.outcome.is_some() || !vouches || against {
            return;
        }
        let write_set =
            if self.config.has(PlantedBug::EffectsLeftOut) { Digest::default() } else { write_set };
        let kind = VoteKind::Prepared {
            operations: transcript.operations(),
            transcript: transcript.head(),
            write_set,
            wall,
        };
        let vote = Vote { tx, slot, kind };
        transaction.prepared_vote = Some(vote.clone());
        let finish = transaction.finish.clone();
        self.cast.push((vote, finish));
    }
}
