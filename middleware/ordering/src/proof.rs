//! Decision proofs: ACCEPT signatures of weight Q_v for one value in one regency.

use crate::{InstanceNumber, Proposal, Regency, Roster};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{Digest, ReplicaId, ViewNumber};
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec;

/// A value in a regency: what a WRITE or an ACCEPT is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub struct Claim {
    /// The regency (VP-Consensus: the timestamp of the epoch).
    pub regency: Regency,
    /// The digest of the proposal.
    pub value: Digest,
}

/// That an instance decided a value: ACCEPTs of weight Q_v. Anyone who knows the view and its keys can check it.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Proof {
    /// The instance decided.
    pub instance: InstanceNumber,
    /// The regency it was decided in, which names the view whose quorum decided, and the value's digest.
    pub claim: Claim,
    /// Who accepted, ascending, with their signatures.
    pub accepts: Vec<(ReplicaId, Signature)>,
}

/// A decided batch with its proof: what is logged, and sent to replicas that are behind.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Decision {
    /// The batch.
    pub proposal: Arc<Proposal>,
    /// Why it is decided.
    pub proof: Proof,
}

impl Proof {
    /// The view whose quorum decided.
    pub fn view(&self) -> ViewNumber {
        self.claim.regency.view
    }

    /// Checks the signatures and their weight. That the instance belongs to the view is for the caller to know.
    ///
    /// # Errors
    /// Says what is wrong; whoever showed the proof is at fault.
    pub fn verify(&self, roster: &Roster) -> Result<(), String> {
        let view = roster.view();
        if self.view() != view.number() {
            return Err(format!("the proof is of another view, {:?}", self.view()));
        }
        if self.accepts.len() > usize::from(view.n()) || !self.accepts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("the proof's signers are not ascending".into());
        }
        if !view.is_quorum(self.accepts.iter().map(|(replica, _)| *replica)) {
            return Err("the proof is no quorum".into());
        }
        for (replica, signature) in &self.accepts {
            verify_accept(self.instance, &self.claim, *replica, signature, roster)?;
        }
        Ok(())
    }
}

impl Decision {
    /// Checks that the proof is for this batch, and the proof itself.
    ///
    /// # Errors
    /// Says what is wrong; whoever showed the decision is at fault.
    pub fn verify(&self, roster: &Roster) -> Result<(), String> {
        if self.proposal.instance != self.proof.instance || self.proposal.digest() != self.proof.claim.value {
            return Err("the proof is of another value".into());
        }
        self.proof.verify(roster)
    }

    /// The instance decided.
    pub fn instance(&self) -> InstanceNumber {
        self.proof.instance
    }
}

pub(crate) fn sign_accept(instance: InstanceNumber, claim: &Claim, key: &SecretKey) -> Signature {
    key.sign(Namespace::Accept, &accept_bytes(instance, claim))
}

pub(crate) fn verify_accept(
    instance: InstanceNumber,
    claim: &Claim,
    replica: ReplicaId,
    signature: &Signature,
    roster: &Roster,
) -> Result<(), String> {
    let key = roster.key(replica).ok_or_else(|| format!("unknown replica {replica}"))?;
    key.verify(Namespace::Accept, &accept_bytes(instance, claim), signature)
        .map_err(|error| format!("ACCEPT of {replica} for {instance}: {error}"))
}

/// The regency names the view.
fn accept_bytes(instance: InstanceNumber, claim: &Claim) -> Vec<u8> {
    codec::encode(&(claim.regency, instance, claim.value))
}
