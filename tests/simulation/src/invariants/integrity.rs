//! Integrity: only what was asked for is delivered, signed and valid, and a client's request once.

use crate::history::History;
use std::collections::BTreeSet;
use steeldb_ordering::Request;

/// Looks at every request that a replica's application holds.
///
/// # Errors
/// A request that nobody asked for, that should have been refused, or that came twice.
pub fn check(history: &History) -> Result<(), String> {
    for observed in &history.observed {
        for (_, request) in &observed.delivery.requests {
            let key = request.key();
            if history.submitted.get(&key) != Some(&**request) {
                return Err(format!("{} delivered {key:?}, which nobody asked for", observed.replica));
            }
            if request.payload().starts_with(b"refuse") {
                return Err(format!("{} delivered {key:?}, which the application refuses", observed.replica));
            }
        }
    }
    for (replica, applied) in &history.applied {
        let mut seen = BTreeSet::new();
        for (_, request) in applied.iter().flat_map(|delivery| &delivery.requests) {
            let once = matches!(**request, Request::Client { .. });
            if !seen.insert(request.key()) && once {
                return Err(format!("{replica} delivered {:?} twice", request.key()));
            }
        }
    }
    Ok(())
}
