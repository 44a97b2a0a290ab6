//! A transaction at one replica.

use super::event::{AnchorId, DecodedSet};
use super::resuming::Shown;
use crate::guard::Class;
use crate::reach::Names;
use crate::script::Step;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{Digest, Slot, Timestamp, TxId};
use steeldb_wire::transaction::{
    CommitCertificate, CopyDigest, Decision, Draws, Executed, Modes, Operation, SignedFinish, SqlState,
    StatementId, StatementText, Transcript, Vote,
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
        /// What decoding shows, if it was first; or that it has no digest.
        decoded: Option<Result<DecodedSet, Undigested>>,
    },
    /// Its effects are durable here.
    Prepared {
        /// w; none when the write set has no digest, so that nobody can know whether it is the others'.
        write_set: Option<Digest>,
    },
    /// Its effects may be durable here: PREPARE TRANSACTION was sent, and the answer is lost with the backend or with a
    /// restart. Decoding shows what is prepared.
    InDoubt {
        /// w without what decoding does not show (G1), once decoded.
        decoded: Option<Digest>,
        /// It is known to be prepared.
        prepared: bool,
    },
    /// It is rolled back here, or was never begun, and will not be prepared.
    GivenUp,
}

/// A write set that decoding could not digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Undigested;

impl Phase {
    /// Whether the session's backend is still wanted for it.
    pub(super) fn needs_backend(&self) -> bool {
        match self {
            Phase::Running | Phase::Completing | Phase::Queued { .. } => true,
            Phase::Preparing { prepared, .. } => prepared.is_none(),
            Phase::Prepared { .. } | Phase::InDoubt { .. } | Phase::GivenUp => false,
        }
    }

    /// Whether it may hold locks that only an ordered outcome releases (rule 13).
    pub(super) fn may_be_prepared(&self) -> bool {
        matches!(self, Phase::Preparing { .. } | Phase::Prepared { .. } | Phase::InDoubt { .. })
    }
}

/// An operation that was executed here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    /// The digest of what the client asked.
    pub operation: Digest,
    /// Its SQLSTATE if it failed.
    pub failed: Option<SqlState>,
    /// It asked for COPY data.
    pub copied: bool,
}

