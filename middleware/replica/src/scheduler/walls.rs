//! The wall (rule 9): what an ordered transaction with definitions ends.
//!
//! *Which.* Where this replica knows what the definitions may be reached by ([`Names`]), what is older ends once an operation of
//! it may reach that behind the wall: when its Commit is applied, if the operation is here and not done; later, as soon as it
//! comes, or has to be done again. All else goes on. Where it is not known, everything older ends that is not prepared by then.
//! Which it is each replica decides for itself, as with any vote against; see docs/ARCHITECTURE.md for why that is enough.
//!
//! *How often* a role may raise one. A wall ends what others run in its database, so whoever made definitions without a pause
//! would keep everyone else out (G6). The master spaces them out: a first burst is free, what a schema takes to be made; from
//! then on definitions of that role wait for their turn before they begin, when they end nobody yet. Nothing is refused.

use super::Scheduler;
use super::rates::Rates;
use super::transaction::{Decided, Phase, Statement, Transaction};
use crate::guard::Class;
use crate::reach::Names;
use std::collections::VecDeque;
use std::sync::Arc;
use steeldb_types::{Position, TxId, limits};
use steeldb_wire::transaction::VoteKind;

/// Walls whose names are kept for what is older. Past it the oldest ends all that is older than it.
const NAMED_WALLS_MAX: usize = 256;

const INTERVAL_US: u64 = limits::WALL_INTERVAL.as_micros() as u64;

/// Walls applied here that something still runs behind, in their order.
#[derive(Default)]
pub(super) struct NamedWalls(VecDeque<NamedWall>);

struct NamedWall {
    database: String,
    position: Position,
    names: Arc<Names>,
}

/// How often roles may raise walls.
pub(super) fn rates() -> Rates {
    Rates::new(limits::WALL_BURST, INTERVAL_US)
}

impl Scheduler {
    /// When a transaction's definition may begin; at once if it has made one before.
    pub(super) fn wall_free_at(&self, tx: TxId) -> u64 {
        let defines = self.transactions.get(&tx).is_some_and(|transaction| transaction.ran_ddl);
        match self.sessions.get(&tx.session) {
            Some(session) if !defines => self.wall_rates.free_at(&session.database, &session.role),
            _ => 0,
        }
    }

    /// A transaction's first definition begins.
    pub(super) fn spend_wall(&mut self, tx: TxId) {
        if let Some(session) = self.sessions.get(&tx.session) {
            self.wall_rates.spend(&session.database, &session.role, self.now_us);
        }
    }
}

impl Scheduler {
    /// A Commit that raises the wall is ordered. Unless it will be known what it is about once it is prepared here, every
    /// older transaction of its database ends that its client has not finished. Those that are finished go on: had they
    /// conflicted, the locks would have held one of the two back.
    pub(super) fn wall_delivered(&mut self, by: TxId) {
        let Some(transaction) = self.transactions.get(&by) else { return };
        match transaction.phase {
            Phase::Running | Phase::Completing | Phase::Queued { .. } | Phase::Preparing { .. } => {}
            Phase::Prepared { .. } | Phase::InDoubt { .. } | Phase::GivenUp => {
                let names = self.names_of(by);
                self.end_unfinished(by, names);
            }
        }
    }

    /// The commit at the queue's head raises the wall and is not prepared here. If that takes long, whoever it may wait for
    /// makes way.
    pub(super) fn look_at_wall(&mut self, by: TxId) {
        let Some(transaction) = self.transactions.get(&by) else { return };
        if self.now_us.saturating_sub(transaction.decided_at_us) > self.config.drain_timeout_us {
            self.end_unfinished(by, None);
        }
    }

    fn end_unfinished(&mut self, by: TxId, names: Option<Arc<Names>>) {
        self.end_walled(by, names, |transaction| {
            transaction.finish.is_none() && transaction.phase == Phase::Running
        });
    }

    /// The wall's commit is applied at `position`: what is older and not prepared here by now can no longer be executed as
    /// the master did, if it reaches what is defined anew.
    pub(super) fn wall_off(&mut self, by: TxId, position: Position) {
        let names = self.names_of(by);
        self.end_walled(by, names.clone(), |transaction| {
            transaction.phase.needs_backend() && transaction.slot.is_some_and(|slot| slot < position)
        });
        let Some(database) = self.transactions.get(&by).map(|transaction| transaction.database.clone())
        else {
            return;
        };
        let Some(names) = names else { return };
        self.named_walls.0.push_back(NamedWall { database, position, names });
        self.forget_walls();
    }

