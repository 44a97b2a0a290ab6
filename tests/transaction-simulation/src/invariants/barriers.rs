//! An operation runs behind its barrier: elsewhere than at the master it begins once all commits up to the position are applied
//! that the master read behind (A13).

use super::model;
use crate::history::History;
use std::collections::BTreeMap;
use steeldb_types::{ReplicaId, TxId};

/// Looks at each operation as it began.
///
/// # Errors
/// One that ran too early.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let commits = model.commits();
    let places: BTreeMap<(ReplicaId, TxId), usize> = history
        .committed
        .iter()
        .flat_map(|(replica, list)| {
            list.iter().enumerate().map(|(place, commit)| ((*replica, commit.tx), place))
        })
        .collect();
    for start in &history.starts {
        let missing = commits.range(..=start.barrier).find(|(_, (begun, _))| {
            places.get(&(start.replica, begun.tx)).is_none_or(|place| *place >= start.applied)
        });
        if let Some((position, (begun, _))) = missing {
            return Err(format!(
                "{} runs operation {} of {} before it has applied {} at {position}; its barrier is {}",
                start.replica, start.number, start.tx, begun.tx, start.barrier
            ));
        }
    }
    Ok(())
}
