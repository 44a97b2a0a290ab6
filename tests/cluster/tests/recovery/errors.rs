//! B1: an SQLSTATE stops no replica. Any client can raise any.

use crate::away::all_four_vouch;
use steeldb_cluster_tests::{Cluster, sqlstate};

const CODES: [&str; 6] = ["58030", "53100", "53200", "XX001", "57P02", "08006"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_an_sqlstate_stops_no_replica() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    client
        .batch_execute(
            "CREATE TABLE t (id int PRIMARY KEY, code text);
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'late' USING ERRCODE = new.code; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN (new.id > 100) EXECUTE FUNCTION fail()",
        )
        .await
        .unwrap();
    for (id, code) in CODES.into_iter().enumerate() {
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
        let error = client.batch_execute(&raise).await.unwrap_err();
        assert_eq!(sqlstate(&error), code);
        // In a block, in a savepoint, and caught: the session and the transaction go on.
        client
            .batch_execute(&format!("BEGIN; INSERT INTO t VALUES ({id}, '{code}'); SAVEPOINT s"))
            .await
            .unwrap();
        assert_eq!(sqlstate(&client.batch_execute(&raise).await.unwrap_err()), code);
        let caught = format!(
            "DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; EXCEPTION WHEN OTHERS THEN END $$"
        );
        client.batch_execute(&format!("ROLLBACK TO s; {caught}; COMMIT")).await.unwrap();
        // Behind the last statement, where every replica fails alike.
        let late = client.batch_execute(&format!("INSERT INTO t VALUES ({}, '{code}')", 101 + id)).await;
        println!("{code} at COMMIT: {}", sqlstate(&late.unwrap_err()));
    }
    let rows = client.query("SELECT id FROM t", &[]).await.unwrap();
    assert_eq!(rows.len(), CODES.len());
    proxy.identical().await;
    let mut client = cluster.session().await.unwrap();
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

/// What fails on one replica alone is committed by the others; it follows by their rows, and stays in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_a_replica_that_cannot_do_what_others_did_follows_and_stays() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    for (id, code) in CODES.into_iter().enumerate() {
        let mut behind = cluster.behind(3).await.unwrap();
        let plant = format!(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'here alone' USING ERRCODE = '{code}'; END $$;
             CREATE TRIGGER fail BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.fail()"
        );
        behind.simple(&plant).await.unwrap();
        client.execute(&format!("insert into t values ({id})")).await.unwrap();
        behind.simple("DROP FUNCTION public.fail() CASCADE").await.unwrap();
        client.identical().await;
    }
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}
