//! Liveness: after the faults, what correct clients ask for is executed by all correct replicas of the newest view, the
//! clients learn so, and all these replicas come to hold the same.

use crate::history::History;
use crate::views::Views;
use std::collections::BTreeSet;

/// Looks for what is missing where.
///
/// # Errors
/// A request that a correct replica has not executed or whose client has no answer; replicas that differ.
pub fn check(history: &History) -> Result<(), String> {
    if let Some(key) = history.wanted.iter().find(|key| !history.acknowledged.contains_key(key)) {
        return Err(format!("{key:?} is not acknowledged"));
    }
    let mut lengths = BTreeSet::new();
    let views = Views::of(history)?;
    let members = views.newest().map(|view| view.members.clone()).unwrap_or_default();
    for replica in history.correct.intersection(&members) {
        let applied = history.applied.get(replica).map(Vec::as_slice).unwrap_or_default();
        lengths.insert(applied.len());
        let requests = applied.iter().flat_map(|delivery| &delivery.requests);
        let delivered: BTreeSet<_> = requests.map(|(_, request)| request.key()).collect();
        if let Some(key) = history.wanted.iter().find(|key| !delivered.contains(key)) {
            return Err(format!("{replica} has not delivered {key:?}"));
        }
    }
    if lengths.len() > 1 {
        return Err(format!("the correct replicas hold {lengths:?} batches"));
    }
    Ok(())
}
