//! What the scheduler wants done. Effects are data; the agent runs them in the order given.

use super::event::{AnchorId, Connection};
use crate::script::Step;
use bytes::Bytes;
use std::collections::BTreeMap;
use steeldb_types::{Position, SessionKey, Slot, Term, Timestamp, TxId};
use steeldb_wire::transaction::{
    Draws, Modes, OperationKind, Ordered, ReplicaMessage, SignedAccusation, SqlState, StatementId,
    StatementText, Stream, VoteBundle,
};

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a backend for a session.
    OpenBackend {
        /// The session.
        session: SessionKey,
        /// The database.
        database: String,
        /// The role, already permitted to this client.
        role: String,
        /// Startup parameters.
        parameters: Vec<(String, String)>,
    },
    /// A command to a session's backend. Commands of one session run in sequence.
    Backend {
        /// The session.
        session: SessionKey,
        /// What.
        command: Command,
    },
    /// Keep COPY data of an operation. Its backend takes them once it executes that, from their start each time.
    KeepCopy {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// More of its data.
        data: Bytes,
    },
    /// No more data of an operation come; the first end counts.
    EndCopy {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// CopyFail's message.
        failure: Option<String>,
    },
    /// COPY data are needed no more.
    DropCopies {
        /// The transaction.
        tx: TxId,
        /// The operation; none: all of them.
        number: Option<u32>,
    },
    /// Begin an anchor transaction and export its snapshot. No COMMIT PREPARED is issued until it reports.
    TakeAnchor {
        /// Its name.
        anchor: AnchorId,
        /// Where.
        database: String,
    },
    /// The anchor is not needed any more.
    ReleaseAnchor(AnchorId),
    /// Commit a prepared transaction.
    CommitPrepared {
        /// The transaction, for the report.
        tx: TxId,
        /// Its global identifier.
        gid: String,
        /// Where.
        database: String,
    },
    /// Roll a prepared transaction back.
    RollbackPrepared {
        /// Its global identifier.
        gid: String,
        /// Where.
        database: String,
    },
    /// Get a committed transaction's effects from a peer, whichever has them, and make them here: apply its write set;
    /// or, of one that ran DDL, execute its script again up to PREPARE TRANSACTION. Several may be asked for at once; the
    /// rows of one database are made in the order of the commits' positions, none before all that were asked for earlier
    /// are made.
    CatchUp {
        /// Where its Commit is ordered.
        position: Position,
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
        /// Where.
        database: String,
        /// w, as the certificate says.
        write_set: steeldb_types::Digest,
        /// How often it has failed. Another peer is asked first each time.
        attempt: u32,
        /// What a script is executed with; none where rows are all there is.
        reexecution: Option<Reexecution>,
    },
    /// Find out which of these are not prepared, though they were.
    LookForPrepared {
        /// Their global identifiers.
        gids: Vec<String>,
    },
    /// Find out which backends a transaction's backend waits for.
    FindBlockers {
        /// The transaction.
        tx: TxId,
        /// Where.
        database: String,
        /// Its backend.
        process: u32,
    },
    /// Have a certified outcome ordered.
    Submit(Box<Ordered>),
    /// Send votes to all other replicas.
    SendVotes(VoteBundle),
    /// Send a piece of the master's stream to all other replicas.
    SendStream(Stream),
    /// Send an accusation of the master to all other replicas.
    SendAccusation(SignedAccusation),
    /// Find out whether statements are certified deterministic: the master answered the last of them otherwise than this
    /// replica did, and the others alike.
    Certify {
        /// The master epoch, for the answer.
        epoch: u64,
        /// Where.
        database: String,
        /// The statements, and whether their rows are compared in sequence.
        statements: Vec<(StatementText, bool)>,
    },
    /// A master's term has begun: clients are to know.
    TermBegan(Term),
    /// Put the sequences of a database past what earlier masters may have drawn.
    SkipSequences {
        /// The database.
        database: String,
    },
    /// Send votes to one replica again.
    ResendVotes {
        /// To whom.
        to: steeldb_types::ReplicaId,
        /// The votes.
        bundle: VoteBundle,
    },
    /// Answer a client.
    Reply {
        /// Over which connection.
        connection: Connection,
        /// What.
        message: ReplicaMessage,
    },
    /// Answer an ordered request over the connection it came by; the session need not have a backend.
    Answer {
        /// Who asked.
        session: SessionKey,
        /// What.
        message: ReplicaMessage,
    },
    /// Run a maintenance statement outside any block.
    Maintain {
        /// Who asked.
        session: SessionKey,
        /// The request's number.
        sequence: u64,
        /// Where.
        database: String,
        /// As whom.
        role: String,
        /// One statement.
        sql: String,
    },
    /// Drop the temporary relations of a session that is over, with their schema.
    ClearTemporary {
        /// Where.
        database: String,
        /// The schema.
        schema: String,
    },
    /// Take digests of all tables on an anchor's snapshot.
    Verify {
        /// Who asked.
        session: SessionKey,
        /// The request's number.
        sequence: u64,
        /// Where.
        database: String,
        /// The anchor's exported snapshot.
        snapshot: String,
        /// Where in the order.
        position: Position,
    },
    /// This replica cannot do what the order demands. It stops answering for data and says why.
    Diverged {
        /// Where.
        position: Position,
        /// Which transaction.
        tx: TxId,
        /// Why.
        reason: String,
    },
}

