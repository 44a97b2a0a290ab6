//! Kinds of tables and of changes: large values left alone (G2), no key (B13), partitions, generated columns, TRUNCATE.

use crate::{fails, run, value};
use steeldb_cluster_tests::{Cluster, Proxy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_every_kind_stay_identical() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    large_values(&proxy).await;
    no_key(&proxy).await;
    partitions(&proxy).await;
    generated(&proxy).await;
    truncate(&proxy).await;
    refused(&proxy).await;
    proxy.identical().await;
}

async fn large_values(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE doc (id int PRIMARY KEY, body text, n int NOT NULL DEFAULT 0)").await;
    // Too long for a page even when compressed.
    let body = "SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i";
    run(&client, &format!("INSERT INTO doc SELECT g, ({body}) || g FROM generate_series(1, 3) g")).await;
    run(&client, "UPDATE doc SET n = n + 1; UPDATE doc SET n = n + 1, id = 10 WHERE id = 3; DELETE FROM doc WHERE id = 2").await;
    assert_eq!(value(&client, "SELECT sum(n * length(body)) FROM doc").await, (64_001 * 3).to_string());
    proxy.identical().await;
}

async fn no_key(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE bag (a int, b text);
         INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (2, NULL), (NULL, NULL);
         UPDATE bag SET b = 'y' WHERE a = 1;
         DELETE FROM bag WHERE a = 2;
         CREATE TABLE copied AS SELECT * FROM bag;
         UPDATE copied SET a = 7 WHERE a IS NULL",
    )
    .await;
    assert_eq!(value(&client, "SELECT count(*) FROM bag WHERE b = 'y' OR a IS NULL").await, "3");
    assert_eq!(value(&client, "SELECT sum(a) FROM copied").await, "9");
    proxy.identical().await;
}

async fn partitions(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE measure (id int, at date, n int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE measure_2023 PARTITION OF measure FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
         CREATE TABLE measure_2024 PARTITION OF measure FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
         CREATE TABLE measure_rest PARTITION OF measure DEFAULT;
         INSERT INTO measure SELECT i, date '2023-06-01' + i * 100, i FROM generate_series(1, 12) i;
         UPDATE measure SET at = at + 366, n = n * 2 WHERE id <= 3;
         DELETE FROM measure WHERE id = 12;
         TRUNCATE measure_rest;
         INSERT INTO measure VALUES (100, '2030-01-01', 100)",
    )
    .await;
    assert_eq!(value(&client, "SELECT count(*) FROM measure_rest").await, "1");
    assert_eq!(
        value(&client, "SELECT (SELECT count(*) FROM measure) = (SELECT count(*) FROM measure_2023) + (SELECT count(*) FROM measure_2024) + 1").await,
        "t"
    );
    run(&client, "ALTER TABLE measure DETACH PARTITION measure_2023; INSERT INTO measure_2023 VALUES (50, '2023-05-05', 1)").await;
    assert_eq!(value(&client, "SELECT count(*) FROM measure WHERE at < '2024-01-01'").await, "0");
    proxy.identical().await;
}

async fn generated(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE box (id int PRIMARY KEY, w int, h int, area int GENERATED ALWAYS AS (w * h) STORED);
         INSERT INTO box (id, w, h) VALUES (1, 2, 3), (2, 4, 5);
         UPDATE box SET w = 10 WHERE id = 2",
    )
    .await;
    assert_eq!(value(&client, "SELECT sum(area) FROM box").await, "56");
    proxy.identical().await;
}

async fn truncate(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE heap (id int PRIMARY KEY); INSERT INTO heap SELECT generate_series(1, 50)")
        .await;
    run(&client, "BEGIN; TRUNCATE heap; ROLLBACK").await;
    assert_eq!(value(&client, "SELECT count(*) FROM heap").await, "50");
    run(&client, "BEGIN; TRUNCATE heap; INSERT INTO heap VALUES (1); COMMIT").await;
    assert_eq!(value(&client, "SELECT count(*) FROM heap").await, "1");
    proxy.identical().await;
}

async fn refused(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    for sql in [
        "CREATE UNLOGGED TABLE u (a int)",
        "SELECT lo_creat(1)",
        "CREATE EXTENSION postgres_fdw",
        "CREATE ROLE somebody",
    ] {
        assert_eq!(fails(&client, sql).await, "0A000", "{sql}");
    }
}
