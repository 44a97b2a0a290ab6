//! Integrity: only what a client signed, or the application asked for, is delivered, unaltered.

use crate::history::History;

/// Looks at every delivered request.
///
/// # Errors
/// A request that nobody asked for.
pub fn check(history: &History) -> Result<(), String> {
    for observed in &history.observed {
        for (_, request) in &observed.delivery.requests {
            let key = request.key();
            let signed = history.signed.get(&key).is_some_and(|signed| signed.contains(request));
            if !signed {
                return Err(format!("{} delivered {key:?}, which nobody asked for", observed.replica));
            }
        }
    }
    Ok(())
}
