//! Finishing: from the client's Finish to what is durable here (rule 6), or to what is given up.

use super::anchors::User;
use super::event::Completion;
use super::operations::Word;
use super::planted::PlantedBug;
use super::transaction::{Decided, Phase, Transaction};
use super::{Command, Scheduler, draws, scripting};
use steeldb_types::{Execution, TxId};
use steeldb_wire::transaction::{Decision, ReplicaMessage, SignedFinish, SqlState, VoteKind};

impl Scheduler {
    /// The client has said that the transaction is complete. The first Finish counts.
    pub(super) fn finish(&mut self, finish: SignedFinish) {
        let tx = finish.finish.tx;
        let (now, slow) = (self.now_us, self.bulk.slow());
        // A transaction of no operations is begun and finished.
        if !self.enter(tx) {
            return;
        }
        self.stream_due = true;
        let transaction = self.transaction(tx);
        if transaction.finish.is_none() {
            let without_slot = transaction.slot.is_none() && finish.finish.slot.0 == 0;
            transaction.finish = Some(finish);
            transaction.finished_at_us = now;
            transaction.active_at_us = now;
            transaction.slow_before = slow;
            if without_slot {
                // Nothing but leading LOCK TABLE statements: it ends without an ordered outcome (rule 3).
                return self.drop_without_slot(tx);
            }
            if transaction.phase == Phase::GivenUp {
                // It could not be done here; the client is told why by the votes.
                self.answer_given_up(tx);
            }
            self.finish_tells_shown(tx);
            self.advance(tx);
        }
    }

