//! One replica of the simulated cluster: what survives a crash (store, log, write sets), and what runs.

use crate::adversaries::Adversary;
use crate::disk::Disk;
use crate::scenario::MASTER;
use crate::store::{Pid, Store, WriteSet};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::Core;
use steeldb_replica::promises::Promises;
use steeldb_replica::scheduler::Scheduler;
use steeldb_types::{Digest, Position, ReplicaId, SessionKey, Slot, Term, TxId};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::SignatureMemo;

pub(crate) struct Node {
    pub(crate) id: ReplicaId,
    pub(crate) key: SecretKey,
    /// Whether it is one of the f.
    pub(crate) faulty: bool,
    pub(crate) adversaries: Vec<Box<dyn Adversary>>,
    /// How many times slower than others its store and its links are.
    pub(crate) slowness: u64,
    pub(crate) store: Store,
    /// The store is down, and the agent has not noticed yet.
    pub(crate) store_down: bool,
    /// How much of the order is durable here, where the order is an ideal one.
    pub(crate) journal: usize,
    /// The log of its ordering core, where it has one.
    pub(crate) disk: Disk,
    /// Write sets that it decoded, by name, kept for peers.
    pub(crate) write_sets: BTreeMap<String, WriteSet>,
    /// Counts the starts: what was meant for an earlier life is void.
    pub(crate) life: u32,
    /// Nothing while it is down.
    pub(crate) running: Option<Running>,
}

/// What is lost with a crash.
pub(crate) struct Running {
    pub(crate) scheduler: Scheduler,
    pub(crate) core: Option<Core>,
    pub(crate) memo: std::cell::RefCell<SignatureMemo>,
    pub(crate) promises: Promises,
    /// Entries of the order that the scheduler has seen.
    pub(crate) delivered: usize,
    /// Whose each connection of a client is.
    pub(crate) connections: BTreeMap<u64, usize>,
    /// Over which connection a session's ordered requests came.
    pub(crate) origins: BTreeMap<SessionKey, u64>,
    /// Each session's backend.
    pub(crate) workers: BTreeMap<SessionKey, Pid>,
    /// Backends whose next step is set.
    pub(crate) stepping: BTreeSet<Pid>,
    /// Operations that it gave their backends as the master: behind no barrier.
    pub(crate) led: BTreeSet<(TxId, u32)>,
    /// Write sets that peers are asked for.
    pub(crate) fetching: BTreeMap<TxId, Fetch>,
    /// Commits whose rows are to be made, in their order; nothing: they are being fetched.
    pub(crate) rows: BTreeMap<Position, Option<WriteSet>>,
    /// The first are being made.
    pub(crate) makes_rows: bool,
    /// When the last thing on a lane happens: lanes are first in, first out.
    pub(crate) lanes: BTreeMap<Lane, u64>,
    /// When the scheduler is woken, and the core.
    pub(crate) wake_at: Option<u64>,
    pub(crate) core_tick_at: Option<u64>,
}

/// Things of one lane happen in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Backend(Pid),
    Decoder,
    Anchors,
    Order,
    Disk,
}

/// A write set that is wanted.
pub(crate) struct Fetch {
    pub(crate) position: Position,
    pub(crate) slot: Slot,
    pub(crate) write_set: Digest,
    pub(crate) asked: usize,
    pub(crate) asked_at_us: u64,
}

impl Node {
    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    /// The master's term, as far as it knows.
    pub(crate) fn term(&self) -> Term {
        self.running.as_ref().map_or(Term::first(MASTER), |running| running.scheduler.term())
    }
}
