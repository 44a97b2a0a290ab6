//! What a run looks at in the end sees what it should: a difference between replicas, an acknowledged number that is not
//! there, a refused one that is. Each is brought about here, by whoever may do that.

use std::path::Path;
use std::time::{Duration, Instant};
use steeldb_chaos::cluster::Cluster;
use steeldb_chaos::ledger::Ledger;
use steeldb_types::ReplicaId;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a statement through a proxy; how many rows it found.
async fn execute(url: &str, sql: &str) -> Result<usize, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let answer = client.simple_query(sql).await;
    drop(client);
    connection.await.unwrap()?;
    Ok(answer?.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count())
}

async fn differing(cluster: &Cluster) -> (Vec<ReplicaId>, String) {
    let comparison = cluster.compare(PATIENCE).await.unwrap();
    (comparison.differing(), comparison.describe())
}

#[tokio::test]
async fn what_is_lost_risen_or_different_is_seen() {
    let folder = tempfile::Builder::new().prefix("steeldb-checks-").tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_steeldb-under-test"));
    let mut cluster = Cluster::start(program, folder.path()).await.unwrap();
    let urls = cluster.urls().to_vec();

    // Two clients and one more per proxy: the first one's numbers are the multiples of four. One that it is yet to come to
    // is there already.
    let (ledger, url) = (Ledger::start(&urls, 2).await.unwrap(), &urls[0]);
    let mut taken = 40;
    while execute(url, &format!("INSERT INTO chaos_ledger VALUES ({taken})")).await.is_err() {
        taken += 40;
    }
    let (next, started) = (format!("SELECT id FROM chaos_ledger WHERE id = {}", taken + 4), Instant::now());
    while execute(url, &next).await.unwrap() == 0 {
        assert!(started.elapsed() < PATIENCE, "{} numbers", ledger.acknowledged());
    }
    execute(url, "DELETE FROM chaos_ledger WHERE id = 4").await.unwrap();
    let balance = ledger.balance(&urls).await.unwrap();
    assert_eq!((balance.lost, balance.risen), (vec![4], vec![taken]));

    assert_eq!(differing(&cluster).await, (vec![], String::new()));
    let mut behind = cluster.behind(ReplicaId(2)).await.unwrap();
    behind.simple("DELETE FROM public.chaos_ledger WHERE id = 8").await.unwrap();
    drop(behind);
    let (replicas, words) = differing(&cluster).await;
    assert_eq!(replicas, [ReplicaId(2)], "{words}");
    assert!(words.contains("public.chaos_ledger"), "{words}");
    cluster.stop().await.unwrap();
}
