//! What became of transactions, for who is in doubt (E1). A function of the order alone: the same on all replicas, and
//! after a restart.
//!
//! Invariants:
//! - A tx id opens at most one transaction (A3), and none once its outcome was asked for.
//! - What was answered stays true: an answer that says how a transaction ended is never followed by another end.
//! - Per client: the ends of the last [`OUTCOMES_PER_CLIENT_MAX`] transactions, the last [`SESSIONS_REMEMBERED_MAX`]
//!   sessions, and [`TOMBSTONES_PER_CLIENT_MAX`] tombstones are kept. No client's requests crowd out another's.
//!
//! A tombstone names one transaction. That costs no more than a mark below which a session's numbers are void, and who
//! asks for what does not exist can do no harm to what does: neither to the session, nor to sessions to come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steeldb_types::limits::{OUTCOMES_PER_CLIENT_MAX, SESSIONS_REMEMBERED_MAX, TOMBSTONES_PER_CLIENT_MAX};
use steeldb_types::{ClientId, Position, SessionId, SessionKey, TxId};
use steeldb_wire::transaction::TransactionState;

/// How much is kept of each client.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub outcomes: usize,
    pub sessions: usize,
    pub tombstones: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            outcomes: OUTCOMES_PER_CLIENT_MAX,
            // As many as the ordering core tells repeated requests apart for: it delivers nothing of those before.
            sessions: SESSIONS_REMEMBERED_MAX,
            tombstones: TOMBSTONES_PER_CLIENT_MAX,
        }
    }
}

/// The ends of transactions.
#[derive(Default)]
pub(super) struct Outcomes {
    bounds: Bounds,
    clients: BTreeMap<ClientId, OfClient>,
}

/// How a transaction that began ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Its Commit is at this position.
    Committed(Position),
    /// Without a Commit.
    NoChanges,
}

/// A session's transaction, by its counter.
type OfSession = (SessionId, u64);

#[derive(Default)]
struct OfClient {
    ended: BTreeMap<OfSession, End>,
    /// In the order in which they ended.
    by_end: VecDeque<OfSession>,
    tombstones: BTreeSet<OfSession>,
    sessions: BTreeMap<SessionId, Known>,
    by_use: BTreeMap<Position, SessionId>,
    /// The highest session forgotten: those up to it that are not known open nothing any more.
    forgotten: Option<SessionId>,
}

/// A session that requests were ordered of.
#[derive(Default)]
struct Known {
    used: Position,
    /// The counter of the last transaction that it began.
    begun: u64,
    /// The highest counter whose end is forgotten.
    forgotten: u64,
}

impl Outcomes {
    #[cfg(test)]
    fn with(bounds: Bounds) -> Outcomes {
        Outcomes { bounds, ..Outcomes::default() }
    }

    /// A request of the session is ordered. The same sessions are remembered as by the ordering core, since by the same
    /// rule: the longest unused one is forgotten.
    pub(super) fn used(&mut self, key: SessionKey, position: Position) {
        let max = self.bounds.sessions;
        let client = self.clients.entry(key.client).or_default();
        let session = key.session;
        if !client.may_exist(session) {
            return;
        }
        let known = client.sessions.entry(session).or_default();
        client.by_use.remove(&std::mem::replace(&mut known.used, position));
        client.by_use.insert(position, session);
        while client.sessions.len() > max {
            let Some((_, oldest)) = client.by_use.pop_first() else { break };
            client.sessions.remove(&oldest);
            client.forgotten = client.forgotten.max(Some(oldest));
            client.drop_tombstones();
        }
    }

    /// Whether a BEGIN of `tx` may open it. If so it counts as begun.
    pub(super) fn begin(&mut self, tx: TxId) -> bool {
        let client = self.clients.entry(tx.session.client).or_default();
        let of_session = (tx.session.session, tx.counter);
        let Some(known) = client.sessions.get_mut(&tx.session.session) else { return false };
        if tx.counter <= known.begun || client.tombstones.contains(&of_session) {
            return false;
        }
        known.begun = tx.counter;
        // Those before it open nothing any more, tombstone or not.
        let passed: Vec<OfSession> =
            client.tombstones.range((tx.session.session, 0)..of_session).copied().collect();
        for passed in passed {
            client.tombstones.remove(&passed);
        }
        true
    }

    /// A transaction that began is over.
    pub(super) fn ended(&mut self, tx: TxId, end: End) {
        let max = self.bounds.outcomes;
        let client = self.clients.entry(tx.session.client).or_default();
        let of_session = (tx.session.session, tx.counter);
        client.ended.insert(of_session, end);
        client.by_end.push_back(of_session);
        while client.by_end.len() > max
            && let Some(oldest) = client.by_end.pop_front()
        {
            client.ended.remove(&oldest);
            if let Some(known) = client.sessions.get_mut(&oldest.0) {
                known.forgotten = known.forgotten.max(oldest.1);
            }
        }
    }

