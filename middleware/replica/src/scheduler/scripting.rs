//! Scripts: what replicas keep of a transaction that ran DDL, for those that must execute it again (A11); and what comes
//! back when this replica had to.

use super::operations::is_of_timing;
use super::transaction::{CopyState, Decided, Phase, Transaction};
use super::{CatchUpError, Effect, Scheduler};
use crate::script::{Copied, Step};
use steeldb_types::{Digest, TxId};

/// The operations of a transaction that is executed here, from what was kept for a redo; without their COPY data, which
/// the agent has. None if some are not here.
pub(super) fn steps(transaction: &Transaction) -> Option<Vec<Step>> {
    let executed = transaction.heads.len();
    if transaction.kept.len() != executed || transaction.results.len() != executed {
        return None;
    }
    let all = transaction.kept.values().zip(&transaction.results).zip(transaction.words());
    let steps = all.map(|((kept, result), (_, _, word))| {
        let copy = match &kept.copy {
            CopyState::Ended { failure, .. } => Some(Copied { data: Vec::new(), failure: failure.clone() }),
            CopyState::None | CopyState::Open(_) => None,
        };
        Step {
            operation: kept.operation.clone(),
            copy,
            adopted: word.adopted.filter(is_of_timing),
            draws: word.draws,
            result: *result,
        }
    });
    Some(steps.collect())
}

impl Scheduler {
    /// A transaction that ran DDL elsewhere was executed again and is prepared here, or could not be.
    pub(super) fn reexecuted(&mut self, tx: TxId, result: Result<Option<Digest>, CatchUpError>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if self.applying.under_way(tx).is_none() || !matches!(transaction.phase, Phase::InDoubt { .. }) {
            return;
        }
        match result {
            Ok(effects) => {
                transaction.reexecuted = Some(effects);
                self.compare_reexecuted(tx);
            }
            Err(error) => {
                self.set_phase(tx, Phase::GivenUp);
                self.caught_up(tx, Err(error));
            }
        }
    }

    /// Commits what was executed again, once decoding shows that its effects are the certified ones.
    pub(super) fn compare_reexecuted(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(effects) = transaction.reexecuted else { return };
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return };
        let write_set = match &transaction.phase {
            Phase::InDoubt { decoded: Some(decoded), .. } => Some(with_effects(*decoded, effects)),
            Phase::Prepared { write_set: None } => None,
            _ => return,
        };
        transaction.reexecuted = None;
        let same = write_set == Some(certificate.write_set);
        let (gid, database) = (transaction.gid(), transaction.database.clone());
        if same {
            return self.push(Effect::CommitPrepared { tx, gid, database });
        }
        self.set_phase(tx, Phase::GivenUp);
        self.push(Effect::RollbackPrepared { gid, database });
        let reason = "executed again at its slot, it has other effects than those that a quorum vouched for";
        self.caught_up(tx, Err(CatchUpError::Failed(reason.to_string())));
    }
}

/// w of a transaction whose rows have the digest `decoded`, and whose DDL did `effects` (G1).
pub(super) fn with_effects(decoded: Digest, effects: Option<Digest>) -> Digest {
    match effects {
        Some(effects) => Digest::of("steeldb/write-set/ddl", &[&decoded.0, &effects.0]),
        None => decoded,
    }
}
