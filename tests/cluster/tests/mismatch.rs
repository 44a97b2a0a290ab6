//! What replicas disagree on is written through the order into `steeldb.mismatch`.

use steeldb_cluster_tests::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_slips_through_the_refusals_is_counted_by_statement_and_shown_to_its_role() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy
        .psql(
            "CREATE TABLE t (v int);
             INSERT INTO t VALUES (pg_backend_pid());
             INSERT INTO t VALUES (pg_backend_pid());
             BEGIN; SELECT 'fine'; SELECT 'shown', pg_backend_pid(); COMMIT;
             SELECT kind, times, statement FROM steeldb.mismatch ORDER BY kind;
             SELECT count(*) FROM t;
             SELECT role = current_user, database = current_database(), last_at >= first_at FROM steeldb.mismatch LIMIT 1;
             SELECT * FROM steeldb.disagreement;
             SET steeldb.verify = 'eager'; BEGIN; SELECT 'secret', pg_backend_pid(); ROLLBACK;
             SELECT statement FROM steeldb.mismatch WHERE statement LIKE '%secret%'",
        )
        .await;
    let lines: Vec<&str> = said.out.lines().filter(|line| !line.starts_with("shown|")).collect();
    assert_eq!(
        lines,
        [
            "fine",
            "effects|2|INSERT INTO t VALUES (pg_backend_pid())",
            "result|1|SELECT 'shown', pg_backend_pid()",
            "0",
            "t|t|t",
            "SELECT 'secret', pg_backend_pid()",
        ],
        "{said:?}"
    );
    assert_eq!(said.errors(), ["40000", "40000", "40000", "42501", "40000"], "{said:?}");
    // It was ordered: all replicas hold the same.
    let mut all = Vec::new();
    for replica in 0..4 {
        let mut behind = cluster.behind(replica).await.unwrap();
        let rows = behind
            .simple("SELECT role, kind, times, statement, first_at, last_at FROM steeldb.disagreement ORDER BY digest")
            .await
            .unwrap()
            .rows;
        assert_eq!(rows.len(), 3);
        all.push(rows);
    }
    assert!(all.iter().all(|rows| *rows == all[0]), "{all:?}");
    proxy.identical().await;
    // Another role sees none of it.
    let mut behind = cluster.behind(0).await.unwrap();
    behind.simple("CREATE ROLE other; SET SESSION AUTHORIZATION other").await.unwrap();
    let answer = behind.simple("SELECT count(*) FROM steeldb.mismatch").await.unwrap();
    assert_eq!(answer.value(), Some("0"));
}
