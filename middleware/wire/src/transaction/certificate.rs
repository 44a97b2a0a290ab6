//! Certificates: what makes an outcome valid (rule 7). Judged from their own bytes, the view and the replicas' keys, so
//! that all correct replicas judge alike and at once (PROTOCOL-RISKS, section D).

use super::{MerklePath, SignedVote, Vote, VoteKind, Wall};
use crate::auth::{Namespace, PublicKey, Signature};
use crate::codec::encode;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeSet, VecDeque};
use steeldb_types::{Digest, ReplicaId, Slot, TxId, View};

/// Proof that a transaction may commit: Prepared votes of weight Q_v, all equal (A1, A2, A3).
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CommitCertificate {
    /// The transaction.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// k.
    pub operations: u32,
    /// h_k.
    pub transcript: Digest,
    /// w.
    pub write_set: Digest,
    /// What it defined.
    pub wall: Wall,
    /// Who signed, with the path to the signed root.
    pub votes: Vec<(ReplicaId, MerklePath, Signature)>,
}

/// Proof that a transaction must abort: f + 1 votes against it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct AbortCertificate {
    /// The transaction.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// The votes.
    pub votes: Vec<SignedVote>,
}

/// Why a certificate proves nothing. Whoever sent it is at fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CertificateError {
    /// A replica twice, or one that is not in the view.
    #[error("replica {0} is repeated or unknown")]
    BadReplica(ReplicaId),
    /// A signature or a path does not verify.
    #[error("the vote of replica {0} is not signed by it")]
    BadSignature(ReplicaId),
    /// A vote for another transaction or slot, or a Prepared vote in an Abort.
    #[error("the vote of replica {0} does not belong here")]
    BadVote(ReplicaId),
    /// Too little weight or too few votes.
    #[error("{0} votes are not enough")]
    NotEnough(usize),
}

/// Remembers signatures that verified, so that none is checked twice; bounded. Purely a memory: answers do not depend
/// on it.
pub struct SignatureMemo {
    seen: BTreeSet<(ReplicaId, Digest, [u8; 64])>,
    order: VecDeque<(ReplicaId, Digest, [u8; 64])>,
    max: usize,
}

impl SignatureMemo {
    /// A memory of at most `max` signatures.
    pub fn new(max: usize) -> SignatureMemo {
        SignatureMemo { seen: BTreeSet::new(), order: VecDeque::new(), max }
    }

    /// Whether `replica`'s `key` signed the root of a batch of votes.
    pub(super) fn verify(
        &mut self,
        replica: ReplicaId,
        key: &PublicKey,
        root: Digest,
        signature: &Signature,
    ) -> bool {
        let entry = (replica, root, signature.0);
        if self.seen.contains(&entry) {
            return true;
        }
        if key.verify(Namespace::Votes, &root.0, signature).is_err() {
            return false;
        }
        self.remember(replica, root, signature);
        true
    }

    /// Remembers a signature that is known to be good: this process made it, or has verified it.
    pub(super) fn remember(&mut self, replica: ReplicaId, root: Digest, signature: &Signature) {
        let entry = (replica, root, signature.0);
        if !self.seen.insert(entry) {
            return;
        }
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(entry);
    }
}

impl CommitCertificate {
    /// Gathers equal Prepared votes.
    ///
    /// # Errors
    /// [`CertificateError::NotEnough`] below Q_v; [`CertificateError::BadVote`] when they are not equal.
    pub fn gather(view: &View, votes: &[&SignedVote]) -> Result<CommitCertificate, CertificateError> {
        let Some(first) = votes.first() else { return Err(CertificateError::NotEnough(0)) };
        let VoteKind::Prepared { operations, transcript, write_set, wall } = first.vote.kind else {
            return Err(CertificateError::BadVote(first.replica));
        };
        if let Some(other) = votes.iter().find(|vote| vote.vote != first.vote) {
            return Err(CertificateError::BadVote(other.replica));
        }
        if !view.is_quorum(votes.iter().map(|vote| vote.replica)) {
            return Err(CertificateError::NotEnough(votes.len()));
        }
        Ok(CommitCertificate {
            tx: first.vote.tx,
            slot: first.vote.slot,
            operations,
            transcript,
            write_set,
            wall,
            votes: votes.iter().map(|vote| (vote.replica, vote.path.clone(), vote.signature)).collect(),
        })
    }

    /// The vote that all its signers cast.
    pub fn vote(&self) -> Vote {
        Vote {
            tx: self.tx,
            slot: self.slot,
            kind: VoteKind::Prepared {
                operations: self.operations,
                transcript: self.transcript,
                write_set: self.write_set,
                wall: self.wall,
            },
        }
    }

    /// Judges the certificate.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong with it.
    pub fn check(
        &self,
        view: &View,
        keys: &[PublicKey],
        memo: &mut SignatureMemo,
    ) -> Result<(), CertificateError> {
        let leaf = encode(&self.vote());
        let mut signers = BTreeSet::new();
        for (replica, path, signature) in &self.votes {
            let key = distinct(view, keys, &mut signers, *replica)?;
            let root = path.root(&leaf).ok_or(CertificateError::BadSignature(*replica))?;
            if !memo.verify(*replica, key, root, signature) {
                return Err(CertificateError::BadSignature(*replica));
            }
        }
        if view.is_quorum(signers.iter().copied()) {
            Ok(())
        } else {
            Err(CertificateError::NotEnough(signers.len()))
        }
    }
}

