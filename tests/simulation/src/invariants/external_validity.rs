//! External validity: nothing is delivered that the application refuses.

use crate::history::History;

/// Looks at every delivered request.
///
/// # Errors
/// One that should have been refused.
pub fn check(history: &History) -> Result<(), String> {
    for observed in &history.observed {
        for (_, request) in &observed.delivery.requests {
            if request.payload().starts_with(b"refuse") {
                let key = request.key();
                return Err(format!("{} delivered {key:?}, which the application refuses", observed.replica));
            }
        }
    }
    Ok(())
}
