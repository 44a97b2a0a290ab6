//! Decision proofs: anyone can check that a delivered batch was decided, with nothing but the replicas' keys.
//!
//! The bytes under the signature and the quorums are spelled out here anew.

use crate::history::History;
use crate::views::Views;
use ed25519_dalek::{Signature, VerifyingKey};
use std::collections::BTreeSet;
use steeldb_ordering::Proof;

/// Checks the proof of each instance once per regency and set of signers.
///
/// # Errors
/// A proof that does not convince.
pub fn check(history: &History) -> Result<(), String> {
    let views = Views::of(history)?;
    let mut seen = BTreeSet::new();
    for observed in &history.observed {
        let proof = &observed.delivery.proof;
        let signers: Vec<u16> = proof.accepts.iter().map(|(replica, _)| replica.0).collect();
        if proof.instance != observed.delivery.instance {
            return Err(format!("{}: the proof of {}", observed.delivery.instance, proof.instance));
        }
        let fresh = seen.insert((proof.instance, proof.claim, signers));
        if fresh && let Err(reason) = convince(history, &views, proof) {
            return Err(format!("{} at {}: {reason}", proof.instance, observed.replica));
        }
    }
    Ok(())
}

fn convince(history: &History, views: &Views, proof: &Proof) -> Result<(), String> {
    let view = views.at(proof.instance).ok_or("an instance of no view")?;
    if view.number != proof.view() {
        return Err(format!("of view {:?}, not {:?}", proof.view(), view.number));
    }
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
    match views.is_quorum(view, &signers) {
        true => Ok(()),
        false => Err(format!("{signers:?} are no quorum")),
    }
}
