//! What a run shows: what was ordered, what correct replicas' stores did, and what correct clients saw. The invariants look
//! at nothing else.

use crate::client::Attempt;
use crate::scenario::{Kind, Scenario};
use crate::sequencer::Entry;
use crate::sql::{Key, Value};
use crate::store::WriteSet;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use steeldb_replica::scheduler::Sizes;
use steeldb_types::{ClientId, Digest, Position, ReplicaId, Slot, Timestamp, TxId};
use steeldb_wire::transaction::{
    Accusation, Executed, MasterMove, Ordered, TransactionState, Vote, VoteKind,
};

/// An ordered request.
#[derive(Clone, Debug)]
pub struct Ordinal {
    /// Where.
    pub position: Position,
    /// The agreed time.
    pub timestamp: Timestamp,
    /// What.
    pub payload: Ordered,
}

/// A transaction whose effects a replica has committed.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// w.
    pub write_set: Digest,
    /// The store's own count of commits with it.
    pub commits: u64,
}

/// A row before and after.
pub type Change = (Option<Value>, Option<Value>);

/// A prepared transaction that ended at a replica.
#[derive(Clone, Debug)]
pub struct Unprepared {
    /// Where.
    pub replica: ReplicaId,
    /// Which.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// By COMMIT PREPARED.
    pub committed: bool,
    /// Up to where the order had come there.
    pub delivered: Position,
    /// In a restart: the record of its BEGIN was not on the disk yet.
    pub forgotten: bool,
}

/// A block that runs on a snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where.
    pub replica: ReplicaId,
    /// Of which transaction.
    pub tx: TxId,
    /// The commits that the snapshot holds.
    pub holds: BTreeSet<TxId>,
    /// The block before it was not ended.
    pub within: bool,
}

/// An operation that a replica other than the master begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where.
    pub replica: ReplicaId,
    /// Of which transaction.
    pub tx: TxId,
    /// Which.
    pub number: u32,
    /// What it has to run behind.
    pub barrier: Position,
    /// How many commits the replica had applied.
    pub applied: usize,
}

/// What a run shows.
pub struct History {
    /// How many replicas there are.
    pub replicas: usize,
    /// Replicas that are not faulty.
    pub correct: BTreeSet<ReplicaId>,
    /// The rows that were there from the start.
    pub rows: BTreeMap<Key, Value>,
    /// The order.
    pub order: Vec<Ordinal>,
    /// Up to where it has come, by correct replica.
    pub delivered: BTreeMap<ReplicaId, Position>,
    /// What correct replicas committed, each in its own order.
    pub committed: BTreeMap<ReplicaId, Vec<Commit>>,
    /// The rows of each write set that a correct replica committed, rolled back or took from a peer.
    pub write_sets: BTreeMap<Digest, BTreeMap<Key, Change>>,
    /// Prepared transactions that ended at correct replicas.
    pub unprepared: Vec<Unprepared>,
    /// Snapshots at correct replicas.
    pub snapshots: Vec<Snapshot>,
    /// Which results correct replicas computed, by transaction, number and statement.
    pub executed: BTreeMap<(TxId, u32, String), BTreeSet<(ReplicaId, Digest)>>,
    /// Transactions of correct clients that have ended for them.
    pub attempts: Vec<Attempt>,
    /// Correct replicas that took themselves out.
    pub diverged: Vec<String>,
    /// What correct stores hold at the end.
    pub contents: BTreeMap<ReplicaId, BTreeMap<Key, Value>>,
    /// Votes of correct replicas, and whether what they vouch for was ever prepared there.
    pub votes: Vec<(ReplicaId, Vote, bool)>,
    /// What correct replicas' stores have prepared.
    pub prepared: BTreeSet<(ReplicaId, TxId, Slot, Digest)>,
    /// What correct replicas accused the master of.
    pub accused: Vec<(ReplicaId, Accusation)>,
    /// The moves of the master that the administrator signed.
    pub wishes: Vec<MasterMove>,
    /// Nothing else than those goes on, and no client meets another.
    pub calm: bool,
    /// When each client heard of each master epoch, virtual microseconds; of those that it skipped, with the next.
    pub heard: BTreeMap<(ClientId, u64), u64>,
    /// The master epochs that began at correct replicas.
    pub terms: BTreeSet<(ReplicaId, u64)>,
    /// The lowest barrier that each correct replica was told for an operation.
    pub barriers: BTreeMap<(ReplicaId, TxId, u32), Position>,
    /// Operations that correct replicas other than the master began.
    pub starts: Vec<Start>,
    /// What clients were told of the transactions that they asked for.
    pub told: Vec<(TxId, TransactionState)>,
    /// Clients.
    pub clients: usize,
    /// Transactions that may be prepared at once.
    pub permits: usize,
    /// The most that each correct replica's scheduler held, and what was prepared in its store.
    pub held: BTreeMap<ReplicaId, Held>,
    /// Commits that clients were told of before so many correct replicas had been delivered them as say so otherwise.
    pub ahead: u64,
}

