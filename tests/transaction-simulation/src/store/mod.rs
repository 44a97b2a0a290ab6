//! An in-memory store in PostgreSQL's place: snapshot isolation over one table of keys and values.
//!
//! As PostgreSQL at REPEATABLE READ: a row is locked by whoever changes it and others wait; who changed it first and
//! commits makes the others fail (40001); a key that is taken is 23505, once its owner has committed; savepoints undo
//! changes and locks; cycles of waiting are found after a while (40P01). What is prepared survives a crash with its locks
//! and ends by name only. Snapshots are numbers of commits, exported by anchors.

mod backend;
mod execute;
mod messages;
mod rows;
mod write_set;

#[cfg(test)]
mod tests;

pub(crate) use backend::{Output, StepResult};
pub(crate) use messages::{Answer, join, split};
pub(crate) use rows::Rows;
pub(crate) use write_set::WriteSet;

use crate::sql::{Key, Value};
use backend::Backend;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_replica::scheduler::AnchorId;
use steeldb_types::TxId;

/// A transaction of the store's own: who holds a lock.
pub(crate) type Xid = u64;

/// A backend's process.
pub(crate) type Pid = u32;

/// A transaction that is prepared.
#[derive(Clone, Debug)]
struct Prepared {
    xid: Xid,
    write_set: WriteSet,
}

/// Why a write set does not apply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ApplyError {
    /// Somebody holds a row.
    Locked,
    /// What is here is not what it changes.
    DoesNotFit(String),
}

/// The store of one replica.
#[derive(Default)]
pub(crate) struct Store {
    /// Whose it is: some statements do not do the same everywhere.
    number: u32,
    pub(crate) rows: Rows,
    locks: BTreeMap<Key, Xid>,
    prepared: BTreeMap<String, Prepared>,
    records: BTreeSet<TxId>,
    backends: BTreeMap<Pid, Backend>,
    anchors: BTreeMap<AnchorId, u64>,
    xids: Xid,
    processes: Pid,
    /// Backends that may go on: what they waited for was let go.
    woken: Vec<Pid>,
}

impl Store {
    /// The store of a replica, with `rows` from the start.
    pub(crate) fn new(number: u32, rows: &BTreeMap<Key, Value>) -> Store {
        Store { number, rows: Rows::new(rows), ..Store::default() }
    }

    /// Everything but what is committed or prepared is gone.
    pub(crate) fn crash(&mut self) {
        self.backends.clear();
        self.anchors.clear();
        self.woken.clear();
        let kept: BTreeSet<Xid> = self.prepared.values().map(|prepared| prepared.xid).collect();
        self.locks.retain(|_, xid| kept.contains(xid));
    }

    /// Takes a snapshot and keeps it for others.
    pub(crate) fn export(&mut self, anchor: AnchorId) -> String {
        self.anchors.insert(anchor, self.rows.commits());
        format!("anchor {}", anchor.0)
    }

    pub(crate) fn release(&mut self, anchor: AnchorId) {
        self.anchors.remove(&anchor);
    }

    fn import(&self, name: &str) -> Option<u64> {
        let anchor = AnchorId(name.strip_prefix("anchor ")?.parse().ok()?);
        self.anchors.get(&anchor).copied()
    }

    /// COMMIT PREPARED; what it changed, or nothing if there is no such transaction.
    pub(crate) fn commit_prepared(&mut self, gid: &str) -> Option<WriteSet> {
        let prepared = self.prepared.remove(gid)?;
        self.rows.commit(prepared.write_set.rows.iter().map(|(key, (_, after))| (*key, after.clone())));
        self.records.insert(prepared.write_set.tx);
        self.let_go(prepared.xid);
        Some(prepared.write_set)
    }

    /// ROLLBACK PREPARED; what it would have changed, or nothing if there is no such transaction.
    pub(crate) fn rollback_prepared(&mut self, gid: &str) -> Option<WriteSet> {
        let prepared = self.prepared.remove(gid)?;
        self.let_go(prepared.xid);
        Some(prepared.write_set)
    }

    /// What is prepared, by name.
    pub(crate) fn prepared(&self) -> impl Iterator<Item = (&String, &WriteSet)> {
        self.prepared.iter().map(|(gid, prepared)| (gid, &prepared.write_set))
    }

    /// Whether a transaction's record is committed here.
    pub(crate) fn is_recorded(&self, tx: TxId) -> bool {
        self.records.contains(&tx)
    }

    /// Applies a write set of elsewhere; whether it was not here before.
    pub(crate) fn apply(&mut self, write_set: &WriteSet) -> Result<bool, ApplyError> {
        if self.is_recorded(write_set.tx) {
            return Ok(false);
        }
        for (key, (before, _)) in &write_set.rows {
            if self.locks.contains_key(key) {
                return Err(ApplyError::Locked);
            }
            if self.rows.latest(*key) != before.as_ref() {
                let here = self.rows.latest(*key);
                return Err(ApplyError::DoesNotFit(format!("row {key} is {here:?} and not {before:?}")));
            }
        }
        self.rows.commit(write_set.rows.iter().map(|(key, (_, after))| (*key, after.clone())));
        self.records.insert(write_set.tx);
        Ok(true)
    }

    /// The backends that a backend waits for; 0 stands for what is prepared.
    pub(crate) fn blockers(&self, pid: Pid) -> Vec<Pid> {
        let Some(xid) = self.backends.get(&pid).and_then(|backend| backend.waits_for) else {
            return Vec::new();
        };
        vec![self.owner(xid).unwrap_or(0)]
    }

    /// The backend that runs a transaction of the store.
    fn owner(&self, xid: Xid) -> Option<Pid> {
        self.backends.iter().find(|(_, backend)| backend.xid() == Some(xid)).map(|(pid, _)| *pid)
    }

    /// Whether a backend waits for itself, over others.
    pub(crate) fn is_deadlocked(&self, pid: Pid) -> bool {
        let mut at = pid;
        for _ in 0..=self.backends.len() {
            let Some(xid) = self.backends.get(&at).and_then(|backend| backend.waits_for) else {
                return false;
            };
            let Some(owner) = self.owner(xid) else { return false };
            if owner == pid {
                return true;
            }
            at = owner;
        }
        false
    }

    /// Takes a row for a transaction; who has it already, if somebody else does.
    fn lock(&mut self, key: Key, xid: Xid) -> Result<(), Xid> {
        match self.locks.get(&key) {
            Some(owner) if *owner != xid => Err(*owner),
            _ => {
                self.locks.insert(key, xid);
                Ok(())
            }
        }
    }

    /// A transaction lets all its rows go.
    fn let_go(&mut self, xid: Xid) {
        self.locks.retain(|_, owner| *owner != xid);
        self.wake(xid);
    }

    fn wake(&mut self, xid: Xid) {
        let mut waiting: Vec<(u64, Pid)> = self
            .backends
            .iter()
            .filter(|(_, backend)| backend.waits_for == Some(xid))
            .map(|(pid, backend)| (backend.waits_since, *pid))
            .collect();
        waiting.sort_unstable();
        self.woken.extend(waiting.into_iter().map(|(_, pid)| pid));
    }

    /// Backends that may go on, the longest waiting first.
    pub(crate) fn take_woken(&mut self) -> Vec<Pid> {
        std::mem::take(&mut self.woken)
    }

    /// How many backends there are.
    pub(crate) fn backends(&self) -> usize {
        self.backends.len()
    }
}
