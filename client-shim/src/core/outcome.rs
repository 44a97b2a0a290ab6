//! The end of a transaction: what replicas say of it, and transactions that cannot go on.

use super::planted::PlantedBug;
use super::transaction::Phase;
use super::verdict::{self, TentativeWord, TranscriptWord, Verdict};
use super::{Completion, Core, Event, report};
use crate::ShimError;
use steeldb_types::{ReplicaId, TxId};
use steeldb_wire::transaction::{Decision, Ordered, Outcome};

impl Core {
    /// A replica's transcript of the transaction. The first one counts.
    pub(super) fn transcript(&mut self, from: ReplicaId, tx: TxId, word: TranscriptWord) {
        let Some(transaction) = self.running(tx) else { return };
        if !matches!(transaction.phase, Phase::Finishing { sent: true, .. }) {
            return;
        }
        if let Some(words) = transaction.words.get_mut(usize::from(from.0)) {
            words.transcript.get_or_insert(word);
        }
        self.judge();
    }

    /// What became of the transaction, as a replica says. The first word counts.
    pub(super) fn outcome(&mut self, from: ReplicaId, tx: TxId, outcome: Outcome) {
        let view = self.config.view.clone();
        let Some(transaction) = self.running(tx) else { return };
        if let Some(words) = transaction.words.get_mut(usize::from(from.0)) {
            words.outcome.get_or_insert(outcome);
        }
        match transaction.phase {
            Phase::Finishing { sent: true, .. } => self.judge(),
            Phase::Doomed { .. } => {}
            _ => {
                // Gone or passed by a wall while it ran.
                if let Some(reason) = verdict::abort(&view, &transaction.words) {
                    let error = report::of_abort(transaction, reason);
                    transaction.told_order = true;
                    self.doom(error);
                }
            }
        }
    }

    /// A replica's word that the order will commit the transaction. The last one counts: of a later regency.
    pub(super) fn tentative(&mut self, from: ReplicaId, tx: TxId, word: TentativeWord) {
        let Some(transaction) = self.running(tx) else { return };
        if let Some(words) = transaction.words.get_mut(usize::from(from.0)) {
            words.tentative = Some(word);
        }
        self.judge();
    }

