//! DDL that a replica missed is executed again there (A11).

use crate::away::all_four_vouch;
use std::sync::atomic::{AtomicBool, Ordering};
use steeldb_cluster_tests::{APP, Client, Cluster, sqlstate};

/// A client that keeps the operations of its DDL from one replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_ddl_withheld_from_one_replica_does_not_take_it_out() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    client.execute("insert into t select i, 'v' || i from generate_series(1, 100) i").await.unwrap();
    let shim = cluster.shim_without(3).await.unwrap();
    let mut liar = Client { session: shim.open(APP, APP, Vec::new()).await.unwrap(), shim };
    liar.execute("alter table t add column n int").await.unwrap();
    liar.begin();
    liar.run("create table copy as select * from t").await.unwrap();
    // Behind its slot, and not in its snapshot.
    client.execute("insert into t values (1000, 'later')").await.unwrap();
    liar.run("create function f(i int) returns int language sql as 'select i + 1'").await.unwrap();
    liar.run("create view v as select f(id) from copy").await.unwrap();
    liar.commit().await.unwrap();
    liar.execute("do $$ begin execute 'create index on t (v)'; end $$").await.unwrap();
    client.identical().await;
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

/// Rows are kept under the names that their tables have, also right after these were changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_withheld_from_one_replica_are_found_in_a_schema_that_was_renamed() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create schema before").await.unwrap();
    client.execute("create table before.t (id int primary key)").await.unwrap();
    client.execute("insert into before.t values (1)").await.unwrap();
    let shim = cluster.shim_without(3).await.unwrap();
    let mut liar = Client { session: shim.open(APP, APP, Vec::new()).await.unwrap(), shim };
    client.execute("alter schema before rename to behind").await.unwrap();
    liar.execute("insert into behind.t values (2)").await.unwrap();
    liar.execute("insert into behind.t values (3)").await.unwrap();
    client.identical().await;
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_a_replica_that_comes_and_goes_follows_definitions_beside_transactions() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let definer = proxy.connect().await.unwrap().client;
    definer.batch_execute("CREATE TABLE t (id serial PRIMARY KEY, n int NOT NULL DEFAULT 0)").await.unwrap();
    let done = AtomicBool::new(false);
    let writer = async {
        let client = proxy.connect().await.unwrap().client;
        let mut written = 0;
        while !done.load(Ordering::Relaxed) {
            match client
                .batch_execute(
                    "BEGIN; INSERT INTO t (n) VALUES (1); UPDATE t SET n = n + 1 WHERE id = 1; COMMIT",
                )
                .await
            {
                Ok(()) => written += 1,
                Err(error) => {
                    assert!(["40001", "40P01"].contains(&sqlstate(&error).as_str()), "{error:?}");
                    client.batch_execute("ROLLBACK").await.unwrap();
                }
            }
        }
        written
    };
    let rounds = async {
        for i in 0..3 {
            cluster.stop_replica(3).await.unwrap();
            for sql in [
                format!("ALTER TABLE t ADD COLUMN c{i} int DEFAULT {i}"),
                format!("CREATE TABLE copy{i} AS SELECT * FROM t"),
                format!("CREATE MATERIALIZED VIEW m{i} AS SELECT count(*), sum(n) FROM t"),
                format!("ALTER TABLE t ALTER COLUMN c{i} TYPE text"),
            ] {
                while let Err(error) = definer.batch_execute(&sql).await {
                    assert!(["40001", "40P01"].contains(&sqlstate(&error).as_str()), "{sql}: {error:?}");
                }
            }
            cluster.start_replica(3).await.unwrap();
            // Once with what comes back at rest, once beside it.
            if i == 1 {
                proxy.identical().await;
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let (written, ()) = futures::future::join(writer, rounds).await;
    println!("{written} transactions beside 12 changes of definitions");
    proxy.identical().await;
    let mut client = cluster.session().await.unwrap();
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}
