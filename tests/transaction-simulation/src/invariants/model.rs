//! What the order says, read from its requests alone: slots, outcomes, and the database after each commit.

use crate::history::{Change, History};
use crate::sql::{Key, Value};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{Digest, Position, SessionKey, Slot, Timestamp, TxId};
use steeldb_wire::transaction::Ordered;

/// A BEGIN that counts.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Whose.
    pub tx: TxId,
    /// Its place.
    pub slot: Slot,
    /// The agreed time.
    pub timestamp: Timestamp,
    /// READ ONLY.
    pub read_only: bool,
    /// How it ended, and where.
    pub outcome: Option<(Position, Decided)>,
}

/// An ordered outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decided {
    /// With this write set.
    Commit(Digest),
    /// By whatever closes it without its effects.
    Abort,
}

/// What the order says.
pub struct Model {
    /// Transactions, by their slots.
    pub begun: BTreeMap<Slot, Begun>,
}

/// Reads the order.
pub fn read(history: &History) -> Model {
    let mut begun: BTreeMap<Slot, Begun> = BTreeMap::new();
    // The one that is open in each session.
    let mut open: BTreeMap<SessionKey, Slot> = BTreeMap::new();
    // The number that was used last in each session, and those that were asked for before they were.
    let mut last: BTreeMap<SessionKey, u64> = BTreeMap::new();
    let mut void: BTreeSet<TxId> = BTreeSet::new();
    for ordinal in &history.order {
        let position = ordinal.position;
        match &ordinal.payload {
            Ordered::Begin { tx, modes, .. } => {
                if last.get(&tx.session).is_some_and(|last| *last >= tx.counter) || void.contains(tx) {
                    continue;
                }
                last.insert(tx.session, tx.counter);
                if let Some(before) = open.get(&tx.session).copied() {
                    close(&mut begun, before, position, Decided::Abort);
                }
                open.insert(tx.session, position);
                let timestamp = ordinal.timestamp;
                begun.insert(
                    position,
                    Begun { tx: *tx, slot: position, timestamp, read_only: modes.read_only, outcome: None },
                );
            }
            Ordered::Rollback { tx, slot } => {
                end(&mut begun, &mut open, *tx, *slot, position, Decided::Abort);
            }
            Ordered::Abort(certificate) => {
                end(&mut begun, &mut open, certificate.tx, certificate.slot, position, Decided::Abort);
            }
            Ordered::Commit(certificate) => {
                let decided = Decided::Commit(certificate.write_set);
                end(&mut begun, &mut open, certificate.tx, certificate.slot, position, decided);
            }
            Ordered::Outcome { tx, .. } => {
                if last.get(&tx.session).is_none_or(|last| *last < tx.counter) {
                    void.insert(*tx);
                }
            }
            Ordered::Depose(_)
            | Ordered::Move(_)
            | Ordered::Maintain { .. }
            | Ordered::SessionOver(_)
            | Ordered::Verify { .. } => {}
        }
    }
    Model { begun }
}

/// The first outcome of a transaction that is open at that slot is its outcome.
fn end(
    begun: &mut BTreeMap<Slot, Begun>,
    open: &mut BTreeMap<SessionKey, Slot>,
    tx: TxId,
    slot: Slot,
    position: Position,
    decided: Decided,
) {
    let is_open = open.get(&tx.session) == Some(&slot);
    if is_open && begun.get(&slot).is_some_and(|begun| begun.tx == tx) {
        open.remove(&tx.session);
        close(begun, slot, position, decided);
    }
}

fn close(begun: &mut BTreeMap<Slot, Begun>, slot: Slot, position: Position, decided: Decided) {
    if let Some(begun) = begun.get_mut(&slot) {
        begun.outcome = Some((position, decided));
    }
}

impl Model {
    /// The transaction's last BEGIN.
    pub fn of(&self, tx: TxId) -> Option<&Begun> {
        self.begun.values().rev().find(|begun| begun.tx == tx)
    }

    /// The commits, in their order.
    pub fn commits(&self) -> BTreeMap<Position, (&Begun, Digest)> {
        let committed = |begun: &'_ Begun| match begun.outcome {
            Some((position, Decided::Commit(write_set))) => Some((position, write_set)),
            _ => None,
        };
        self.begun
            .values()
            .filter_map(|begun| committed(begun).map(|(position, write_set)| (position, (begun, write_set))))
            .collect()
    }
}

/// The database after each commit, as far as the write sets are known.
pub struct States<'a> {
    /// By the commit's position; 0 is the start.
    states: BTreeMap<Position, BTreeMap<Key, Value>>,
    /// What each commit changed.
    pub changes: BTreeMap<Position, (TxId, Slot, &'a BTreeMap<Key, Change>)>,
}

/// Applies the commits in their order. Those after one whose write set nobody has shown yet are left out.
pub fn states<'a>(history: &'a History, model: &Model) -> States<'a> {
    let mut states = BTreeMap::from([(Position(0), history.rows.clone())]);
    let mut changes = BTreeMap::new();
    let mut now = history.rows.clone();
    for (position, (begun, write_set)) in model.commits() {
        let Some(rows) = history.write_sets.get(&write_set) else { break };
        for (key, (_, after)) in rows {
            match after {
                Some(value) => now.insert(*key, value.clone()),
                None => now.remove(key),
            };
        }
        states.insert(position, now.clone());
        changes.insert(position, (begun.tx, begun.slot, rows));
    }
    States { states, changes }
}

impl States<'_> {
    /// The database as a snapshot at `slot` sees it; nothing if that is not known.
    pub fn before(&self, slot: Position, model: &Model) -> Option<&BTreeMap<Key, Value>> {
        let known = model.commits().into_keys().filter(|position| *position < slot).max();
        let known = known.unwrap_or(Position(0));
        self.states.get(&known)
    }

    /// The last one.
    pub fn last(&self) -> Option<&BTreeMap<Key, Value>> {
        self.states.values().next_back()
    }

    /// Whether a transaction that committed between two positions changed a row.
    pub fn changed_between(&self, key: Key, after: Position, before: Position) -> Option<TxId> {
        let between = self.changes.range(after..before);
        between
            .filter(|(position, _)| **position > after)
            .find_map(|(_, (tx, _, rows))| rows.contains_key(&key).then_some(*tx))
    }
}