    /// What the order knows of a transaction that is not open. One that never began never will.
    pub(super) fn ask(&mut self, tx: TxId) -> TransactionState {
        let max = self.bounds.tombstones;
        let client = self.clients.entry(tx.session.client).or_default();
        let of_session = (tx.session.session, tx.counter);
        match client.ended.get(&of_session) {
            Some(End::Committed(position)) => return TransactionState::Committed { position: *position },
            Some(End::NoChanges) => return TransactionState::NoChanges,
            None => {}
        }
        let known = client.sessions.get(&tx.session.session);
        if known.is_some_and(|known| tx.counter <= known.forgotten) || !client.may_exist(tx.session.session) {
            return TransactionState::Forgotten;
        }
        if known.is_some_and(|known| tx.counter <= known.begun) || client.tombstones.contains(&of_session) {
            return TransactionState::Aborted;
        }
        if client.tombstones.len() >= max {
            // An old tombstone cannot make room: what it says was final.
            return TransactionState::Unknown;
        }
        client.tombstones.insert(of_session);
        TransactionState::Aborted
    }
}

impl OfClient {
    /// Whether a session is known, or may still come.
    fn may_exist(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session) || self.forgotten.is_none_or(|forgotten| session > forgotten)
    }

    /// What is forgotten opens nothing: it needs no tombstones.
    fn drop_tombstones(&mut self) {
        let mut tombstones = std::mem::take(&mut self.tombstones);
        tombstones.retain(|(session, _)| self.may_exist(*session));
        self.tombstones = tombstones;
    }
}

#[cfg(test)]
mod tests {
    use super::TransactionState::{Aborted, Forgotten, NoChanges, Unknown};
    use super::*;

    const SMALL: Bounds = Bounds { outcomes: 3, sessions: 2, tombstones: 2 };

    fn tx(session: u64, counter: u64) -> TxId {
        TxId { session: SessionKey { client: ClientId(1), session: SessionId(session) }, counter }
    }

    /// An order of its own.
    struct Told(Outcomes, u64);

    impl Told {
        fn begin(&mut self, tx: TxId) -> bool {
            self.1 += 1;
            self.0.used(tx.session, Position(self.1));
            self.0.begin(tx)
        }

        fn run(&mut self, tx: TxId, end: End) {
            assert!(self.begin(tx), "{tx}");
            self.0.ended(tx, end);
        }
    }

    fn small() -> Told {
        Told(Outcomes::with(SMALL), 0)
    }

    #[test]
    fn e1_what_ended_is_told_until_it_is_forgotten_and_then_that_is_said() {
        let mut told = small();
        told.run(tx(1, 1), End::Committed(Position(7)));
        told.run(tx(1, 2), End::NoChanges);
        assert_eq!(told.0.ask(tx(1, 1)), TransactionState::Committed { position: Position(7) });
        assert_eq!(told.0.ask(tx(1, 2)), NoChanges);
        told.run(tx(1, 3), End::NoChanges);
        told.run(tx(1, 4), End::Committed(Position(9)));
        assert_eq!(told.0.ask(tx(1, 1)), Forgotten, "three are kept");
        assert_eq!(told.0.ask(tx(1, 2)), NoChanges);
    }

    #[test]
    fn e1_a_transaction_that_was_asked_for_before_its_begin_never_begins() {
        let mut told = small();
        told.run(tx(1, 1), End::NoChanges);
        for asked in [tx(1, 3), tx(9, 1)] {
            assert_eq!((told.0.ask(asked), told.0.ask(asked)), (Aborted, Aborted));
            assert!(!told.begin(asked), "{asked}");
            assert_eq!(told.0.ask(asked), Aborted);
        }
        // Its session goes on, before it and behind it.
        assert!(told.begin(tx(1, 2)) && told.begin(tx(1, 4)) && told.begin(tx(9, 2)));
        assert_eq!(told.0.ask(tx(1, 3)), Aborted, "passed over");
        assert!(told.0.clients[&ClientId(1)].tombstones.is_empty(), "and needs no tombstone");
    }

    #[test]
    fn a3_a_counter_is_used_once_and_none_before_it_afterwards() {
        let mut told = small();
        told.run(tx(1, 5), End::NoChanges);
        assert!(!told.begin(tx(1, 5)) && !told.begin(tx(1, 4)) && told.begin(tx(1, 6)));
    }

    #[test]
    fn what_is_asked_for_in_vain_is_bounded_and_harms_nobody() {
        let mut told = small();
        assert_eq!(told.0.ask(tx(u64::MAX, u64::MAX)), Aborted);
        assert_eq!(told.0.ask(tx(u64::MAX - 1, 1)), Aborted);
        assert_eq!(told.0.ask(tx(5, 1)), Unknown, "no room, so nothing is promised");
        assert!(told.begin(tx(5, 1)));
        assert_eq!(
            told.0.ask(TxId { session: SessionKey { client: ClientId(2), ..tx(5, 1).session }, counter: 1 }),
            Aborted
        );
    }

    #[test]
    fn what_is_forgotten_opens_nothing_and_makes_room() {
        let mut told = small();
        assert_eq!(told.0.ask(tx(4, 1)), Aborted);
        told.run(tx(3, 1), End::NoChanges);
        told.run(tx(5, 1), End::NoChanges);
        told.run(tx(6, 1), End::NoChanges);
        assert!(!told.begin(tx(3, 2)), "its session is forgotten");
        assert_eq!(told.0.ask(tx(3, 1)), NoChanges, "its end is not");
        assert_eq!(told.0.ask(tx(3, 2)), Forgotten);
        told.run(tx(7, 1), End::NoChanges);
        assert_eq!((told.0.ask(tx(4, 1)), told.0.clients[&ClientId(1)].tombstones.len()), (Forgotten, 0));
        assert!(!told.begin(tx(4, 1)));
        assert!(told.begin(tx(6, 2)), "known, though below what is forgotten");
    }
}
