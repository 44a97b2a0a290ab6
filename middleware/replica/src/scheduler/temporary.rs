//! Temporary relations of sessions that are over. They are ordinary relations in a schema of their session
//! ([`steeldb_types::temporary_schema`]), so nothing but the order can clear them: dropped by each replica at its own time,
//! they would be there for a transaction at one and not at another.
//!
//! Invariants:
//! - Which sessions have such relations, and when they are cleared, is a function of the order.
//! - A session is over when f + 1 replicas say so since it was last heard of in the order: no liar alone clears anything.
//! - Nothing is applied and no snapshot taken beside a clearing; the session's open transaction ends with it.

use super::applying::Item;
use super::open::OpenTransactions;
use super::{Effect, Scheduler};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{Position, ReplicaId, SessionId, SessionKey, View, limits, temporary_schema};
use steeldb_wire::transaction::{AbortReason, Ordered, SessionOver};

/// How often a replica repeats that a session is over, microseconds.
const REPEAT_US: u64 = 5_000_000;

/// The sessions that have temporary relations.
#[derive(Default)]
pub(super) struct Temporaries(BTreeMap<SessionKey, Held>);

/// What is known of one.
struct Held {
    database: String,
    /// Where the order last heard of it.
    used: Position,
    /// Who has said since that it is over.
    over: BTreeSet<ReplicaId>,
}

/// A session whose relations go, and the database that they are in.
pub(super) type Cleared = (SessionKey, String);

impl Temporaries {
    /// A transaction of the session is committed that defined temporary relations. Gives the session that has to make room.
    pub(super) fn defined(&mut self, session: SessionKey, database: &str, at: Position) -> Option<Cleared> {
        let held = Held { database: database.to_string(), used: at, over: BTreeSet::new() };
        self.0.insert(session, held);
        let of_client = SessionKey { session: SessionId(0), ..session }..=SessionKey {
            session: SessionId(u64::MAX),
            ..session
        };
        if self.0.range(of_client.clone()).count() <= limits::TEMPORARY_SESSIONS_PER_CLIENT_MAX {
            return None;
        }
        let oldest =
            self.0.range(of_client).min_by_key(|(_, held)| held.used).map(|(session, _)| *session)?;
        self.0.remove(&oldest).map(|held| (oldest, held.database))
    }

    /// The order hears of a session: it is not over.
    pub(super) fn used(&mut self, session: SessionKey, at: Position) {
        if let Some(held) = self.0.get_mut(&session) {
            held.used = at;
            held.over.clear();
        }
    }

    /// A replica's word is ordered; gives the session if that makes it over.
    pub(super) fn over(&mut self, word: &SessionOver, view: &View) -> Option<Cleared> {
        let held = self.0.get_mut(&word.session).filter(|held| held.used == word.used)?;
        held.over.insert(word.replica);
        let is_over = view.has_correct(held.over.iter().copied().filter(|replica| view.contains(*replica)));
        let database = is_over.then(|| self.0.remove(&word.session))?.map(|held| held.database)?;
        Some((word.session, database))
    }

    pub(super) fn has(&self, session: SessionKey) -> bool {
        self.0.contains_key(&session)
    }
}

impl OpenTransactions {
    /// The names of the schemas that sessions' temporary relations are in, with their databases.
    pub fn temporary_schemas(&self) -> BTreeSet<(String, String)> {
        let named =
            |(session, held): (&SessionKey, &Held)| (held.database.clone(), temporary_schema(*session));
        self.temporaries.0.iter().map(named).collect()
    }
}

/// A session with temporary relations that is not open here.
pub(super) struct NotHere {
    since_us: u64,
    said_us: Option<u64>,
}

impl Scheduler {
    /// The client says that it is done with a session.
    pub(super) fn closed_by_client(&mut self, session: SessionKey) {
        // Its last transaction may still be on its way.
        if self.open.temporaries.has(session) || self.of_session(session).next().is_some() {
            self.closed_sessions.insert(session);
        }
    }

