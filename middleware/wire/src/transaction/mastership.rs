//! Who is the master: what replicas accuse it of, what makes a change of it valid, and an administrator's wish.

use super::CertificateError;
use crate::auth::{AuthError, Namespace, PublicKey, SecretKey, Signature};
use crate::codec::encode;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeSet;
use std::fmt;
use steeldb_types::{Digest, ReplicaId, Term, View};

/// What a master is accused of. Never what a client can make a correct master look guilty of (B2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum Cause {
    /// Nothing came of its stream, not even that it has nothing to say.
    Silent,
    /// It showed operations of transactions that others have prepared, and did not vote on them.
    NoVotes,
    /// It gave another result for a statement that has one only.
    Disproved,
    /// Its word differs from this replica's in transactions of several roles.
    Doubted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Silent => "it is silent",
            Cause::NoVotes => "it shows results and does not vote on them",
            Cause::Disproved => "it gave a wrong result for a statement that has one only",
            Cause::Doubted => "its results differ in transactions of several roles",
        })
    }
}

/// A replica's word that the master of a term must go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Accusation {
    /// The term whose master is accused.
    pub term: Term,
    /// Of what.
    pub cause: Cause,
}

/// An [`Accusation`] with its replica's signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedAccusation {
    /// Who accuses.
    pub replica: ReplicaId,
    /// What is signed.
    pub accusation: Accusation,
    /// By `replica`.
    pub signature: Signature,
}

impl SignedAccusation {
    /// Signs.
    pub fn new(replica: ReplicaId, accusation: Accusation, key: &SecretKey) -> SignedAccusation {
        let signature = key.sign(Namespace::Accusation, &encode(&accusation));
        SignedAccusation { replica, accusation, signature }
    }

    /// Verifies the replica's signature.
    ///
    /// # Errors
    /// [`AuthError`] when it is not the replica's.
    pub fn verify(&self, key: &PublicKey) -> Result<(), AuthError> {
        key.verify(Namespace::Accusation, &encode(&self.accusation), &self.signature)
    }
}

/// Proof that a master must go: accusations of f + 1 replicas, so that one of them is correct.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct DeposeCertificate {
    /// The term that ends.
    pub term: Term,
    /// Of what, by whom.
    pub accusations: Vec<SignedAccusation>,
}

impl DeposeCertificate {
    /// Judges the certificate.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong with it.
    pub fn check(&self, view: &View, keys: &[PublicKey]) -> Result<(), CertificateError> {
        let mut accusers = BTreeSet::new();
        for signed in &self.accusations {
            let replica = signed.replica;
            let key = match keys.get(usize::from(replica.0)) {
                Some(key) if view.contains(replica) && accusers.insert(replica) => key,
                _ => return Err(CertificateError::BadReplica(replica)),
            };
            if signed.accusation.term != self.term {
                return Err(CertificateError::BadVote(replica));
            }
            signed.verify(key).map_err(|_| CertificateError::BadSignature(replica))?;
        }
        if view.has_correct(accusers.iter().copied()) {
            Ok(())
        } else {
            Err(CertificateError::NotEnough(accusers.len()))
        }
    }
}

/// An administrator's wish that another replica be the master.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct MasterMove {
    /// The term that it ends, so that it is of use once.
    pub term: Term,
    /// The digest of the roster that it was made for: a move signed in one cluster is of no use in another.
    pub roster: Digest,
    /// Who is to be the master.
    pub to: ReplicaId,
    /// Whose wish it is.
    pub administrator: PublicKey,
    /// Over the rest.
    pub signature: Signature,
}

impl MasterMove {
    /// Signs.
    pub fn new(term: Term, roster: Digest, to: ReplicaId, key: &SecretKey) -> MasterMove {
        let signature = key.sign(Namespace::MasterMove, &encode(&(term, roster, to)));
        MasterMove { term, roster, to, administrator: key.public(), signature }
    }

    /// Judges the wish.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check(&self, view: &View, roster: Digest, administrators: &[PublicKey]) -> Result<(), String> {
        if !administrators.contains(&self.administrator) {
            return Err("the key that signed the move is no administrator's".into());
        }
        if self.roster != roster {
            return Err("the move is made for another view or another cluster".into());
        }
        if self.to == self.term.master {
            return Err(format!("replica {} is the master already", self.to));
        }
        if !view.contains(self.to) {
            return Err(format!("replica {} is no member of the view", self.to));
        }
        self.administrator
            .verify(Namespace::MasterMove, &encode(&(self.term, self.roster, self.to)), &self.signature)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(replica: u16) -> SecretKey {
        SecretKey::from_seed(&[replica as u8 + 1; 32])
    }

    fn check(term: Term, accusations: Vec<SignedAccusation>) -> Result<(), CertificateError> {
        let keys: Vec<PublicKey> = (0..4).map(|replica| key(replica).public()).collect();
        DeposeCertificate { term, accusations }.check(&View::of_size(4).unwrap(), &keys)
    }

    fn accuse(by: u16, signer: u16, term: Term) -> SignedAccusation {
        let accusation = Accusation { term, cause: Cause::Silent };
        SignedAccusation::new(ReplicaId(by), accusation, &key(signer))
    }

    #[test]
    fn a_master_is_deposed_by_f_plus_1_replicas_of_its_own_term_and_by_no_fewer() {
        let term = Term::first(ReplicaId(0));
        assert_eq!(check(term, vec![accuse(1, 1, term), accuse(2, 2, term)]), Ok(()));
        assert_eq!(check(term, vec![accuse(1, 1, term)]), Err(CertificateError::NotEnough(1)));
        let twice = vec![accuse(1, 1, term), accuse(1, 1, term)];
        assert_eq!(check(term, twice), Err(CertificateError::BadReplica(ReplicaId(1))));
        let forged = vec![accuse(1, 1, term), accuse(2, 1, term)];
        assert_eq!(check(term, forged), Err(CertificateError::BadSignature(ReplicaId(2))));
        let old = term.under(ReplicaId(0));
        let replayed = vec![accuse(1, 1, old), accuse(2, 2, term)];
        assert_eq!(check(old, replayed), Err(CertificateError::BadVote(ReplicaId(2))));
    }

    #[test]
    fn a_move_is_an_administrators_for_this_cluster_and_this_term() {
        let (view, term) = (View::of_size(4).unwrap(), Term::first(ReplicaId(0)));
        let (roster, administrator) = (Digest([3; 32]), key(9));
        let wish = MasterMove::new(term, roster, ReplicaId(2), &administrator);
        let check = |wish: &MasterMove| wish.check(&view, roster, &[administrator.public()]);
        assert_eq!(check(&wish), Ok(()));
        let stranger = MasterMove::new(term, roster, ReplicaId(2), &key(8));
        assert!(check(&stranger).unwrap_err().contains("no administrator"));
        let elsewhere = MasterMove::new(term, Digest([4; 32]), ReplicaId(2), &administrator);
        assert!(check(&elsewhere).unwrap_err().contains("another cluster"));
        let nobody = MasterMove::new(term, roster, ReplicaId(7), &administrator);
        assert!(check(&nobody).unwrap_err().contains("no member"));
        let same = MasterMove::new(term, roster, ReplicaId(0), &administrator);
        assert!(check(&same).unwrap_err().contains("already"));
        let changed = MasterMove { to: ReplicaId(1), ..wish };
        assert!(check(&changed).is_err());
    }
}
