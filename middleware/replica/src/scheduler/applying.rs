//! Applying: waves of commits, and the snapshots between them (rules 3 and 8).
//!
//! Delivered BEGINs, commits and the like wait in one queue. Commits up to the next item of another kind form a wave and
//! are applied in parallel, each as soon as it is prepared here; any other item waits until all before it are applied.

use super::anchors::{Taken, User};
use super::maintaining::Statement;
use super::planted::PlantedBug;
use super::transaction::{Decided, Phase};
use super::{Effect, Scheduler};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steeldb_types::{Position, SessionKey, TxId};
use steeldb_wire::transaction::VoteKind;

/// Commits whose rows are taken from peers at once. They are made in their order, so more would only be kept in memory.
const ROWS_MAX: usize = 64;

/// Who applies a commit within so long of its decision is not behind any more, microseconds.
const FRESH_US: u64 = 200_000;

/// Something delivered that waits for its turn.
pub(super) enum Item {
    Begin {
        tx: TxId,
        database: String,
    },
    Commit {
        position: Position,
        tx: TxId,
        /// Nothing else is applied beside it.
        alone: bool,
    },
    Maintain(Statement),
    /// Temporary relations of a session that is over are dropped.
    Clear {
        database: String,
        schema: String,
    },
    Verify {
        position: Position,
        session: SessionKey,
        sequence: u64,
        database: String,
    },
}

/// The queue and what is under way.
#[derive(Default)]
pub(super) struct Applying {
    queue: VecDeque<Item>,
    /// Positions of the commits in the queue.
    queued: BTreeSet<Position>,
    /// Commits issued and not yet done.
    in_flight: BTreeSet<Position>,
    /// Those of them whose rows come from a peer: they are made in their order.
    pub(super) rows: BTreeSet<Position>,
    /// What was decided waited here for too long: until that is over, nothing is executed that is decided already, since
    /// rows are made faster. Else a replica whose clients write as fast as it executes would stay behind for ever.
    behind: bool,
    positions: BTreeMap<TxId, Position>,
    /// A commit that raises the wall is under way: nothing passes it.
    alone_in_flight: bool,
    delivered: Position,
    issued: Position,
    /// The queue is being moved on, and something happened that may move it further.
    pumping: bool,
    /// A transaction that takes its own snapshot: no commit is issued meanwhile.
    pub snapshot_of: Option<TxId>,
    /// Temporary relations are being dropped: nothing is applied meanwhile.
    pub clearing: bool,
    pump_again: bool,
}

impl Applying {
    pub(super) fn enqueue(&mut self, item: Item) {
        if let Item::Commit { position, .. } = &item {
            self.queued.insert(*position);
        }
        self.queue.push_back(item);
    }

    pub(super) fn delivered(&mut self, position: Position) {
        self.delivered = position;
    }

    pub(super) fn restored(&mut self, position: Position) {
        self.delivered = position;
        self.issued = position;
    }

    /// All commits up to here are applied.
    pub(super) fn applied_upto(&self) -> Position {
        let first = self.in_flight.first().into_iter().chain(self.queued.first()).min();
        first.map_or(self.delivered, |position| Position(position.0.saturating_sub(1)))
    }

    /// The highest position whose COMMIT PREPARED has been issued (A13).
    pub(super) fn issued_upto(&self) -> Position {
        self.issued
    }

    /// Whether commits are being applied.
    pub(super) fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Whether the rows of the commit at `position` may be taken now: those before it are made before it.
    fn takes_rows(&self, position: Position, alone: bool) -> bool {
        let in_order = |under_way: &Position| self.rows.contains(under_way);
        let alone = alone || self.alone_in_flight;
        self.rows.len() < ROWS_MAX
            && self.in_flight.range(..position).all(in_order)
            && (!alone || self.in_flight.iter().all(in_order))
    }

    /// This replica applies later than the others.
    pub(super) fn fall_behind(&mut self) {
        self.behind = true;
    }

    /// The position of a commit that is under way.
    pub(super) fn under_way(&self, tx: TxId) -> Option<Position> {
        self.positions.get(&tx).copied()
    }

    /// A commit is done; gives its position.
    pub(super) fn landed(&mut self, tx: TxId) -> Option<Position> {
        let position = self.positions.remove(&tx)?;
        self.in_flight.remove(&position);
        self.rows.remove(&position);
        if self.in_flight.is_empty() {
            self.alone_in_flight = false;
        }
        Some(position)
    }
}

