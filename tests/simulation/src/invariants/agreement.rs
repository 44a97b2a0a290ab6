//! Agreement: no two correct replicas ever deliver different batches for an instance, whatever they forget in crashes.

use crate::history::History;
use std::collections::BTreeMap;

/// Compares every delivery with the first one of its instance.
///
/// # Errors
/// Two that differ.
pub fn check(history: &History) -> Result<(), String> {
    let mut first = BTreeMap::new();
    for observed in &history.observed {
        let delivery = &observed.delivery;
        let earlier = first.entry(delivery.instance).or_insert(observed);
        let same = earlier.delivery.requests == delivery.requests
            && earlier.delivery.timestamp == delivery.timestamp
            && earlier.delivery.proof.claim.value == delivery.proof.claim.value;
        if !same {
            return Err(format!(
                "{}: {} delivered {:?} at {}, {} delivered {:?} at {}",
                delivery.instance,
                earlier.replica,
                earlier.delivery.requests,
                earlier.delivery.timestamp,
                observed.replica,
                delivery.requests,
                delivery.timestamp,
            ));
        }
    }
    Ok(())
}
