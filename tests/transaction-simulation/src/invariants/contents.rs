//! At the end all correct replicas hold what the ordered commits make of the start, and nothing else.

use super::model;
use crate::history::History;

/// Compares contents.
///
/// # Errors
/// A row that differs.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    let states = model::states(history, &model);
    if states.changes.len() < model.commits().len() {
        return Err("a commit was ordered whose effects no correct replica has".into());
    }
    let Some(expected) = states.last() else { return Ok(()) };
    for (replica, contents) in &history.contents {
        if contents != expected {
            let differs = |key: &&u32| contents.get(key) != expected.get(key);
            let key = expected.keys().chain(contents.keys()).find(differs);
            return Err(format!(
                "{replica} differs in row {key:?}: {:?} and not {:?}",
                key.and_then(|key| contents.get(key)),
                key.and_then(|key| expected.get(key))
            ));
        }
    }
    Ok(())
}
