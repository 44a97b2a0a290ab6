//! Delivery: what the order says, in its order (rules 3, 7, 9).

use super::applying::Item;
use super::transaction::{Decided, Phase, Transaction};
use super::{Scheduler, abort_reason};
use std::collections::BTreeMap;
use steeldb_types::{Position, SessionKey, Slot, Timestamp, TxId};
use steeldb_wire::transaction::{AbortReason, CommitCertificate, Ordered, Outcome, ReplicaMessage, VoteKind};

/// Transactions open at once, in the order, past which the oldest is dropped: as far as anyone can tell its client is
/// long gone, and it was read-only or it would have an outcome. The same on all replicas, since it depends on the order
/// alone.
const OPEN_MAX: usize = 65_536;

/// Transactions whose BEGIN is delivered and whose outcome is not. A function of the order.
#[derive(Default)]
pub struct OpenTransactions {
    slots: BTreeMap<TxId, Slot>,
    by_slot: BTreeMap<Slot, TxId>,
    /// The open transaction of each session: a session has one at a time.
    sessions: BTreeMap<SessionKey, TxId>,
    delivered: Position,
}

impl OpenTransactions {
    /// The slot of an open transaction.
    pub fn slot(&self, tx: TxId) -> Option<Slot> {
        self.slots.get(&tx).copied()
    }

    /// Up to where the order is delivered.
    pub fn delivered(&self) -> Position {
        self.delivered
    }

    /// The open transactions with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (TxId, Slot)> {
        self.slots.iter().map(|(tx, slot)| (*tx, *slot))
    }

    /// Opens a transaction; gives those that end by it: the session's previous one, and the oldest when there are too
    /// many. A counter that was used before opens nothing (A3: a tx id is used once).
    fn open(&mut self, tx: TxId, slot: Slot) -> Option<Vec<TxId>> {
        let mut ended = Vec::new();
        if let Some(before) = self.sessions.get(&tx.session).copied() {
            if before.counter >= tx.counter {
                return None;
            }
            self.close(before);
            ended.push(before);
        }
        self.slots.insert(tx, slot);
        self.by_slot.insert(slot, tx);
        self.sessions.insert(tx.session, tx);
        if self.slots.len() > OPEN_MAX
            && let Some((_, oldest)) = self.by_slot.pop_first()
        {
            self.close(oldest);
            ended.push(oldest);
        }
        Some(ended)
    }

    fn close(&mut self, tx: TxId) -> Option<Slot> {
        let slot = self.slots.remove(&tx)?;
        self.by_slot.remove(&slot);
        self.sessions.remove(&tx.session);
        Some(slot)
    }

    /// Follows the order without acting on it: what a restarted replica does with its own log. Gives the commits.
    pub fn replay(&mut self, position: Position, payload: &Ordered) -> Option<CommitCertificate> {
        self.delivered = position;
        match payload {
            Ordered::Begin { tx, .. } => {
                self.open(*tx, position);
                None
            }
            Ordered::Rollback { tx, slot } => {
                if self.slot(*tx) == Some(*slot) {
                    self.close(*tx);
                }
                None
            }
            Ordered::Abort(certificate) => {
                if self.slot(certificate.tx) == Some(certificate.slot) {
                    self.close(certificate.tx);
                }
                None
            }
            Ordered::Commit(certificate) => {
                if self.slot(certificate.tx) != Some(certificate.slot) {
                    return None;
                }
                self.close(certificate.tx);
                Some(certificate.clone())
            }
            Ordered::Maintain { .. } | Ordered::Verify { .. } => None,
        }
    }
}

impl Scheduler {
    /// Takes up the order where a restarted replica's own log ends. `in_doubt` are prepared here and have no outcome:
    /// they wait for one, and T_vote runs (rule 13).
    /// `missing` are decided commits that are not here, in their order: they are caught up with one by one.
    pub fn restore(
        &mut self,
        open: OpenTransactions,
        in_doubt: Vec<(TxId, Slot, String)>,
        missing: Vec<(Position, String, CommitCertificate)>,
    ) {
        self.applying.restored(open.delivered());
        self.open = open;
        for (tx, slot, database) in in_doubt {
            let mut transaction = Transaction::new(tx, self.now_us);
            transaction.slot = Some(slot);
            transaction.database = database;
            // Its effects are durable but its vote is not remembered: it is settled by the order, and if no outcome
            // comes in time this replica says Expired, which any replica may say.
            transaction.phase = Phase::Prepared { write_set: steeldb_types::Digest::default(), wall: false };
            self.permits_used += 1;
            self.transactions.insert(tx, transaction);
            self.cast_against(tx, VoteKind::Expired);
        }
        for (position, database, certificate) in missing {
            let tx = certificate.tx;
            let mut transaction = Transaction::new(tx, self.now_us);
            transaction.slot = Some(certificate.slot);
            transaction.database = database;
            transaction.phase = Phase::GivenUp;
            transaction.outcome = Some(Decided::Commit { certificate });
            self.transactions.insert(tx, transaction);
            // Alone: what lay between them in the order is not known any more.
            self.applying.enqueue(Item::Commit { position, tx, wall: true });
        }
    }

