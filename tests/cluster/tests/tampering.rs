//! A PostgreSQL server that was tampered with behind its agent's back.

use steeldb_cluster_tests::{Cluster, differing_tables};

fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_replica_is_outvoted_and_verify_names_the_table() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table account (id int primary key, balance int not null)").await.unwrap();
    client.execute("insert into account values (1, 100), (2, 100)").await.unwrap();
    cluster
        .behind(2)
        .await
        .unwrap()
        .simple("UPDATE public.account SET balance = 999 WHERE id = 1")
        .await
        .unwrap();

    // Its answers differ, so it is outvoted: a read is right, and so is what is computed from it.
    let rows = client.execute("select balance from account where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("100")]]);
    assert!(differing_tables(&client.shim, 1).await.is_empty());
    assert_eq!(differing_tables(&client.shim, 2).await, ["public.account"]);
    assert!(differing_tables(&client.shim, 3).await.is_empty());

    // The row's next update is committed by the others; the tampered replica takes it as a write set, which heals the row.
    client.execute("update account set balance = balance + 1 where id = 1 returning balance").await.unwrap();
    let rows = client.execute("select balance from account where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("101")]]);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tampered_master_gets_its_transactions_aborted_with_a_clear_error() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table account (id int primary key, balance int not null)").await.unwrap();
    client.execute("insert into account values (1, 100), (2, 100)").await.unwrap();
    cluster
        .behind(0)
        .await
        .unwrap()
        .simple("UPDATE public.account SET balance = 999 WHERE id = 1")
        .await
        .unwrap();

    // Not certified deterministic, since it calls a function that is not immutable: the master is not blamed for it.
    let read = "select balance from account where id = 1 and random() >= 0";
    // A transaction that writes what it read from the lie.
    client.begin();
    client.run("select 1").await.unwrap();
    let rows = client.run(read).await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("999")]], "the master answers at once");
    client.run("update account set balance = balance - 1 where id = 2").await.unwrap();
    let error = client.commit().await.unwrap_err();
    assert_eq!(error.sqlstate.as_str(), "40000", "{error:?}");
    assert!(error.message.contains("statement 2"), "{error:?}");

    // A read-only one, and a rollback: the error comes all the same (rule 11, A15).
    client.begin();
    client.run(read).await.unwrap();
    assert_eq!(client.commit().await.unwrap_err().sqlstate.as_str(), "40000");
    client.begin();
    client.run(read).await.unwrap();
    assert_eq!(client.rollback().await.unwrap_err().sqlstate.as_str(), "40000");

    // Only the effects differ, and what the client was shown is true: the others' quorum commits theirs, and the master
    // takes it as a write set (A2), which heals the row.
    client.begin();
    client.run("update account set balance = balance + 1 where id = 1").await.unwrap();
    client.commit().await.unwrap();
    let rows = client.execute("select balance from account where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("101")]]);

    // What does not touch the row goes on.
    client.execute("update account set balance = balance + 1 where id = 2").await.unwrap();
    let rows = client.execute("select balance from account where id = 2").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("101")]]);
    cluster.stop_all().await.unwrap();
}

/// A row that the master has wrong, read by statements that have one result only: it is found out, and others answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_disproved_is_deposed() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table account (id int primary key, balance int not null)").await.unwrap();
    client.execute("insert into account values (1, 100), (2, 100)").await.unwrap();
    let behind = "UPDATE public.account SET balance = 999 WHERE id = 1";
    cluster.behind(0).await.unwrap().simple(behind).await.unwrap();
    // Each try ends in an error as long as the liar answers; none is confirmed.
    while client.shim.term().epoch == 0 {
        client.begin();
        let answer = client.run("select balance from account where id = 1").await;
        if answer.is_ok_and(|answer| answer.rows == vec![vec![text("999")]]) {
            assert!(client.commit().await.is_err());
        } else {
            let _ = client.rollback().await;
        }
    }
    let rows = client.execute("select balance from account where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("100")]]);
    client.execute("update account set balance = balance + 1 where id = 1").await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Rows lie on one replica's disk in another order than on the others', and a trigger writes down which row it saw last. All
/// changes are the same, but what they leave behind is not: the vote finds it, and the replica takes the others' rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_what_is_left_by_rows_in_another_order_is_told_by_the_votes() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    for sql in [
        "create table seen (id int primary key, v int)",
        "create table t (id int primary key, v int)",
        "create function see() returns trigger language plpgsql as
             'begin update seen set v = new.id where id = 1; return null; end'",
        "create trigger see after update on t for each row execute function see()",
        "insert into seen values (1, 0)",
        "insert into t values (1, 0), (2, 0)",
    ] {
        client.execute(sql).await.unwrap();
    }
    let turned = "SET session_replication_role = replica; DELETE FROM public.t WHERE id = 1; INSERT INTO public.t VALUES (1, 0)";
    cluster.behind(3).await.unwrap().simple(turned).await.unwrap();
    client.execute("update t set v = v + 1").await.unwrap();
    let rows = client.execute("select v from seen").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("2")]]);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
