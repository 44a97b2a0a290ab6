//! No acknowledged commit is lost: what a client was told committed at a place is the order's outcome at that place. It may be
//! told before the place is decided (A7); in the end it is.

use super::model::{self, Decided};
use crate::client::Ended;
use crate::history::History;
use steeldb_client_shim::Completion;

/// Looks up each acknowledgement whose place is decided.
///
/// # Errors
/// One of which the order says something else.
pub fn check(history: &History) -> Result<(), String> {
    look_up(history, history.order.len() as u64)
}

/// Looks each acknowledgement up.
///
/// # Errors
/// One that the order knows nothing of.
pub fn check_all(history: &History) -> Result<(), String> {
    look_up(history, u64::MAX)
}

fn look_up(history: &History, upto: u64) -> Result<(), String> {
    let model = model::read(history);
    for attempt in &history.attempts {
        let Some(Ended::Finished(Ok(Completion::Committed(Some(position))))) = attempt.ended else {
            continue;
        };
        if position.0 > upto {
            continue;
        }
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
