//! No correct replica takes itself out.

use crate::history::History;

/// Whether one has.
///
/// # Errors
/// The first, and why.
pub fn check(history: &History) -> Result<(), String> {
    history.diverged.first().map_or(Ok(()), |what| Err(what.clone()))
}
