//! Speculation: what replicas other than the master execute before its client has finished (rule 5), in which order
//! that is best started, what waits a moment for it, and how it is undone and done again.
//!
//! Nothing here is needed for safety: the vote finds out whatever went another way. It makes that rare.

use super::catching_up::IMPATIENCE_FACTOR;
use super::planted::PlantedBug;
use super::transaction::{Buffered, Issued, Phase, Transaction};
use super::{Command, Effect, Scheduler};
use crate::guard::Class;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{Digest, Execution, Position, TxId};
use steeldb_wire::transaction::{OperationKind, SqlState, VoteKind};

/// What a finished transaction may wait for before it is asked what it waits for, and how often, microseconds.
const BLOCKED_AFTER_US: u64 = 100_000;
const ASK_AGAIN_US: u64 = 500_000;

/// How often a transaction is done again because it went another way here than at the master (G8).
const REDONE_MAX: u32 = 1;

/// An operation's place in the order in which the master ran them.
#[derive(Clone, Copy)]
struct Place {
    tx: TxId,
    /// b_i: what was issued at the master when it ran.
    barrier: Position,
    /// The client's message is here.
    here: bool,
    /// When the master's word on it came; that and the client's message, once both are here.
    came_us: u64,
    /// When its barrier was reached, too.
    ready_us: Option<u64>,
}

/// What places are judged by.
#[derive(Clone, Copy)]
pub(super) struct Present {
    pub now_us: u64,
    /// T_soft.
    pub soft_us: u64,
    pub delivered: Position,
}

impl Place {
    /// Until when others wait for it: T_soft from when it can run. Before, as long as its barrier takes, if the order knows
    /// that position. For the client's message no longer than T_soft, too.
    fn counts_until(&self, present: Present) -> u64 {
        match self.ready_us {
            _ if !self.here => self.came_us + present.soft_us,
            Some(ready) => ready + present.soft_us,
            None if self.barrier <= present.delivered => u64::MAX,
            None => self.came_us + present.soft_us,
        }
    }

    fn counts(&self, present: Present) -> bool {
        present.now_us < self.counts_until(present)
    }
}

/// Operations that may write and that both client and master have sent, in the master's order.
#[derive(Default)]
pub(super) struct Speculation {
    /// Entries received.
    arrived: u64,
    places: BTreeMap<(TxId, u32), u64>,
    /// Not yet sent to their backends.
    unstarted: BTreeSet<u64>,
    /// Not yet done there.
    undone: BTreeMap<u64, Place>,
    /// Transactions whose next operation waits for its turn.
    awaited: BTreeSet<TxId>,
    /// A commit waits, too.
    holding: bool,
    /// Those whose turn may have come.
    turns: BTreeSet<TxId>,
    /// Something that a commit may wait for is done.
    ran: bool,
    /// Up to when it is looked which places are T_soft old.
    looked_us: u64,
}

impl Speculation {
    /// The next entry's place. It keeps it though its transaction may become known here later than others.
    pub(super) fn arrives(&mut self) -> u64 {
        self.arrived += 1;
        self.arrived
    }

    fn place(&mut self, tx: TxId, number: u32, index: u64, barrier: Position, here: bool, now_us: u64) {
        if let Some(place) = self.places.get(&(tx, number)).and_then(|index| self.undone.get_mut(index)) {
            if here && !place.here {
                (place.here, place.came_us) = (true, now_us);
            }
            return;
        }
        self.places.insert((tx, number), index);
        self.unstarted.insert(index);
        self.undone.insert(index, Place { tx, barrier, here, came_us: now_us, ready_us: None });
    }

    /// Transactions whose clients have not sent in time what they sent the master.
    fn late(&self, present: Present) -> impl Iterator<Item = TxId> {
        self.undone.values().filter(move |place| !place.here && !place.counts(present)).map(|place| place.tx)
    }

    /// Commits are applied up to a position.
    pub(super) fn applied(&mut self, applied: Position, now_us: u64) {
        for place in self.undone.values_mut().filter(|place| place.barrier <= applied) {
            place.ready_us.get_or_insert(now_us);
        }
    }

