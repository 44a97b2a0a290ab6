//! What a client was told of a transaction that it asked for stays so (E1): what is said to be committed is, and what is said
//! not to be never will.

use super::model::{self, Decided};
use crate::history::History;
use steeldb_wire::transaction::TransactionState;

/// Looks each answer up in the order.
///
/// # Errors
/// One that the order does not bear out.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    for (tx, state) in &history.told {
        let committed = match model.of(*tx).and_then(|begun| begun.outcome) {
            Some((position, Decided::Commit(_))) => Some(position),
            _ => None,
        };
        let holds = match state {
            TransactionState::Committed { position } => committed == Some(*position),
            TransactionState::Aborted => model.of(*tx).is_none(),
            TransactionState::NoChanges => committed.is_none(),
            TransactionState::InProgress | TransactionState::Forgotten | TransactionState::Unknown => true,
        };
        if !holds {
            return Err(format!("{tx} was said to be {state}, and its Commit is ordered at {committed:?}"));
        }
    }
    Ok(())
}
