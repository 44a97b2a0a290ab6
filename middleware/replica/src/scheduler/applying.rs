//! Applying: waves of commits, and the snapshots between them (rules 3 and 8).
//!
//! Delivered BEGINs, commits and the like wait in one queue. Commits up to the next item of another kind form a wave and
//! are applied in parallel, each as soon as it is prepared here; any other item waits until all before it are applied.

use super::event::{AnchorId, DecodedSet};
use super::transaction::{Decided, Phase};
use super::{Effect, Scheduler};
use std::collections::{BTreeMap, VecDeque};
use steeldb_types::{Position, SessionKey, TxId};

/// Something delivered that waits for its turn.
pub(super) enum Item {
    Begin {
        position: Position,
        tx: TxId,
        database: String,
    },
    Commit {
        position: Position,
        tx: TxId,
        wall: bool,
    },
    Maintain {
        position: Position,
        session: SessionKey,
        sequence: u64,
        database: String,
        role: String,
        sql: String,
    },
    Verify {
        position: Position,
        session: SessionKey,
        sequence: u64,
        database: String,
    },
}

impl Item {
    fn position(&self) -> Position {
        match self {
            Item::Begin { position, .. }
            | Item::Commit { position, .. }
            | Item::Maintain { position, .. }
            | Item::Verify { position, .. } => *position,
        }
    }
}

/// A snapshot held open.
struct Anchor {
    database: String,
    /// None until it is exported.
    snapshot: Option<String>,
    /// Transactions that have not imported it yet.
    users: usize,
}

/// The queue and what is under way.
#[derive(Default)]
pub(super) struct Applying {
    queue: VecDeque<Item>,
    /// Commits issued and not yet done.
    in_flight: BTreeMap<Position, TxId>,
    /// A commit that raises the wall is under way: nothing passes it.
    wall_in_flight: bool,
    delivered: Position,
    issued: Position,
    anchors: BTreeMap<AnchorId, Anchor>,
    /// The anchor whose snapshot nothing has been committed after, by database.
    current: BTreeMap<String, AnchorId>,
    /// An anchor that is taking its snapshot: no commit is issued meanwhile.
    taking: Option<AnchorId>,
    anchors_taken: u64,
    /// Anchors that table digests are being taken on.
    verifying: BTreeMap<(SessionKey, u64), AnchorId>,
    /// Write sets that came before PREPARE returned.
    pub decoded: BTreeMap<TxId, DecodedSet>,
}

impl Applying {
    pub(super) fn enqueue(&mut self, item: Item) {
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
        let first_commit =
            self.queue.iter().find(|item| matches!(item, Item::Commit { .. })).map(Item::position);
        let first = self.in_flight.keys().next().copied().into_iter().chain(first_commit).min();
        first.map_or(self.delivered, |position| Position(position.0 - 1))
    }

    /// The highest position whose COMMIT PREPARED has been issued (A13).
    pub(super) fn issued_upto(&self) -> Position {
        self.issued
    }

    /// The name of an anchor's snapshot, once it is there.
    pub(super) fn snapshot(&self, anchor: AnchorId) -> Option<&str> {
        self.anchors.get(&anchor)?.snapshot.as_deref()
    }

