//! Exactly once: a replica executes a client's request at most once, and those of a session in ascending sequence.

use crate::history::History;
use std::collections::BTreeMap;
use steeldb_ordering::RequestKey;

/// Walks what each replica's application holds.
///
/// # Errors
/// A request that came again, or behind a later one.
pub fn check(history: &History) -> Result<(), String> {
    for (replica, applied) in &history.applied {
        let mut last = BTreeMap::new();
        for (_, request) in applied.iter().flat_map(|delivery| &delivery.requests) {
            let RequestKey::Client(id) = request.key() else { continue };
            let before = last.insert(id.session, id.sequence);
            if before.is_some_and(|before| before >= id.sequence) {
                return Err(format!("{replica} executed {id:?} after sequence {before:?}"));
            }
        }
    }
    Ok(())
}
