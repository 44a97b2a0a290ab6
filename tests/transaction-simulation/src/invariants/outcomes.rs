//! A prepared transaction ends only by its ordered outcome, and not before that has come to the replica (rule 13). What a
//! replica prepared and lost the BEGIN of in a crash, before it could vote, it rolls back.

use super::model::{self, Decided};
use crate::history::{History, Unprepared};
use steeldb_wire::transaction::VoteKind;

/// Whether a replica has said that it has the transaction prepared.
fn has_voted(history: &History, ended: &Unprepared) -> bool {
    history.votes.iter().any(|(replica, vote, _)| {
        (*replica, vote.tx, vote.slot) == (ended.replica, ended.tx, ended.slot)
            && matches!(vote.kind, VoteKind::Prepared { .. })
    })
}

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
            // Its votes wait for the record of its BEGIN (`promises.rs`): nobody has its word.
            _ if ended.forgotten && !ended.committed && !has_voted(history, ended) => {}
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
