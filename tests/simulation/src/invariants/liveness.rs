//! Liveness: after the faults, what correct replicas were asked for is delivered by all of them.

use crate::history::History;
use std::collections::BTreeSet;

/// Looks for what is missing where.
///
/// # Errors
/// A request that a correct replica has not delivered.
pub fn check(history: &History) -> Result<(), String> {
    for replica in &history.correct {
        let applied = history.applied.get(replica).map(Vec::as_slice).unwrap_or_default();
        let delivered: BTreeSet<_> = applied
            .iter()
            .flat_map(|delivery| &delivery.requests)
            .map(|(_, request)| request.key())
            .collect();
        for (key, request) in &history.submitted {
            if !delivered.contains(key) && !request.payload().starts_with(b"refuse") {
                return Err(format!("{replica} has not delivered {key:?}"));
            }
        }
    }
    Ok(())
}