    /// Whether all operations are done, and what follows.
    pub(super) fn check_finish(&mut self, tx: TxId) {
        let master = self.is_master();
        let applied = self.applying.applied_upto();
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(finish) = transaction.finish.as_ref().map(|signed| signed.finish.clone()) else { return };
        if transaction.phase != Phase::Running || !transaction.begun {
            return;
        }
        let Some(slot) = transaction.slot else { return };
        let executed = transaction.executed();
        if executed < finish.operations || !transaction.issued.is_empty() {
            return;
        }
        let head = transaction.transcript.as_ref().map(|transcript| transcript.head()).unwrap_or_default();
        let differs = executed > finish.operations || head != finish.transcript || slot != finish.slot;
        if differs && !self.config.has(PlantedBug::FinishNotCompared) {
            let operation = transaction.first_difference().unwrap_or(finish.operations.min(executed));
            tracing::warn!(%tx, %slot, operation, "results differ from what the client was shown");
            self.note_difference(tx);
            self.reply_transcript(tx, false, Some(operation));
            if finish.decision == Decision::Commit {
                self.cast_against(tx, VoteKind::Mismatch { operation });
            }
            return self.give_up(tx);
        }
        match finish.decision {
            Decision::Rollback if !self.config.has(PlantedBug::RollbackPrepared) => {
                self.reply_transcript(tx, false, None);
                self.keep_words(tx, false);
                self.give_up(tx);
            }
            Decision::Commit if transaction.status == b'E' => {
                self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("25P02") });
                self.give_up(tx);
            }
            Decision::Commit | Decision::Rollback => {
                // The constraints' check is the implicit last operation, with a barrier of its own (B5). It decides nothing
                // that the others' votes do not, so it may be tried before; if it fails so, it is done again behind it.
                let speculates = self.config.execution == Execution::Speculative && transaction.may_redo();
                if !master && (!speculates || transaction.checks_late) {
                    match transaction.stream.get(&(finish.operations + 1)) {
                        Some(entry) if entry.barrier <= applied => {}
                        Some(entry) => {
                            self.barriers.insert((entry.barrier, tx));
                            return;
                        }
                        None => return,
                    }
                }
                transaction.phase = Phase::Completing;
                self.backend(tx.session, Command::Complete { tx });
            }
        }
    }

    fn reply_transcript(&mut self, tx: TxId, read_only: bool, mismatch: Option<u32>) {
        if self.diverged.is_some() {
            return; // f + 1 transcripts are believed, and this one is not a correct replica's any more
        }
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let message = ReplicaMessage::Transcript {
            tx,
            operations: transaction.executed(),
            transcript: transaction.transcript.as_ref().map(|t| t.head()).unwrap_or_default(),
            read_only,
            mismatch,
        };
        self.reply(tx.session, message);
    }

    /// A client finishes what this replica has given up before: it cannot vouch for it.
    fn answer_given_up(&mut self, tx: TxId) {
        if self.transactions.get(&tx).is_some_and(|transaction| !transaction.is_rolled_back()) {
            self.cast_against(tx, VoteKind::Expired);
        }
        self.settle(tx);
    }

    /// Constraints are checked.
    pub(super) fn completed(&mut self, tx: TxId, result: Result<Completion, SqlState>) {
        let master = self.is_master();
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if transaction.phase != Phase::Completing {
            return;
        }
        if master {
            let head = transaction.transcript.as_ref().map(|t| t.head()).unwrap_or_default();
            let number = transaction.executed() + 1;
            self.stream(tx, number, head, Word { check: true, ..Word::default() });
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        match result {
            // At a new master, too: it may have checked too early when it was none.
            Err(_) if !transaction.checks_late && transaction.may_redo() => {
                transaction.checks_late = true;
                self.undo(tx, None);
            }
            Err(sqlstate) => {
                self.cast_against(tx, VoteKind::Failed { sqlstate });
                self.give_up(tx);
            }
            Ok(completion) => {
                transaction.ran_ddl |= completion.ddl;
                transaction.names = completion.names;
                transaction.rows = completion.rows;
                let wrote = completion.wrote && !self.config.has(PlantedBug::WritesOverlooked);
                let defined = completion.ddl || completion.temporary;
                let votes = wrote || defined || transaction.must_vote;
                if votes && transaction.superseded && !transaction.modes.read_only {
                    self.give_up(tx);
                } else if votes && !transaction.modes.read_only {
                    transaction.phase = Phase::Queued { ddl: transaction.ran_ddl };
                    // Who shows it leaves that to the others.
                    if defined && !transaction.shows {
                        transaction.script = scripting::steps(transaction);
                    }
                    self.no_redo(tx);
                    self.permit_queue.push_back(tx);
                    self.grant_permits();
                } else {
                    // Rule 11: f + 1 equal transcripts end it, without an ordered outcome.
                    transaction.phase = Phase::GivenUp;
                    let decided = transaction.outcome.is_some();
                    let superseded = transaction.superseded;
                    self.reply_transcript(tx, true, None);
                    self.keep_words(tx, true);
                    self.backend(tx.session, Command::End { tx, commit: true });
                    if decided {
                        // A quorum found that it wrote.
                        self.settle(tx);
                    } else {
                        if !superseded {
                            self.note_ended(tx);
                        }
                        self.forget(tx);
                    }
                }
            }
        }
    }

    /// The anchor served this transaction. It may be needed for a redo; of a master, in a later term.
    pub(super) fn begun(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.imported = true;
        }
        self.snapshot_taken(tx);
    }

    /// The wave need not wait for the transaction's own snapshot any more.
    fn snapshot_taken(&mut self, tx: TxId) {
        if self.applying.snapshot_of == Some(tx) {
            self.applying.snapshot_of = None;
            self.pump();
        }
    }

    /// Rolls back what is not prepared, and never prepares it any more. What is prepared stays (rule 13).
    pub(super) fn give_up(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if !matches!(transaction.phase, Phase::Running | Phase::Completing | Phase::Queued { .. }) {
            return;
        }
        transaction.phase = Phase::GivenUp;
        if transaction.superseded {
            transaction.outcome = Some(Decided::Abort);
        }
        transaction.waiting.clear();
        transaction.issued.clear();
        transaction.kept.clear();
        transaction.redo_after = None;
        self.speculation.over(tx);
        let bytes = transaction.bytes;
        let (importing, started) =
            (transaction.begun && !transaction.imported, transaction.begun || transaction.leading_begun);
        self.release(tx, bytes);
        self.drop_copies(tx);
        self.bulk.over(tx);
        self.draining.remove(&tx);
        let keeps = self.transactions.get(&tx).is_some_and(Transaction::may_be_reexecuted);
        if !importing && !keeps {
            self.release_anchor_of(tx); // else its import is still under way
        }
        if started && self.sessions.get(&tx.session).is_some_and(|session| session.ready) {
            self.backend(tx.session, Command::End { tx, commit: false });
        }
        self.settle(tx);
        self.backend_free(tx.session);
    }

    /// The session's client starts another transaction: what it left is not waited for.
    pub(super) fn leave_behind(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        if transaction.slot.is_none() {
            self.drop_without_slot(tx);
        } else if transaction.finish.is_none() {
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
        }
    }

    /// Does what the ordered outcome asks for, as soon as the local state allows it, and drops what is over.
    pub(super) fn settle(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        match (&transaction.outcome, &transaction.phase) {
            // As long as PREPARE is under way there is nothing to roll back yet; decoding need not be waited for.
            (Some(Decided::Abort), Phase::Preparing { prepared: None, .. }) => {}
            (Some(Decided::Abort), phase) if phase.may_be_prepared() => {
                let (gid, database) = (transaction.gid(), transaction.database.clone());
                let settings = transaction.changed_settings;
                self.roll_back(tx, gid, database);
                self.forget(tx);
                if settings {
                    // SET survives PREPARE and ROLLBACK PREPARED, but not ROLLBACK: the backend can no longer be
                    // known to agree with the other replicas' (B10).
                    self.drop_session(
                        tx.session,
                        "57P01",
                        "session settings were lost with an aborted transaction",
                    );
                }
            }
            (Some(Decided::Abort), Phase::GivenUp) => self.forget(tx),
            (None, Phase::GivenUp) if transaction.is_rolled_back() => {
                // A Finish that says Rollback is never voted for: nothing depends on the ordered outcome here.
                self.note_ended(tx);
                self.forget(tx);
            }
            // A commit may be ready now, or a wall that waited for it.
            _ => self.pump(),
        }
    }

    /// Drops a transaction that is over.
    pub(super) fn forget(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let bytes = transaction.bytes;
        self.drop_copies(tx);
        self.bulk.over(tx);
        let Some(transaction) = self.transactions.remove(&tx) else { return };
        self.release(tx, bytes);
        if let Some(anchor) = transaction.anchor {
            self.release_anchor(anchor, User::Transaction(tx));
        }
        if transaction.phase.may_be_prepared() {
            self.by_gid.remove(&transaction.gid());
        }
        self.speculation.over(tx);
        self.entries_held = self.entries_held.saturating_sub(draws::weight_of(&transaction));
        self.draining.remove(&tx);
        self.ballots.remove(&tx);
        if let Some(session) = self.sessions.get_mut(&tx.session)
            && session.current == Some(tx)
        {
            session.current = None;
            session.counter = session.counter.max(tx.counter);
        }
        if transaction.has_permit {
            self.return_permit();
        }
        self.backend_free(tx.session);
        self.snapshot_taken(tx);
        self.pump();
    }

    /// A commit was applied: its permit is free, its client is told.
    pub(super) fn commit_applied(&mut self, tx: TxId, result: Result<(), String>) {
        let Some(position) = self.applying.landed(tx) else { return };
        if let Err(reason) = result {
            return self.diverge(position, tx, format!("COMMIT PREPARED failed: {reason}"));
        }
        self.reply(
            tx.session,
            ReplicaMessage::Outcome {
                tx,
                outcome: steeldb_wire::transaction::Outcome::Committed { position },
            },
        );
        self.forget(tx);
        self.advance_all();
    }
}
