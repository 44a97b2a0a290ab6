//! Bulk transactions (B13): those with more COPY data than [`limits::BULK_BYTES`], that change more rows than
//! [`limits::BULK_ROWS`], or that decoding finds too large to be gathered: a few rows of large values, made by any statement.
//!
//! *Data.* What a replica keeps of one is bounded by configuration, and there is one at a time: whoever passes
//! [`limits::BULK_BYTES`] beside another, or oftener than a role may, is voted against. Each replica decides that by itself.
//! It is a lock like PostgreSQL's own: it is held until the outcome is applied, two certificates share a correct replica, so
//! no two that ran beside each other can both be vouched for. If two start at once and replicas let in different ones, f + 1
//! votes may end both, as a deadlock would (40001).
//!
//! *Votes.* A server decodes what it prepares in the order of its log, so every transaction that is prepared behind a bulk
//! one has its vote later, on every replica. That time is nobody's fault: it does not count towards T_vote.

use super::Scheduler;
use super::rates::Rates;
use super::transaction::{Phase, Transaction};
use steeldb_types::{TxId, limits};
use steeldb_wire::transaction::{SqlState, VoteKind};

/// More data than are configured.
pub(super) const TOO_LARGE: SqlState = SqlState(*b"54000");

/// No more than this does not count towards T_vote, microseconds: so what is stuck beside what is stuck ends, too.
const SLOW_MAX_US: u64 = 600_000_000;

/// For how long votes were slow because of bulk transactions, microseconds since the scheduler began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slow {
    /// Because of one of them or more.
    one_us: u64,
    /// Because of two or more: one of them does not wait for itself.
    two_us: u64,
}

/// What is known of bulk transactions.
pub(super) struct Bulk {
    /// The one whose data are kept beyond what others may have.
    current: Option<TxId>,
    rates: Rates,
    slow: Slow,
    looked_us: Option<u64>,
}

impl Default for Bulk {
    fn default() -> Bulk {
        let interval_us = limits::BULK_INTERVAL.as_micros() as u64;
        let rates = Rates::new(limits::BULK_BURST, interval_us);
        Bulk { current: None, rates, slow: Slow::default(), looked_us: None }
    }
}

impl Bulk {
    /// For how long votes were slow until now.
    pub(super) fn slow(&self) -> Slow {
        self.slow
    }

    /// The transaction is over here, or given up.
    pub(super) fn over(&mut self, tx: TxId) {
        if self.current == Some(tx) {
            self.current = None;
        }
    }
}

impl Transaction {
    /// Whether others wait for its decoding.
    pub(super) fn is_bulk(&self) -> bool {
        self.copied_bytes > limits::BULK_BYTES || self.rows > limits::BULK_ROWS || self.decoded_bytes > 0
    }

    /// It is being prepared, or decoded, here or where its votes are to come from.
    fn slows_votes(&self) -> bool {
        let decodes = matches!(&self.phase, Phase::Preparing { decoded: None, .. });
        let awaited = self.finish.is_some() && self.outcome.is_none() && self.phase != Phase::GivenUp;
        self.is_bulk() && (decodes || awaited)
    }
}

impl Scheduler {
    /// Whether a transaction may have more COPY data than others; if not, it ends.
    pub(super) fn is_or_becomes_bulk(&mut self, tx: TxId) -> bool {
        if self.bulk.current == Some(tx) {
            return true;
        }
        let Some(session) = self.sessions.get(&tx.session) else { return false };
        let free_at = self.bulk.rates.free_at(&session.database, &session.role);
        if self.bulk.current.is_some() || free_at > self.now_us {
            self.end_bulk(tx, SqlState::BULK_BUSY);
            return false;
        }
        tracing::info!(%tx, role = session.role, "a bulk transaction");
        self.bulk.rates.spend(&session.database, &session.role, self.now_us);
        self.bulk.current = Some(tx);
        true
    }

    /// Ends a transaction that may not go on as it does. All replicas that see the same do the same, so that the order
    /// aborts it.
    pub(super) fn end_bulk(&mut self, tx: TxId, sqlstate: SqlState) {
        self.cast_against(tx, VoteKind::Failed { sqlstate });
        self.give_up(tx);
    }

    /// Decoding goes through a large transaction: what is prepared behind it waits from here on for its sake.
    pub(super) fn decodes_long(&mut self, gid: &str, bytes: u64) {
        let Some(tx) = self.by_gid.get(gid) else { return };
        if let Some(transaction) = self.transactions.get_mut(tx) {
            transaction.decoded_bytes = transaction.decoded_bytes.max(bytes);
        }
    }

    /// Time passed: whether votes were slow in it.
    pub(super) fn look_at_bulk(&mut self) {
        let passed = self.now_us - self.bulk.looked_us.replace(self.now_us).unwrap_or(self.now_us);
        let bulk = self.transactions.values().filter(|transaction| transaction.slows_votes()).count();
        self.bulk.slow.one_us += if bulk > 0 { passed } else { 0 };
        self.bulk.slow.two_us += if bulk > 1 { passed } else { 0 };
    }

    /// How much of the time since a transaction's Finish votes were slow because of others.
    pub(super) fn slowed_us(&self, transaction: &Transaction) -> u64 {
        let (now, before) = (self.bulk.slow, transaction.slow_before);
        let slowed = match transaction.is_bulk() {
            true => now.two_us - before.two_us,
            false => now.one_us - before.one_us,
        };
        slowed.min(SLOW_MAX_US)
    }
}
