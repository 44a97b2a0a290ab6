//! Strong snapshot isolation: a transaction's slot is behind every commit that was acknowledged before it began.

use super::model;
use crate::client::{Attempt, Ended};
use crate::history::History;
use steeldb_client_shim::Completion;
use steeldb_types::Position;

/// Compares all pairs.
///
/// # Errors
/// A confirmed transaction that began after an acknowledgement and may not have seen it.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let acknowledged: Vec<(u64, Position, &Attempt)> = history
        .attempts
        .iter()
        .filter_map(|attempt| match attempt.ended {
            Some(Ended::Finished(Ok(Completion::Committed(Some(position))))) => {
                Some((attempt.ended_us?, position, attempt))
            }
            _ => None,
        })
        .collect();
    for attempt in &history.attempts {
        if !matches!(attempt.ended, Some(Ended::Finished(Ok(_)))) {
            continue;
        }
        let Some(begun) = model.of(attempt.tx) else { continue };
        let unseen = acknowledged
            .iter()
            .find(|(at_us, position, _)| *at_us < attempt.began_us && *position > begun.slot);
        if let Some((_, position, other)) = unseen {
            return Err(format!(
                "{} began after {} was acknowledged at {position}, and its slot is {}",
                attempt.tx, other.tx, begun.slot
            ));
        }
    }
    Ok(())
}
