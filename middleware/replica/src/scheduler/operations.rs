//! Operations: what may run when (rules 4 and 5), and what their results add to the transcript.

use super::event::TagKind;
use super::planted::PlantedBug;
use super::transaction::{Buffered, CopyState, Found, Issued, Phase, Transaction};
use super::{Command, Effect, Scheduler, draws};
use crate::guard::Class;
use std::sync::Arc;
use steeldb_types::{Digest, Execution, TxId, limits};
use steeldb_wire::transaction::{
    CopyDigest, Draws, Executed, Operation, OperationKind, ReplicaMessage, SqlState, Transcript, VoteKind,
};

/// What the backend reported of an operation.
#[derive(Debug)]
pub(super) struct OperationResult {
    pub result: Digest,
    pub sqlstate: Option<SqlState>,
    pub status: u8,
    pub tag: TagKind,
    pub copy_started: bool,
    pub draws: Draws,
}

/// What the master says of an operation besides its transcript.
#[derive(Clone, Default)]
pub(super) struct Word {
    /// An error that came of timing.
    pub adopted: Option<SqlState>,
    /// What was asked.
    pub operation: Digest,
    /// Its SQLSTATE if it failed.
    pub failed: Option<SqlState>,
    /// It asked for COPY data.
    pub copied: bool,
    /// It is the constraints' check.
    pub check: bool,
    /// What it drew from sequences.
    pub draws: Draws,
}

/// Stream entries held at once, past which more are dropped: two for each operation of the longest transaction.
pub(super) const ENTRIES_HELD_MAX: usize = 2 * limits::OPERATIONS_MAX as usize;

/// How many times the idle time-out a statement may run at the master before the others call its client gone. Until the
/// master reports that it runs, that is how a statement is told from silence.
pub(super) const OPERATION_RUNS_MAX: u64 = 12;

/// Errors that come of timing (B8), or of a replica's own disk: one that is full is so for the master alone.
const TIMING_ERRORS: [&str; 5] = ["40P01", "55P03", "57014", "53100", "58030"];

impl Scheduler {
    /// An operation arrives from its client.
    pub(super) fn operation(&mut self, operation: Operation) {
        let tx = operation.tx;
        if !self.enter(tx) {
            return; // of a transaction that is over
        }
        let Some(session) = self.sessions.get(&tx.session) else { return };
        let Some(statement) = session.statements.get(&operation.statement) else {
            return self.drop_session(
                tx.session,
                "26000",
                "an operation names a statement that is not defined",
            );
        };
        let (statement, class) = (Arc::clone(statement), statement.class);
        if operation.leading && class != Class::Lock {
            return self.drop_session(tx.session, "08P01", "only LOCK TABLE may come before the snapshot");
        }
        let (now, bytes, number) = (self.now_us, operation.size(), operation.number);
        let transaction = self.transaction(tx);
        // The Finish may have come before, with the votes of replicas that the client reaches sooner.
        if transaction.finish.as_ref().is_some_and(|signed| number > signed.finish.operations) {
            return; // the client has said that those before are all
        }
        if number != transaction.received + 1 || number > limits::OPERATIONS_MAX {
            return self.drop_session(tx.session, "08P01", "operations out of sequence");
        }
        transaction.received = number;
        transaction.active_at_us = now;
        transaction.must_vote |= operation.must_vote;
        transaction.verify |= operation.verify;
        if transaction.phase != Phase::Running {
            return; // given up here: not kept
        }
        let buffered = Buffered { operation, statement, class, copy: CopyState::None, bytes: 0 };
        transaction.waiting.insert(number, buffered);
        if self.account(tx, number, bytes) && !self.ends_behind_wall(tx, number) {
            self.place(tx, number);
            self.advance(tx);
        }
    }

    /// Entries of the master's stream arrive.
    pub(super) fn stream_entries(&mut self, entries: Vec<Executed>) {
        let epoch = self.open.term().epoch;
        for mut entry in entries.into_iter().filter(|entry| entry.draws.is_sound()) {
            let tx = entry.tx;
            entry.arrival = self.speculation.arrives();
            entry.epoch = epoch;
            if self.transactions.contains_key(&tx) {
                self.keep_entry(entry);
                self.advance(tx);
                continue;
            }
            // It may come before the client's own message and before the BEGIN, or after the transaction is over.
            let over = self.open.slot(tx).is_some()
                || self.sessions.get(&tx.session).is_some_and(|session| tx.counter <= session.counter);
            if !over {
                self.early_stream.keep(entry);
            }
        }
    }