/// The most that a replica held at once.
#[derive(Clone, Copy, Default, Debug)]
pub struct Held {
    /// By its scheduler.
    pub sizes: Sizes,
    /// Prepared in its store.
    pub prepared: usize,
}

/// What a run came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Transactions of correct clients.
    pub transactions: u64,
    /// Those that committed, as their clients were told.
    pub committed: u64,
    /// Commits in the order.
    pub ordered: u64,
    /// Commits that clients were told of before a quorum of replicas had heard of their decision.
    pub ahead: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.transactions += other.transactions;
        self.committed += other.committed;
        self.ordered += other.ordered;
        self.ahead += other.ahead;
    }
}

impl steeldb_campaign::Counts for Counts {
    fn fields(&self) -> Vec<(&'static str, u64)> {
        vec![("transactions", self.transactions), ("committed", self.committed), ("told_early", self.ahead)]
    }

    fn sentence(&self) -> String {
        format!("{} transactions, {} committed", self.transactions, self.committed)
    }
}

impl History {
    pub(crate) fn new(scenario: &Scenario, rows: BTreeMap<Key, Value>) -> History {
        History {
            replicas: usize::from(scenario.n),
            correct: scenario.replicas().filter(|replica| scenario.is_correct(*replica)).collect(),
            rows,
            order: Vec::new(),
            delivered: BTreeMap::new(),
            committed: BTreeMap::new(),
            write_sets: BTreeMap::new(),
            unprepared: Vec::new(),
            snapshots: Vec::new(),
            executed: BTreeMap::new(),
            attempts: Vec::new(),
            diverged: Vec::new(),
            contents: BTreeMap::new(),
            votes: Vec::new(),
            prepared: BTreeSet::new(),
            accused: Vec::new(),
            wishes: Vec::new(),
            heard: BTreeMap::new(),
            calm: scenario.kind == Kind::Moved,
            terms: BTreeSet::new(),
            barriers: BTreeMap::new(),
            starts: Vec::new(),
            told: Vec::new(),
            clients: (scenario.clients.correct as usize) + scenario.clients.faulty.len(),
            permits: scenario.permits,
            held: BTreeMap::new(),
            ahead: 0,
        }
    }

    pub(crate) fn ordered(&mut self, entry: &Entry) {
        let Entry { position, timestamp, payload, .. } = entry.clone();
        self.order.push(Ordinal { position, timestamp, payload });
    }

    /// A correct replica's ordering core delivers: the first tells what is ordered, the others must say the same.
    pub(crate) fn ordered_by_core(&mut self, entry: &Entry) -> Result<(), String> {
        let index = entry.position.0 as usize - 1;
        match self.order.get(index) {
            None if index == self.order.len() => self.ordered(entry),
            None => return Err(format!("{} is delivered before those ahead of it", entry.position)),
            Some(known) if known.payload == entry.payload && known.timestamp == entry.timestamp => {}
            Some(_) => return Err(format!("{} is something else at another replica", entry.position)),
        }
        Ok(())
    }

    pub(crate) fn delivered(&mut self, replica: ReplicaId, position: Position) {
        if self.correct.contains(&replica) {
            let upto = self.delivered.entry(replica).or_default();
            *upto = position.max(*upto);
        }
    }

    /// A piece of the master's stream reaches a replica.
    pub(crate) fn streamed(&mut self, replica: ReplicaId, entries: &[Executed]) {
        for entry in entries {
            let barrier = self.barriers.entry((replica, entry.tx, entry.number)).or_insert(entry.barrier);
            *barrier = entry.barrier.min(*barrier);
        }
    }

    pub(crate) fn started(&mut self, replica: ReplicaId, tx: TxId, number: u32) {
        let barrier = self.barriers.get(&(replica, tx, number)).copied().unwrap_or_default();
        let applied = self.committed.get(&replica).map_or(0, Vec::len);
        self.starts.push(Start { replica, tx, number, barrier, applied });
    }