/// What can be done with a decided commit now.
enum Readiness {
    Ready,
    NotYet,
    /// It cannot be executed here: it is taken as a write set.
    CatchUp(&'static str),
}

impl Scheduler {
    /// Moves the queue on as far as it goes. What is called on the way may call it again: that is done afterwards, so
    /// that the queue changes under nobody's hands and a long queue is no deep recursion.
    pub(super) fn pump(&mut self) {
        self.applying.pump_again = true;
        if self.applying.pumping {
            return;
        }
        self.applying.pumping = true;
        while std::mem::take(&mut self.applying.pump_again) {
            self.move_queue();
        }
        self.applying.pumping = false;
    }

    fn move_queue(&mut self) {
        loop {
            if self.diverged.is_some() {
                return;
            }
            self.issue_commits();
            self.applying.behind &= !(self.applying.queued.is_empty() && self.applying.in_flight.is_empty());
            let taking =
                self.anchors.is_taking() || self.applying.snapshot_of.is_some() || self.applying.clearing;
            let begin = match self.applying.queue.front() {
                Some(Item::Begin { tx, .. }) if !taking => Some(*tx),
                _ => None,
            };
            if let Some(tx) = begin
                && self.needs_no_snapshot(tx)
            {
                // It parts nothing: what was committed before it and what is behind it are taken in one go.
                self.applying.queue.pop_front();
                self.advance(tx);
                continue;
            }
            let in_flight =
                !self.applying.in_flight.is_empty() && !self.config.has(PlantedBug::SnapshotInsideWave);
            if in_flight || taking || self.diverged.is_some() {
                return;
            }
            match self.applying.queue.front() {
                None | Some(Item::Commit { .. }) => return,
                Some(Item::Begin { tx, database }) => {
                    let (tx, database) = (*tx, database.clone());
                    let leading = self.transactions.get(&tx).filter(|t| t.leading_begun);
                    let waits_for_locks = leading.is_some_and(|t| !t.issued.is_empty());
                    let leads = leading.is_some();
                    if waits_for_locks {
                        // A correct client begins once it has its locks. What they wait for may be the very commits
                        // that this snapshot would hold back.
                        self.cast_against(tx, VoteKind::Blocked);
                        self.give_up(tx);
                    } else if leads && let Some(transaction) = self.transactions.get_mut(&tx) {
                        // A10: the locks are held; the snapshot is that of this place in the order.
                        transaction.snapshot_here = true;
                    } else if self.transactions.get(&tx).is_some_and(|t| {
                        t.phase == Phase::Running || t.may_be_reexecuted() && t.anchor.is_none()
                    }) {
                        match self.anchor(&database) {
                            Taken::NotYet => return,
                            Taken::Anchor(anchor) => {
                                if let Some(transaction) = self.transactions.get_mut(&tx) {
                                    transaction.anchor = Some(anchor);
                                    self.anchors.hold(anchor, User::Transaction(tx));
                                }
                            }
                            Taken::Never => {
                                self.cast_against(tx, VoteKind::Blocked);
                                self.give_up(tx); // if it is not already
                            }
                        }
                    }
                    self.applying.queue.pop_front();
                    self.advance(tx);
                }
                Some(Item::Maintain(_)) => {
                    if let Some(Item::Maintain(statement)) = self.applying.queue.pop_front() {
                        self.maintain(statement);
                    }
                }
                Some(Item::Clear { .. }) => {
                    if let Some(Item::Clear { database, schema }) = self.applying.queue.pop_front() {
                        self.applying.clearing = true;
                        self.push(Effect::ClearTemporary { database, schema });
                    }
                }
                Some(Item::Verify { position, session, sequence, database }) => {
                    let (position, session, sequence) = (*position, *session, *sequence);
                    let database = database.clone();
                    if !self.may_verify() {
                        let reason = Err("too many verifications are under way".to_string());
                        self.not_verified(session, sequence, position, reason);
                    } else {
                        match self.anchor(&database) {
                            Taken::NotYet => return,
                            Taken::Anchor(anchor) => {
                                self.verify(anchor, session, sequence, database, position);
                            }
                            Taken::Never => {
                                let reason = Err("no snapshot could be taken".to_string());
                                self.not_verified(session, sequence, position, reason);
                            }
                        }
                    }
                    self.applying.queue.pop_front();
                }
            }
        }
    }

    /// Whether nothing will be executed on the snapshot of a BEGIN. What is decided is not executed by who is behind.
    fn needs_no_snapshot(&mut self, tx: TxId) -> bool {
        let Some(transaction) = self.transactions.get(&tx) else { return true };
        if transaction.leading_begun {
            return false;
        }
        let decided = matches!(&transaction.outcome,
            Some(Decided::Commit { certificate }) if !certificate.wall.is_scripted());
        if self.applying.behind && decided && transaction.phase == Phase::Running {
            self.give_up(tx);
        }
        self.transactions.get(&tx).is_none_or(|transaction| {
            transaction.phase != Phase::Running
                && !(transaction.may_be_reexecuted() && transaction.anchor.is_none())
        })
    }

