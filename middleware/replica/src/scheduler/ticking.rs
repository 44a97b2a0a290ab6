//! Time-outs: T_vote, idle and vanished clients, DDL that waited long enough, what is tried again.

use super::Scheduler;
use super::operations::OPERATION_RUNS_MAX;
use super::planted::PlantedBug;
use super::transaction::{CopyState, Phase, Transaction};
use steeldb_types::{TxId, limits};
use steeldb_wire::transaction::{OperationKind, ReplicaMessage, VoteKind};

/// What a transaction took is allowed so many times over before its votes expire: replicas may share cores.
const TOOK_FACTOR: u64 = 4;

/// No more than this is added to T_vote, microseconds.
const TOOK_MAX_US: u64 = 600_000_000;

/// How much longer its replicas may take for every byte of operations and COPY data, or of changes where those are many, microseconds: 2 s per MB.
const BULK_US_PER_BYTE: u64 = 2;

/// For how many T_votes the snapshot is kept of what was given up here and has no outcome yet.
const SNAPSHOT_KEPT_FACTOR: u64 = 12;

/// What a tick found.
#[derive(Default)]
struct Due {
    expired: Vec<TxId>,
    gone: Vec<TxId>,
    without_slot: Vec<TxId>,
    stuck: Vec<TxId>,
    overtaken: Vec<TxId>,
    catch_up: Vec<TxId>,
    anchored: Vec<TxId>,
    unanswered: Vec<TxId>,
}

impl Scheduler {
    /// Time passed.
    pub(super) fn tick(&mut self) {
        self.stream_due = true;
        self.watch_master();
        self.last_words_overdue();
        self.resume_overdue();
        self.look_at_bulk();
        let mut due = Due::default();
        for transaction in self.transactions.values() {
            self.look_at(transaction, &mut due);
        }
        for tx in due.expired {
            self.note_unvoted(tx);
            self.cast_against(tx, VoteKind::Expired);
            if self.config.has(PlantedBug::RollsBackOnItsOwn) {
                self.roll_back_unasked(tx);
            }
        }
        for tx in due.gone {
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
        }
        for tx in due.without_slot {
            self.drop_without_slot(tx);
        }
        for tx in due.stuck {
            self.give_up(tx);
        }
        for tx in due.overtaken {
            self.give_up(tx);
            // What it SET holds elsewhere.
            self.drop_session(tx.session, "57P01", "a transaction could not be completed here");
        }
        for tx in due.anchored {
            self.release_anchor_of(tx);
        }
        for tx in due.unanswered {
            self.reply(tx.session, ReplicaMessage::NotReproduced { tx });
        }
        for tx in due.catch_up {
            self.catch_up_again(tx);
        }
        self.look_at_lost();
        self.look_at_temporaries();
        self.look_for_blockers();
        self.vote_on_ended();
        self.words.forget_before(self.now_us.saturating_sub(self.config.vote_timeout_us));
        let contested: Vec<TxId> = self.ballots.keys().copied().collect();
        for tx in contested {
            self.count(tx);
        }
        // Barriers, too: a liar's may be no commit's position.
        self.advance_all();
    }

    /// Ends a prepared transaction without its outcome: a planted bug.
    fn roll_back_unasked(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        if matches!(transaction.phase, Phase::Prepared { .. }) {
            let (gid, database) = (transaction.gid(), transaction.database.clone());
            self.set_phase(tx, Phase::GivenUp);
            self.roll_back(tx, gid, database);
        }
    }

    fn look_at(&self, transaction: &Transaction, due: &mut Due) {
        let (now, tx) = (self.now_us, transaction.tx);
        let idle_us = now.saturating_sub(transaction.active_at_us);
        if transaction.catch_up_again_us.is_some_and(|at| at <= now) {
            due.catch_up.push(tx);
        }
        if transaction.outcome.is_some() {
            return;
        }
        // B12: its snapshot is kept for a while, should a quorum commit it with DDL.
        let kept_us = SNAPSHOT_KEPT_FACTOR * self.config.vote_timeout_us;
        if transaction.phase == Phase::GivenUp && transaction.anchor.is_some() && idle_us > kept_us {
            due.anchored.push(tx);
        }
        if transaction.slot.is_none() {
            // Leading LOCK TABLEs hold locks at the master, and no order knows of them.
            if idle_us > self.config.idle_timeout_us {
                due.without_slot.push(tx);
            }
            return;
        }
        let here = self.sessions.get(&tx.session).is_some_and(|session| !session.closing);
        if transaction.finish.is_none() {
            // The master alone has given it up: nobody else answers its client, and nobody ends it.
            let alone = self.is_master() && transaction.phase == Phase::GivenUp;
            if alone && transaction.copied_bytes > limits::BULK_BYTES && idle_us > self.config.vote_timeout_us
            {
                due.unanswered.push(tx);
            }
            let limit = if here { self.config.idle_timeout_us } else { self.config.vote_timeout_us };
            let busy =
                here && self.is_busy(transaction) && idle_us <= limit.saturating_mul(OPERATION_RUNS_MAX);
            if transaction.against_vote.is_none() && idle_us > limit && !busy {
                due.gone.push(tx);
            }
            return;
        }
        let finished_us = now.saturating_sub(transaction.finished_at_us);
        if transaction.against_vote.is_none() {
            if finished_us > self.patience_us(transaction) + self.slowed_us(transaction) {
                if transaction.superseded { due.overtaken.push(tx) } else { due.expired.push(tx) }
            }
        } else if matches!(transaction.phase, Phase::Running | Phase::Completing | Phase::Queued { .. }) {
            // It will not be voted for here, and the order may never hear of it, if it is read-only elsewhere: its
            // backend and its snapshot are not kept for that.
            if !here || idle_us.min(finished_us) > self.config.idle_timeout_us {
                due.stuck.push(tx);
            }
        }
    }

    /// T_vote of a transaction: the longer the more it took and the more it sent.
    pub(super) fn patience_us(&self, transaction: &Transaction) -> u64 {
        let took = transaction.finished_at_us.saturating_sub(transaction.slotted_at_us);
        let bulk = (transaction.received_bytes as u64).max(transaction.decoded_bytes) * BULK_US_PER_BYTE;
        self.config.vote_timeout_us + took.saturating_mul(TOOK_FACTOR).min(TOOK_MAX_US) + bulk
    }

    /// Whether it is the cluster that its client waits for, rather than the other way round: a statement runs at the
    /// master. How long it may is bounded, for a master that never answers and for clients that take no results.
    fn is_busy(&self, transaction: &Transaction) -> bool {
        if self.is_master() {
            // COPY data that do not come are the client's silence.
            return transaction
                .issued
                .values()
                .next()
                .is_some_and(|issued| !matches!(issued.copy, CopyState::Open(_)));
        }
        let waits_for_copy = transaction.waiting.get(&transaction.received).is_some_and(|buffered| {
            matches!(buffered.operation.kind, OperationKind::CopyIn { .. })
                && !matches!(buffered.copy, CopyState::Ended { .. })
        });
        let master_gave_up = self
            .ballots
            .get(&transaction.tx)
            .is_some_and(|ballot| ballot.is_against(self.open.term().master));
        transaction.stream.len() < transaction.received as usize && !waits_for_copy && !master_gave_up
    }
}
