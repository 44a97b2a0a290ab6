//! What a client shim and a replica say to each other.

use super::{
    MembershipReply, MembershipRequest, Operation, SignedFinish, SqlState, StatementId, StatementText,
    TransactionState,
};
use crate::auth::Signature;
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, Position, SessionId, Slot, Term, Timestamp, TxId, ViewNumber};

/// From a shim to a replica. The link names the client.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum ClientMessage {
    /// Opens a session: one backend, as `role`, on every replica.
    OpenSession {
        /// Never used before by this client.
        session: SessionId,
        /// The database.
        database: String,
        /// The role; the replica checks that this client may use it (A4).
        role: String,
        /// The client's startup parameters, such as `DateStyle`.
        parameters: Vec<(String, String)>,
    },
    /// Brings a session that is opened again to the settings that it has elsewhere (B11): right behind its opening.
    Restore {
        /// Which.
        session: SessionId,
        /// SET and RESET statements, in their order.
        settings: Vec<String>,
    },
    /// Ends a session.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// Gives a statement of a session its number.
    Define {
        /// The session.
        session: SessionId,
        /// Its number from now on.
        statement: StatementId,
        /// Its text.
        text: StatementText,
    },
    /// The statement is not used again.
    Forget {
        /// The session.
        session: SessionId,
        /// Which.
        statement: StatementId,
    },
    /// A request to be ordered: an encoded [`super::Ordered`], signed over the session, the sequence number and the
    /// payload.
    Request {
        /// The session.
        session: SessionId,
        /// Counts the session's ordered requests from 1.
        sequence: u64,
        /// The encoded [`super::Ordered`].
        payload: Vec<u8>,
        /// The client's.
        signature: Signature,
    },
    /// An operation.
    Operation(Operation),
    /// COPY data of an operation.
    CopyData {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// A piece of the data.
        data: Vec<u8>,
    },
    /// The end of an operation's COPY data.
    CopyEnd {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// CopyFail's message; none for CopyDone.
        failure: Option<String>,
    },
    /// The transaction is complete.
    Finish(SignedFinish),
    /// The shim has passed on this many more result bytes.
    Acknowledge {
        /// The session.
        session: SessionId,
        /// How many.
        bytes: u32,
    },
    /// The user cancels what the session's transaction is doing.
    Cancel {
        /// The transaction.
        tx: TxId,
    },
    /// About who the replicas are.
    Membership(MembershipRequest),
    /// The client knows of the master's term, and what of its transaction it was shown before: the new master goes on from
    /// there.
    Resume {
        /// The transaction.
        tx: TxId,
        /// The master epoch.
        epoch: u64,
        /// How many operations were answered to their end.
        operations: u32,
        /// The transcript of these.
        transcript: Digest,
    },
}

/// What became of a transaction, as a replica tells the shim.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Outcome {
    /// Committed at this position, and applied here.
    Committed {
        /// The position of its Commit.
        position: Position,
    },
    /// Aborted.
    Aborted {
        /// Why.
        reason: AbortReason,
    },
}

/// Why a transaction was aborted. Derived from the ordered outcome alone, so that it is equal on all replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum AbortReason {
    /// The client rolled it back.
    Client,
    /// Replicas disagree on the result of this operation; 0: on the effects.
    Mismatch {
        /// The first operation whose results differ, or 0.
        operation: u32,
    },
    /// It failed with this SQLSTATE.
    Failed {
        /// Which.
        sqlstate: SqlState,
    },
    /// No quorum vouched for it in time.
    Expired,
    /// A DDL transaction passed it.
    Walled,
    /// The cluster's membership changed while it was open.
    ViewChanged,
    /// The client was gone or idle.
    Gone,
    /// It never began: its outcome was asked for before, or its number was used before.
    Void,
}

/// A table's content at a position: what `steeldb verify` compares.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub struct TableDigest {
    /// schema.name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
    /// An order-independent digest of them.
    pub digest: String,
}

/// From a replica to a shim.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum ReplicaMessage {
    /// The session's backend is there.
    SessionOpened {
        /// Which.
        session: SessionId,
        /// The backend's parameters, for the client's start-up.
        parameters: Vec<(String, String)>,
    },
    /// The session cannot be, or can no longer be.
    SessionRefused {
        /// Which.
        session: SessionId,
        /// The SQLSTATE to show.
        sqlstate: SqlState,
        /// The message to show.
        message: String,
    },
    /// The transaction has its slot and its snapshot.
    Begun {
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
        /// Its agreed time.
        timestamp: Timestamp,
    },
    /// A piece of an operation's result: whole backend messages, verbatim.
    Result {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// Backend messages, each with its type byte and length.
        messages: Vec<u8>,
    },
    /// The operation is done; the replica's transcript is h_i. Of replicas other than the master only for operations that
    /// are to be verified at once.
    Executed {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// h_i here.
        transcript: Digest,
        /// ReadyForQuery's status: `T` or `E`.
        status: u8,
        /// It drew from sequences: that outlives the transaction, so nobody repeats it unasked (E2).
        drew: bool,
    },
    /// The transaction is re-executed here: its transcript, and whether it wrote nothing that needs an outcome.
    Transcript {
        /// The transaction.
        tx: TxId,
        /// k.
        operations: u32,
        /// h_k here.
        transcript: Digest,
        /// It assigned no xid, used no sequence and took no explicit lock (rule 11).
        read_only: bool,
        /// The first operation whose result differs from what the client was shown, as far as this replica knows.
        mismatch: Option<u32>,
    },
    /// The transaction's outcome.
    Outcome {
        /// The transaction.
        tx: TxId,
        /// Which.
        outcome: Outcome,
    },
    /// An ordered maintenance statement is done here: its backend messages.
    Maintained {
        /// The session.
        session: SessionId,
        /// The request's sequence number.
        sequence: u64,
        /// Backend messages.
        messages: Vec<u8>,
    },
    /// Digests of all tables at a position.
    Verified {
        /// The session.
        session: SessionId,
        /// The request's sequence number.
        sequence: u64,
        /// Where in the order.
        position: Position,
        /// One per table, ascending by name; or why they could not be taken.
        tables: Result<Vec<TableDigest>, String>,
    },
    /// An ordered request was turned away.
    Refused {
        /// The session.
        session: SessionId,
        /// The request's sequence number.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// About who the replicas are.
    Membership(MembershipReply),
    /// Which term runs: sent when a client connects, and whenever one begins.
    Term(Term),
    /// The master cannot go on with the transaction: what its client was shown cannot be shown again here.
    NotReproduced {
        /// The transaction.
        tx: TxId,
    },
    /// What the order knows of the transaction that was asked for.
    Told {
        /// Who asked.
        session: SessionId,
        /// The request's sequence number.
        sequence: u64,
        /// The answer, at the request's place in the order.
        state: TransactionState,
    },
    /// The order will say that the transaction commits, if it decides what this replica has durably seen a WRITE quorum
    /// for; and the transaction is prepared here (A7). Believed only of a quorum that names one claim.
    Tentative {
        /// The transaction.
        tx: TxId,
        /// The position of its Commit.
        position: Position,
        /// The view that it is to be decided in.
        view: ViewNumber,
        /// The digest of instance, regency and value.
        claim: Digest,
    },
}
