//! No acknowledged commit is lost: what a client was told committed at a place is the order's outcome at that place.

use super::model::{self, Decided};
use crate::client::Ended;
use crate::history::History;
use steeldb_client_shim::Completion;

/// Looks each acknowledgement up.
///
/// # Errors
/// One that the order knows nothing of.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    for attempt in &history.attempts {
        let Some(Ended::Finished(Ok(Completion::Committed(Some(position))))) = attempt.ended else {
            continue;
        };
        let outcome = model.of(attempt.tx).and_then(|begun| begun.outcome);
        match outcome {
            Some((at, Decided::Commit(_))) if at == position => {}
            other => {
                return Err(format!(
                    "{} was acknowledged at {position}; the order says {other:?}",
                    attempt.tx
                ));
            }
        }
    }
    Ok(())
}