/// How a committed DDL transaction is executed again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reexecution {
    /// Rows alone do not do: what it defined is not in its write set's digest.
    pub by_script: bool,
    /// k.
    pub operations: u32,
    /// h_k.
    pub transcript: steeldb_types::Digest,
    /// Its slot's snapshot; none if nothing holds it any more: then that of now, behind all commits ordered before it.
    pub snapshot: Option<String>,
    /// The agreed time.
    pub timestamp: Timestamp,
    /// HMAC(cluster key, slot, tx) (A14).
    pub seed: [u8; 32],
}

/// A command to a session's backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Set or reset a setting of the session, outside any block (B11).
    Restore(String),
    /// Remember a statement.
    Define {
        /// Its number.
        statement: StatementId,
        /// Its text.
        text: StatementText,
    },
    /// Forget a statement.
    Forget(StatementId),
    /// Start a transaction block without a snapshot, for leading LOCK TABLE statements (A10).
    BeginLeading {
        /// The transaction.
        tx: TxId,
        /// Its attributes.
        modes: Modes,
    },
    /// Start a transaction block, unless it is started, on a snapshot, with the agreed time and seed.
    Begin {
        /// The transaction.
        tx: TxId,
        /// Its attributes.
        modes: Modes,
        /// The anchor's exported snapshot.
        snapshot: String,
        /// The agreed time.
        timestamp: Timestamp,
        /// HMAC(cluster key, slot, tx) (A14).
        seed: [u8; 32],
        /// Its session may have temporary relations: those of earlier transactions.
        has_temporary: bool,
    },
    /// Go on from leading LOCK TABLE statements: take the snapshot here and now, with the agreed time and seed. Nothing is
    /// committed meanwhile, so it is the anchor's; importing one is refused to a transaction that has an id, and ACCESS
    /// EXCLUSIVE locks give it one.
    BeginHere {
        /// The transaction.
        tx: TxId,
        /// Its attributes.
        modes: Modes,
        /// The agreed time.
        timestamp: Timestamp,
        /// HMAC(cluster key, slot, tx) (A14).
        seed: [u8; 32],
        /// Its session may have temporary relations.
        has_temporary: bool,
    },
    /// Run an operation and report its canonical result.
    Execute {
        /// The transaction.
        tx: TxId,
        /// Its number.
        number: u32,
        /// The statement.
        statement: StatementId,
        /// Compare rows in sequence.
        row_order: bool,
        /// What to do.
        kind: OperationKind,
        /// Send the backend's messages to the client (the master does).
        show: bool,
        /// What it draws from sequences; none: it draws by itself, and reports what (the master does).
        draws: Option<Draws>,
    },
    /// Fail as the master did, for a reason of timing (B8).
    Adopt {
        /// The transaction.
        tx: TxId,
        /// The operation.
        number: u32,
        /// The master's error.
        sqlstate: SqlState,
    },
    /// Check all deferred constraints and find out whether the transaction wrote.
    Complete {
        /// The transaction.
        tx: TxId,
    },
    /// Record the transaction, digest the catalogs after DDL, PREPARE TRANSACTION.
    Prepare {
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
        /// k.
        operations: u32,
        /// h_k.
        transcript: steeldb_types::Digest,
        /// Its global identifier.
        gid: String,
        /// It ran DDL.
        ddl: bool,
        /// What it did, to be kept durably before, for replicas that miss it; its COPY data are where they are kept.
        script: Option<Vec<Step>>,
        /// The least and the greatest value that it drew from each sequence.
        marks: BTreeMap<String, (i64, i64)>,
    },
    /// End the block: commit a read-only transaction (settings stay), or roll back, cancelling what runs.
    End {
        /// The transaction.
        tx: TxId,
        /// Commit.
        commit: bool,
    },
    /// The client has passed on result bytes.
    Acknowledge(u32),
    /// Cancel the running statement on behalf of the user.
    Cancel,
    /// End the backend.
    Close,
}