    /// Whether an operation that may write is to wait: the master ran another one before, and that has not started here.
    pub(super) fn waits_for_turn(&mut self, tx: TxId, number: u32, present: Present) -> bool {
        let Some(mine) = self.places.get(&(tx, number)) else { return false };
        let Some(barrier) = self.undone.get(mine).map(|place| place.barrier) else { return false };
        // One that rests on later commits ran later, whatever came first here; and this one may be part of such a commit.
        let waits = self
            .unstarted
            .range(..mine)
            .filter_map(|index| self.undone.get(index))
            .any(|place| place.tx != tx && place.barrier <= barrier && place.counts(present));
        if waits {
            self.awaited.insert(tx);
        }
        waits
    }

    /// Whether a commit is to wait: the master ran an operation before it, and that is not done here.
    pub(super) fn holds_back(&mut self, position: Position, present: Present) -> bool {
        let holds = self.undone.values().any(|place| place.barrier < position && place.counts(present));
        self.holding |= holds;
        holds
    }

    /// The operation was sent to its backend.
    pub(super) fn started(&mut self, tx: TxId, number: u32) {
        if let Some(index) = self.places.get(&(tx, number)).copied() {
            self.pass_on(index);
        }
    }

    /// The operation is done.
    pub(super) fn ran(&mut self, tx: TxId, number: u32) {
        if let Some(index) = self.places.remove(&(tx, number)) {
            self.ran = true;
            self.pass_on(index);
            self.undone.remove(&index);
        }
    }

    /// The transaction is over, or starts anew: its operations are waited for no longer.
    pub(super) fn over(&mut self, tx: TxId) {
        let numbers: Vec<u32> = self.places.range((tx, 0)..=(tx, u32::MAX)).map(|((_, n), _)| *n).collect();
        for number in numbers {
            self.ran(tx, number);
        }
        self.awaited.remove(&tx);
    }

    /// A master's term is over, and with it the order in which it ran things.
    pub(super) fn void(&mut self) {
        *self = Speculation { arrived: self.arrived, looked_us: self.looked_us, ..Speculation::default() };
    }

    /// It is the next one's turn if this was the first.
    fn pass_on(&mut self, index: u64) {
        let first = self.unstarted.first() == Some(&index);
        self.unstarted.remove(&index);
        if first && let Some(place) = self.unstarted.first().and_then(|next| self.undone.get(next)) {
            self.turns.insert(place.tx);
        }
    }

    /// When somebody who waits need not wait any longer.
    pub(super) fn next_turn(&self, present: Present) -> Option<u64> {
        if self.awaited.is_empty() && !self.holding {
            return None;
        }
        let expire = self.undone.values().map(|place| place.counts_until(present));
        expire.filter(|at| *at > self.looked_us && *at < u64::MAX).min()
    }

    /// Who may go on by now.
    fn take_turns(&mut self, present: Present) -> BTreeSet<TxId> {
        let overdue = self.next_turn(present).is_some_and(|at| at <= present.now_us);
        self.looked_us = present.now_us;
        if overdue {
            self.turns.append(&mut self.awaited);
            self.ran = true;
        }
        std::mem::take(&mut self.turns)
    }

    /// How many operations have a place.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty() && self.unstarted.is_empty() && self.undone.is_empty()
    }
}

impl Transaction {
    /// Whether it can be executed again from its start: with all that was executed, and where its client is not shown it twice.
    pub(super) fn may_redo(&self) -> bool {
        let keeps = self.issued.values().filter(|issued| issued.keeps).count();
        let whole = self.kept.len() + keeps == self.sent as usize;
        // What this replica drew as a master it would draw anew.
        let drew = self.drawn.keys().any(|number| !self.stream.contains_key(number));
        let on_snapshot = self.anchor.is_some() && (self.begun || self.imported);
        on_snapshot && !self.undoing && !self.shows && whole && !drew
    }
}

impl Scheduler {
    /// Whether a transaction's operations of a kind run before its client has finished: always if it waits for what others
    /// reach (rule 11). DDL does not: it would lock out what the master ran before.
    pub(super) fn speculates(&self, transaction: &Transaction, class: Class) -> bool {
        (self.config.execution == Execution::Speculative || transaction.verify)
            && class != Class::Ddl
            && !transaction.ran_ddl
    }

