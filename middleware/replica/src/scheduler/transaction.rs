//! A transaction at one replica.

use super::event::AnchorId;
use std::collections::{BTreeMap, VecDeque};
use steeldb_types::{Digest, SessionKey, Slot, Timestamp, TxId};
use steeldb_wire::transaction::{
    CommitCertificate, CopyDigest, Executed, Modes, Operation, SignedFinish, StatementText, Transcript, Vote,
};

/// How far the replica's own execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Operations run.
    Running,
    /// The constraints are being checked.
    Completing,
    /// It waits for a permit to prepare (B6).
    Queued {
        /// It ran DDL.
        ddl: bool,
    },
    /// PREPARE TRANSACTION is under way, or decoding is.
    Preparing {
        /// PREPARE TRANSACTION has returned, with the digest of what decoding does not show (G1).
        prepared: Option<Option<Digest>>,
    },
    /// Its effects are durable here.
    Prepared {
        /// w.
        write_set: Digest,
        /// It ran DDL.
        wall: bool,
    },
    /// It is rolled back here, or was never begun, and will not be prepared.
    GivenUp,
    /// It was read-only and is over.
    ReadOnlyDone,
}

/// An operation that waits to be run.
pub(super) struct Buffered {
    pub operation: Operation,
    pub copy: CopyState,
    /// Data that came before the operation could run.
    pub data: VecDeque<Vec<u8>>,
    /// What it occupies.
    pub bytes: usize,
}

/// The COPY data of an operation.
pub(super) enum CopyState {
    /// None so far.
    None,
    /// They come.
    Open(CopyDigest),
    /// All are there.
    Ended { digest: Digest, failure: Option<String> },
}

/// What stays of an operation once it is sent to the backend.
pub(super) struct Issued {
    pub operation: Operation,
    pub copy: CopyState,
    /// A result that came before the COPY data's end.
    pub early: Option<super::operations::OperationResult>,
}

/// The ordered outcome.
#[derive(Clone, Debug)]
pub(super) enum Decided {
    /// Commit.
    Commit { certificate: CommitCertificate },
    /// Abort.
    Abort,
}

/// A transaction's state at this replica.
pub(super) struct Transaction {
    pub tx: TxId,
    /// Its BEGIN's place, once delivered.
    pub slot: Option<Slot>,
    pub timestamp: Timestamp,
    pub modes: Modes,
    pub database: String,
    /// The anchor it will import from or has imported from.
    pub anchor: Option<AnchorId>,
    /// A block is started on the backend, for leading operations or for good.
    pub leading_begun: bool,
    /// The block runs on its snapshot.
    pub begun: bool,
    pub transcript: Option<Transcript>,
    /// Operations that came, by number, and are not yet sent to the backend.
    pub waiting: BTreeMap<u32, Buffered>,
    /// Those sent to the backend, whose results have not come.
    pub issued: BTreeMap<u32, Issued>,
    pub received: u32,
    pub sent: u32,
    /// This replica's h_i.
    pub heads: Vec<Digest>,
    /// Operations whose results came before the slot: their digests wait for h_0.
    pub leading_results: Vec<(Digest, Digest)>,
    pub status: u8,
    pub must_vote: bool,
    pub changed_settings: bool,
    pub ran_ddl: bool,
    /// The master's stream entries, by operation.
    pub stream: BTreeMap<u32, Executed>,
    pub finish: Option<SignedFinish>,
    /// When the Finish came, for T_vote.
    pub finished_at_us: u64,
    /// When its slot was delivered.
    pub slotted_at_us: u64,
    /// When something last came from the client.
    pub active_at_us: u64,
    /// A DDL operation waits for others to end, until then.
    pub drain_until_us: Option<u64>,
    pub phase: Phase,
    /// Last vote for and last vote against, as cast by this replica.
    pub prepared_vote: Option<Vote>,
    pub against_vote: Option<Vote>,
    pub outcome: Option<Decided>,
    /// When the outcome was delivered; 0 if it was late then.
    pub decided_at_us: u64,
    /// Bytes buffered.
    pub bytes: usize,
}

impl Transaction {
    pub(super) fn new(tx: TxId, now_us: u64) -> Transaction {
        Transaction {
            tx,
            slot: None,
            timestamp: Timestamp::default(),
            modes: Modes::default(),
            database: String::new(),
            anchor: None,
            leading_begun: false,
            begun: false,
            transcript: None,
            waiting: BTreeMap::new(),
            issued: BTreeMap::new(),
            received: 0,
            sent: 0,
            heads: Vec::new(),
            leading_results: Vec::new(),
            status: b'T',
            must_vote: false,
            changed_settings: false,
            ran_ddl: false,
            stream: BTreeMap::new(),
            finish: None,
            finished_at_us: now_us,
            slotted_at_us: now_us,
            active_at_us: now_us,
            drain_until_us: None,
            phase: Phase::Running,
            prepared_vote: None,
            against_vote: None,
            outcome: None,
            decided_at_us: now_us,
            bytes: 0,
        }
    }

    pub(super) fn session(&self) -> SessionKey {
        self.tx.session
    }

    pub(super) fn executed(&self) -> u32 {
        self.heads.len() as u32
    }

    /// Its name in PREPARE TRANSACTION: of fixed size, the same on every replica.
    pub(super) fn gid(&self) -> String {
        steeldb_postgres::transaction::gid(self.tx, self.slot.unwrap_or_default())
    }

    /// The first operation whose transcript here is not the one the master streamed.
    pub(super) fn first_difference(&self) -> Option<u32> {
        self.heads
            .iter()
            .zip(1u32..)
            .find(|(head, number)| self.stream.get(number).is_some_and(|entry| entry.transcript != **head))
            .map(|(_, number)| number)
    }
}

/// A session at this replica.
pub(super) struct Session {
    pub connection: super::event::Connection,
    pub database: String,
    /// The digest that transcripts start from.
    pub preamble: Digest,
    pub ready: bool,
    /// The client has closed it: it ends with its transaction.
    pub closing: bool,
    /// Statement texts' digests, by number.
    pub statements: BTreeMap<steeldb_wire::transaction::StatementId, Statement>,
    /// The transaction that runs, if any.
    pub current: Option<TxId>,
    /// The highest transaction counter seen.
    pub counter: u64,
}

/// A statement of a session.
pub(super) struct Statement {
    pub digest: Digest,
    pub class: crate::guard::Class,
    pub text: StatementText,
}