    /// Says which sessions with temporary relations are over: those that their clients have closed, and those that have not
    /// been here for as long as an idle transaction is borne.
    pub(super) fn look_at_temporaries(&mut self) {
        let now = self.now_us;
        let held: BTreeMap<SessionKey, Position> =
            self.open.temporaries.0.iter().map(|(session, held)| (*session, held.used)).collect();
        let here = |scheduler: &Scheduler, session: &SessionKey| {
            scheduler.sessions.get(session).is_some_and(|session| !session.closing)
        };
        let closed: BTreeSet<SessionKey> = std::mem::take(&mut self.closed_sessions)
            .into_iter()
            .filter(|session| held.contains_key(session) || self.of_session(*session).next().is_some())
            .collect();
        let mut not_here = std::mem::take(&mut self.not_here);
        not_here.retain(|session, _| held.contains_key(session) && !here(self, session));
        if self.config.view.contains(self.config.me) {
            for (session, used) in held {
                if here(self, &session) {
                    continue;
                }
                let entry = not_here.entry(session).or_insert(NotHere { since_us: now, said_us: None });
                let borne_us = if closed.contains(&session) { 0 } else { self.config.idle_timeout_us };
                let due = now.saturating_sub(entry.since_us) >= borne_us;
                if due && entry.said_us.is_none_or(|said| now.saturating_sub(said) >= REPEAT_US) {
                    entry.said_us = Some(now);
                    let word = SessionOver::new(session, used, self.config.me, &self.config.key);
                    self.push(Effect::Submit(Box::new(Ordered::SessionOver(word))));
                }
            }
        }
        self.closed_sessions = closed;
        self.not_here = not_here;
    }

    pub(super) fn session_over_delivered(&mut self, word: &SessionOver) {
        if let Some(cleared) = self.open.session_over(word, &self.config.view.clone()) {
            self.clear(cleared);
        }
    }

    /// Clears a session's temporary relations at this place in the order. Its open transaction is closed there already.
    pub(super) fn clear(&mut self, (session, database): Cleared) {
        let open: Vec<_> = self
            .of_session(session)
            .filter(|transaction| transaction.slot.is_some() && transaction.outcome.is_none())
            .filter(|transaction| self.open.slot(transaction.tx).is_none())
            .map(|transaction| transaction.tx)
            .collect();
        for tx in open {
            self.abort_locally(tx, AbortReason::Gone);
        }
        self.closed_sessions.remove(&session);
        let schema = temporary_schema(session);
        tracing::info!(%session, schema, "a session is over: its temporary relations are dropped");
        self.applying.enqueue(Item::Clear { database, schema });
    }

    /// What a restarted replica found of sessions that are over.
    pub fn clear_leftovers(&mut self, leftovers: BTreeSet<(String, String)>) {
        for (database, schema) in leftovers {
            self.applying.enqueue(Item::Clear { database, schema });
        }
    }

    /// A session's temporary relations are dropped.
    pub(super) fn temporary_cleared(&mut self) {
        self.applying.clearing = false;
        self.pump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::ClientId;
    use steeldb_wire::auth::SecretKey;

    fn session(number: u64) -> SessionKey {
        SessionKey { client: ClientId(1), session: SessionId(number) }
    }

    fn word(of: SessionKey, used: u64, by: u16) -> SessionOver {
        SessionOver::new(of, Position(used), ReplicaId(by), &SecretKey::from_seed(&[1; 32]))
    }

    #[test]
    fn f_plus_1_words_since_it_was_last_heard_of_end_a_session() {
        let view = View::of_size(4).unwrap();
        let mut temporaries = Temporaries::default();
        assert_eq!(temporaries.defined(session(7), "app", Position(10)), None);
        assert_eq!(temporaries.over(&word(session(7), 10, 1), &view), None);
        assert_eq!(temporaries.over(&word(session(7), 10, 1), &view), None, "one replica twice");
        assert_eq!(temporaries.over(&word(session(7), 9, 2), &view), None, "of before it was heard of");
        temporaries.used(session(7), Position(20));
        assert_eq!(temporaries.over(&word(session(7), 20, 2), &view), None, "the first word is void");
        assert_eq!(temporaries.over(&word(session(8), 20, 3), &view), None, "another session");
        assert_eq!(temporaries.over(&word(session(7), 20, 3), &view), Some((session(7), "app".into())));
        assert_eq!(temporaries.over(&word(session(7), 20, 1), &view), None, "over already");
    }

    #[test]
    fn of_too_many_sessions_the_longest_unused_one_makes_room() {
        let mut temporaries = Temporaries::default();
        let max = limits::TEMPORARY_SESSIONS_PER_CLIENT_MAX as u64;
        for number in 0..max {
            assert_eq!(temporaries.defined(session(number), "app", Position(number)), None);
        }
        temporaries.used(session(0), Position(max + 1));
        let cleared = temporaries.defined(session(max), "app", Position(max + 2));
        assert_eq!(cleared, Some((session(1), "app".into())));
    }
}