    /// An operation, or the master's word on it, is here: with that word it has its place.
    pub(super) fn place(&mut self, tx: TxId, number: u32) {
        if self.is_master() || self.config.execution == Execution::Deferred {
            return;
        }
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let Some(entry) = transaction.stream.get(&number) else { return };
        if transaction.phase != Phase::Running || number <= transaction.sent || entry.check {
            return;
        }
        let (index, barrier, now) = (entry.arrival, entry.barrier, self.now_us);
        let buffered = transaction.waiting.get(&number);
        let may_write = buffered.is_none_or(|buffered| match buffered.operation.kind {
            OperationKind::Describe => false,
            OperationKind::Execute { .. } | OperationKind::CopyIn { .. } => {
                matches!(buffered.class, Class::Plain | Class::Temporary | Class::Ddl)
            }
        });
        let here = buffered.is_some();
        // Whoever lets this replica wait for what the master has is not waited for again soon.
        let patient = self.impatient_until_us.get(&tx.session.client).is_none_or(|until| now >= *until);
        if may_write && (here || patient) {
            self.speculation.place(tx, number, index, barrier, here, now);
            self.speculation.applied(self.applying.applied_upto(), now);
        } else {
            self.speculation.ran(tx, number);
        }
    }

    pub(super) fn present(&self) -> Present {
        let delivered = self.open.delivered();
        Present { now_us: self.now_us, soft_us: self.config.soft_barrier_us, delivered }
    }

    /// Lets those go on whose turn has come, or who need not wait any longer.
    pub(super) fn take_turns(&mut self) {
        let present = self.present();
        let late: Vec<TxId> = self.speculation.late(present).collect();
        for tx in late {
            let until = self.now_us + IMPATIENCE_FACTOR * self.config.vote_timeout_us;
            self.impatient_until_us.insert(tx.session.client, until);
        }
        loop {
            let turns = self.speculation.take_turns(present);
            if turns.is_empty() {
                break;
            }
            for tx in turns {
                self.speculation.awaited.remove(&tx);
                self.advance(tx);
            }
        }
        if std::mem::take(&mut self.speculation.ran) && std::mem::take(&mut self.speculation.holding) {
            self.pump();
        }
    }