    /// The transaction, known from now on.
    pub(super) fn transaction(&mut self, tx: TxId) -> &mut Transaction {
        let now = self.now_us;
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.transactions.entry(tx) {
            vacant.insert(Transaction::new(tx, now));
            for entry in self.early_stream.take(tx) {
                self.keep_entry(entry);
            }
        }
        self.transactions.entry(tx).or_insert_with(|| Transaction::new(tx, now))
    }

    fn keep_entry(&mut self, entry: Executed) {
        let (now, held) = (self.now_us, self.entries_held);
        let Some(transaction) = self.transactions.get_mut(&entry.tx) else { return };
        // The constraints' check has an entry of its own, behind the last operation's.
        if entry.number == 0 || entry.number > limits::OPERATIONS_MAX + 1 || held >= ENTRIES_HELD_MAX {
            return;
        }
        let (tx, number, epoch, head) = (entry.tx, entry.number, entry.epoch, entry.transcript);
        match transaction.stream.get(&number) {
            Some(before) if before.epoch >= epoch => return,
            // An earlier master's, of something that was executed here by then.
            Some(before) => self.entries_held = self.entries_held.saturating_sub(draws::weight(before)),
            None => {}
        }
        self.entries_held += draws::weight(&entry);
        transaction.stream.insert(number, entry);
        transaction.active_at_us = now;
        let here = (number as usize).checked_sub(1).and_then(|index| transaction.heads.get(index));
        let otherwise = here.is_some_and(|here| *here != head)
            && transaction.phase == Phase::Running
            && transaction.may_redo()
            && transaction.reconciled != Some(epoch);
        if otherwise {
            // Executed here behind an earlier master, and it went another way at this one.
            transaction.reconciled = Some(epoch);
            return self.undo(tx, None);
        }
        self.place(tx, number);
    }

    /// Sends to the backend whatever may run now.
    pub(super) fn advance(&mut self, tx: TxId) {
        self.begin_if_possible(tx);
        while self.issue_next(tx) {}
        self.check_finish(tx);
    }

    /// Starts the block on its snapshot once slot, anchor and backend are there.
    fn begin_if_possible(&mut self, tx: TxId) {
        let busy = self.is_backend_busy(tx);
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(session) = self.sessions.get_mut(&tx.session) else { return };
        let undone = transaction.undoing || transaction.redo_after.is_some();
        if transaction.begun || undone || transaction.phase != Phase::Running || !session.ready || busy {
            return;
        }
        let Some(slot) = transaction.slot else { return };
        let snapshot =
            transaction.anchor.and_then(|anchor| self.anchors.snapshot(anchor)).map(str::to_string);
        if snapshot.is_none() && !transaction.snapshot_here {
            return;
        }
        if transaction.preamble.is_some_and(|ordered| ordered != session.preamble) {
            // G10: a client that starts its session otherwise here would make an honest replica look wrong.
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
            return self.drop_session(tx.session, "08P01", "a BEGIN names another start of its session");
        }
        transaction.begun = true;
        let mut transcript = Transcript::begin(tx, session.preamble, transaction.modes);
        let leading = std::mem::take(&mut transaction.leading_results);
        for (operation, result) in leading {
            transaction.heads.push(transcript.extend(None, operation, result));
        }
        transaction.transcript = Some(transcript);
        let (modes, timestamp) = (transaction.modes, transaction.timestamp);
        let early: Vec<(u32, Digest)> = (1..).zip(transaction.heads.iter().copied()).collect();
        let seed = self.seed(tx, slot);
        let has_temporary = self.open.temporaries.has(tx.session);
        let command = match snapshot {
            Some(snapshot) => Command::Begin { tx, modes, snapshot, timestamp, seed, has_temporary },
            None => {
                // The wave waits for this snapshot as it does for an anchor's.
                self.applying.snapshot_of = Some(tx);
                Command::BeginHere { tx, modes, timestamp, seed, has_temporary }
            }
        };
        self.backend(tx.session, command);
        if self.is_master() {
            self.reply(tx.session, ReplicaMessage::Begun { tx, slot, timestamp });
            for (number, transcript) in early {
                self.stream(tx, number, transcript, Word::default());
            }
        }
    }

