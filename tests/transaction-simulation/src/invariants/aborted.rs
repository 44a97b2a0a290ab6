//! What a client was told did not commit, does not: only 08007, or a session that was lost, leave it open.

use super::model::{self, Decided};
use crate::client::{Attempt, Ended};
use crate::history::History;
use steeldb_client_shim::Completion;

/// Looks each transaction up that ended without a commit.
///
/// # Errors
/// One that the order commits.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    for attempt in history.attempts.iter().filter(|attempt| is_over(attempt)) {
        let outcome = model.of(attempt.tx).and_then(|begun| begun.outcome);
        if let Some((position, Decided::Commit(_))) = outcome {
            let told = &attempt.ended;
            return Err(format!("{} commits at {position}, and its client was told {told:?}", attempt.tx));
        }
    }
    Ok(())
}

fn is_over(attempt: &Attempt) -> bool {
    match &attempt.ended {
        Some(Ended::Finished(Ok(Completion::RolledBack))) => true,
        Some(Ended::Finished(Err(sqlstate))) => sqlstate != "08007",
        _ => false,
    }
}
