//! Comparing the databases of all replicas.

use crate::APP;
use std::collections::BTreeSet;
use std::time::Duration;
use steeldb_client_shim::{Shim, TableDigest, VerifiedReplica};

/// How long replicas may take. Only a replica that never answers takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(shim: &Shim) -> Vec<VerifiedReplica> {
    shim.verify(APP, PATIENCE).await.expect("replicas turned the comparison away")
}

fn tables(answer: &VerifiedReplica) -> &[TableDigest] {
    answer.tables.as_ref().unwrap_or_else(|error| panic!("{} has no digests: {error}", answer.replica))
}

/// Asserts that every replica of the newest view answers, and holds the same tables at one place in the order.
pub async fn identical(shim: &Shim) {
    let mut answers = ask(shim).await;
    // A replica whose server is just being started again has no digests yet.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while answers.iter().any(|answer| answer.tables.is_err()) && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answers = ask(shim).await;
    }
    let up = shim.links_up();
    assert_eq!(
        answers.len(),
        usize::from(shim.view().n()),
        "not all replicas answered; links are up to {up:?}"
    );
    for answer in &answers {
        assert_eq!(answer.position, answers[0].position, "{}", answer.replica);
        assert_eq!(tables(answer), tables(&answers[0]), "{} and {}", answer.replica, answers[0].replica);
    }
}

/// The tables in which a replica differs from the first one.
pub async fn differing_tables(shim: &Shim, replica: usize) -> Vec<String> {
    let answers = ask(shim).await;
    let digests = |index: usize| tables(&answers[index]).to_vec();
    let (first, other) = (digests(0), digests(replica));
    let differ = first.iter().filter(|table| !other.contains(table));
    let names: BTreeSet<String> =
        differ.chain(other.iter().filter(|table| !first.contains(table))).map(|t| t.table.clone()).collect();
    names.into_iter().collect()
}
