//! Draws from sequences (A9): the master's go into its stream, the others' come from there.

use super::transaction::Transaction;
use std::collections::BTreeMap;
use steeldb_wire::transaction::{Draws, Executed};

/// How much room an entry takes among those held: a plain one takes 1.
pub(super) fn weight(entry: &Executed) -> usize {
    1 + entry.draws.size() / 64
}

/// How much room a transaction's entries take.
pub(super) fn weight_of(transaction: &Transaction) -> usize {
    transaction.stream.values().map(weight).sum()
}

/// The least and the greatest value that a transaction drew from each sequence: here, at the master, or as its stream says.
pub(super) fn marks(transaction: &Transaction) -> BTreeMap<String, (i64, i64)> {
    let mut marks = BTreeMap::new();
    for number in 1..=transaction.executed() {
        let streamed = || transaction.stream.get(&number).map(|entry| &entry.draws);
        if let Some(draws) = transaction.drawn.get(&number).or_else(streamed) {
            draws.mark(&mut marks);
        }
    }
    marks
}

/// What the master drew for an operation, for the backend to take; with it the transaction must be voted: what was drawn
/// is not drawn again, whether or not a row shows it.
pub(super) fn hand_over(transaction: &mut Transaction, number: u32) -> Draws {
    let draws = transaction.stream.get(&number).map(|entry| entry.draws.clone()).unwrap_or_default();
    transaction.must_vote |= !draws.is_empty();
    draws
}
