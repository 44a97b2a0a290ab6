//! Decision proofs: anyone can check that a delivered batch was decided, with nothing but the replicas' keys.
//!
//! The bytes under the signature and the quorums are spelled out here anew.

use crate::history::History;
use ed25519_dalek::{Signature, VerifyingKey};
use std::collections::BTreeSet;
use steeldb_ordering::Proof;
use steeldb_types::{FaultModel, ReplicaId};

/// Checks the proof of each instance once per regency and set of signers.
///
/// # Errors
/// A proof that does not convince.
pub fn check(history: &History) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for observed in &history.observed {
        let proof = &observed.delivery.proof;
        let signers: Vec<u16> = proof.accepts.iter().map(|(replica, _)| replica.0).collect();
        if proof.instance != observed.delivery.instance {
            return Err(format!("{}: the proof of {}", observed.delivery.instance, proof.instance));
        }
        let fresh = seen.insert((proof.instance, proof.claim, signers));
        if fresh && let Err(reason) = convince(history, proof) {
            return Err(format!("{} at {}: {reason}", proof.instance, observed.replica));
        }
    }
    Ok(())
}

fn convince(history: &History, proof: &Proof) -> Result<(), String> {
    let mut message = b"steeldb/1/accept\0".to_vec();
    message.extend(proof.claim.regency.view.0.to_le_bytes());
    message.extend(proof.claim.regency.number.to_le_bytes());
    message.extend(proof.instance.0.to_le_bytes());
    message.extend(proof.claim.value.0);
    let mut signers = BTreeSet::new();
    for (replica, signature) in &proof.accepts {
        let key = history.replica_keys.get(usize::from(replica.0)).ok_or("an unknown signer")?;
        let key = VerifyingKey::from_bytes(&key.0).map_err(|error| error.to_string())?;
        key.verify_strict(&message, &Signature::from_bytes(&signature.0))
            .map_err(|error| error.to_string())?;
        signers.insert(*replica);
    }
    match is_enough(history, &signers)? {
        true => Ok(()),
        false => Err(format!("{signers:?} are no quorum")),
    }
}

/// Whether replicas are a quorum, by numbers written down here.
pub(crate) fn is_enough(history: &History, signers: &BTreeSet<ReplicaId>) -> Result<bool, String> {
    // Equal weights: any so many. Five Byzantine replicas: 0 and 1 weigh 2, the others 1, and a quorum 5.
    let equal = signers.len() as u16;
    let (weight, needed): (u16, u16) = match (history.model, history.n) {
        (FaultModel::Byzantine, 4) => (equal, 3),
        (FaultModel::Byzantine, 5) => {
            (signers.iter().map(|replica| if replica.0 < 2 { 2 } else { 1 }).sum(), 5)
        }
        (FaultModel::Byzantine, 7) => (equal, 5),
        (FaultModel::Byzantine, 10) => (equal, 7),
        (FaultModel::Crash, 3) => (equal, 2),
        (FaultModel::Crash, 5) => (equal, 3),
        (model, n) => return Err(format!("no quorum written down for {n} replicas, {model:?}")),
    };
    Ok(weight >= needed)
}