    /// Whether an earlier transaction of the session is still executing on its backend.
    fn is_backend_busy(&self, tx: TxId) -> bool {
        let first = TxId { session: tx.session, counter: 0 };
        self.transactions.range(first..tx).any(|(_, earlier)| earlier.phase.needs_backend())
    }

    /// HMAC(cluster key, slot, tx): known to the replicas, not to other clients (A14).
    pub(super) fn seed(&self, tx: TxId, slot: steeldb_types::Slot) -> [u8; 32] {
        use hmac::Mac as _;
        let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.config.cluster_key) else {
            return [0; 32]; // HMAC takes keys of any length
        };
        mac.update(b"steeldb/seed");
        mac.update(&slot.0.to_le_bytes());
        mac.update(&steeldb_wire::codec::encode(&tx));
        mac.finalize().into_bytes().into()
    }

    /// Sends the next operation to the backend if rule 5 (or, at the master, its arrival) allows it.
    fn issue_next(&mut self, tx: TxId) -> bool {
        let (master, now, present) = (self.is_master(), self.now_us, self.present());
        let applied = self.applying.applied_upto();
        let ready = self.sessions.get(&tx.session).is_some_and(|session| session.ready);
        let Some(transaction) = self.transactions.get(&tx) else { return false };
        if transaction.phase != Phase::Running || !ready || transaction.outcome_is_abort() {
            return false;
        }
        let number = transaction.sent + 1;
        let Some(buffered) = transaction.waiting.get(&number) else { return false };
        if master
            && (self.skipping.contains(&transaction.database) && number > transaction.shown_upto
                || self.awaits_resume(tx)
                || transaction.owes_shown(number)
                || self.awaits_word(transaction, number)
                || self.lets_shown_go_first(tx, number))
        {
            return false;
        }
        let ddl = buffered.class == Class::Ddl;
        let leading_before_slot = master && buffered.operation.leading && !transaction.begun;
        if !transaction.begun && !leading_before_slot || leading_before_slot && self.is_backend_busy(tx) {
            return false;
        }
        let mut adopted = None;
        if !master {
            // Once the master's entry is here and its barrier is reached; before its client has finished, by speculation.
            let Some(entry) = transaction.stream.get(&number) else { return false };
            let is_copy = matches!(buffered.operation.kind, OperationKind::CopyIn { .. });
            let copy_incomplete =
                is_copy && entry.copied && !matches!(buffered.copy, CopyState::Ended { .. });
            if copy_incomplete
                || transaction.finish.is_none() && !self.speculates(transaction, buffered.class)
            {
                return false;
            }
            if entry.barrier > applied && !self.config.has(PlantedBug::BarrierIgnored) {
                let barrier = entry.barrier;
                self.barriers.insert((barrier, tx));
                return false;
            }
            if self.speculation.waits_for_turn(tx, number, present) {
                return false;
            }
            // Of timing alone: any other error a lying master could have every replica vouch for.
            adopted = entry.adopted.filter(is_of_timing);
        } else if number <= transaction.shown_upto {
            // Shown by an earlier master, of timing.
            adopted = transaction.stream.get(&number).and_then(|entry| entry.adopted).filter(is_of_timing);
        } else if ddl {
            // Rule 9: DDL starts once others have ended, or after a bounded wait; and not more often than a role may.
            let until = transaction.drain_until_us.unwrap_or(now + self.config.drain_timeout_us);
            if now < self.wall_free_at(tx) || now < until && self.others_run(tx) {
                self.draining.insert(tx);
                if let Some(transaction) = self.transactions.get_mut(&tx) {
                    transaction.drain_until_us = Some(until);
                }
                return false;
            }
        }
        self.draining.remove(&tx);
        if self.ends_behind_wall(tx, number) {
            return false; // it was executed before, and undone
        }
        self.issue_operation(tx, leading_before_slot, adopted);
        true
    }

    fn issue_operation(&mut self, tx: TxId, leading_before_slot: bool, adopted: Option<SqlState>) {
        let master = self.is_master();
        if master
            && self.transactions.get(&tx).is_some_and(|transaction| {
                let next = transaction.waiting.get(&(transaction.sent + 1));
                !transaction.ran_ddl && next.is_some_and(|buffered| buffered.class == Class::Ddl)
            })
        {
            self.spend_wall(tx);
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let number = transaction.sent + 1;
        let Some(buffered) = transaction.waiting.remove(&number) else { return };
        transaction.drain_until_us = None;
        transaction.ran_ddl |= buffered.class == Class::Ddl;
        transaction.must_vote |= buffered.class == Class::Lock;
        transaction.sent = number;
        let begin_leading = leading_before_slot && !transaction.leading_begun;
        transaction.leading_begun |= leading_before_slot;
        let modes = transaction.modes;
        // What an earlier master showed is done again with what it drew.
        let again = number <= transaction.shown_upto && transaction.stream.contains_key(&number);
        let show = master && number > transaction.shown_upto;
        if show && let Some(void) = transaction.stream.remove(&number) {
            // An earlier master's word on what is done anew says nothing about this.
            self.entries_held = self.entries_held.saturating_sub(draws::weight(&void));
        }
        let Buffered { operation, statement, class, mut copy, bytes } = buffered;
        if matches!(operation.kind, OperationKind::CopyIn { .. }) && matches!(copy, CopyState::None) && master
        {
            copy = CopyState::Open(CopyDigest::default());
        }
        let is_copy = matches!(operation.kind, OperationKind::CopyIn { .. });
        // The master never asked for data: nor will this backend, or it fails.
        let without_data = is_copy && !master && matches!(copy, CopyState::None);
        transaction.has_copies |= is_copy;
        let command = match adopted {
            Some(sqlstate) => Command::Adopt { tx, number, sqlstate },
            None => Command::Execute {
                tx,
                number,
                statement: operation.statement,
                row_order: operation.row_order,
                kind: operation.kind.clone(),
                show,
                draws: (!master || again).then(|| draws::hand_over(transaction, number)),
            },
        };
        // It may be executed twice, or must be told to those who missed it; at the master in a later term alone, and without the
        // COPY data.
        let keeps = !master || transaction.anchor.is_some() && !is_copy;
        transaction.shows |= show;
        transaction.issued.insert(
            number,
            Issued { operation, statement, class, copy, keeps, bytes, shown: show, early: None },
        );
        if !keeps {
            self.release(tx, bytes);
        }
        self.speculation.started(tx, number);
        if begin_leading {
            self.backend(tx.session, Command::BeginLeading { tx, modes });
        }
        if without_data && adopted.is_none() {
            self.end_copy(tx, number, Some("no data".to_string()));
        }
        self.backend(tx.session, command);
    }

    /// Whether other transactions run operations in the same database of this replica.
    fn others_run(&self, tx: TxId) -> bool {
        let database = |of: TxId| self.sessions.get(&of.session).map(|session| session.database.as_str());
        let here = database(tx);
        self.transactions.values().any(|other| {
            if let (Some(here), Some(there)) = (here, database(other.tx))
                && here != there
            {
                return false;
            }
            let runs = (other.begun || other.leading_begun)
                && matches!(other.phase, Phase::Running | Phase::Completing)
                && !other.ran_ddl
                && other.drain_until_us.is_none();
            // Given up here, it holds no locks, and others may commit it yet: DDL would change what its rows go to.
            let may_commit = other.phase == Phase::GivenUp
                && other.outcome.is_none()
                && self.open.slot(other.tx).is_some();
            other.tx != tx && (runs || may_commit)
        })
    }

    /// An operation's result.
    pub(super) fn executed(&mut self, tx: TxId, number: u32, result: OperationResult) {
        let master = self.is_master();
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(mut issued) = transaction.issued.remove(&number) else { return };
        self.speculation.ran(tx, number);
        if result.tag == TagKind::BlockEnded {
            // A4: whatever it was, it ended the block. Nothing of this session can be vouched for.
            self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("2D000") });
            self.give_up(tx);
            return self.drop_session(tx.session, "2D000", "a statement ended the transaction block");
        }
        if result.copy_started && master && matches!(issued.copy, CopyState::Open(_)) {
            // It failed early; the digest needs all that the client sends until it notices.
            issued.early = Some(result);
            transaction.issued.insert(number, issued);
            self.push(Effect::DropCopies { tx, number: Some(number) });
            return;
        }
        let silent = !issued.shown;
        let copied = matches!(issued.operation.kind, OperationKind::CopyIn { .. });
        if copied && !issued.keeps {
            self.push(Effect::DropCopies { tx, number: Some(number) });
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let copy = match &issued.copy {
            CopyState::Ended { digest, .. } if result.copy_started || !master => Some(*digest),
            _ => None,
        };
        tracing::debug!(%tx, number, sqlstate = ?result.sqlstate, "executed");
        transaction.status = result.status;
        transaction.active_at_us = self.now_us;
        match result.tag {
            TagKind::Settings => transaction.changed_settings = true,
            // Of its session's own temporary relations the completion tells.
            TagKind::Ddl => transaction.ran_ddl |= issued.class != Class::Temporary,
            TagKind::Lock => transaction.must_vote = true,
            TagKind::Plain | TagKind::BlockEnded => {}
        }
        transaction.must_vote |= master && !result.draws.is_empty();
        let digest = issued.operation.digest(issued.statement.digest, copy);
        transaction.found.insert(
            number,
            Found { operation: digest, failed: result.sqlstate, copied: result.copy_started },
        );
        let (leading, verify) = (issued.operation.leading, issued.operation.verify);
        let slot = transaction.slot.filter(|_| !leading);
        let head = match &mut transaction.transcript {
            Some(transcript) => {
                let head = transcript.extend(slot, digest, result.result);
                transaction.heads.push(head);
                transaction.results.push(result.result);
                head
            }
            None => {
                transaction.leading_results.push((digest, result.result));
                Digest::default()
            }
        };
        self.keep(tx, number, issued);
        if !master && self.differs_by_timing(tx, number, &head, result.sqlstate) {
            // B7, B8: what stood in its way here may be gone the next time.
            return self.undo(tx, None);
        }
        let known = self.transactions.get(&tx).is_some_and(|transaction| transaction.transcript.is_some());
        let mut answers = false;
        let drew = !result.draws.is_empty();
        if master {
            let adopted = result.sqlstate.filter(is_of_timing);
            let transaction = self.transactions.get(&tx);
            // Sent to the backend when this replica was not the master yet, or shown by an earlier one.
            let again = silent;
            let before =
                transaction.and_then(|transaction| transaction.stream.get(&number)).filter(|_| again);
            let draws = before.map_or(result.draws, |before| before.draws.clone());
            let otherwise = again
                && transaction
                    .and_then(|transaction| transaction.shown)
                    .is_some_and(|shown| shown.operations == number && shown.transcript != head);
            if otherwise {
                return self.not_reproduced(tx);
            }
            if !draws.is_empty()
                && let Some(transaction) = self.transactions.get_mut(&tx)
            {
                transaction.drawn.insert(number, draws.clone());
            }
            // Until its client has said how far it was shown, nobody knows whether it stays.
            if known && !(again && self.awaits_resume(tx)) {
                let failed = result.sqlstate;
                let word = Word {
                    operation: digest,
                    adopted,
                    failed,
                    copied: result.copy_started,
                    check: false,
                    draws,
                };
                self.stream(tx, number, head, word);
            }
            if again {
                self.shown_again();
            }
            // Shown by an earlier master: its client waits for no more than others' word.
            answers = !again;
        }
        if answers || verify && self.diverged.is_none() {
            let status = result.status;
            let message = ReplicaMessage::Executed { tx, number, transcript: head, status, drew };
            self.reply(tx.session, message);
        }
        self.advance(tx);
    }

    /// Adds an entry to the master's stream. The barrier is the highest position issued by now: the result was read
    /// before, so it is at least what rule 4 asks for.
    pub(super) fn stream(&mut self, tx: TxId, number: u32, transcript: Digest, word: Word) {
        let barrier = self.applying.issued_upto();
        let transaction = self.transactions.get(&tx);
        let finished = transaction.is_some_and(|transaction| transaction.finish.is_some());
        let verified = transaction.is_some_and(|transaction| transaction.verify);
        self.stream_due |= verified || finished && self.config.execution == Execution::Deferred;
        self.streaming_since_us.get_or_insert(self.now_us);
        let Word { operation, adopted, failed, copied, check, draws } = word;
        let restored = self.sessions.get(&tx.session).is_some_and(|session| session.restored);
        self.streamed.push(Executed {
            tx,
            number,
            operation,
            transcript,
            barrier,
            adopted,
            failed,
            restored,
            copied,
            check,
            draws,
            arrival: 0,
            epoch: 0,
        });
    }
}

/// Whether an error comes of timing: adopted from the master, never re-executed (B8).
pub(super) fn is_of_timing(sqlstate: &SqlState) -> bool {
    TIMING_ERRORS.contains(&sqlstate.as_str())
}
