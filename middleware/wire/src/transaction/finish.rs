//! The client's word that its transaction is complete (rule 6). One per transaction; two are evidence against it.

use crate::auth::{AuthError, Namespace, PublicKey, SecretKey, Signature};
use crate::codec::encode;
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, Slot, TxId};

/// What the client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Decision {
    /// Make it durable.
    Commit,
    /// Undo it, and say whether what was shown was true (rule 10).
    Rollback,
}

/// The end of a transaction's operations.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Finish {
    /// The transaction.
    pub tx: TxId,
    /// Its slot, as the client was told.
    pub slot: Slot,
    /// Commit or rollback.
    pub decision: Decision,
    /// k: how many operations it has.
    pub operations: u32,
    /// h_k: the transcript of what the client asked and was shown.
    pub transcript: Digest,
}

/// A [`Finish`] with its client's signature.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedFinish {
    /// What is signed.
    pub finish: Finish,
    /// By the client of `finish.tx`.
    pub signature: Signature,
}

impl SignedFinish {
    /// Signs.
    pub fn new(finish: Finish, key: &SecretKey) -> SignedFinish {
        let signature = key.sign(Namespace::Finish, &encode(&finish));
        SignedFinish { finish, signature }
    }

    /// Verifies the client's signature.
    ///
    /// # Errors
    /// [`AuthError`] when it is not the client's.
    pub fn verify(&self, client: &PublicKey) -> Result<(), AuthError> {
        client.verify(Namespace::Finish, &encode(&self.finish), &self.signature)
    }
}
