//! What the order has opened: transactions whose BEGIN is delivered and whose outcome is not, with the walls, the master's term
//! and the outcomes of those before. A function of the order alone, so a replica that starts makes it anew from its log.

use super::outcomes::{End, Outcomes};
use super::temporary::{Cleared, Temporaries};
use std::collections::BTreeMap;
use steeldb_types::{ClientId, Position, ReplicaId, SessionKey, Slot, Term, Timestamp, TxId, View};
use steeldb_wire::transaction::{CommitCertificate, Ordered, SessionOver, TransactionState, Wall};

/// Transactions of one client open at once, in the order, past which its oldest is dropped. Sessions that end after a
/// read-only transaction leave one open each. Counted per client, so that none can end another's; the same on all
/// replicas, since it depends on the order alone.
pub(super) const OPEN_PER_CLIENT_MAX: usize = 16_384;

/// Transactions whose BEGIN is delivered and whose outcome is not. A function of the order.
pub struct OpenTransactions {
    transactions: BTreeMap<TxId, Opened>,
    by_client: BTreeMap<ClientId, BTreeMap<Slot, TxId>>,
    /// The open transaction of each session: a session has one at a time.
    sessions: BTreeMap<SessionKey, TxId>,
    delivered: Position,
    /// The last commit of each database that raised the wall.
    walls: BTreeMap<String, Position>,
    /// The master's term, and who may be one.
    term: Term,
    view: View,
    /// What became of those before.
    outcomes: Outcomes,
    /// The sessions with temporary relations.
    pub(super) temporaries: Temporaries,
}

/// An open transaction.
pub(super) struct Opened {
    pub slot: Slot,
    pub database: String,
    pub timestamp: Timestamp,
}

/// A decided commit that is not applied at a replica which starts.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Its place in the order.
    pub position: Position,
    /// Where.
    pub database: String,
    /// The agreed time at its slot.
    pub timestamp: Timestamp,
    /// What committed it.
    pub certificate: CommitCertificate,
}

impl OpenTransactions {
    /// At the beginning of the order: none, under the first master of the first view.
    pub fn new(master: ReplicaId, view: View) -> OpenTransactions {
        OpenTransactions {
            transactions: BTreeMap::new(),
            by_client: BTreeMap::new(),
            sessions: BTreeMap::new(),
            delivered: Position::default(),
            walls: BTreeMap::new(),
            term: Term::first(master),
            view,
            outcomes: Outcomes::default(),
            temporaries: Temporaries::default(),
        }
    }

    /// The master's term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The master goes: the next member takes over.
    pub(super) fn depose(&mut self) {
        self.term = self.term.next(&self.view);
    }

    /// Another replica becomes the master.
    pub(super) fn move_to(&mut self, master: ReplicaId) {
        self.term = self.term.under(master);
    }

    /// The slot of an open transaction.
    pub fn slot(&self, tx: TxId) -> Option<Slot> {
        self.transactions.get(&tx).map(|opened| opened.slot)
    }

    /// How many transactions of a client are open.
    pub(super) fn open_of(&self, client: ClientId) -> usize {
        self.by_client.get(&client).map_or(0, BTreeMap::len)
    }

    /// Up to where the order is delivered.
    pub fn delivered(&self) -> Position {
        self.delivered
    }

