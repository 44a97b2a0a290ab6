//! Locks and waits: what depends on time at the master is adopted by the others (B8), never found anew.

use crate::{fails, run, value};
use futures::future;
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_timing_are_adopted_and_locks_work() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)").await;
    run(&client, "INSERT INTO t SELECT generate_series(1, 5)").await;
    nowait(&proxy).await;
    deadlock(&proxy).await;
    timeouts(&proxy).await;
    lock_table(&proxy).await;
    notifications(&proxy).await;
    proxy.identical().await;
}

async fn nowait(proxy: &Proxy) {
    let (holder, other) = (proxy.connect().await.unwrap().client, proxy.connect().await.unwrap().client);
    run(&holder, "BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await;
    run(&other, "BEGIN; UPDATE t SET n = 1 WHERE id = 2; SAVEPOINT s").await;
    assert_eq!(fails(&other, "SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT").await, "55P03");
    // The transaction goes on without what failed, and commits.
    run(&other, "ROLLBACK TO s; UPDATE t SET n = 2 WHERE id = 3; COMMIT").await;
    run(&other, "SET lock_timeout = '50ms'").await;
    assert_eq!(fails(&other, "UPDATE t SET n = 3 WHERE id = 1").await, "55P03");
    run(&holder, "COMMIT").await;
    run(&other, "RESET lock_timeout; UPDATE t SET n = 4 WHERE id = 1").await;
    assert_eq!(value(&holder, "SELECT string_agg(n::text, ',' ORDER BY id) FROM t").await, "4,1,2,0,0");
    assert_eq!(fails(&other, "SELECT * FROM t FOR UPDATE SKIP LOCKED").await, "0A000");
    proxy.identical().await;
}

async fn deadlock(proxy: &Proxy) {
    let (a, b) = (proxy.connect().await.unwrap().client, proxy.connect().await.unwrap().client);
    run(&a, "BEGIN; UPDATE t SET n = 100 WHERE id = 4").await;
    run(&b, "BEGIN; UPDATE t SET n = 200 WHERE id = 5").await;
    let crossing = future::join(
        a.batch_execute("UPDATE t SET n = 101 WHERE id = 5"),
        b.batch_execute("UPDATE t SET n = 201 WHERE id = 4"),
    );
    let (victim, survivor, expected) = match crossing.await {
        (Err(error), Ok(())) => (error, &b, "201,200"),
        (Ok(()), Err(error)) => (error, &a, "100,101"),
        other => panic!("{other:?}"),
    };
    assert_eq!(sqlstate(&victim), "40P01");
    let loser = if std::sync::Arc::ptr_eq(survivor, &a) { &b } else { &a };
    run(loser, "ROLLBACK").await;
    run(survivor, "COMMIT").await;
    assert_eq!(value(&a, "SELECT string_agg(n::text, ',' ORDER BY id) FROM t WHERE id > 3").await, expected);
    proxy.identical().await;
}

async fn timeouts(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "SET statement_timeout = '100ms'").await;
    assert_eq!(fails(&client, "SELECT pg_sleep(3600)").await, "57014");
    run(&client, "BEGIN; INSERT INTO t VALUES (10); SAVEPOINT s").await;
    assert_eq!(fails(&client, "SELECT pg_sleep(3600)").await, "57014");
    run(&client, "ROLLBACK TO s; INSERT INTO t VALUES (11); COMMIT; RESET statement_timeout").await;
    assert_eq!(value(&client, "SELECT count(*) FROM t WHERE id IN (10, 11)").await, "2");
}

/// A10: the snapshot is taken once the lock is held, so nobody computes the same number.
async fn lock_table(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE numbered (id int PRIMARY KEY)").await;
    let sessions = future::try_join_all((0..3).map(|_| proxy.connect())).await.unwrap();
    future::join_all(sessions.iter().map(async |session| {
        run(&session.client, "BEGIN").await;
        run(&session.client, "LOCK TABLE numbered IN EXCLUSIVE MODE").await;
        run(&session.client, "INSERT INTO numbered SELECT coalesce(max(id), 0) + 1 FROM numbered").await;
        run(&session.client, "COMMIT").await;
    }))
    .await;
    assert_eq!(value(&client, "SELECT string_agg(id::text, ',' ORDER BY id) FROM numbered").await, "1,2,3");
    assert_eq!(fails(&client, "LOCK TABLE numbered").await, "25P01");
    assert_eq!(fails(&client, "BEGIN; SELECT 1; LOCK TABLE numbered").await, "0A000");
    run(&client, "ROLLBACK").await;
    assert_eq!(fails(&client, "SELECT pg_advisory_lock(1)").await, "0A000");
    assert_eq!(fails(&client, "SELECT pg_try_advisory_xact_lock(1)").await, "0A000");
}

async fn notifications(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    for sql in ["LISTEN a", "NOTIFY a, 'b'", "SELECT pg_notify('a', 'b')"] {
        assert_eq!(fails(&client, sql).await, "0A000", "{sql}");
    }
    // Where no analysis sees it, PREPARE TRANSACTION refuses it (G13).
    run(&client, "CREATE FUNCTION hidden() RETURNS int LANGUAGE plpgsql AS 'BEGIN NOTIFY a; RETURN 1; END'")
        .await;
    assert_eq!(fails(&client, "INSERT INTO numbered SELECT 100 + hidden()").await, "0A000");
    assert_eq!(value(&client, "SELECT max(id) FROM numbered").await, "3");
}
