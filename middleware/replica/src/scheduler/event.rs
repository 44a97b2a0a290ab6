//! What the scheduler is told.

use crate::reach::Names;
use bytes::Bytes;
use std::sync::Arc;
use steeldb_types::{Digest, Position, ReplicaId, SessionKey, Timestamp, TxId, View, ViewNumber};
use steeldb_wire::transaction::{
    ClientMessage, Draws, Executed, Ordered, SignedAccusation, SignedFinish, SignedVote, SqlState,
    TableDigest, Wall,
};

/// A connection of a client, as the transport numbers it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Connection(pub u64);

/// Something that happened outside.
#[derive(Debug)]
pub enum Event {
    /// A client's message over an authenticated connection. Requests to be ordered do not come here.
    Client {
        /// The connection.
        connection: Connection,
        /// Whose it is.
        client: steeldb_types::ClientId,
        /// The message.
        message: ClientMessage,
    },
    /// COPY data of an operation, as [`ClientMessage::CopyData`], in the frame that they came in.
    CopyData {
        /// Over which connection.
        connection: Connection,
        /// Whose it is.
        client: steeldb_types::ClientId,
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// A piece of the data.
        data: Bytes,
    },
    /// COPY data that were kept for a transaction are lost: its replica's disk is full, or bad.
    CopyLost {
        /// The transaction.
        tx: TxId,
    },
    /// A client's connection is gone, and its sessions with it.
    ConnectionLost(Connection),
    /// The order delivered a request. Called once per position, in order.
    Delivered {
        /// Where.
        position: Position,
        /// The agreed time.
        timestamp: Timestamp,
        /// It was ordered long ago: this replica is behind, and what it does not hold will not come by itself.
        late: bool,
        /// Session and sequence number of a client's request.
        request: Option<(SessionKey, u64)>,
        /// What.
        payload: Ordered,
    },
    /// The next batch is bound, and will most likely be delivered as it is: commits in it may be told (A7). This replica's
    /// record of the WRITE quorum is durable, and all before the batch is delivered here.
    Bound {
        /// The view that decides it.
        view: ViewNumber,
        /// The digest of instance, regency and value.
        claim: Digest,
        /// All that it delivers, each with its place; nothing where the membership changes.
        requests: Vec<(Position, Option<Ordered>)>,
    },
    /// Another batch may take the place of the one that was bound.
    Unbound,
    /// The order delivered a change of the membership: takes a position as any request does.
    ViewChanged {
        /// Where.
        position: Position,
        /// The view from here on.
        view: View,
    },
    /// Entries of a master's stream, as they came over that replica's authenticated link.
    Stream {
        /// Whose link.
        from: ReplicaId,
        /// The master epoch.
        epoch: u64,
        /// The entries; none when the master has nothing to say.
        entries: Vec<Executed>,
    },
    /// A replica accuses the master; its signature is verified.
    Accused(SignedAccusation),
    /// Whether the statements that the master answered otherwise are certified deterministic.
    Certified {
        /// The master epoch in which that was asked.
        epoch: u64,
        /// All of them are.
        certified: bool,
    },
    /// The sequences of a database are past what earlier masters may have drawn.
    SequencesSkipped {
        /// The database.
        database: String,
    },
    /// Votes of a replica; their signature is verified.
    Votes(Vec<(SignedVote, Option<SignedFinish>)>),
    /// A link to a peer is there again: what may have been lost is sent again.
    PeerUp(ReplicaId),
    /// Something from a session's backend.
    Backend {
        /// The session.
        session: SessionKey,
        /// What.
        report: BackendReport,
    },
    /// An anchor holds its snapshot, or could not take one.
    Anchored {
        /// Which anchor.
        anchor: AnchorId,
        /// The exported snapshot's name.
        snapshot: Result<String, String>,
    },
    /// A prepared transaction is decoded.
    Decoded {
        /// Its global identifier.
        gid: String,
        /// w, or why its write set has none.
        write_set: Result<DecodedSet, String>,
    },
    /// Decoding goes through a transaction that is too large to be gathered, and has not ended.
    DecodesLong {
        /// Its global identifier.
        gid: String,
        /// Bytes of changes so far.
        bytes: u64,
    },
    /// COMMIT PREPARED is done.
    Applied {
        /// The transaction.
        tx: TxId,
        /// Done, or why not.
        result: Result<(), String>,
    },
    /// ROLLBACK PREPARED is done.
    RolledBack {
        /// The transaction's global identifier.
        gid: String,
    },
    /// A committed transaction's write set was applied, or could not be.
    CaughtUp {
        /// The transaction.
        tx: TxId,
        /// Done, or why not.
        result: Result<(), CatchUpError>,
    },
    /// Table digests are taken.
    Verified {
        /// Who asked.
        session: SessionKey,
        /// The request's number.
        sequence: u64,
        /// Where in the order.
        position: Position,
        /// The digests.
        tables: Result<Vec<TableDigest>, String>,
    },
    /// The server ended by itself, and is there again.
    ServerRestarted,
    /// These were prepared here before the server ended, and are not any more.
    Vanished {
        /// Their global identifiers.
        gids: Vec<String>,
    },
    /// A transaction that ran DDL was executed again: it is prepared here, with the digest of what decoding does not show
    /// (G1); or it could not be.
    Reexecuted {
        /// The transaction.
        tx: TxId,
        /// How it went.
        result: Result<Option<Digest>, CatchUpError>,
    },
    /// What is being executed again has not gone on for a while: it may wait for locks.
    ReexecutionWaits {
        /// The transaction.
        tx: TxId,
    },
    /// Maintenance is done.
    Maintained {
        /// Who asked.
        session: SessionKey,
        /// The request's number.
        sequence: u64,
        /// The backend's messages.
        messages: Vec<u8>,
    },
    /// The temporary relations of a session that is over are dropped.
    TemporaryCleared,
    /// What a transaction waits for, as its server says.
    Blockers {
        /// The transaction.
        tx: TxId,
        /// The backends that it waits for.
        blockers: Vec<u32>,
    },
    /// The time that [`super::Scheduler::next_wake`] named has come.
    Wake,
    /// Time passed.
    Tick,
}