    /// Ends the transaction if what replicas have said so far settles it.
    pub(super) fn judge(&mut self) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        let Phase::Finishing { decision, sent: true } = transaction.phase else { return };
        let (shown, tx) = (transaction.shown(), transaction.tx);
        let verdict = match decision {
            Decision::Commit => self
                .config
                .planted_verdict_of_commit(&transaction.words, shown)
                .unwrap_or_else(|| verdict::of_commit(&self.config.view, &transaction.words, shown)),
            Decision::Rollback => self
                .config
                .planted_verdict_of_rollback()
                .unwrap_or_else(|| verdict::of_rollback(&self.config.view, &transaction.words, shown)),
        };
        match (verdict, decision) {
            (Verdict::Wait, _) => {}
            (Verdict::Committed(position), _) => self.finish_with(Ok(Completion::Committed(position))),
            (Verdict::Aborted(_), Decision::Commit) if transaction.told_order => {
                // We asked for the abort: because replicas had reached other results, or the master could not go on.
                if let Some(error) = transaction.dropped.take() {
                    return self.finish_with(Err(error));
                }
                let error = match verdict::of_rollback(&self.config.view, &transaction.words, shown) {
                    Verdict::Mismatch(operation) => report::of_mismatch(transaction, operation, false),
                    _ => report::of_mismatch(transaction, None, false),
                };
                self.finish_with(Err(error));
            }
            (Verdict::Aborted(reason), _) => {
                let error = report::of_abort(transaction, reason);
                self.finish_with(Err(error));
            }
            (Verdict::Disputed(_), _) => self.tell_order(),
            (Verdict::Mismatch(operation), _) => {
                let error = report::of_mismatch(transaction, operation, false);
                if decision == Decision::Rollback {
                    self.tell_order();
                }
                self.finish_with(Err(error));
            }
            (Verdict::RolledBack { tell_order }, _) => {
                if tell_order {
                    self.tell_order();
                }
                self.finish_with(Ok(Completion::RolledBack));
            }
            (Verdict::Unreachable, Decision::Commit) => self.finish_with(Err(report::in_doubt(tx))),
            (Verdict::Unreachable, Decision::Rollback) => {
                self.tell_order();
                self.finish_with(Err(report::unverified_rollback()));
            }
        }
    }

    /// Too few replicas have settled the transaction in time.
    pub(super) fn settle_unreachable(&mut self) {
        let Some(transaction) = self.transaction.as_ref() else { return };
        let error = match &transaction.phase {
            Phase::Finishing { decision: Decision::Commit, sent: true } => report::in_doubt(transaction.tx),
            Phase::Finishing { decision: Decision::Commit, sent: false } => {
                ShimError::new("57P03", "the cluster does not order new transactions")
            }
            _ => report::unverified_rollback(),
        };
        if !matches!(transaction.phase, Phase::Finishing { decision: Decision::Commit, sent: true }) {
            self.tell_order();
        }
        self.finish_with(Err(error));
    }

    /// The transaction cannot go on: its operations in progress fail, the order is told to drop it, and the
    /// application is told why once. A COMMIT that is sent is the order's to end: others may have vouched for it by now.
    pub(super) fn doom(&mut self, error: ShimError) {
        if self.transaction.as_ref().is_none_or(super::Transaction::is_doomed) {
            return;
        }
        self.tell_order();
        let given_up = self.config.has(PlantedBug::SentCommitGivenUp);
        let Some(transaction) = self.transaction.as_mut() else { return };
        if transaction.phase == (Phase::Finishing { decision: Decision::Commit, sent: true }) && !given_up {
            transaction.dropped.get_or_insert(error);
            return;
        }
        let finishing = matches!(transaction.phase, Phase::Finishing { .. });
        let mut error = Some(error);
        let unverified: Vec<u32> =
            transaction.unverified.drain(..).map(|operation| operation.number).collect();
        let outstanding: Vec<u32> =
            transaction.outstanding.drain(..).map(|operation| operation.number).collect();
        let unsent: Vec<u32> = transaction.unsent.drain(..).map(|operation| operation.number).collect();
        for number in unverified.into_iter().chain(outstanding).chain(unsent) {
            let error = error.take().unwrap_or_else(ShimError::in_failed_transaction);
            self.events.push_back(Event::OperationFailed { number, error });
        }
        transaction.phase = Phase::Doomed { error };
        self.waits += 1;
        if finishing && let Some(Phase::Doomed { error }) = self.transaction.as_mut().map(|t| &mut t.phase) {
            let error = error.take().unwrap_or_else(ShimError::in_failed_transaction);
            self.finish_with(Err(error));
        }
    }

    /// Asks the order to roll the transaction back; if its slot is not known yet, once it is.
    pub(super) fn tell_order(&mut self) {
        let (view, master) = (self.config.view.clone(), self.config.master);
        let Some(transaction) = self.transaction.as_mut() else { return };
        if transaction.told_order || transaction.begin.is_none() {
            return;
        }
        transaction.told_order = true;
        let tx = transaction.tx;
        // As an earlier master said, if this one has not said it yet.
        let said = transaction.slot(&view, master).or(transaction.slots.iter().flatten().copied().next());
        match said {
            Some(slot) => {
                self.request(&Ordered::Rollback { tx, slot });
            }
            None => self.abandoned = Some(tx),
        }
    }

    /// The master broke the protocol. Its transaction ends; that the session goes on is up to the next one.
    pub(super) fn master_misbehaved(&mut self, what: &str) {
        let master = self.config.master;
        tracing::warn!(%master, session = %self.config.session, what, "the master broke the protocol");
        self.doom(
            ShimError::new("08P01", format!("the master replica {master} broke the protocol: {what}"))
                .hint("The transaction is rolled back. Retry it."),
        );
    }
}