    pub(crate) fn snapshot(&mut self, replica: ReplicaId, tx: TxId, commits: u64, within: bool) {
        let committed = self.committed.get(&replica).map(Vec::as_slice).unwrap_or_default();
        let holds = committed.iter().filter(|commit| commit.commits <= commits).map(|commit| commit.tx);
        let holds = holds.collect();
        self.snapshots.push(Snapshot { replica, tx, holds, within });
    }

    pub(crate) fn committed(&mut self, replica: ReplicaId, write_set: &WriteSet, commits: u64) {
        let digest = write_set.digest();
        let commit = Commit { tx: write_set.tx, slot: write_set.slot, write_set: digest, commits };
        self.committed.entry(replica).or_default().push(commit);
        self.write_sets.insert(digest, write_set.rows.clone());
    }

    pub(crate) fn unprepared(&mut self, replica: ReplicaId, write_set: &WriteSet, committed: bool) {
        let delivered = self.delivered.get(&replica).copied().unwrap_or_default();
        let (tx, slot) = (write_set.tx, write_set.slot);
        self.unprepared.push(Unprepared { replica, tx, slot, committed, delivered, forgotten: false });
    }

    /// A replica that starts rolls back what it had prepared; its log is on the disk up to `known`.
    pub(crate) fn unprepared_in_restart(
        &mut self,
        replica: ReplicaId,
        write_set: &WriteSet,
        known: Position,
    ) {
        self.unprepared(replica, write_set, false);
        if let Some(last) = self.unprepared.last_mut() {
            last.forgotten = write_set.slot > known;
        }
    }

    pub(crate) fn prepared(&mut self, replica: ReplicaId, write_set: &WriteSet) {
        self.prepared.insert((replica, write_set.tx, write_set.slot, write_set.digest()));
    }

    pub(crate) fn voted(&mut self, replica: ReplicaId, vote: &Vote) {
        let backed = match vote.kind {
            VoteKind::Prepared { write_set, .. } => {
                self.prepared.contains(&(replica, vote.tx, vote.slot, write_set))
            }
            _ => true,
        };
        self.votes.push((replica, vote.clone(), backed));
    }

    pub(crate) fn executed(&mut self, replica: ReplicaId, tx: TxId, number: u32, sql: &str, result: Digest) {
        self.executed.entry((tx, number, sql.to_string())).or_default().insert((replica, result));
    }

    /// A correct client's transaction has ended for it.
    pub(crate) fn ended(&mut self, attempt: &Attempt) {
        use crate::client::Ended;
        use steeldb_client_shim::Completion;
        let Some(Ended::Finished(Ok(Completion::Committed(Some(position))))) = attempt.ended else { return };
        let heard = self.delivered.values().filter(|upto| **upto >= position).count();
        let (n, f) = (self.replicas, (self.replicas - 1) / 3);
        // Of Q_v replicas that have applied it at most f are liars.
        self.ahead += u64::from(heard + f < n - f);
    }

    /// Notes what a correct replica holds now.
    pub(crate) fn holds(&mut self, replica: ReplicaId, now: Sizes, prepared: usize) {
        let Held { sizes, prepared: most } = self.held.entry(replica).or_default();
        *most = prepared.max(*most);
        sizes.sessions = now.sessions.max(sizes.sessions);
        sizes.unsettled = now.unsettled.max(sizes.unsettled);
        sizes.anchors = now.anchors.max(sizes.anchors);
        sizes.bytes = now.bytes.max(sizes.bytes);
        sizes.entries = now.entries.max(sizes.entries);
        sizes.places = now.places.max(sizes.places);
        sizes.early_votes = now.early_votes.max(sizes.early_votes);
        sizes.early_entries = now.early_entries.max(sizes.early_entries);
    }

    pub(crate) fn counts(&self) -> Counts {
        use crate::client::Ended;
        let committed = self.attempts.iter().filter(|attempt| {
            matches!(&attempt.ended, Some(Ended::Finished(Ok(steeldb_client_shim::Completion::Committed(_)))))
        });
        Counts {
            transactions: self.attempts.len() as u64,
            committed: committed.count() as u64,
            ordered: self.order.iter().filter(|ordinal| matches!(ordinal.payload, Ordered::Commit(_))).count()
                as u64,
            ahead: self.ahead,
        }
    }
}