    /// A commit is done; gives its position.
    pub(super) fn landed(&mut self, tx: TxId) -> Option<Position> {
        let position =
            self.in_flight.iter().find(|(_, other)| **other == tx).map(|(position, _)| *position)?;
        self.in_flight.remove(&position);
        if self.in_flight.is_empty() {
            self.wall_in_flight = false;
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
    /// Moves the queue on as far as it goes.
    pub(super) fn pump(&mut self) {
        if self.diverged.is_some() {
            return;
        }
        loop {
            self.issue_commits();
            if !self.applying.in_flight.is_empty()
                || self.applying.taking.is_some()
                || self.diverged.is_some()
            {
                return;
            }
            match self.applying.queue.front() {
                None | Some(Item::Commit { .. }) => return,
                Some(Item::Begin { tx, database, .. }) => {
                    let (tx, database) = (*tx, database.clone());
                    let waits = self.transactions.get(&tx).is_some_and(|t| t.phase == Phase::Running);
                    if waits {
                        let Some(anchor) = self.anchor(&database) else { return };
                        self.use_anchor(tx, anchor);
                    }
                    self.applying.queue.pop_front();
                    self.advance(tx);
                }
                Some(Item::Maintain { .. }) => {
                    if let Some(Item::Maintain { session, sequence, database, role, sql, .. }) =
                        self.applying.queue.pop_front()
                    {
                        self.push(Effect::Maintain { session, sequence, database, role, sql });
                    }
                }
                Some(Item::Verify { database, .. }) => {
                    let database = database.clone();
                    let Some(anchor) = self.anchor(&database) else { return };
                    let snapshot = self.applying.snapshot(anchor).unwrap_or_default().to_string();
                    if let Some(Item::Verify { position, session, sequence, database }) =
                        self.applying.queue.pop_front()
                    {
                        if let Some(state) = self.applying.anchors.get_mut(&anchor) {
                            state.users += 1;
                            self.applying.verifying.insert((session, sequence), anchor);
                        }
                        self.push(Effect::Verify { session, sequence, database, snapshot, position });
                    }
                }
            }
        }
    }

    /// Issues the commits of the wave at the queue's head that are prepared here.
    fn issue_commits(&mut self) {
        if self.applying.taking.is_some() {
            return;
        }
        let mut at = 0;
        while let Some(Item::Commit { position, tx, wall }) = self.applying.queue.get(at) {
            let (position, tx, wall) = (*position, *tx, *wall);
            let alone = wall || self.applying.wall_in_flight;
            if alone && (at > 0 || !self.applying.in_flight.is_empty()) {
                return;
            }
            if wall && self.finished_older(tx) {
                return;
            }
            match self.readiness(tx) {
                Readiness::NotYet => {
                    if wall {
                        return;
                    }
                    at += 1;
                }
                Readiness::CatchUp(reason) => {
                    self.applying.queue.remove(at);
                    self.catch_up(position, tx, wall, reason);
                }
                Readiness::Ready => {
                    self.applying.queue.remove(at);
                    self.issue(position, tx, wall);
                }
            }
        }
    }

    fn issue(&mut self, position: Position, tx: TxId, wall: bool) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let (gid, database) = (transaction.gid(), transaction.database.clone());
        self.under_way(position, tx, wall);
        self.push(Effect::CommitPrepared { tx, gid, database });
    }

    /// Notes that a commit is being applied.
    fn under_way(&mut self, position: Position, tx: TxId, wall: bool) {
        self.applying.in_flight.insert(position, tx);
        self.applying.wall_in_flight |= wall;
        self.applying.issued = self.applying.issued.max(position);
        // The snapshots held now are no longer those of the next BEGIN.
        let current = std::mem::take(&mut self.applying.current);
        for anchor in current.into_values() {
            self.drop_unused(anchor);
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
                && Scheduler::wants_commit(&other.finish)
                && !matches!(other.phase, Phase::Prepared { .. } | Phase::GivenUp | Phase::ReadOnlyDone)
        })
    }