    /// Walls that nothing here is older than.
    fn forget_walls(&mut self) {
        let transactions = &self.transactions;
        self.named_walls
            .0
            .retain(|wall| transactions.values().any(|transaction| wall.is_ahead_of(transaction)));
        while self.named_walls.0.len() > NAMED_WALLS_MAX
            && let Some(oldest) = self.named_walls.0.pop_front()
        {
            let older = self.transactions.values().filter(|transaction| oldest.is_ahead_of(transaction));
            let older: Vec<TxId> = older.map(|transaction| transaction.tx).collect();
            self.end_all(older);
        }
    }

    #[cfg(test)]
    pub(super) fn named_walls(&self) -> usize {
        self.named_walls.0.len()
    }

    /// What a wall is about, if this replica knows: it found that itself, and a quorum vouched for the same effects.
    fn names_of(&self, by: TxId) -> Option<Arc<Names>> {
        let transaction = self.transactions.get(&by)?;
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return None };
        match transaction.phase {
            Phase::Prepared { write_set: Some(write_set) } if write_set == certificate.write_set => {
                transaction.names.clone()
            }
            _ => None,
        }
    }

    fn end_walled(&mut self, by: TxId, names: Option<Arc<Names>>, may_end: impl Fn(&Transaction) -> bool) {
        let Some(database) = self.transactions.get(&by).map(|transaction| transaction.database.clone())
        else {
            return;
        };
        let walled: Vec<TxId> = self
            .transactions
            .values()
            .filter(|transaction| transaction.database == database)
            .filter(|transaction| {
                transaction.tx != by && transaction.slot.is_some() && transaction.outcome.is_none()
            })
            .filter(|transaction| may_end(transaction))
            .filter(|transaction| {
                names.as_ref().is_none_or(|names| {
                    transaction.ran_ddl || transaction.pending().any(|statement| statement.reaches(names))
                })
            })
            .map(|transaction| transaction.tx)
            .collect();
        self.end_all(walled);
    }

    fn end_all(&mut self, walled: Vec<TxId>) {
        for tx in walled {
            self.cast_against(tx, VoteKind::Walled);
            self.give_up(tx);
        }
    }

    /// Ends a transaction that is older than a wall applied here, if its waiting operation may reach what that names.
    pub(super) fn ends_behind_wall(&mut self, tx: TxId, number: u32) -> bool {
        let Some(transaction) = self.transactions.get(&tx) else { return false };
        let Some(waiting) = transaction.waiting.get(&number) else { return false };
        let reaches = self
            .named_walls
            .0
            .iter()
            .filter(|wall| wall.is_ahead_of(transaction))
            .any(|wall| transaction.ran_ddl || waiting.statement.reaches(&wall.names));
        if reaches {
            self.end_all(vec![tx]);
        }
        reaches
    }
}

impl NamedWall {
    /// Whether a transaction executes here on a snapshot of before it.
    fn is_ahead_of(&self, transaction: &Transaction) -> bool {
        transaction.database == self.database
            && transaction.slot.is_some_and(|slot| slot < self.position)
            && transaction.outcome.is_none()
            && transaction.phase.needs_backend()
    }
}

impl Transaction {
    /// The statements of operations that are here and not done.
    fn pending(&self) -> impl Iterator<Item = &Statement> {
        let waiting = self.waiting.values().map(|buffered| &*buffered.statement);
        waiting.chain(self.issued.values().map(|issued| &*issued.statement))
    }
}

impl Statement {
    /// Whether it may reach what is named. Other definitions do in any case: their Commit would be void.
    fn reaches(&self, names: &Names) -> bool {
        self.class == Class::Ddl || names.may_be_reached_by(&self.text.sql, self.class == Class::Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g6_a_role_has_a_burst_of_walls_and_then_one_at_a_time() {
        let mut rates = rates();
        let now = 1_000_000_000;
        for _ in 0..limits::WALL_BURST {
            assert!(rates.free_at("app", "alice") <= now);
            rates.spend("app", "alice", now);
        }
        assert!(rates.free_at("app", "alice") <= now, "the last of the burst");
        rates.spend("app", "alice", now);
        assert_eq!(rates.free_at("app", "alice"), now + INTERVAL_US);
        assert_eq!(
            (rates.free_at("app", "bob"), rates.free_at("other", "alice")),
            (0, 0),
            "others are not held up"
        );
        let later = now + limits::WALL_BURST * INTERVAL_US + INTERVAL_US + 1;
        rates.spend("app", "bob", later);
        assert_eq!(rates.len(), 1, "what is paid off is forgotten");
    }
}
