//! What correct replicas vote for: what is prepared in their stores, with those very changes; one thing per transaction, and
//! nothing after a vote against.

use crate::history::History;
use std::collections::BTreeMap;
use steeldb_types::{ReplicaId, Slot, TxId};
use steeldb_wire::transaction::VoteKind;

/// Looks at each vote as it left.
///
/// # Errors
/// One for what was not prepared, or that contradicts an earlier one.
pub fn check(history: &History) -> Result<(), String> {
    let mut first: BTreeMap<(ReplicaId, TxId, Slot), VoteKind> = BTreeMap::new();
    for (replica, vote, backed) in &history.votes {
        if !backed {
            let (tx, slot, kind) = (vote.tx, vote.slot, vote.kind);
            return Err(format!("{replica} votes for {tx} at {slot}, {kind:?}, which is not prepared there"));
        }
        if vote.kind.is_against() {
            first.entry((*replica, vote.tx, vote.slot)).or_insert(vote.kind);
            continue;
        }
        let before = first.entry((*replica, vote.tx, vote.slot)).or_insert(vote.kind);
        if *before != vote.kind {
            return Err(format!("{replica} votes {:?} on {} after {before:?}", vote.kind, vote.tx));
        }
    }
    Ok(())
}
