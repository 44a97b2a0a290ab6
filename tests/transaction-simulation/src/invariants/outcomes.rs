//! A prepared transaction ends only by its ordered outcome, and not before that has come to the replica (rule 13).

use super::model::{self, Decided};
use crate::history::History;

/// Looks up every COMMIT PREPARED and ROLLBACK PREPARED.
///
/// # Errors
/// One that the order had not said yet.
pub fn check(history: &History) -> Result<(), String> {
    let model = model::read(history);
    for ended in &history.unprepared {
        let begun = model.begun.get(&ended.slot).filter(|begun| begun.tx == ended.tx);
        let outcome = begun.and_then(|begun| begun.outcome);
        let what = if ended.committed { "committed" } else { "rolled back" };
        match outcome {
            Some((position, decided)) if position <= ended.delivered => {
                if ended.committed && decided == Decided::Abort {
                    return Err(format!("{} committed {}, which the order aborts", ended.replica, ended.tx));
                }
            }
            other => {
                return Err(format!(
                    "{} {what} {} at {} having heard the order up to {}; its outcome: {other:?}",
                    ended.replica, ended.tx, ended.slot, ended.delivered
                ));
            }
        }
    }
    Ok(())
}
