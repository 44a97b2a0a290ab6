//! E2: what the proxy runs again, and what it does not, with conflicts as PostgreSQL makes them.

use crate::{connect, run, value};
use steeldb_cluster_tests::{Cluster, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2_a_statement_that_conflicts_is_run_again_unless_something_of_it_stays() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let (first, second) = (connect(&proxy).await, connect(&proxy).await);
    run(
        &first,
        "CREATE SEQUENCE s; CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL, k bigint);
         INSERT INTO t VALUES (1, 0)",
    )
    .await;
    // What would be 40001 at REPEATABLE READ, for an application that knows READ COMMITTED alone.
    for (sql, sqlstate_of) in [
        ("UPDATE t SET n = n + 1 WHERE id = 1", None),
        ("UPDATE t SET n = n + 1 WHERE id = 1 RETURNING n", None),
        ("UPDATE t SET n = n + 1, k = nextval('s') WHERE id = 1", Some("40001")),
        ("DO $$ BEGIN UPDATE t SET n = n + 1 WHERE id = 1; END $$", None),
    ] {
        run(&first, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1").await;
        let before: i32 = value(&first, "SELECT n FROM t WHERE id = 1").await.unwrap().parse().unwrap();
        let waiting = second.clone();
        let update = tokio::spawn(async move { waiting.batch_execute(sql).await });
        waits(&cluster).await;
        run(&first, "COMMIT").await;
        let failed = update.await.unwrap().err().map(|error| sqlstate(&error));
        assert_eq!(failed.as_deref(), sqlstate_of, "{sql}");
        let after: i32 = value(&first, "SELECT n FROM t WHERE id = 1").await.unwrap().parse().unwrap();
        assert_eq!(after - before, i32::from(sqlstate_of.is_none()), "{sql}");
    }
    // By a driver's pipeline, with a statement that was prepared before.
    let statement = second.prepare("UPDATE t SET n = n + $1 WHERE id = 1").await.unwrap();
    run(&first, "BEGIN; UPDATE t SET n = 0 WHERE id = 1").await;
    let waiting = second.clone();
    let update = tokio::spawn(async move { waiting.execute(&statement, &[&10i32]).await });
    waits(&cluster).await;
    run(&first, "COMMIT").await;
    assert_eq!(update.await.unwrap().unwrap(), 1);
    // In a block of its own it is the application's to try again.
    run(&first, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1").await;
    run(&second, "BEGIN; SELECT 1").await;
    let waiting = second.clone();
    let update =
        tokio::spawn(async move { waiting.batch_execute("UPDATE t SET n = n + 1 WHERE id = 1").await });
    waits(&cluster).await;
    run(&first, "COMMIT").await;
    assert_eq!(sqlstate(&update.await.unwrap().unwrap_err()), "40001");
    run(&second, "ROLLBACK").await;
    assert_eq!(value(&first, "SELECT n FROM t WHERE id = 1").await.unwrap(), "11");
    proxy.identical().await;
}

/// Until a backend of the master waits for another's lock.
async fn waits(cluster: &Cluster) {
    let mut behind = cluster.behind(0).await.unwrap();
    loop {
        let waiting = behind
            .simple(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'app'",
            )
            .await
            .unwrap();
        if waiting.value() != Some("0") {
            return;
        }
    }
}