    /// Issues the commits of the wave at the queue's head that are prepared here.
    fn issue_commits(&mut self) {
        if self.anchors.is_taking() || self.applying.snapshot_of.is_some() || self.applying.clearing {
            return;
        }
        let (mut at, present) = (0, self.present());
        if self.config.has(PlantedBug::CommitPassesBegin)
            && let Some(first) =
                self.applying.queue.iter().position(|item| matches!(item, Item::Commit { .. }))
        {
            at = first;
        }
        while let Some(Item::Commit { position, tx, alone }) = self.applying.queue.get(at) {
            let (position, tx, alone) = (*position, *tx, *alone);
            if at == 0 {
                self.look_how_late(tx);
            }
            let readiness = self.readiness(tx);
            let takes_rows = at == 0
                && matches!(readiness, Readiness::CatchUp(_))
                && !self.raises_wall(tx)
                && self.applying.takes_rows(position, alone);
            let passes_none = alone || self.applying.alone_in_flight;
            if passes_none && !takes_rows && (at > 0 || !self.applying.in_flight.is_empty()) {
                return;
            }
            if alone && self.finished_older(tx) {
                return;
            }
            match readiness {
                Readiness::NotYet => {
                    if alone {
                        self.look_at_wall(tx);
                        return;
                    }
                    at += 1;
                }
                // Rows are taken in the order of their commits: one may be the change of what another left, and the BEGINs
                // that would have parted the two are given up here.
                Readiness::CatchUp(_) if !takes_rows && !self.takes_script(position, tx, at) => {
                    if alone {
                        return;
                    }
                    at += 1;
                }
                Readiness::CatchUp(reason) => {
                    self.applying.queue.remove(at);
                    self.catch_up(position, tx, alone, reason);
                }
                Readiness::Ready if self.speculation.holds_back(position, present) => {
                    if alone {
                        return;
                    }
                    at += 1;
                }
                Readiness::Ready => {
                    self.applying.queue.remove(at);
                    self.issue(position, tx, alone);
                }
            }
        }
    }

    /// What ran DDL is executed again once all before it is applied.
    fn takes_script(&self, position: Position, tx: TxId, at: usize) -> bool {
        let first = self.applying.in_flight.first();
        at == 0 && self.raises_wall(tx) && first.is_none_or(|first| *first > position)
    }

    fn raises_wall(&self, tx: TxId) -> bool {
        self.transactions.get(&tx).is_some_and(|transaction| {
            matches!(&transaction.outcome, Some(Decided::Commit { certificate }) if certificate.wall.is_raised())
        })
    }

    /// Looks how long the commit at the queue's head has been decided.
    fn look_how_late(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        // What was late when it came counts as decided at 0.
        let waited_us = self.now_us.saturating_sub(transaction.decided_at_us);
        let late = transaction.decided_at_us == 0;
        if !late && waited_us < FRESH_US {
            self.applying.behind = false;
        } else if (late || waited_us > self.config.vote_timeout_us) && transaction.phase.needs_backend() {
            self.applying.behind = true;
        }
    }

    fn issue(&mut self, position: Position, tx: TxId, alone: bool) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let (gid, database) = (transaction.gid(), transaction.database.clone());
        self.set_under_way(position, tx, alone);
        self.push(Effect::CommitPrepared { tx, gid, database });
    }

    /// Notes that a commit is being applied.
    pub(super) fn set_under_way(&mut self, position: Position, tx: TxId, alone: bool) {
        self.applying.queued.remove(&position);
        self.applying.in_flight.insert(position);
        self.applying.positions.insert(tx, position);
        self.applying.alone_in_flight |= alone;
        self.applying.issued = self.applying.issued.max(position);
        self.pass_anchors();
        if self.raises_wall(tx) {
            // B9: definitions change now. Who still executes on an older snapshot would read what never was.
            self.wall_off(tx, position);
        }
    }

    /// Whether older transactions that their clients have finished are still executing here: the wall waits for them.
    fn finished_older(&self, tx: TxId) -> bool {
        let Some(slot) = self.transactions.get(&tx).and_then(|transaction| transaction.slot) else {
            return false;
        };
        self.transactions.values().any(|other| {
            other.tx != tx
                && other.slot.is_some_and(|older| older < slot)
                && other.outcome.is_none()
                && other.against_vote.is_none()
                && other.finish.is_some()
                && (other.phase.needs_backend() || matches!(other.phase, Phase::Preparing { .. }))
        })
    }

