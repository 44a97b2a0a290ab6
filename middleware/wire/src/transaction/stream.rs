//! The master's stream: what it executed and behind which commits (rule 4). Others run an operation once they hold its
//! entry and have applied up to its barrier (rule 5).

use crate::auth::{AuthError, Namespace, PublicKey, SecretKey, Signature};
use crate::codec::encode;
use crate::transaction::{Draws, SqlState};
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, Position, TxId};

/// The master executed operation i of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Executed {
    /// The transaction.
    pub tx: TxId,
    /// i.
    pub number: u32,
    /// What the client asked of the master: the digest of statement, parameters and COPY data; none of the check.
    pub operation: Digest,
    /// The transcript h_i at the master.
    pub transcript: Digest,
    /// b_i: the highest position whose COMMIT PREPARED had been issued when the result was read (A13).
    pub barrier: Position,
    /// An error that came of timing (deadlock victim, time-out, cancel): adopted elsewhere, not re-executed (B8).
    pub adopted: Option<SqlState>,
    /// Its SQLSTATE if it failed at the master.
    pub failed: Option<SqlState>,
    /// The session at the master has settings that its client brought along (B11): its answers may differ for that.
    pub restored: bool,
    /// What it drew from sequences: taken from here elsewhere, not drawn again (A9).
    pub draws: Draws,
    /// It asked for COPY data: they come from the client.
    pub copied: bool,
    /// Its place among all that a replica has received of the stream; does not travel.
    #[borsh(skip)]
    pub arrival: u64,
    /// The master epoch in whose stream it came; does not travel.
    #[borsh(skip)]
    pub epoch: u64,
    /// It is no operation of the client's but the constraints' check behind the last one (B5).
    pub check: bool,
}

/// A numbered, signed piece of the stream.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Stream {
    /// The master's epoch.
    pub epoch: u64,
    /// The number of the first entry in the epoch's stream.
    pub first: u64,
    /// The entries.
    pub entries: Vec<Executed>,
    /// The master's, over all of the above.
    pub signature: Signature,
}

impl Stream {
    /// Signs a piece.
    pub fn new(epoch: u64, first: u64, entries: Vec<Executed>, key: &SecretKey) -> Stream {
        let signature = key.sign(Namespace::Stream, &encode(&(epoch, first, &entries)));
        Stream { epoch, first, entries, signature }
    }

    /// Verifies the master's signature.
    ///
    /// # Errors
    /// [`AuthError`] when it is not the master's.
    pub fn verify(&self, master: &PublicKey) -> Result<(), AuthError> {
        master.verify(Namespace::Stream, &encode(&(self.epoch, self.first, &self.entries)), &self.signature)
    }
}
