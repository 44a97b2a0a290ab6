//! DDL beside other transactions, materialized views, maintenance.

use crate::{fails, run, value};
use futures::future;
use std::sync::atomic::{AtomicBool, Ordering};
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_change_beside_transactions_and_all_stay_identical() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    ddl_beside_dml(&proxy).await;
    views(&proxy).await;
    maintenance(&proxy).await;
    proxy.identical().await;
}

async fn ddl_beside_dml(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)").await;
    let done = AtomicBool::new(false);
    let writer = async |first: i32| {
        let client = proxy.connect().await.unwrap().client;
        let (mut id, mut written) = (first, 0);
        while !done.load(Ordering::Relaxed) {
            let sql = format!(
                "BEGIN; INSERT INTO t (id) VALUES ({id}); UPDATE t SET n = n + 1 WHERE id = {id}; COMMIT"
            );
            match client.batch_execute(&sql).await {
                Ok(()) => written += 1,
                Err(error) => {
                    assert!(["40001", "40P01"].contains(&sqlstate(&error).as_str()), "{error:?}");
                    run(&client, "ROLLBACK").await;
                }
            }
            id += 1;
        }
        written
    };
    let definer = async {
        for i in 0..5 {
            for sql in [
                format!("ALTER TABLE t ADD COLUMN c{i} int DEFAULT {i}"),
                format!("CREATE INDEX t_c{i} ON t (c{i})"),
                format!("CREATE TABLE other{i} AS SELECT id FROM t WHERE id < 0"),
            ] {
                // A change of definitions may be the one that gives way.
                while let Err(error) = client.batch_execute(&sql).await {
                    assert!(["40001", "40P01"].contains(&sqlstate(&error).as_str()), "{sql}: {error:?}");
                }
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let (a, b, ()) = future::join3(writer(0), writer(1_000_000), definer).await;
    assert_eq!(value(&client, "SELECT count(*) FROM t WHERE n = 1").await, (a + b).to_string());
    assert_eq!(value(&client, "SELECT count(*) FROM t WHERE c4 = 4").await, (a + b).to_string());
    println!("{} transactions beside 15 changes of definitions", a + b);
    proxy.identical().await;
}

async fn views(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE sale (id int PRIMARY KEY, amount int);
         INSERT INTO sale VALUES (1, 10), (2, 20);
         CREATE MATERIALIZED VIEW total AS SELECT sum(amount) AS amount FROM sale;
         INSERT INTO sale VALUES (3, 30)",
    )
    .await;
    assert_eq!(value(&client, "SELECT amount FROM total").await, "30");
    run(&client, "REFRESH MATERIALIZED VIEW total").await;
    assert_eq!(value(&client, "SELECT amount FROM total").await, "60");
    proxy.identical().await;
}

async fn maintenance(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(&client, "VACUUM sale").await;
    run(&client, "VACUUM (ANALYZE, FREEZE) sale, t").await;
    run(&client, "ANALYZE").await;
    run(&client, "VACUUM").await;
    assert_eq!(fails(&client, "VACUUM no_such_table").await, "42P01");
    assert_eq!(fails(&client, "BEGIN; VACUUM sale").await, "25001");
    run(&client, "ROLLBACK; REINDEX TABLE sale; CLUSTER sale USING sale_pkey").await;
    assert_eq!(fails(&client, "CREATE INDEX CONCURRENTLY ON sale (amount)").await, "0A000");
    assert_eq!(value(&client, "SELECT sum(amount) FROM sale").await, "60");
}
