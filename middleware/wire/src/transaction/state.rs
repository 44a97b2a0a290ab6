//! What the order knows of a transaction: the answer to who asks for its outcome.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use steeldb_types::Position;

/// A function of the order alone, so that it is equal on all replicas. Final but for `InProgress` and `Unknown`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum TransactionState {
    /// Its Commit is ordered, here: its changes are in the database.
    Committed {
        /// The position of its Commit.
        position: Position,
    },
    /// Its BEGIN was never ordered, and whatever comes later opens nothing: nobody can have been told that it committed.
    Aborted,
    /// It is over without a Commit: none of its changes are in the database, and none will be. It was aborted or given up;
    /// or it changed nothing, and then its client may have been told that it committed (rule 11).
    NoChanges,
    /// It began and is not over.
    InProgress,
    /// It was over so long ago that the order's memory of it is gone.
    Forgotten,
    /// Nothing of it is in the order by now, and nothing was done to keep it so.
    Unknown,
}

impl fmt::Display for TransactionState {
    /// As `steeldb.outcome()` says it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TransactionState::Committed { .. } => "committed",
            TransactionState::Aborted => "aborted",
            TransactionState::NoChanges => "no changes",
            TransactionState::InProgress => "in progress",
            TransactionState::Forgotten => "forgotten",
            TransactionState::Unknown => "unknown",
        })
    }
}