    /// The open transactions with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (TxId, Slot)> {
        self.transactions.iter().map(|(tx, opened)| (*tx, opened.slot))
    }

    /// Opens a transaction; gives those that end by it: the session's previous one, and the client's oldest when it has
    /// too many. A counter that was used before opens nothing (A3: a tx id is used once).
    pub(super) fn open(
        &mut self,
        tx: TxId,
        slot: Slot,
        database: &str,
        timestamp: Timestamp,
    ) -> Option<Vec<TxId>> {
        if !self.outcomes.begin(tx) {
            return None;
        }
        let mut ended = Vec::new();
        if let Some(before) = self.sessions.get(&tx.session).copied() {
            self.close(before, End::NoChanges);
            ended.push(before);
        }
        self.transactions.insert(tx, Opened { slot, database: database.to_string(), timestamp });
        self.sessions.insert(tx.session, tx);
        let of_client = self.by_client.entry(tx.session.client).or_default();
        of_client.insert(slot, tx);
        if of_client.len() > OPEN_PER_CLIENT_MAX
            && let Some((_, oldest)) = of_client.pop_first()
        {
            self.close(oldest, End::NoChanges);
            ended.push(oldest);
        }
        Some(ended)
    }

    /// Follows a change of the membership: it closes every open transaction. Gives those.
    ///
    /// Votes name the slot of their transaction and no view. So that all votes of a certificate were cast in one view, the
    /// one whose weights judge it, no transaction outlives the view that it began in.
    /// A master that is no member any more is followed by the next one.
    pub fn change_view(&mut self, position: Position, view: View) -> Vec<TxId> {
        self.delivered = position;
        self.view = view;
        if !self.view.contains(self.term.master) {
            self.depose();
        }
        self.sessions.clear();
        self.by_client.clear();
        let ended: Vec<TxId> = std::mem::take(&mut self.transactions).into_keys().collect();
        for tx in &ended {
            self.outcomes.ended(*tx, End::NoChanges);
        }
        ended
    }

    /// A client's request is ordered, or an outcome: from here on the order is that far.
    pub(super) fn follow(&mut self, position: Position, payload: &Ordered) {
        self.delivered = position;
        if let Some(session) = payload.session() {
            self.outcomes.used(session, position);
            self.temporaries.used(session, position);
        }
    }

    /// What became of a transaction. One that never began never will.
    pub(super) fn ask(&mut self, tx: TxId) -> TransactionState {
        match self.transactions.contains_key(&tx) {
            true => TransactionState::InProgress,
            false => self.outcomes.ask(tx),
        }
    }

    /// Closes a transaction; gives what it was opened with.
    pub(super) fn close(&mut self, tx: TxId, end: End) -> Option<Opened> {
        let opened = self.transactions.remove(&tx)?;
        self.outcomes.ended(tx, end);
        if let Some(of_client) = self.by_client.get_mut(&tx.session.client) {
            of_client.remove(&opened.slot);
        }
        self.sessions.remove(&tx.session);
        Some(opened)
    }

    /// Closes a transaction whose Commit is delivered; gives what it was opened with, and whether it commits. It must be
    /// open.
    ///
    /// One that ran DDL does not if other DDL was committed since its slot: it ran on other catalogs than those that it
    /// would be applied to, and a replica that is late, and has ended it for the wall, could not execute it again as those
    /// did that had it prepared.
    pub(super) fn close_committed(
        &mut self,
        position: Position,
        certificate: &CommitCertificate,
    ) -> Option<(Opened, bool)> {
        let database = &self.transactions.get(&certificate.tx)?.database;
        let wall = certificate.wall.is_raised();
        let void = wall && self.walls.get(database).is_some_and(|wall| *wall > certificate.slot);
        let end = if void { End::NoChanges } else { End::Committed(position) };
        let opened = self.close(certificate.tx, end)?;
        if wall && !void {
            self.walls.insert(opened.database.clone(), position);
        }
        Some((opened, !void))
    }

    /// A replica's word that a session is over is ordered. If that makes it so, its open transaction is closed.
    pub(super) fn session_over(&mut self, word: &SessionOver, view: &View) -> Option<Cleared> {
        let cleared = self.temporaries.over(word, view)?;
        self.end_session(cleared.0);
        Some(cleared)
    }

    /// A committed transaction defined temporary relations. Gives the session that has to make room for its own.
    pub(super) fn defined(
        &mut self,
        position: Position,
        certificate: &CommitCertificate,
        database: &str,
    ) -> Option<Cleared> {
        if certificate.wall != Wall::Session {
            return None;
        }
        let cleared = self.temporaries.defined(certificate.tx.session, database, position)?;
        self.end_session(cleared.0);
        Some(cleared)
    }

    pub(super) fn end_session(&mut self, session: SessionKey) {
        if let Some(tx) = self.sessions.get(&session).copied() {
            self.close(tx, End::NoChanges);
        }
    }

    /// Follows the order without acting on it: what a restarted replica does with its own log. Gives the commits.
    pub fn replay(&mut self, position: Position, timestamp: Timestamp, payload: &Ordered) -> Option<Missing> {
        self.follow(position, payload);
        match payload {
            Ordered::Begin { tx, database, .. } => {
                self.open(*tx, position, database, timestamp);
                None
            }
            Ordered::Rollback { tx, slot } => {
                if self.slot(*tx) == Some(*slot) {
                    self.close(*tx, End::NoChanges);
                }
                None
            }
            Ordered::Abort(certificate) => {
                if self.slot(certificate.tx) == Some(certificate.slot) {
                    self.close(certificate.tx, End::NoChanges);
                }
                None
            }
            Ordered::Commit(certificate) => {
                if self.slot(certificate.tx) != Some(certificate.slot) {
                    return None;
                }
                let (opened, commits) = self.close_committed(position, certificate)?;
                let Opened { database, timestamp, .. } = opened;
                if commits {
                    self.defined(position, certificate, &database);
                }
                let certificate = certificate.clone();
                commits.then_some(Missing { position, database, timestamp, certificate })
            }
            Ordered::Depose(certificate) => {
                if certificate.term == self.term {
                    self.depose();
                }
                None
            }
            Ordered::Move(wish) => {
                if wish.term == self.term {
                    self.move_to(wish.to);
                }
                None
            }
            Ordered::Outcome { tx, .. } => {
                // It may be void from here on.
                self.ask(*tx);
                None
            }
            Ordered::SessionOver(word) => {
                self.session_over(word, &self.view.clone());
                None
            }
            Ordered::Maintain { .. } | Ordered::Verify { .. } => None,
        }
    }
}
