//! What correct replicas committed: each ordered commit once, with the write set that its certificate names, and on the rows
//! that were there; and no row that another transaction changed after the slot.

use super::model;
use crate::history::History;
use std::collections::BTreeSet;

/// Compares what stores committed with what was ordered.
///
/// # Errors
/// A commit that was not ordered, of another write set, twice; a lost update.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let commits = model.commits();
    for (replica, committed) in &history.committed {
        let mut seen = BTreeSet::new();
        for commit in committed {
            let ordered =
                commits.values().find(|(begun, _)| begun.tx == commit.tx && begun.slot == commit.slot);
            let Some((_, write_set)) = ordered else {
                return Err(format!("{replica} committed {}, whose Commit is not ordered", commit.tx));
            };
            if *write_set != commit.write_set {
                return Err(format!("{replica} committed {} with other effects than the order's", commit.tx));
            }
            if !seen.insert((commit.tx, commit.slot)) {
                return Err(format!("{replica} committed {} twice", commit.tx));
            }
        }
    }
    let states = model::states(history, &model);
    for (position, (tx, slot, rows)) in &states.changes {
        let Some(snapshot) = states.before(*slot, &model) else { continue };
        let Some(now) = states.before(*position, &model) else { continue };
        for (key, (before, _)) in *rows {
            if now.get(key) != before.as_ref() {
                let here = now.get(key);
                return Err(format!("{tx} changed row {key} from {before:?}, and it was {here:?}"));
            }
            // A row that its snapshot saw: first committer wins. Where another one deleted it meanwhile, the key is free for an
            // INSERT, as in PostgreSQL.
            if snapshot.contains_key(key)
                && before.is_some()
                && let Some(other) = states.changed_between(*key, *slot, *position)
            {
                return Err(format!("{tx} and {other} both changed row {key}: an update is lost"));
            }
        }
    }
    Ok(())
}
