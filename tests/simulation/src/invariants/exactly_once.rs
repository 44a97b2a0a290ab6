//! Exactly once: a replica executes a client's request at most once, and those of a session in ascending sequence; and an
//! administrator's change of the membership at most once.

use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::RequestKey;

/// Walks what each replica's application holds.
///
/// # Errors
/// A request that came again, or behind a later one.
pub fn check(history: &History) -> Result<(), String> {
    for (replica, applied) in &history.applied {
        let mut last = BTreeMap::new();
        let mut changes = BTreeSet::new();
        for (_, request) in applied.iter().flat_map(|delivery| &delivery.requests) {
            let key = request.key();
            if matches!(key, RequestKey::Membership(_)) && !changes.insert(key) {
                return Err(format!("{replica} changed the membership by {key:?} again"));
            }
            let RequestKey::Client(id) = key else { continue };
            let before = last.insert(id.session, id.sequence);
            if before.is_some_and(|before| before >= id.sequence) {
                return Err(format!("{replica} executed {id:?} after sequence {before:?}"));
            }
        }
    }
    Ok(())
}
