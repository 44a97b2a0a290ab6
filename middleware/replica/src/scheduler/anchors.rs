//! Anchors: snapshots held open between waves for BEGINs to import (rule 3). Each is a connection, so they are capped
//! per database (B12): the oldest one that nobody is importing is let go, and who waited for it votes Blocked.

use super::event::AnchorId;
use super::planted::PlantedBug;
use super::transaction::Phase;
use super::{Effect, Scheduler};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{SessionKey, TxId, limits};
use steeldb_wire::transaction::VoteKind;

/// How often in a row a snapshot may fail to be taken before who waits for it is passed over: one connection may fail,
/// but a replica that cannot take a snapshot must not hold back all that is ordered behind.
const FAILURES_MAX: u32 = 5;

/// Who holds an anchor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum User {
    /// A transaction that has not imported it yet, or may have to once more.
    Transaction(TxId),
    /// Table digests that are being taken on it.
    Verify(SessionKey, u64),
}

/// A snapshot held open.
struct Anchor {
    database: String,
    /// None until it is exported.
    snapshot: Option<String>,
    users: BTreeSet<User>,
}

/// The anchors of this replica.
#[derive(Default)]
pub(super) struct Anchors {
    held: BTreeMap<AnchorId, Anchor>,
    /// The anchor whose snapshot nothing has been committed after, by database.
    current: BTreeMap<String, AnchorId>,
    /// An anchor that is taking its snapshot: no commit is issued meanwhile.
    taking: Option<AnchorId>,
    taken: u64,
    /// Commits issued; for a planted bug alone.
    passed: u64,
    /// Failures in a row.
    failures: u32,
    /// Not tried again before.
    rest_until_us: u64,
}

/// A snapshot for a BEGIN.
pub(super) enum Taken {
    /// Here it is.
    Anchor(AnchorId),
    /// It is being taken.
    NotYet,
    /// It cannot be taken.
    Never,
}

impl Anchors {
    /// The name of an anchor's snapshot, once it is there.
    pub(super) fn snapshot(&self, anchor: AnchorId) -> Option<&str> {
        self.held.get(&anchor)?.snapshot.as_deref()
    }

    pub(super) fn is_taking(&self) -> bool {
        self.taking.is_some()
    }

    pub(super) fn hold(&mut self, anchor: AnchorId, user: User) {
        if let Some(state) = self.held.get_mut(&anchor) {
            state.users.insert(user);
        }
    }

    /// The anchor that table digests are being taken on.
    pub(super) fn verifying(&self, session: SessionKey, sequence: u64) -> Option<AnchorId> {
        let user = User::Verify(session, sequence);
        self.held.iter().find(|(_, anchor)| anchor.users.contains(&user)).map(|(id, _)| *id)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

impl Scheduler {
    /// The anchor on which BEGINs of now may import; starts one if there is none.
    pub(super) fn anchor(&mut self, database: &str) -> Taken {
        if let Some(anchor) = self.anchors.current.get(database) {
            return match self.anchors.snapshot(*anchor) {
                Some(_) => Taken::Anchor(*anchor),
                None => Taken::NotYet,
            };
        }
        if self.anchors.failures >= FAILURES_MAX {
            self.anchors.failures = 0;
            return Taken::Never;
        }
        if self.now_us < self.anchors.rest_until_us {
            return Taken::NotYet;
        }
        self.cap_anchors(database);
        self.anchors.taken += 1;
        let anchor = AnchorId(self.anchors.taken);
        let state = Anchor { database: database.to_string(), snapshot: None, users: BTreeSet::new() };
        self.anchors.held.insert(anchor, state);
        self.anchors.current.insert(database.to_string(), anchor);
        self.anchors.taking = Some(anchor);
        self.push(Effect::TakeAnchor { anchor, database: database.to_string() });
        Taken::NotYet
    }

    /// Makes room for one more anchor. Those that backends are importing just now are never let go.
    fn cap_anchors(&mut self, database: &str) {
        let of_database = || self.anchors.held.iter().filter(|(_, anchor)| anchor.database == database);
        if of_database().count() < limits::ANCHORS_MAX {
            return;
        }
        let importing = |user: &User| match user {
            User::Transaction(tx) => self
                .transactions
                .get(tx)
                .is_some_and(|transaction| transaction.begun && !transaction.imported),
            User::Verify(..) => true,
        };
        let Some((oldest, anchor)) = of_database().find(|(_, anchor)| !anchor.users.iter().any(importing))
        else {
            return;
        };
        let (oldest, users) = (*oldest, anchor.users.clone());
        for user in users {
            let User::Transaction(tx) = user else { continue };
            let Some(transaction) = self.transactions.get(&tx) else { continue };
            if transaction.phase == Phase::GivenUp {
                self.release_anchor_of(tx);
            } else if transaction.begun {
                self.release_imported(tx);
            } else {
                self.cast_against(tx, VoteKind::Blocked);
                self.give_up(tx);
                self.release_anchor_of(tx);
            }
        }
        self.drop_unused(oldest);
    }

    /// An anchor reports.
    pub(super) fn anchored(&mut self, anchor: AnchorId, snapshot: Result<String, String>) {
        if self.anchors.taking == Some(anchor) {
            self.anchors.taking = None;
        }
        match snapshot {
            Ok(name) => {
                self.anchors.failures = 0;
                if let Some(state) = self.anchors.held.get_mut(&anchor) {
                    state.snapshot = Some(name);
                }
            }
            Err(reason) => {
                // Tried again, a little later: nothing is applied meanwhile, and another connection may do better.
                tracing::error!(reason, "no snapshot could be exported");
                self.anchors.failures += 1;
                self.anchors.rest_until_us = self.now_us + 100_000;
                if let Some(state) = self.anchors.held.remove(&anchor) {
                    self.anchors.current.remove(&state.database);
                }
            }
        }
        self.pump();
    }

    /// One user less.
    pub(super) fn release_anchor(&mut self, anchor: AnchorId, user: User) {
        if let Some(state) = self.anchors.held.get_mut(&anchor) {
            state.users.remove(&user);
        }
        self.drop_unused(anchor);
    }

    /// A transaction does not need its anchor any more.
    pub(super) fn release_anchor_of(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && let Some(anchor) = transaction.anchor.take()
        {
            self.release_anchor(anchor, User::Transaction(tx));
        }
    }

    /// A commit is issued: the snapshots held now are no longer those of the next BEGIN.
    pub(super) fn pass_anchors(&mut self) {
        if self.config.has(PlantedBug::SnapshotUsedOn) {
            self.anchors.passed += 1;
            if !self.anchors.passed.is_multiple_of(3) {
                return;
            }
        }
        for anchor in std::mem::take(&mut self.anchors.current).into_values() {
            self.drop_unused(anchor);
        }
    }

    /// Table digests are to be those of now. Where nothing is committed a snapshot is the current one for as long as that, and
    /// what was changed behind the agent meanwhile does not show in it.
    pub(super) fn renew_anchor(&mut self, database: &str) {
        if let Some(anchor) = self.anchors.current.get(database).copied()
            && self.anchors.snapshot(anchor).is_some()
        {
            self.anchors.current.remove(database);
            self.drop_unused(anchor);
        }
    }

    fn drop_unused(&mut self, anchor: AnchorId) {
        let unused = self.anchors.held.get(&anchor).is_some_and(|state| state.users.is_empty());
        if unused && !self.anchors.current.values().any(|current| *current == anchor) {
            self.anchors.held.remove(&anchor);
            self.push(Effect::ReleaseAnchor(anchor));
        }
    }
}
