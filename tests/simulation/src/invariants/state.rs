//! State: what a correct replica's application holds, executed by itself or taken over with a checkpoint, is what a
//! correct replica was given by the order, batch by batch.

use crate::history::{Batch, History};
use std::collections::BTreeMap;
use steeldb_ordering::InstanceNumber;

/// Compares each application with the first delivery of each instance. That deliveries agree is another invariant.
///
/// # Errors
/// A batch that nobody was given, or was given otherwise.
pub fn check(history: &History) -> Result<(), String> {
    let mut given: BTreeMap<InstanceNumber, Batch> = BTreeMap::new();
    for observed in &history.observed {
        given.entry(observed.delivery.instance).or_insert_with(|| Batch::of(&observed.delivery));
    }
    for (replica, applied) in &history.applied {
        for batch in applied {
            if given.get(&batch.instance) != Some(batch) {
                return Err(format!("{replica} holds {batch:?}, which nobody was given"));
            }
        }
    }
    Ok(())
}
