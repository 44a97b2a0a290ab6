//! How often a role may raise the wall (rule 9). A wall ends what others run in its database, so whoever made definitions
//! without a pause would keep everyone else out (G6).
//!
//! The master spaces them out: a first burst is free, what a schema takes to be made; from then on definitions of that role
//! wait for their turn before they begin, when they end nobody yet. Nothing is refused.

use super::Scheduler;
use super::rates::Rates;
use steeldb_types::{TxId, limits};

const INTERVAL_US: u64 = limits::WALL_INTERVAL.as_micros() as u64;

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
