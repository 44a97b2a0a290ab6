//! Nothing is confirmed that no correct replica computed: each answer of a confirmed transaction came out of the store of
//! one correct replica, all of them of the same.

use crate::client::{Attempt, Ended};
use crate::history::History;
use std::collections::BTreeSet;
use steeldb_types::{Digest, ReplicaId};
use steeldb_wire::transaction::ResultDigest;

/// Looks for a replica behind each confirmed transaction.
///
/// # Errors
/// A transaction that only liars answered.
pub fn check(history: &History) -> Result<(), String> {
    let confirmed =
        |attempt: &&Attempt| !attempt.broken && matches!(attempt.ended, Some(Ended::Finished(Ok(_))));
    for attempt in history.attempts.iter().filter(confirmed) {
        let mut replicas: BTreeSet<ReplicaId> = history.correct.clone();
        for (shown, number) in attempt.shown.iter().zip(1u32..) {
            let digest = digest(&shown.messages, shown.statement.is_ordered());
            let key = (attempt.tx, number, shown.statement.to_string());
            let computed = history.executed.get(&key);
            replicas.retain(|replica| {
                let timing = is_of_timing(&shown.messages);
                timing || computed.is_some_and(|computed| computed.contains(&(*replica, digest)))
            });
        }
        if replicas.is_empty() {
            return Err(format!("no correct replica computed what {} was shown", attempt.tx));
        }
    }
    Ok(())
}

fn digest(messages: &[u8], ordered: bool) -> Digest {
    let mut digest = ResultDigest::new(ordered);
    for message in steeldb_client_shim::message::messages(messages).flatten() {
        let _ = digest.message(message.tag, message.body);
    }
    digest.finish()
}

/// Errors of timing are adopted from the master and not computed (B8).
fn is_of_timing(messages: &[u8]) -> bool {
    let given = super::serial::read(messages);
    given
        .and_then(|given| given.error)
        .is_some_and(|code| ["40P01", "55P03", "57014"].contains(&code.as_str()))
}
