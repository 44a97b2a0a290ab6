//! Operations: one SQL statement with its parameters, or a COPY with its data (rule 2).

use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, Hasher, TxId};

/// A statement of a session, numbered by the shim when it first sends its text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct StatementId(pub u32);

/// What a client's Parse message says: the text and the parameter types it fixes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, BorshSerialize, BorshDeserialize)]
pub struct StatementText {
    /// One SQL statement.
    pub sql: String,
    /// OIDs of built-in types; 0 where the server shall infer the type. OIDs of user-defined types are never sent:
    /// they differ between replicas.
    pub parameter_types: Vec<u32>,
}

impl StatementText {
    /// The digest that stands for the statement in transcripts.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("steeldb/statement");
        hasher.part(self.sql.as_bytes());
        for oid in &self.parameter_types {
            hasher.number(u64::from(*oid));
        }
        hasher.finish()
    }
}

/// What is to be done with the statement.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum OperationKind {
    /// Parse it and describe its parameters and columns.
    Describe,
    /// Bind and execute it to the end. The bytes are a Bind message's body after the two names: parameter formats,
    /// parameter values, result formats.
    Execute {
        /// The rest of the Bind message.
        bind: Vec<u8>,
    },
    /// As `Execute`, and COPY data follow from the client until [`super::ClientMessage::CopyEnd`].
    CopyIn {
        /// The rest of the Bind message.
        bind: Vec<u8>,
    },
}

/// One operation of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Operation {
    /// The transaction.
    pub tx: TxId,
    /// 1..k in the transaction.
    pub number: u32,
    /// The session's statement it runs.
    pub statement: StatementId,
    /// A LOCK TABLE that runs before the BEGIN is ordered (A10).
    pub leading: bool,
    /// Compare rows in sequence (the statement has a top-level ORDER BY) rather than as a multiset (A8).
    pub row_order: bool,
    /// The statement takes explicit locks or uses sequences, so the transaction must be voted on (A9).
    pub must_vote: bool,
    /// The client shows the result only once f + 1 replicas have it (rule 11): each executes the operation as soon as it
    /// may, and says so.
    pub verify: bool,
    /// What to do.
    pub kind: OperationKind,
}

impl Operation {
    /// The operation's digest in the transcript. `statement` is the digest of its text, `copy` that of the data that
    /// followed.
    pub fn digest(&self, statement: Digest, copy: Option<Digest>) -> Digest {
        let mut hasher = Hasher::new("steeldb/operation");
        hasher.number(u64::from(self.number)).part(&statement.0);
        hasher.part(&[
            u8::from(self.leading),
            u8::from(self.row_order),
            u8::from(self.must_vote),
            u8::from(self.verify),
        ]);
        match &self.kind {
            OperationKind::Describe => hasher.part(b"describe"),
            OperationKind::Execute { bind } => hasher.part(b"execute").part(bind),
            OperationKind::CopyIn { bind } => hasher.part(b"copy").part(bind),
        };
        if let Some(copy) = copy {
            hasher.part(&copy.0);
        }
        hasher.finish()
    }

    /// Bytes it occupies in a buffer, roughly.
    pub fn size(&self) -> usize {
        self.kind.size()
    }
}

impl OperationKind {
    /// As [`Operation::size`].
    pub fn size(&self) -> usize {
        64 + match self {
            OperationKind::Describe => 0,
            OperationKind::Execute { bind } | OperationKind::CopyIn { bind } => bind.len(),
        }
    }
}

/// The digest of COPY data: of the bytes, however they were cut into messages, and of how they ended.
#[derive(Clone)]
pub struct CopyDigest {
    bytes: sha2::Sha256,
}

impl Default for CopyDigest {
    fn default() -> Self {
        CopyDigest { bytes: <sha2::Sha256 as sha2::Digest>::new() }
    }
}

impl CopyDigest {
    /// Adds a chunk.
    pub fn data(&mut self, chunk: &[u8]) {
        sha2::Digest::update(&mut self.bytes, chunk);
    }

    /// The digest, after CopyDone (`failure` is none) or CopyFail.
    pub fn finish(self, failure: Option<&str>) -> Digest {
        let bytes: [u8; 32] = sha2::Digest::finalize(self.bytes).into();
        match failure {
            None => Digest::of("steeldb/copy", &[&bytes]),
            Some(reason) => Digest::of("steeldb/copy", &[&bytes, reason.as_bytes()]),
        }
    }
}
