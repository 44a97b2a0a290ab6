//! What a run looks at in the end sees what it should: a difference between replicas, an acknowledged number that is not
//! there, a refused one that is, a sum of TPC-C that does not add up. Each is brought about here, by whoever may do that.

use std::path::Path;
use std::time::{Duration, Instant};
use steeldb_chaos::cluster::Cluster;
use steeldb_chaos::ledger::Ledger;
use steeldb_chaos::report::Report;
use steeldb_chaos::schedule::Replies;
use steeldb_chaos::tpcc::Tpcc;
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
    let mut cluster = Cluster::start(program, folder.path(), Replies::Decided).await.unwrap();
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

    // Money in the warehouse that no district has: alike on all replicas, as a bug of the protocol would leave it.
    let tpcc = Tpcc::start(program, folder.path(), 1, &urls).await.unwrap();
    while execute(url, "UPDATE warehouse SET w_ytd = w_ytd + 1").await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the warehouse cannot be written");
    }
    let mut report = Report::default();
    tpcc.finish(&mut report).await.unwrap();
    assert_eq!(report.anomalies, ["TPC-C's consistency conditions do not hold: tpcc.txt"]);

    assert_eq!(differing(&cluster).await, (vec![], String::new()));
    let mut behind = cluster.behind(ReplicaId(2)).await.unwrap();
    behind.simple("DELETE FROM public.chaos_ledger WHERE id = 8").await.unwrap();
    drop(behind);
    let (replicas, words) = differing(&cluster).await;
    assert_eq!(replicas, [ReplicaId(2)], "{words}");
    assert!(words.contains("public.chaos_ledger"), "{words}");
    cluster.stop().await.unwrap();
}
