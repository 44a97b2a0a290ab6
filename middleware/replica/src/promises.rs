//! What a replica promises, and what its PostgreSQL keeps, waits until the order it rests on is durable here (A5, A7).
//!
//! A decision is delivered when its votes are durable, its own record need not be (the votes bind the order, not this
//! replica's memory of it). After a power cut a replica knows the order as far as its log goes, and what is in PostgreSQL
//! must not be ahead of that:
//!
//! - A vote promises to keep the transaction prepared, and what is kept is what is known to be open: so the decision that
//!   holds the BEGIN has to be durable before the vote is seen. By then it nearly always is.
//! - A commit in PostgreSQL is in every snapshot from then on. Those of BEGINs that are ordered before it, and are
//!   delivered again after the restart, must not have it (A6).
//! - What is rolled back there and open in the log is what A12 takes for a promise forgotten.

use crate::scheduler::planted::PlantedBug;
use crate::scheduler::{Config, Effect};
use std::collections::VecDeque;

/// Effects in their order, each with the record of the log that it waits for. Bounded by the votes on open transactions
/// and by the outcomes that are being applied.
pub struct Promises {
    appended: u64,
    durable: u64,
    waiting: VecDeque<(u64, Effect)>,
    applies_early: bool,
}

impl Promises {
    /// Promises of a replica whose log is durable up to a record. The configuration says which bug is planted.
    pub fn new(config: &Config, durable: u64) -> Promises {
        let applies_early = config.has(PlantedBug::AppliedBeforeItsRecord);
        Promises { appended: durable, durable, waiting: VecDeque::new(), applies_early }
    }

    /// A record was handed to the log.
    pub fn appended(&mut self, sequence: u64) {
        self.appended = self.appended.max(sequence);
    }

    /// The records up to this one are durable.
    pub fn persisted(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// An effect of the scheduler: given back if it may be done at once, else kept until all that was handed to the log so
    /// far is durable.
    pub fn take(&mut self, effect: Effect) -> Option<Effect> {
        if !self.rests_on_order(&effect) {
            return Some(effect);
        }
        self.waiting.push_back((self.appended, effect));
        None
    }

    /// The next effect that was kept and may be done.
    pub fn poll(&mut self) -> Option<Effect> {
        self.waiting.front().filter(|(needs, _)| *needs <= self.durable)?;
        self.waiting.pop_front().map(|(_, effect)| effect)
    }

    fn rests_on_order(&self, effect: &Effect) -> bool {
        match effect {
            Effect::SendVotes(_) | Effect::ResendVotes { .. } | Effect::Submit(_) => true,
            Effect::CommitPrepared { .. }
            | Effect::RollbackPrepared { .. }
            | Effect::CatchUp { .. }
            | Effect::ClearTemporary { .. } => !self.applies_early,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{ClientId, SessionId, SessionKey, TxId};

    fn promises(durable: u64) -> Promises {
        Promises { appended: durable, durable, waiting: VecDeque::new(), applies_early: false }
    }

    fn commit(counter: u64) -> Effect {
        let session = SessionKey { client: ClientId(1), session: SessionId(1) };
        Effect::CommitPrepared { tx: TxId { session, counter }, gid: String::new(), database: String::new() }
    }

    #[test]
    fn a_commit_waits_for_the_records_before_it_and_for_no_later_ones() {
        let mut promises = promises(0);
        assert_eq!(promises.take(commit(0)), None);
        assert_eq!(promises.poll(), Some(commit(0)), "nothing was appended");
        promises.appended(1);
        promises.appended(2);
        assert_eq!(promises.take(commit(1)), None);
        promises.appended(3);
        assert_eq!(promises.take(commit(2)), None);
        promises.persisted(1);
        assert_eq!(promises.poll(), None);
        promises.persisted(2);
        assert_eq!(promises.poll(), Some(commit(1)));
        assert_eq!(promises.poll(), None);
        promises.persisted(3);
        assert_eq!(promises.poll(), Some(commit(2)));
    }

    #[test]
    fn what_ends_a_prepared_transaction_or_makes_rows_waits_and_what_a_restart_forgets_does_not() {
        let mut promises = promises(1);
        promises.appended(2);
        let Effect::CommitPrepared { tx, gid, database } = commit(0) else { return };
        let clear = Effect::ClearTemporary { database: database.clone(), schema: String::new() };
        let roll_back = Effect::RollbackPrepared { gid, database: database.clone() };
        let catch_up = Effect::CatchUp {
            position: steeldb_types::Position(2),
            tx,
            slot: steeldb_types::Position(1),
            database,
            write_set: steeldb_types::Digest([0; 32]),
            attempt: 0,
            reexecution: None,
        };
        let waiting = [commit(0), roll_back, catch_up, clear];
        for effect in &waiting {
            assert_eq!(promises.take(effect.clone()), None, "{effect:?}");
        }
        let anchor = Effect::ReleaseAnchor(crate::scheduler::AnchorId(1));
        assert_eq!(promises.take(anchor.clone()), Some(anchor));
        assert_eq!(promises.poll(), None);
        promises.persisted(2);
        let done: Vec<Effect> = std::iter::from_fn(|| promises.poll()).collect();
        assert_eq!(done, waiting, "in their order");
    }
}
