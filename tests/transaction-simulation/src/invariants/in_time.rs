//! Where nothing is wrong and no client meets another, everything is vouched for in time, whoever the master is, and nothing
//! ends because that changes.

use crate::client::{Attempt, Ended};
use crate::history::History;
use steeldb_types::Position;
use steeldb_wire::transaction::{Ordered, VoteKind};

/// Looks for votes that were late.
///
/// # Errors
/// A correct replica could not vouch for a transaction within T_vote.
pub fn check(history: &History) -> Result<(), String> {
    let late = |vote: &VoteKind| matches!(vote, VoteKind::Expired);
    match history.votes.iter().find(|(_, vote, _)| history.calm && late(&vote.kind)) {
        Some((replica, vote, _)) => Err(format!("{replica} could not vouch for {} in time", vote.tx)),
        None => Ok(()),
    }
}

/// Looks for transactions that ended for another reason than their own errors. One that its client began under the old
/// master and that is ordered behind the change may: the new master has answered it, and its client did not listen. So do
/// those that their client had asked for before they began.
///
/// # Errors
/// One that need not have ended.
pub fn check_all(history: &History) -> Result<(), String> {
    if !history.calm {
        return Ok(());
    }
    let changes = changes(history);
    let asked = |attempt: &Attempt| history.told.iter().any(|(tx, _)| *tx == attempt.tx);
    let must_not =
        |attempt: &&Attempt| ends(attempt) && !asked(attempt) && !is_overtaken(history, &changes, attempt);
    match history.attempts.iter().find(must_not) {
        Some(attempt) => Err(format!("{} ended with {:?}", attempt.tx, attempt.ended)),
        None => Ok(()),
    }
}

/// It ended, and not since a statement of its own had failed.
fn ends(attempt: &Attempt) -> bool {
    match &attempt.ended {
        Some(Ended::Finished(Err(sqlstate))) => attempt.broken || sqlstate != "25P02",
        Some(Ended::Finished(Ok(_))) => attempt.broken,
        Some(Ended::Lost) => true,
        None => false,
    }
}

/// Where each master's term began, and its epoch.
fn changes(history: &History) -> Vec<(Position, u64)> {
    let mut changes: Vec<(Position, u64)> = Vec::new();
    for ordinal in &history.order {
        let ended = match &ordinal.payload {
            Ordered::Depose(certificate) => certificate.term.epoch,
            Ordered::Move(wish) => wish.term.epoch,
            _ => continue,
        };
        if ended == changes.last().map_or(0, |(_, epoch)| *epoch) {
            changes.push((ordinal.position, ended + 1));
        }
    }
    changes
}

/// It is ordered behind a change of the master that its client had not heard of when it began.
fn is_overtaken(history: &History, changes: &[(Position, u64)], attempt: &Attempt) -> bool {
    let begins = |payload: &Ordered| matches!(payload, Ordered::Begin { tx, .. } if *tx == attempt.tx);
    let slot = history.order.iter().find(|ordinal| begins(&ordinal.payload)).map(|ordinal| ordinal.position);
    let client = attempt.tx.session.client;
    slot.is_some_and(|slot| {
        changes.iter().filter(|(position, _)| *position < slot).any(|(_, epoch)| {
            history.heard.get(&(client, *epoch)).is_none_or(|heard_us| *heard_us > attempt.began_us)
        })
    })
}