    /// Keeps an executed operation for a redo, or for a script.
    pub(super) fn keep(&mut self, tx: TxId, number: u32, issued: Issued) {
        let Issued { operation, statement, class, copy, keeps, bytes, .. } = issued;
        if !keeps {
            return;
        }
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            let buffered = Buffered { operation, statement, class, copy, bytes };
            transaction.kept.insert(number, buffered);
        } else {
            self.release(tx, bytes);
        }
    }

    /// It will not be done again: what was kept for that goes.
    pub(super) fn no_redo(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let kept = std::mem::take(&mut transaction.kept);
        let bytes = kept.values().map(|buffered| buffered.bytes).sum();
        let scripted = transaction.script.is_some();
        self.release(tx, bytes);
        if !scripted {
            self.drop_copies(tx);
        }
        self.release_imported(tx);
        self.forget_statements(tx.session);
    }

    /// It will not be done again: its anchor goes, once it is imported.
    pub(super) fn release_imported(&mut self, tx: TxId) {
        if self.transactions.get(&tx).is_some_and(|transaction| transaction.imported) {
            self.release_anchor_of(tx);
        }
    }

    /// Whether an operation went another way here for a reason that may have passed (G8).
    pub(super) fn differs_by_timing(
        &mut self,
        tx: TxId,
        number: u32,
        head: &Digest,
        sqlstate: Option<SqlState>,
    ) -> bool {
        let timing = sqlstate.is_some_and(|sqlstate| ["40001", "40P01"].contains(&sqlstate.as_str()));
        let Some(transaction) = self.transactions.get_mut(&tx) else { return false };
        let differs = transaction.stream.get(&number).is_some_and(|entry| entry.transcript != *head);
        let redo = timing
            && differs
            && transaction.phase == Phase::Running
            && transaction.may_redo()
            && transaction.redone < REDONE_MAX;
        if redo {
            transaction.redone += 1;
        }
        redo
    }

    /// Rolls back what a transaction has executed here, to execute it again on its anchor: at once, or when another one
    /// needs its backend no longer. Settings go back with the block (B10).
    pub(super) fn undo(&mut self, tx: TxId, after: Option<TxId>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        tracing::info!(%tx, ?after, executed = transaction.executed(), "a speculation is undone");
        self.counts.undone += 1;
        transaction.phase = Phase::Running;
        transaction.begun = false;
        transaction.undoing = true;
        transaction.redo_after = after;
        transaction.executed_before = transaction.executed();
        transaction.transcript = None;
        transaction.heads.clear();
        transaction.drawn.clear();
        transaction.found.clear();
        transaction.results.clear();
        transaction.status = b'T';
        transaction.changed_settings = false;
        transaction.sent = 0;
        let issued = std::mem::take(&mut transaction.issued);
        let mut kept = std::mem::take(&mut transaction.kept);
        for (number, issued) in issued {
            let Issued { operation, statement, class, copy, bytes, .. } = issued;
            kept.insert(number, Buffered { operation, statement, class, copy, bytes });
        }
        transaction.waiting.append(&mut kept);
        self.speculation.over(tx);
        if self.config.has(PlantedBug::UndoneByWordAlone) {
            return self.undone(tx);
        }
        self.backend(tx.session, Command::End { tx, commit: false });
    }

    /// A transaction's block is rolled back: if that was to do it again, it is begun again.
    pub(super) fn undone(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if std::mem::take(&mut transaction.undoing) {
            self.redo_if_possible(tx);
        }
    }

    fn redo_if_possible(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let waits = transaction.redo_after.is_some_and(|after| {
            self.transactions.get(&after).is_some_and(|after| {
                let elsewhere = matches!(after.phase, Phase::GivenUp | Phase::InDoubt { .. });
                let caught_up = after.outcome.is_some() && elsewhere;
                after.phase.needs_backend() || caught_up
            })
        });
        if waits {
            return;
        }
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.redo_after = None;
            self.counts.redone += 1;
        }
        self.advance(tx);
    }

    /// Lets another transaction pass: what is only speculation is undone, or given up if it cannot be done again.
    pub(super) fn make_way(&mut self, tx: TxId, to: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        if tx == to || transaction.undoing {
            return;
        }
        if transaction.may_redo() {
            self.undo(tx, Some(to));
        } else {
            self.cast_against(tx, VoteKind::Blocked);
            self.give_up(tx);
        }
    }

    /// Asks what those wait for that should have been done by now; and starts again those that made way.
    pub(super) fn look_for_blockers(&mut self) {
        let redo: Vec<TxId> = self
            .transactions
            .values()
            .filter(|transaction| transaction.redo_after.is_some() && !transaction.undoing)
            .map(|transaction| transaction.tx)
            .collect();
        for tx in redo {
            self.redo_if_possible(tx);
        }
        let now = self.now_us;
        let speculates = |transaction: &Transaction| {
            transaction.begun && transaction.finish.is_none() && transaction.phase == Phase::Running
        };
        if self.is_master() || !self.transactions.values().any(speculates) {
            return;
        }
        let waiting: Vec<TxId> = self
            .transactions
            .values()
            .filter(|transaction| {
                let executes = !transaction.issued.is_empty() || transaction.phase == Phase::Completing;
                transaction.finish.is_some()
                    && executes
                    && now.saturating_sub(transaction.finished_at_us) > BLOCKED_AFTER_US
                    && now.saturating_sub(transaction.asked_at_us) > ASK_AGAIN_US
            })
            .map(|transaction| transaction.tx)
            .collect();
        for tx in waiting {
            let process = self.sessions.get(&tx.session).and_then(|session| session.backend);
            let Some(transaction) = self.transactions.get_mut(&tx) else { continue };
            transaction.asked_at_us = now;
            let database = transaction.database.clone();
            if let Some(process) = process {
                self.push(Effect::FindBlockers { tx, database, process });
            }
        }
    }

    /// What a finished transaction waits for: a mere speculation is undone, and done again later (lock cycles).
    pub(super) fn blockers(&mut self, tx: TxId, blockers: &[u32]) {
        if !self.transactions.get(&tx).is_some_and(|transaction| transaction.phase.needs_backend()) {
            return;
        }
        let in_the_way: Vec<TxId> = self
            .transactions
            .values()
            .filter(|other| other.begun && other.finish.is_none() && other.phase == Phase::Running)
            .filter(|other| {
                let backend = self.sessions.get(&other.tx.session).and_then(|session| session.backend);
                backend.is_some_and(|backend| blockers.contains(&backend))
            })
            .map(|other| other.tx)
            .collect();
        for other in in_the_way {
            self.make_way(other, tx);
        }
    }
}
