//! Finishing: from the client's Finish to what is durable here (rule 6), or to what is given up.

use super::event::{Completion, DecodedSet};
use super::transaction::{Decided, Phase};
use super::{Command, Effect, Scheduler};
use steeldb_types::{Digest, TxId};
use steeldb_wire::transaction::{Decision, ReplicaMessage, SignedFinish, SqlState, Vote, VoteKind};

impl Scheduler {
    /// The client has said that the transaction is complete. The first Finish counts.
    pub(super) fn finish(&mut self, finish: SignedFinish) {
        let tx = finish.finish.tx;
        let now = self.now_us;
        let Some(session) = self.sessions.get_mut(&tx.session) else { return };
        if session.current != Some(tx) {
            if tx.counter <= session.counter {
                return;
            }
            // A transaction of no operations: begun and finished.
            session.counter = tx.counter;
            let before = session.current.replace(tx);
            if let Some(before) = before {
                self.leave_behind(before);
            }
        }
        let transaction = self.transactions.entry(tx).or_insert_with(|| super::Transaction::new(tx, now));
        if transaction.finish.is_none() {
            transaction.finish = Some(finish);
            transaction.finished_at_us = now;
            if transaction.slot.is_none() && transaction.finish.as_ref().is_some_and(|f| f.finish.slot.0 == 0)
            {
                // Nothing but leading LOCK TABLE statements: it ends without an ordered outcome (rule 3).
                if transaction.leading_begun {
                    self.backend(tx.session, Command::End { tx, commit: false });
                }
                return self.forget(tx);
            }
            if transaction.phase == Phase::GivenUp {
                // It could not be done here; the client is told why by the votes.
                self.answer_given_up(tx);
            }
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
        if executed > finish.operations || head != finish.transcript || slot != finish.slot {
            let operation = transaction.first_difference().unwrap_or(finish.operations.min(executed));
            tracing::warn!(%tx, %slot, operation, "results differ from what the client was shown");
            self.reply_transcript(tx, false, Some(operation));
            if finish.decision == Decision::Commit {
                self.cast_against(tx, VoteKind::Mismatch { operation });
            }
            return self.give_up(tx);
        }
        match finish.decision {
            Decision::Rollback => {
                self.reply_transcript(tx, false, None);
                self.give_up(tx);
            }
            Decision::Commit if transaction.status == b'E' => {
                self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("25P02") });
                self.give_up(tx);
            }
            Decision::Commit => {
                // The constraints' check is the implicit last operation, with a barrier of its own (B5).
                if !master {
                    match transaction.stream.get(&(finish.operations + 1)) {
                        Some(entry) if entry.barrier <= applied => {}
                        _ => return,
                    }
                }
                transaction.phase = Phase::Completing;
                self.backend(tx.session, Command::Complete { tx });
            }
        }
    }

    fn reply_transcript(&mut self, tx: TxId, read_only: bool, mismatch: Option<u32>) {
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
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let rollback =
            transaction.finish.as_ref().is_some_and(|finish| finish.finish.decision == Decision::Rollback);
        if transaction.against_vote.is_none() && !rollback {
            self.cast_against(tx, VoteKind::Expired);
        }
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
            self.stream(tx, number, head, None);
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        match result {
            Err(sqlstate) => {
                self.cast_against(tx, VoteKind::Failed { sqlstate });
                self.give_up(tx);
            }
            Ok(completion) => {
                transaction.ran_ddl |= completion.ddl;
                let votes = completion.wrote || completion.ddl || transaction.must_vote;
                if votes && !transaction.modes.read_only {
                    transaction.phase = Phase::Queued { ddl: transaction.ran_ddl };
                    self.permit_queue.push_back(tx);
                    self.grant_permits();
                } else {
                    // Rule 11: f + 1 equal transcripts end it, without an ordered outcome.
                    transaction.phase = Phase::ReadOnlyDone;
                    self.reply_transcript(tx, true, None);
                    self.backend(tx.session, Command::End { tx, commit: true });
                }
            }
        }
    }

    /// Lets queued transactions prepare, as far as PostgreSQL has room (B6).
    pub(super) fn grant_permits(&mut self) {
        while self.permits_used < self.config.permits {
            let Some(tx) = self.permit_queue.pop_front() else { return };
            let Some(transaction) = self.transactions.get_mut(&tx) else { continue };
            let Phase::Queued { ddl } = transaction.phase else { continue };
            let (Some(slot), Some(transcript)) = (transaction.slot, transaction.transcript) else { continue };
            transaction.phase = Phase::Preparing { prepared: None };
            let command = Command::Prepare {
                tx,
                slot,
                operations: transcript.operations(),
                transcript: transcript.head(),
                gid: transaction.gid(),
                ddl,
            };
            self.permits_used += 1;
            self.backend(tx.session, command);
        }
    }

    fn return_permit(&mut self) {
        self.permits_used = self.permits_used.saturating_sub(1);
        self.grant_permits();
    }

    /// PREPARE TRANSACTION returned.
    pub(super) fn prepared(&mut self, tx: TxId, result: Result<Option<Digest>, SqlState>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Phase::Preparing { prepared } = &mut transaction.phase else { return };
        match result {
            Ok(extra) => {
                *prepared = Some(extra);
                self.try_vote_prepared(tx);
            }
            Err(sqlstate) => {
                transaction.phase = Phase::GivenUp;
                self.return_permit();
                self.cast_against(tx, VoteKind::Failed { sqlstate });
                self.settle(tx);
            }
        }
    }

    /// Decoding shows a prepared transaction's write set.
    pub(super) fn decoded(&mut self, gid: &str, write_set: Result<DecodedSet, String>) {
        let found = self.transactions.values().find(|transaction| {
            matches!(transaction.phase, Phase::Preparing { .. }) && transaction.gid() == gid
        });
        let Some(tx) = found.map(|transaction| transaction.tx) else { return };
        match write_set {
            Ok(set) => {
                self.applying.decoded.insert(tx, set);
                self.try_vote_prepared(tx);
            }
            Err(reason) => {
                tracing::warn!(%tx, reason, "the write set cannot be digested");
                self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("0A000") });
            }
        }
    }

    /// Votes once both PREPARE has returned and w is known (A2: a vote is sent after w is known).
    fn try_vote_prepared(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Phase::Preparing { prepared: Some(extra) } = transaction.phase else { return };
        let Some(set) = self.applying.decoded.remove(&tx) else { return };
        let write_set = match extra {
            Some(extra) => Digest::of("steeldb/write-set/ddl", &[&set.digest.0, &extra.0]),
            None => set.digest,
        };
        let wall = set.wall || transaction.ran_ddl;
        transaction.phase = Phase::Prepared { write_set, wall };
        let (Some(slot), Some(transcript)) = (transaction.slot, transaction.transcript) else { return };
        let vote = Vote {
            tx,
            slot,
            kind: VoteKind::Prepared {
                operations: transcript.operations(),
                transcript: transcript.head(),
                write_set,
                wall,
            },
        };
        if transaction.outcome.is_none() && self.diverged.is_none() && transaction.against_vote.is_none() {
            transaction.prepared_vote = Some(vote.clone());
            let finish = transaction.finish.clone();
            self.cast.push((vote, finish));
        }
        self.settle(tx);
    }

    /// The anchor served this transaction.
    pub(super) fn begun(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && let Some(anchor) = transaction.anchor.take()
        {
            self.release_anchor(anchor);
        }
    }

    /// Rolls back what is not prepared, and never prepares it any more. What is prepared stays (rule 13).
    pub(super) fn give_up(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if !matches!(transaction.phase, Phase::Running | Phase::Completing | Phase::Queued { .. }) {
            return;
        }
        transaction.phase = Phase::GivenUp;
        transaction.waiting.clear();
        transaction.issued.clear();
        let bytes = transaction.bytes;
        let started = transaction.begun || transaction.leading_begun;
        let anchor = if transaction.begun { None } else { transaction.anchor.take() };
        self.release(tx, bytes);
        if let Some(anchor) = anchor {
            self.release_anchor(anchor);
        }
        if started && self.sessions.get(&tx.session).is_some_and(|session| session.ready) {
            self.backend(tx.session, Command::End { tx, commit: false });
        }
        self.settle(tx);
    }

    /// The backend's block is over.
    pub(super) fn ended(&mut self, tx: TxId) {
        self.settle(tx);
    }

    /// The session's client starts another transaction: what it left is not waited for.
    pub(super) fn leave_behind(&mut self, tx: TxId) {
        if self.transactions.get(&tx).is_some_and(|transaction| transaction.finish.is_none()) {
            if self.transactions.get(&tx).is_some_and(|transaction| transaction.slot.is_some()) {
                self.cast_against(tx, VoteKind::Gone);
            }
            self.give_up(tx);
        }
    }

    /// Does what the ordered outcome asks for, as soon as the local state allows it, and drops what is over.
    pub(super) fn settle(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        match (&transaction.outcome, &transaction.phase) {
            (Some(Decided::Abort), Phase::Prepared { .. }) => {
                let (gid, database) = (transaction.gid(), transaction.database.clone());
                let settings = transaction.changed_settings;
                self.push(Effect::RollbackPrepared { gid, database });
                self.return_permit();
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
            (None, Phase::GivenUp) => {
                let rolled_back = transaction
                    .finish
                    .as_ref()
                    .is_some_and(|finish| finish.finish.decision == Decision::Rollback);
                if rolled_back {
                    // A Finish that says Rollback is never voted for: nothing depends on the ordered outcome here.
                    self.forget(tx);
                }
            }
            (_, Phase::ReadOnlyDone) => self.forget(tx),
            (Some(Decided::Commit { .. }), _) => self.pump(),
            _ => {}
        }
    }

    /// Drops a transaction that is over.
    pub(super) fn forget(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.remove(&tx) else { return };
        self.release(tx, transaction.bytes);
        if let Some(anchor) = transaction.anchor {
            self.release_anchor(anchor);
        }
        self.applying.decoded.remove(&tx);
        self.ballots.remove(&tx);
        if let Some(session) = self.sessions.get_mut(&tx.session)
            && session.current == Some(tx)
        {
            session.current = None;
            session.counter = session.counter.max(tx.counter);
        }
        self.end_session_if_idle(transaction.session());
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
        self.return_permit();
        self.forget(tx);
        self.advance_all();
    }

    /// Barriers may have been reached.
    pub(super) fn advance_all(&mut self) {
        let waiting: Vec<TxId> = self
            .transactions
            .values()
            .filter(|transaction| transaction.phase == Phase::Running)
            .filter(|transaction| transaction.finish.is_some() || transaction.drain_until_us.is_some())
            .map(|transaction| transaction.tx)
            .collect();
        for tx in waiting {
            self.advance(tx);
        }
        self.pump();
    }
}
