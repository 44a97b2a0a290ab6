//! One transaction of the session: its operations and their answers, its slot, and what replicas say at its end.

use super::answer::{Answer, Shape};
use super::resuming::Relayed;
use super::verdict::{Shown, Word};
use super::verification::Unverified;
use super::{NewOperation, OperationFlags};
use crate::ShimError;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use steeldb_types::{Digest, ReplicaId, Slot, TxId, View};
use steeldb_wire::transaction::{
    CopyDigest, Decision, Modes, Operation, OperationKind, StatementText, Transcript,
};

/// A statement's text, shared.
pub(super) type Text = Arc<StatementText>;

/// How far it is.
#[derive(PartialEq)]
pub(super) enum Phase {
    /// Operations may come.
    Running,
    /// Its end is asked for; `sent` once the Finish has left.
    Finishing { decision: Decision, sent: bool },
    /// It cannot go on. `error` until it has been reported once.
    Doomed { error: Option<ShimError> },
}

/// An operation whose answer has not come to its end.
pub(super) struct Outstanding {
    pub number: u32,
    pub leading: bool,
    pub answer: Answer,
    /// What of it the application has.
    pub relayed: Relayed,
    /// A master before this one asked for its COPY data.
    pub copying: bool,
    /// The user has asked to cancel it.
    pub cancelled: bool,
    pub step: Step,
    /// Its answer is shown once others have it, too.
    pub verify: bool,
    /// What of its answer is held back.
    pub held: Vec<Bytes>,
    pub held_bytes: usize,
}

/// What of an operation enters the transcript.
pub(super) enum Step {
    /// Its digest.
    Ready(Digest),
    /// The digest waits for the end of the COPY data.
    Copying { operation: Operation, statement: Digest, data: CopyDigest },
}

/// An operation that may not be sent yet.
pub(super) struct Unsent {
    pub number: u32,
    pub operation: NewOperation,
}

pub(super) struct Transaction {
    pub tx: TxId,
    pub modes: Modes,
    pub phase: Phase,
    /// The session was usable when the first operation came, so it may be sent.
    pub started: bool,
    /// The sequence number of the ordered BEGIN, once sent.
    pub begin: Option<u64>,
    /// The slot as each replica said.
    pub slots: Vec<Option<Slot>>,
    pub refused: Vec<bool>,
    pub words: Vec<Word>,
    pub transcript: Transcript,
    pub operations: Vec<(Text, OperationFlags)>,
    /// What its operations take of its replicas' buffers.
    pub bytes: usize,
    /// Its COPY data.
    pub copied_bytes: u64,
    pub unsent: VecDeque<Unsent>,
    pub outstanding: VecDeque<Outstanding>,
    /// Answered by the master and not shown yet, in order; all before the outstanding ones.
    pub unverified: VecDeque<Unverified>,
    /// What replicas say of operations that are to be verified: their transcripts, by replica.
    pub heads: BTreeMap<u32, Vec<Option<Digest>>>,
    /// A statement failed, and no ROLLBACK TO has succeeded since.
    pub failed: bool,
    /// The order was asked to roll it back.
    pub told_order: bool,
    /// Why, of one whose COMMIT was sent before.
    pub dropped: Option<ShimError>,
    /// SET and RESET statements that succeeded, and whether a savepoint may have taken some of them back.
    pub settings: Vec<String>,
    pub settings_lost: bool,
    /// The link to its master is lost: it goes on if another one takes over.
    pub orphaned: bool,
}

impl Transaction {
    pub(super) fn new(tx: TxId, modes: Modes, preamble: Digest, replicas: usize) -> Transaction {
        Transaction {
            tx,
            modes,
            phase: Phase::Running,
            started: false,
            begin: None,
            slots: vec![None; replicas],
            refused: vec![false; replicas],
            words: vec![Word::default(); replicas],
            transcript: Transcript::begin(tx, preamble, modes),
            operations: Vec::new(),
            bytes: 0,
            copied_bytes: 0,
            unsent: VecDeque::new(),
            outstanding: VecDeque::new(),
            unverified: VecDeque::new(),
            heads: BTreeMap::new(),
            failed: false,
            told_order: false,
            dropped: None,
            settings: Vec::new(),
            settings_lost: false,
            orphaned: false,
        }
    }

    /// Its slot: as f + 1 replicas say, else as the master says.
    pub(super) fn slot(&self, view: &View, master: ReplicaId) -> Option<Slot> {
        self.agreed_slot(view).or(self.slots.get(usize::from(master.0)).copied().flatten())
    }

    pub(super) fn agreed_slot(&self, view: &View) -> Option<Slot> {
        self.slots.iter().flatten().copied().find(|slot| {
            let who = self.slots.iter().zip(0u16..).filter(|(said, _)| **said == Some(*slot));
            view.has_correct(who.map(|(_, index)| ReplicaId(index)))
        })
    }

    pub(super) fn shown(&self) -> Shown {
        Shown { operations: self.transcript.operations(), transcript: self.transcript.head() }
    }

    /// Nothing it sent waits for an answer.
    pub(super) fn is_answered(&self) -> bool {
        self.unsent.is_empty() && self.outstanding.is_empty() && self.unverified.is_empty()
    }

    pub(super) fn is_doomed(&self) -> bool {
        matches!(self.phase, Phase::Doomed { .. })
    }

    /// The text of operation `number`.
    pub(super) fn text(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.operations.get(index).map(|(text, _)| text.sql.as_str())
    }
}

pub(super) fn shape(kind: &OperationKind) -> Shape {
    match kind {
        OperationKind::Describe => Shape::Description,
        OperationKind::Execute { .. } => Shape::Execution,
        OperationKind::CopyIn { .. } => Shape::CopyIn,
    }
}
