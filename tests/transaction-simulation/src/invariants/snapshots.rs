//! A transaction's snapshot holds the commits ordered before its slot, and no others (A6); and it begins with nothing done.

use super::model;
use crate::history::History;
use std::collections::BTreeSet;
use steeldb_types::TxId;

/// Looks at every snapshot that a correct replica used.
///
/// # Errors
/// One that holds too much or too little.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let commits = model.commits();
    for snapshot in &history.snapshots {
        if snapshot.within {
            let (replica, tx) = (snapshot.replica, snapshot.tx);
            return Err(format!("{replica}: {tx} begins where another block was not ended"));
        }
        let slots = model.begun.values().filter(|begun| begun.tx == snapshot.tx);
        let mut before = slots.map(|begun| {
            let before = commits.range(..begun.slot);
            before.map(|(_, (begun, _))| begun.tx).collect::<BTreeSet<TxId>>()
        });
        if !before.any(|before| before == snapshot.holds) {
            let Some(begun) = model.of(snapshot.tx) else {
                return Err(format!("{}: {} runs and never began", snapshot.replica, snapshot.tx));
            };
            let expected: BTreeSet<TxId> =
                commits.range(..begun.slot).map(|(_, (begun, _))| begun.tx).collect();
            return Err(format!(
                "{}: the snapshot of {} at {} holds {:?} and not {expected:?}",
                snapshot.replica, snapshot.tx, begun.slot, snapshot.holds
            ));
        }
    }
    Ok(())
}
