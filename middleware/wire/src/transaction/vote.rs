//! Votes: what a replica says of a transaction that its client finished (rules 6 and 7).

use super::{MerklePath, MerkleTree, SignatureMemo, SignedFinish};
use crate::auth::{AuthError, Namespace, PublicKey, SecretKey, Signature};
use crate::codec::encode;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use steeldb_types::{Digest, ReplicaId, Slot, TxId};

/// A five-character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// Another bulk transaction is under way, or the role has had too many. No code of PostgreSQL's, whose own come through
    /// as they are; applications are told 40001.
    pub const BULK_BUSY: SqlState = SqlState(*b"SB001");

    /// Reads one; characters that are not ASCII letters or digits make it `XX000`.
    pub fn parse(text: &str) -> SqlState {
        match <[u8; 5]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_alphanumeric) => SqlState(code),
            _ => SqlState(*b"XX000"),
        }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a transaction's definitions are to others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, BorshSerialize, BorshDeserialize)]
pub enum Wall {
    /// It defined nothing.
    #[default]
    None,
    /// It defined temporary relations of its session alone. Nobody else need make way; but rows do not tell what it did, so
    /// who missed it executes it again.
    Session,
    /// Its Commit raises the wall (rule 9).
    Database,
}

impl Wall {
    /// Whether its Commit ends what is older and would not see the same any more.
    pub fn is_raised(self) -> bool {
        self == Wall::Database
    }

    /// Whether who missed it has to execute it again.
    pub fn is_scripted(self) -> bool {
        self != Wall::None
    }
}

/// What a replica found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum VoteKind {
    /// It reached the client's transcript, and the effects are durable here.
    Prepared {
        /// k.
        operations: u32,
        /// h_k.
        transcript: Digest,
        /// w, the digest of the write set.
        write_set: Digest,
        /// What it defined.
        wall: Wall,
    },
    /// Its results or effects differ; `operation` is the first that does, 0 when only the effects do.
    Mismatch {
        /// 1..k, or 0.
        operation: u32,
    },
    /// The transaction could not be completed here.
    Failed {
        /// Why.
        sqlstate: SqlState,
    },
    /// A transaction prepared here is in the way.
    Blocked,
    /// T_vote passed without a certificate. Does not release what is prepared.
    Expired,
    /// An ordered DDL transaction passed it (rule 9).
    Walled,
    /// The client is gone or idle.
    Gone,
}

impl VoteKind {
    /// Whether it counts towards an Abort.
    pub fn is_against(&self) -> bool {
        !matches!(self, VoteKind::Prepared { .. })
    }
}

/// One replica's vote on one transaction at one slot.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The transaction.
    pub tx: TxId,
    /// Its slot; binds the vote to this BEGIN alone (A3).
    pub slot: Slot,
    /// What was found.
    pub kind: VoteKind,
}

/// A vote with its path to a root that its replica signed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedVote {
    /// Whose vote.
    pub replica: ReplicaId,
    /// The vote.
    pub vote: Vote,
    /// From the vote to the root.
    pub path: MerklePath,
    /// Over the root.
    pub signature: Signature,
}

/// A batch of votes as it travels: signed once over the Merkle root.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct VoteBundle {
    /// The votes, each with the Finish it answers (none where the client finished nothing: Gone, Walled).
    pub votes: Vec<(Vote, Option<SignedFinish>)>,
    /// Over the root of the votes.
    pub signature: Signature,
}

impl VoteBundle {
    /// Signs `votes`, at least one.
    pub fn new(votes: Vec<(Vote, Option<SignedFinish>)>, key: &SecretKey) -> Option<VoteBundle> {
        let tree = tree(&votes)?;
        let signature = key.sign(Namespace::Votes, &tree.root().0);
        Some(VoteBundle { votes, signature })
    }

    /// Verifies `replica`'s signature and gives each vote its path. `memo` then knows the signature, so that a
    /// certificate of these votes need not be verified again.
    ///
    /// # Errors
    /// [`AuthError::BadSignature`] when the batch is empty or not signed by `key`.
    pub fn open(
        self,
        replica: ReplicaId,
        key: &PublicKey,
        memo: &mut SignatureMemo,
    ) -> Result<Vec<(SignedVote, Option<SignedFinish>)>, AuthError> {
        let tree = tree(&self.votes).ok_or(AuthError::BadSignature)?;
        if !memo.verify(replica, key, tree.root(), &self.signature) {
            return Err(AuthError::BadSignature);
        }
        Ok(self.with_paths(replica, &tree))
    }

    /// The votes of a batch that `me` has just signed, and is so known to be good.
    pub fn open_own(self, me: ReplicaId) -> Vec<(SignedVote, Option<SignedFinish>)> {
        match tree(&self.votes) {
            Some(tree) => self.with_paths(me, &tree),
            None => Vec::new(),
        }
    }

    /// Lets `memo` know the signature of a batch that `me` has just signed.
    pub fn remember_own(&self, me: ReplicaId, memo: &mut SignatureMemo) {
        if let Some(tree) = tree(&self.votes) {
            memo.remember(me, tree.root(), &self.signature);
        }
    }

    fn with_paths(self, replica: ReplicaId, tree: &MerkleTree) -> Vec<(SignedVote, Option<SignedFinish>)> {
        let signature = self.signature;
        self.votes
            .into_iter()
            .enumerate()
            .filter_map(|(index, (vote, finish))| {
                Some((SignedVote { replica, vote, path: tree.path(index)?, signature }, finish))
            })
            .collect()
    }
}

fn tree(votes: &[(Vote, Option<SignedFinish>)]) -> Option<MerkleTree> {
    let leaves: Vec<Vec<u8>> = votes.iter().map(|(vote, _)| encode(vote)).collect();
    MerkleTree::new(&leaves)
}
