//! What is ordered is vouched for: a Commit by 2f + 1 replicas of n = 3f + 1, an Abort by f + 1; and each correct one among
//! them cast that vote.

use crate::history::History;
use std::collections::BTreeSet;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::{Ordered, Vote};

/// Counts the votes of each ordered certificate.
///
/// # Errors
/// One with too few, or with a vote that was never cast.
pub fn check(history: &History) -> Result<(), String> {
    let cast: BTreeSet<(ReplicaId, Vec<u8>)> = history
        .votes
        .iter()
        .map(|(replica, vote, _)| (*replica, steeldb_wire::codec::encode(vote)))
        .collect();
    let f = (history.replicas - 1) / 3;
    for ordinal in &history.order {
        let (needed, votes): (usize, Vec<(ReplicaId, Vote)>) = match &ordinal.payload {
            Ordered::Commit(certificate) => {
                let vote = certificate.vote();
                (2 * f + 1, certificate.votes.iter().map(|(who, ..)| (*who, vote.clone())).collect())
            }
            Ordered::Abort(certificate) => {
                (f + 1, certificate.votes.iter().map(|vote| (vote.replica, vote.vote.clone())).collect())
            }
            _ => continue,
        };
        let position = ordinal.position;
        let who: BTreeSet<ReplicaId> = votes.iter().map(|(replica, _)| *replica).collect();
        if who.len() < needed {
            return Err(format!("the outcome at {position} has the votes of {who:?} alone"));
        }
        let never = votes.iter().find(|(replica, vote)| {
            let encoded = steeldb_wire::codec::encode(vote);
            history.correct.contains(replica) && !cast.contains(&(*replica, encoded))
        });
        if let Some((replica, vote)) = never {
            return Err(format!(
                "the outcome at {position} names a vote of {replica} that it never cast: {vote:?}"
            ));
        }
    }
    Ok(())
}