impl AbortCertificate {
    /// Judges the certificate.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong with it.
    pub fn check(
        &self,
        view: &View,
        keys: &[PublicKey],
        memo: &mut SignatureMemo,
    ) -> Result<(), CertificateError> {
        let mut signers = BTreeSet::new();
        for vote in &self.votes {
            let key = distinct(view, keys, &mut signers, vote.replica)?;
            if vote.vote.tx != self.tx || vote.vote.slot != self.slot || !vote.vote.kind.is_against() {
                return Err(CertificateError::BadVote(vote.replica));
            }
            let root =
                vote.path.root(&encode(&vote.vote)).ok_or(CertificateError::BadSignature(vote.replica))?;
            if !memo.verify(vote.replica, key, root, &vote.signature) {
                return Err(CertificateError::BadSignature(vote.replica));
            }
        }
        if view.has_correct(signers.iter().copied()) {
            Ok(())
        } else {
            Err(CertificateError::NotEnough(signers.len()))
        }
    }
}

fn distinct<'k>(
    view: &View,
    keys: &'k [PublicKey],
    signers: &mut BTreeSet<ReplicaId>,
    replica: ReplicaId,
) -> Result<&'k PublicKey, CertificateError> {
    match keys.get(usize::from(replica.0)) {
        Some(key) if view.contains(replica) && signers.insert(replica) => Ok(key),
        _ => Err(CertificateError::BadReplica(replica)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::SecretKey;
    use crate::transaction::{SqlState, VoteBundle};

    fn keys() -> Vec<SecretKey> {
        (0..4).map(|i| SecretKey::from_seed(&[i + 1; 32])).collect()
    }

    fn publics() -> Vec<PublicKey> {
        keys().iter().map(SecretKey::public).collect()
    }

    fn prepared(write_set: u8) -> VoteKind {
        VoteKind::Prepared {
            operations: 2,
            transcript: Digest([1; 32]),
            write_set: Digest([write_set; 32]),
            wall: Wall::None,
        }
    }

    fn signed(replica: u16, kind: VoteKind) -> SignedVote {
        let vote = Vote { tx: TxId::default(), slot: Slot::default(), kind };
        let other = Vote { kind: VoteKind::Gone, ..vote.clone() };
        let key = &keys()[usize::from(replica)];
        let bundle = VoteBundle::new(vec![(other, None), (vote, None)], key).unwrap();
        bundle.open(ReplicaId(replica), &key.public(), &mut SignatureMemo::new(1)).unwrap().remove(1).0
    }

    fn check(certificate: &CommitCertificate) -> Result<(), CertificateError> {
        certificate.check(&View::of_size(4).unwrap(), &publics(), &mut SignatureMemo::new(16))
    }

    #[test]
    fn three_of_four_equal_votes_commit_and_two_do_not() {
        let view = View::of_size(4).unwrap();
        let votes: Vec<_> = (0..3).map(|i| signed(i, prepared(7))).collect();
        let certificate = CommitCertificate::gather(&view, &votes.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(check(&certificate), Ok(()));
        let mut short = certificate.clone();
        short.votes.pop();
        assert_eq!(check(&short), Err(CertificateError::NotEnough(2)));
        let mut repeated = short.clone();
        repeated.votes.push(repeated.votes[0].clone());
        assert_eq!(check(&repeated), Err(CertificateError::BadReplica(ReplicaId(0))));
        let mut renamed = short;
        let (_, path, signature) = renamed.votes[0].clone();
        renamed.votes.push((ReplicaId(3), path, signature));
        assert_eq!(check(&renamed), Err(CertificateError::BadSignature(ReplicaId(3))));
        // A2, A3: nothing that the vote names may be changed afterwards.
        for change in [
            |c: &mut CommitCertificate| c.write_set = Digest([8; 32]),
            |c: &mut CommitCertificate| c.transcript = Digest([8; 32]),
            |c: &mut CommitCertificate| c.operations = 3,
            |c: &mut CommitCertificate| c.slot = c.slot.next(),
            |c: &mut CommitCertificate| c.wall = Wall::Session,
        ] {
            let mut changed = certificate.clone();
            change(&mut changed);
            assert!(matches!(check(&changed), Err(CertificateError::BadSignature(_))));
        }
    }

    #[test]
    fn votes_that_differ_in_their_effects_make_no_certificate() {
        let view = View::of_size(4).unwrap();
        let votes = [signed(0, prepared(7)), signed(1, prepared(7)), signed(2, prepared(8))];
        let gathered = CommitCertificate::gather(&view, &votes.iter().collect::<Vec<_>>());
        assert_eq!(gathered, Err(CertificateError::BadVote(ReplicaId(2))));
    }

    #[test]
    fn an_abort_needs_a_correct_replica_and_counts_all_kinds_together() {
        let view = View::of_size(4).unwrap();
        let abort = |votes: Vec<SignedVote>| {
            AbortCertificate { tx: TxId::default(), slot: Slot::default(), votes }.check(
                &view,
                &publics(),
                &mut SignatureMemo::new(16),
            )
        };
        let failed = VoteKind::Failed { sqlstate: SqlState::parse("40001") };
        assert_eq!(abort(vec![signed(0, VoteKind::Expired), signed(2, failed)]), Ok(()));
        assert_eq!(abort(vec![signed(2, failed)]), Err(CertificateError::NotEnough(1)));
        let in_favour = vec![signed(0, VoteKind::Expired), signed(1, prepared(7))];
        assert_eq!(abort(in_favour), Err(CertificateError::BadVote(ReplicaId(1))));
    }
}