/// An operation that waits to be run.
pub(super) struct Buffered {
    pub operation: Operation,
    /// Its statement, as defined when it came: the definition may be gone when it runs.
    pub statement: Arc<Statement>,
    pub class: Class,
    pub copy: CopyState,
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
    pub statement: Arc<Statement>,
    pub class: Class,
    pub copy: CopyState,
    /// It is kept: it may have to be executed once more.
    pub keeps: bool,
    /// What it occupies as long as it is kept.
    pub bytes: usize,
    /// Its result goes to the client: this replica was the master.
    pub shown: bool,
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
    /// The start of its session, as its client had it ordered.
    pub preamble: Option<Digest>,
    pub database: String,
    /// The anchor it will import from or has imported from.
    pub anchor: Option<AnchorId>,
    /// A block is started on the backend, for leading operations or for good.
    pub leading_begun: bool,
    /// Its turn in the order is now: a block with leading locks takes its snapshot.
    pub snapshot_here: bool,
    /// The block runs on its snapshot.
    pub begun: bool,
    /// Its snapshot is imported: it needs its anchor for a redo only.
    pub imported: bool,
    /// What was executed is being rolled back, to be executed again.
    pub undoing: bool,
    /// It is executed again once this one needs no backend any more.
    pub redo_after: Option<TxId>,
    /// How often it was undone for a reason of its own.
    pub redone: u32,
    /// How many of its operations had been executed here when it was last undone.
    pub executed_before: u32,
    /// The constraints' check waits for the master's: it failed when it did not.
    pub checks_late: bool,
    /// How far its client was shown it before a master's term began, as it says; at that master, operations up to there
    /// are not shown again.
    pub shown: Option<Shown>,
    pub shown_upto: u32,
    /// As the master of the term that runs, this replica has shown its client something of it.
    pub shows: bool,
    /// What its operations were and whether they failed, as found here.
    pub found: BTreeMap<u32, Found>,
    /// What its operations drew here, at the master.
    pub drawn: BTreeMap<u32, Draws>,
    /// The last master epoch whose stream made it be done again here.
    pub reconciled: Option<u64>,
    pub transcript: Option<Transcript>,
    /// Operations that came, by number, and are not yet sent to the backend.
    pub waiting: BTreeMap<u32, Buffered>,
    /// Those sent to the backend, whose results have not come.
    pub issued: BTreeMap<u32, Issued>,
    /// Those executed here that may have to be executed once more.
    pub kept: BTreeMap<u32, Buffered>,
    pub received: u32,
    pub sent: u32,
    /// This replica's h_i.
    pub heads: Vec<Digest>,
    /// The canonical results that this replica's h_i are over.
    pub results: Vec<Digest>,
    /// Operations whose results came before the slot: their digests wait for h_0.
    pub leading_results: Vec<(Digest, Digest)>,
    pub status: u8,
    pub must_vote: bool,
    /// Its client waits for what others reach, operation by operation.
    pub verify: bool,
    pub changed_settings: bool,
    pub ran_ddl: bool,
    /// The master's stream entries, by operation.
    pub stream: BTreeMap<u32, Executed>,
    /// What it did, for whoever must execute it again: of one that ran DDL, until it is prepared.
    pub script: Option<Vec<Step>>,
    /// It takes one of the places that PostgreSQL has for prepared transactions (B6).
    pub has_permit: bool,
    /// It was executed again here; what decoding does not show of its effects (G1).
    pub reexecuted: Option<Option<Digest>>,
    pub finish: Option<SignedFinish>,
    /// The order has closed it with its session's next BEGIN: it can only end as one that wrote nothing.
    pub superseded: bool,
    /// It began before its master's term ended, before the link to the master was there, or before its session was opened here:
    /// what it needs to be executed here may be lost. Once it is decided, nobody waits for that.
    pub stranded: bool,
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
    /// How often its write set could not be applied, and when that is tried again.
    pub catch_up_failures: u32,
    pub catch_up_blocked: u32,
    pub catch_up_again_us: Option<u64>,
    /// When it was last asked what it waits for.
    pub asked_at_us: u64,
    /// Bytes of operations and COPY data that came, buffered or not.
    pub received_bytes: usize,
    /// Those of them that are COPY data.
    pub copied_bytes: usize,
    /// Data of its COPYs are kept, as far as is known.
    pub has_copies: bool,
    /// What its definitions may be reached by, once they are complete; none: it is not known.
    pub names: Option<Arc<Names>>,
    /// How many rows it changed.
    pub rows: u64,
    /// Bytes of its changes, if decoding has found that they are many.
    pub decoded_bytes: u64,
    /// For how long votes were slow before its Finish.
    pub slow_before: super::bulk::Slow,
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
            preamble: None,
            database: String::new(),
            anchor: None,
            leading_begun: false,
            snapshot_here: false,
            begun: false,
            imported: false,
            undoing: false,
            redo_after: None,
            redone: 0,
            executed_before: 0,
            checks_late: false,
            shown: None,
            shown_upto: 0,
            shows: false,
            found: BTreeMap::new(),
            drawn: BTreeMap::new(),
            reconciled: None,
            transcript: None,
            waiting: BTreeMap::new(),
            issued: BTreeMap::new(),
            kept: BTreeMap::new(),
            received: 0,
            sent: 0,
            heads: Vec::new(),
            results: Vec::new(),
            leading_results: Vec::new(),
            status: b'T',
            must_vote: false,
            verify: false,
            changed_settings: false,
            ran_ddl: false,
            stream: BTreeMap::new(),
            script: None,
            has_permit: false,
            reexecuted: None,
            finish: None,
            superseded: false,
            stranded: false,
            finished_at_us: now_us,
            slotted_at_us: now_us,
            active_at_us: now_us,
            drain_until_us: None,
            phase: Phase::Running,
            prepared_vote: None,
            against_vote: None,
            outcome: None,
            decided_at_us: now_us,
            catch_up_failures: 0,
            catch_up_blocked: 0,
            catch_up_again_us: None,
            asked_at_us: 0,
            received_bytes: 0,
            copied_bytes: 0,
            has_copies: false,
            names: None,
            rows: 0,
            decoded_bytes: 0,
            slow_before: Default::default(),
            bytes: 0,
        }
    }

    pub(super) fn executed(&self) -> u32 {
        self.heads.len() as u32
    }

    /// Its name in PREPARE TRANSACTION: of fixed size, the same on every replica.
    pub(super) fn gid(&self) -> String {
        steeldb_postgres::transaction::gid(self.tx, self.slot.unwrap_or_default())
    }

    /// Whether its client wants it undone.
    pub(super) fn is_rolled_back(&self) -> bool {
        self.finish.as_ref().is_some_and(|signed| signed.finish.decision == Decision::Rollback)
    }

    /// Whether it is given up here, and a quorum may yet commit it, or has, with what only its snapshot gives again.
    pub(super) fn may_be_reexecuted(&self) -> bool {
        let committed = match &self.outcome {
            None => !self.is_rolled_back(),
            Some(Decided::Commit { certificate }) => certificate.wall.is_scripted(),
            Some(Decided::Abort) => false,
        };
        committed && self.phase == Phase::GivenUp
    }

    pub(super) fn outcome_is_abort(&self) -> bool {
        matches!(self.outcome, Some(Decided::Abort))
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
    pub role: String,
    /// The digest that transcripts start from.
    pub preamble: Digest,
    pub ready: bool,
    /// Its client brought settings along from elsewhere.
    pub restored: bool,
    /// Its backend's process.
    pub backend: Option<u32>,
    /// The client has closed it: it ends with its transaction.
    pub closing: bool,
    /// Statements by number.
    pub statements: BTreeMap<StatementId, Arc<Statement>>,
    /// Statements that the client has forgotten and that buffered operations may still run, with their sizes.
    pub forgotten: Vec<(StatementId, usize)>,
    /// The transaction that runs, if any.
    pub current: Option<TxId>,
    /// The highest transaction counter seen.
    pub counter: u64,
    /// How far the client was shown a transaction that is not known here yet, in a term that has not begun here: the last
    /// such word.
    pub shown: Option<(TxId, Shown)>,
}

impl Transaction {
    /// What it needs to be executed here may be lost from now on. A bulk transaction is left its time.
    pub(super) fn strand(&mut self) {
        self.stranded |= self.phase == Phase::Running && !self.is_bulk();
    }
}

impl Session {
    /// Whether its client has gone on from a transaction.
    pub(super) fn is_past(&self, tx: TxId) -> bool {
        self.current != Some(tx) && tx.counter <= self.counter
    }

    /// Bytes of its statements.
    pub(super) fn statement_bytes(&self) -> usize {
        let defined: usize =
            self.statements.values().map(|statement| size_of_statement(&statement.text)).sum();
        defined + self.forgotten.iter().map(|(_, bytes)| bytes).sum::<usize>()
    }
}

/// A statement of a session.
pub(super) struct Statement {
    pub digest: Digest,
    pub class: crate::guard::Class,
    pub text: StatementText,
}

/// What a statement occupies, roughly.
pub(super) fn size_of_statement(text: &StatementText) -> usize {
    128 + text.sql.len() + 4 * text.parameter_types.len()
}