    fn readiness(&self, tx: TxId) -> Readiness {
        let Some(transaction) = self.transactions.get(&tx) else {
            return Readiness::CatchUp("it is not known here");
        };
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return Readiness::NotYet };
        let waited = self.now_us.saturating_sub(transaction.decided_at_us) > self.config.vote_timeout_us;
        match &transaction.phase {
            // After a restart w is not known; the name carries tx and slot, and what was prepared for them is one.
            Phase::Prepared { write_set, .. } if *write_set == steeldb_types::Digest::default() => {
                Readiness::Ready
            }
            Phase::Prepared { write_set, .. } => {
                let same = transaction.transcript.as_ref().map(|t| t.head()) == Some(certificate.transcript);
                if *write_set == certificate.write_set && same {
                    Readiness::Ready
                } else {
                    Readiness::CatchUp("its effects here are not those that a quorum vouched for")
                }
            }
            Phase::Preparing { .. } => Readiness::NotYet,
            Phase::Running | Phase::Completing | Phase::Queued { .. } => {
                // The client's messages may be slower than the others' votes.
                let open = self.sessions.contains_key(&tx.session);
                match (waited || transaction.decided_at_us == 0, open) {
                    (false, _) => Readiness::NotYet,
                    (true, false) => Readiness::CatchUp("its session was not open here"),
                    (true, true) => Readiness::CatchUp("it was not executed here in time"),
                }
            }
            Phase::GivenUp => Readiness::CatchUp("it was given up here"),
            Phase::ReadOnlyDone => Readiness::CatchUp("it wrote nothing here"),
        }
    }

    /// Takes a committed transaction's effects from a peer. What it holds here goes first.
    fn catch_up(&mut self, position: Position, tx: TxId, wall: bool, reason: &'static str) {
        self.under_way(position, tx, wall);
        self.give_up(tx);
        let Some(transaction) = self.transactions.get_mut(&tx) else {
            return self.diverge(position, tx, reason.to_string());
        };
        let Some(Decided::Commit { certificate }) = &transaction.outcome else { return };
        let (write_set, slot, raises_wall) = (certificate.write_set, certificate.slot, certificate.wall);
        if raises_wall {
            // Decoding shows no DDL; its re-execution at its slot is not begun.
            return self.diverge(position, tx, format!("a committed DDL transaction is not here: {reason}"));
        }
        tracing::warn!(%tx, %position, reason, "catching up by a peer's write set");
        let (gid, database) = (transaction.gid(), transaction.database.clone());
        let prepared = matches!(transaction.phase, Phase::Prepared { .. });
        transaction.phase = Phase::GivenUp;
        if prepared {
            self.push(Effect::RollbackPrepared { gid, database: database.clone() });
        } else {
            // The permit that landing gives back.
            self.permits_used += 1;
        }
        self.push(Effect::CatchUp { tx, slot, database, write_set });
    }

    /// A write set was applied.
    pub(super) fn caught_up(&mut self, tx: TxId, result: Result<(), String>) {
        if let Err(reason) = result {
            if let Some(position) = self.applying.landed(tx) {
                self.diverge(position, tx, format!("catching up failed: {reason}"));
            }
            return;
        }
        self.commit_applied(tx, Ok(()));
    }

    /// The anchor on which BEGINs of now may import; starts one if there is none and gives it once it is taken.
    fn anchor(&mut self, database: &str) -> Option<AnchorId> {
        if let Some(anchor) = self.applying.current.get(database) {
            return self.applying.snapshot(*anchor).map(|_| *anchor);
        }
        self.applying.anchors_taken += 1;
        let anchor = AnchorId(self.applying.anchors_taken);
        let state = Anchor { database: database.to_string(), snapshot: None, users: 0 };
        self.applying.anchors.insert(anchor, state);
        self.applying.current.insert(database.to_string(), anchor);
        self.applying.taking = Some(anchor);
        self.push(Effect::TakeAnchor { anchor, database: database.to_string() });
        None
    }

    fn use_anchor(&mut self, tx: TxId, anchor: AnchorId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && let Some(state) = self.applying.anchors.get_mut(&anchor)
        {
            transaction.anchor = Some(anchor);
            state.users += 1;
        }
    }

    /// An anchor reports.
    pub(super) fn anchored(&mut self, anchor: AnchorId, snapshot: Result<String, String>) {
        if self.applying.taking == Some(anchor) {
            self.applying.taking = None;
        }
        match snapshot {
            Ok(name) => {
                if let Some(state) = self.applying.anchors.get_mut(&anchor) {
                    state.snapshot = Some(name);
                }
            }
            Err(reason) => {
                // Tried again: nothing was applied meanwhile, and another connection may do better.
                tracing::error!(reason, "no snapshot could be exported");
                if let Some(state) = self.applying.anchors.remove(&anchor) {
                    self.applying.current.remove(&state.database);
                }
            }
        }
        self.pump();
    }

    /// Table digests were taken.
    pub(super) fn verified(&mut self, session: SessionKey, sequence: u64) {
        if let Some(anchor) = self.applying.verifying.remove(&(session, sequence)) {
            self.release_anchor(anchor);
        }
    }

    /// One user less.
    pub(super) fn release_anchor(&mut self, anchor: AnchorId) {
        if let Some(state) = self.applying.anchors.get_mut(&anchor) {
            state.users = state.users.saturating_sub(1);
        }
        self.drop_unused(anchor);
    }

    fn drop_unused(&mut self, anchor: AnchorId) {
        let unused = self.applying.anchors.get(&anchor).is_some_and(|state| state.users == 0);
        if unused && !self.applying.current.values().any(|current| *current == anchor) {
            self.applying.anchors.remove(&anchor);
            self.push(Effect::ReleaseAnchor(anchor));
        }
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