    pub(super) fn delivered(
        &mut self,
        position: Position,
        timestamp: Timestamp,
        late: bool,
        request: Option<(SessionKey, u64)>,
        payload: Ordered,
    ) {
        self.open.delivered = position;
        self.applying.delivered(position);
        match payload {
            Ordered::Begin { tx, database, modes, .. } => {
                self.begin_delivered(tx, position, timestamp, database, modes);
                if late && !self.sessions.contains_key(&tx.session) {
                    self.give_up(tx);
                }
            }
            Ordered::Rollback { tx, slot } => {
                if self.open.slot(tx) == Some(slot) {
                    self.abort_delivered(tx, AbortReason::Client);
                }
            }
            Ordered::Abort(certificate) => {
                if self.open.slot(certificate.tx) == Some(certificate.slot) {
                    self.abort_delivered(certificate.tx, abort_reason(&certificate.votes));
                }
            }
            Ordered::Commit(certificate) => {
                if self.open.slot(certificate.tx) == Some(certificate.slot) {
                    self.commit_delivered(position, certificate, late);
                }
            }
            Ordered::Maintain { database, role, sql, .. } => {
                if let Some((session, sequence)) = request {
                    self.applying.enqueue(Item::Maintain {
                        position,
                        session,
                        sequence,
                        database,
                        role,
                        sql,
                    });
                }
            }
            Ordered::Verify { database, .. } => {
                if let Some((session, sequence)) = request {
                    self.applying.enqueue(Item::Verify { position, session, sequence, database });
                }
            }
        }
        self.pump();
    }

    fn begin_delivered(
        &mut self,
        tx: TxId,
        slot: Slot,
        timestamp: Timestamp,
        database: String,
        modes: steeldb_wire::transaction::Modes,
    ) {
        let Some(ended) = self.open.open(tx, slot) else { return };
        for before in ended {
            self.abort_locally(before, AbortReason::Client);
        }
        let now = self.now_us;
        let gone = self.sessions.get(&tx.session).is_some_and(|session| {
            session.closing || (tx.counter <= session.counter && session.current != Some(tx))
        });
        let transaction = self.transactions.entry(tx).or_insert_with(|| Transaction::new(tx, now));
        transaction.slot = Some(slot);
        transaction.timestamp = timestamp;
        transaction.modes = modes;
        transaction.database = database.clone();
        transaction.active_at_us = now;
        transaction.slotted_at_us = now;
        if let Some(session) = self.sessions.get(&tx.session)
            && session.database != database
        {
            return self.drop_session(tx.session, "08P01", "a BEGIN names another database than its session");
        }
        if gone {
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
        } else {
            if let Some(session) = self.sessions.get_mut(&tx.session)
                && session.current != Some(tx)
            {
                session.counter = tx.counter;
                let before = session.current.replace(tx);
                if let Some(before) = before {
                    self.leave_behind(before);
                }
            }
            self.applying.enqueue(Item::Begin { position: slot, tx, database });
        }
        self.count(tx);
    }

    fn abort_delivered(&mut self, tx: TxId, reason: AbortReason) {
        self.open.close(tx);
        self.abort_locally(tx, reason);
    }

    /// Applies an ordered Abort at once, out of turn (A11).
    fn abort_locally(&mut self, tx: TxId, reason: AbortReason) {
        self.ballots.remove(&tx);
        self.reply(tx.session, ReplicaMessage::Outcome { tx, outcome: Outcome::Aborted { reason } });
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        transaction.outcome = Some(Decided::Abort);
        self.give_up(tx);
        self.settle(tx);
    }

    fn commit_delivered(&mut self, position: Position, certificate: CommitCertificate, late: bool) {
        let tx = certificate.tx;
        let slot = certificate.slot;
        self.open.close(tx);
        self.ballots.remove(&tx);
        if certificate.wall {
            self.wall(slot, tx);
        }
        let now = self.now_us;
        let transaction = self.transactions.entry(tx).or_insert_with(|| Transaction::new(tx, now));
        let wall = certificate.wall;
        transaction.slot = Some(slot);
        transaction.outcome = Some(Decided::Commit { certificate });
        transaction.decided_at_us = if late { 0 } else { now };
        self.applying.enqueue(Item::Commit { position, tx, wall });
        self.advance(tx);
    }

    /// Rule 9, in its coarse form: an ordered DDL transaction ends every older one that its client has not finished. Those that are
    /// finished go on: had they conflicted, the locks would have held one of the two back.
    fn wall(&mut self, _slot: Slot, by: TxId) {
        let walled: Vec<TxId> = self
            .transactions
            .values()
            .filter(|transaction| {
                transaction.tx != by
                    && transaction.slot.is_some()
                    && transaction.outcome.is_none()
                    && transaction.finish.is_none()
                    && transaction.phase == Phase::Running
            })
            .map(|transaction| transaction.tx)
            .collect();
        for tx in walled {
            self.cast_against(tx, VoteKind::Walled);
            self.give_up(tx);
        }
    }
}

impl Transaction {
    pub(super) fn outcome_is_abort(&self) -> bool {
        matches!(self.outcome, Some(Decided::Abort))
    }
}