    fn readiness(&self, tx: TxId) -> Readiness {
        let Some(transaction) = self.transactions.get(&tx) else { return Readiness::NotYet };
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return Readiness::NotYet };
        let late = transaction.decided_at_us == 0;
        // The rows of a bulk transaction are many to fetch: who is slower than others goes on executing it.
        let patience = match transaction.is_bulk() {
            true => self.patience_us(transaction),
            false => self.config.vote_timeout_us,
        };
        let waited = self.now_us.saturating_sub(transaction.decided_at_us) > patience;
        let behind = late || self.applying.behind && !transaction.is_bulk();
        match &transaction.phase {
            Phase::Prepared { write_set } => {
                let same = transaction.transcript.as_ref().map(|t| t.head()) == Some(certificate.transcript);
                let unmatched = self.config.has(PlantedBug::EffectsNotMatched)
                    || self.config.has(PlantedBug::EffectsLeftOut);
                if (*write_set == Some(certificate.write_set) && same) || unmatched {
                    Readiness::Ready
                } else {
                    Readiness::CatchUp("its effects here are not those that a quorum vouched for")
                }
            }
            // The name carries tx and slot, the write set the record with k and h_k. After DDL the rows are not all
            // that w is made of, and nothing else can be had: the name has to do.
            Phase::InDoubt { prepared: true, .. }
                if certificate.wall.is_raised() || self.config.has(PlantedBug::InDoubtNotMatched) =>
            {
                Readiness::Ready
            }
            Phase::InDoubt { decoded: Some(digest), .. } if *digest == certificate.write_set => {
                Readiness::Ready
            }
            Phase::InDoubt { decoded: Some(_), .. } => {
                Readiness::CatchUp("its effects here are not those that a quorum vouched for")
            }
            Phase::InDoubt { .. } if waited => {
                Readiness::CatchUp("it is not known whether it is prepared here")
            }
            Phase::InDoubt { .. } | Phase::Preparing { .. } => Readiness::NotYet,
            Phase::Running | Phase::Completing | Phase::Queued { .. } => {
                // The client's messages may be slower than the others' votes. One that was waited for in vain is not
                // waited for again soon: else it could hold up one replica after another.
                let here = self.sessions.contains_key(&tx.session);
                let received = here && transaction.received >= certificate.operations;
                let impatient =
                    self.impatient_until_us.get(&tx.session.client).is_some_and(|until| self.now_us < *until);
                let in_vain = transaction.stranded || !received && (impatient || self.has_gone_on(tx));
                let executing = transaction.phase != Phase::Running || !transaction.issued.is_empty();
                if certificate.wall.is_scripted() && here && executing {
                    return Readiness::NotYet; // to be executed again it would have to be undone first, and it comes
                }
                match (waited || behind || in_vain, here) {
                    (false, _) => Readiness::NotYet,
                    (true, false) => Readiness::CatchUp("its session was not open here"),
                    (true, true) if !received => {
                        Readiness::CatchUp("its client has not sent its operations here")
                    }
                    (true, true) => Readiness::CatchUp("it was not executed here in time"),
                }
            }
            Phase::GivenUp => Readiness::CatchUp("it was given up here"),
        }
    }

    /// Whether a transaction's client has gone on to another one, as the order or the client says: nothing of it comes any more.
    pub(super) fn has_gone_on(&self, tx: TxId) -> bool {
        self.sessions.get(&tx.session).is_some_and(|session| session.is_past(tx))
    }

    /// Transactions whose barriers are reached go on.
    pub(super) fn advance_all(&mut self) {
        let applied = self.applying.applied_upto();
        self.speculation.applied(applied, self.now_us);
        while let Some((position, tx)) = self.barriers.first().copied()
            && position <= applied
        {
            self.barriers.pop_first();
            self.advance(tx);
        }
        let draining: Vec<TxId> = self.draining.iter().copied().collect();
        for tx in draining {
            self.advance(tx);
        }
        // A new master may have waited for what was decided before it alone.
        self.shown_again();
        self.pump();
    }

    /// This replica cannot do what the order demands: its data is not that of the others. It stops vouching for anything.
    pub(super) fn diverge(&mut self, position: Position, tx: TxId, reason: String) {
        if self.diverged.is_none() {
            tracing::error!(%position, %tx, reason, "this replica has diverged and takes itself out");
            self.diverged = Some(reason.clone());
            self.push(Effect::Diverged { position, tx, reason });
        }
    }
}