/// Why a transaction was not caught up with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CatchUpError {
    /// It waited for somebody's locks.
    #[error("it waited for locks")]
    Blocked,
    /// It cannot be had, or does not fit what is here.
    #[error("{0}")]
    Failed(String),
}

/// What decoding says of a prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedSet {
    /// w.
    pub digest: Digest,
    /// What it defined: it truncated, or recorded DDL commands.
    pub wall: Wall,
    /// It truncated tables that are not temporary. Its names do not tell of those.
    pub truncates: bool,
    /// How many changes.
    pub changes: usize,
}

/// An anchor: a transaction of its own that holds a snapshot for others to import (rule 3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AnchorId(pub u64);

/// What a session's backend reports.
#[derive(Debug)]
pub enum BackendReport {
    /// It is there.
    Ready {
        /// Its parameter status.
        parameters: Vec<(String, String)>,
        /// Its process.
        process: u32,
    },
    /// It could not be started, or it is lost.
    Lost {
        /// The SQLSTATE to show.
        sqlstate: SqlState,
        /// The message to show.
        message: String,
    },
    /// The transaction block runs on its snapshot; the anchor is no longer needed for it.
    Begun {
        /// The transaction.
        tx: TxId,
    },
    /// The transaction block could not be begun on its snapshot.
    NotBegun {
        /// The transaction.
        tx: TxId,
        /// Why.
        reason: String,
    },
    /// An operation is done.
    Executed {
        /// The transaction.
        tx: TxId,
        /// Which.
        number: u32,
        /// Its canonical result.
        result: Digest,
        /// Its SQLSTATE if it failed.
        sqlstate: Option<SqlState>,
        /// ReadyForQuery's status.
        status: u8,
        /// What kind of command its tag names.
        tag: TagKind,
        /// The backend asked for COPY data.
        copy_started: bool,
        /// What it drew from sequences, at the master.
        draws: Draws,
    },
    /// Constraints are checked, and it is known whether the transaction wrote (rule 6, rule 11).
    Completed {
        /// The transaction.
        tx: TxId,
        /// What was found, or the SQLSTATE of the constraint that failed.
        result: Result<Completion, SqlState>,
    },
    /// PREPARE TRANSACTION is done; its tag was checked (B6).
    Prepared {
        /// The transaction.
        tx: TxId,
        /// The digest of catalogs and rewritten tables after DDL (G1), or the SQLSTATE of the failure.
        result: Result<Option<Digest>, SqlState>,
    },
    /// The block is rolled back, or committed if it was read-only.
    Ended {
        /// The transaction.
        tx: TxId,
    },
}

/// What completing a transaction found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// An xid is assigned.
    pub wrote: bool,
    /// DDL commands are recorded.
    pub ddl: bool,
    /// Those of temporary relations are.
    pub temporary: bool,
    /// What its definitions may be reached by; none: it is not known, or there are none.
    pub names: Option<Arc<Names>>,
    /// How many rows its commands changed, by their tags.
    pub rows: u64,
}

/// What a command tag says about its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagKind {
    /// Nothing in particular.
    Plain,
    /// It changed session settings (SET, RESET, DISCARD).
    Settings,
    /// DDL, TRUNCATE, GRANT and the like.
    Ddl,
    /// LOCK TABLE.
    Lock,
    /// The block is gone: the session must not go on (A4).
    BlockEnded,
}
