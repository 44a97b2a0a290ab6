//! Accusations: no correct replica is held for faulty by another. The world leaves out what may be, see there.

use crate::history::History;

/// Looks for accusations.
///
/// # Errors
/// The first one.
pub fn check(history: &History) -> Result<(), String> {
    history.accusations.first().map_or(Ok(()), |accusation| Err(accusation.clone()))
}
