//! Schedules of SQL that broke earlier designs and that no other test plays on real servers, by the names of the risks.

use futures::future::join_all;
use steeldb_client_shim::{Modes, OperationFlags};
use steeldb_cluster_tests::{Client, Cluster};

fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

async fn column(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.execute(sql).await.unwrap().rows;
    rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()
}

/// Locks the table first and then counts on: the snapshot is that of the lock, or two would draw one number.
async fn count_on(mut client: Client) {
    client.begin();
    let leading = OperationFlags { leading: true, must_vote: true, ..OperationFlags::default() };
    client.run_flagged("lock table t in exclusive mode", leading).await.unwrap();
    client.run("insert into t select coalesce(max(id), 0) + 1 from t").await.unwrap();
    client.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a10_who_locks_a_table_first_sees_what_was_committed_while_it_waited() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int)").await.unwrap();
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(client.another().await.unwrap());
    }
    join_all(others.into_iter().map(count_on)).await;
    assert_eq!(column(&mut client, "select id from t order by id").await, ["1", "2", "3"]);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_deferred_constraints_are_checked_before_prepare_and_alike() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client
        .execute("create table t (id int primary key, u int unique deferrable initially deferred)")
        .await
        .unwrap();
    client.execute("insert into t values (1, 1), (2, 2)").await.unwrap();
    // Wrong for a moment, right at the end.
    client.begin();
    client.run("update t set u = 2 where id = 1").await.unwrap();
    client.run("update t set u = 1 where id = 2").await.unwrap();
    client.commit().await.unwrap();
    // Wrong at the end: COMMIT says so, with PostgreSQL's code.
    client.begin();
    client.run("insert into t values (3, 1)").await.unwrap();
    assert_eq!(client.commit().await.unwrap_err().sqlstate.as_str(), "23505");
    // The value becomes free while the transaction runs: the master finds it right, and so do all.
    let mut other = client.another().await.unwrap();
    client.begin();
    client.run("insert into t values (4, 1)").await.unwrap();
    other.execute("update t set u = 5 where id = 2").await.unwrap();
    let ended = client.commit().await;
    let there = column(&mut other, "select id from t where u = 1").await;
    assert_eq!(there.len(), usize::from(ended.is_ok()), "{ended:?}");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Sixteen clients and nine places: who finds none waits. Replicas may give theirs to different transactions, so that some wait
/// for each other until they expire, which is to be tried again; a PREPARE that was not let wait ends in another error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_with_fewer_places_than_clients_prepare_waits() {
    let mut cluster = Cluster::start_cramped(4, 9).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, n int)").await.unwrap();
    let mut others = Vec::new();
    for id in 0..16 {
        let mut other = client.another().await.unwrap();
        others.push(async move {
            for round in 0..4 {
                let sql = format!("insert into t values ({}, 0)", 100 * id + round);
                while let Err(error) = other.execute(&sql).await {
                    assert_eq!(error.sqlstate.as_str(), "40001", "{error:?}");
                }
            }
        });
    }
    join_all(others).await;
    assert_eq!(column(&mut client, "select count(*) from t").await, ["64"]);
    client.identical().await;
    cluster.nothing_prepared().await.unwrap();
    cluster.stop_all().await.unwrap();
}

/// Under its old snapshot the table would look empty, and no row of it was changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_who_is_passed_by_a_truncate_reads_nothing_from_that_table() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int)").await.unwrap();
    client.execute("insert into t values (1)").await.unwrap();
    let mut other = client.another().await.unwrap();
    client.begin();
    client.run("select 1").await.unwrap();
    other.execute("truncate t").await.unwrap();
    let failed = match client.run("select count(*) from t").await {
        Ok(answer) => answer.sqlstate.is_some() || client.commit().await.is_err(),
        Err(_) => true,
    };
    assert!(failed, "it was confirmed that the table was empty at its snapshot");
    other.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Runs a statement behind the agents of two replicas.
async fn behind_two(cluster: &Cluster, sql: &str) {
    for replica in [2, 3] {
        cluster.behind(replica).await.unwrap().simple(sql).await.unwrap();
    }
}

/// PREPARE and ROLLBACK PREPARED keep what ROLLBACK undoes; replicas that did the one and the other must agree afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_settings_and_statements_are_the_same_everywhere_after_an_abort() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, n int)").await.unwrap();
    client.execute("insert into t values (1, 0), (2, 0)").await.unwrap();
    let mut other = client.another().await.unwrap();
    client.execute("set app.name = 'before'").await.unwrap();
    for how in ["rollback", "conflict", "error"] {
        client.begin();
        client.run("set app.name = 'inside'").await.unwrap();
        client.run("select n from t").await.unwrap();
        match how {
            "conflict" => {
                other.execute("update t set n = n + 1 where id = 1").await.unwrap();
                let answer = client.run("update t set n = n + 1 where id = 1").await.unwrap();
                assert_eq!(answer.sqlstate.as_deref(), Some("40001"));
            }
            "error" => drop(client.run("select 1 / 0").await.unwrap()),
            _ => {}
        }
        client.rollback().await.unwrap();
        // Confirmed by f + 1, and read by all.
        assert_eq!(column(&mut client, "select current_setting('app.name')").await, ["before"], "{how}");
        client
            .execute("update t set n = n + length(current_setting('app.name')) where id = 1")
            .await
            .unwrap();
        client.identical().await;
    }
    // Prepared by the master and one more, while two have another row and vote against. The two that prepared it have what it
    // SET, and the others have not: the session does not go on there. The votes against may be ordered before the master
    // prepares: then it rolls back, SET and all, and goes on.
    behind_two(&cluster, "UPDATE public.t SET n = n + 1 WHERE id = 2").await;
    let mut lost = false;
    for _ in 0..50 {
        client.begin();
        client.run("set app.name = 'inside'").await.unwrap();
        client.run("update t set n = n + 1 where id = 2 returning n").await.unwrap();
        assert_eq!(client.commit().await.unwrap_err().sqlstate.as_str(), "40000");
        client.begin();
        match client.run("select current_setting('app.name')").await {
            Ok(answer) => assert_eq!(answer.rows, [[text("before")]]),
            Err(error) => {
                assert_eq!(error.sqlstate.as_str(), "57P01", "{error:?}");
                lost = true;
                break;
            }
        }
        client.rollback().await.unwrap();
    }
    assert!(lost, "it was never prepared before the votes against were ordered");
    behind_two(&cluster, "UPDATE public.t SET n = n - 1 WHERE id = 2").await;
    // A commit, for a snapshot behind these changes.
    other.execute("insert into t values (3, 0)").await.unwrap();
    other.execute("update t set n = n + 1").await.unwrap();
    other.identical().await;
    cluster.stop_all().await.unwrap();
}

/// The rows are equal and lie in another order on two of four servers: numbering them gives other rows, which decoding does
/// not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g1_different_effects_of_ddl_make_no_quorum() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    client.execute("insert into t values (1), (2), (3)").await.unwrap();
    client.identical().await;
    for replica in [2, 3] {
        let mut behind = cluster.behind(replica).await.unwrap();
        behind.simple("DELETE FROM public.t WHERE id = 1; INSERT INTO public.t VALUES (1)").await.unwrap();
    }
    client.begin();
    client.run("alter table t add column n serial").await.unwrap();
    let error = client.commit().await.unwrap_err();
    assert_eq!(error.sqlstate.as_str(), "40000", "{error:?}");
    let rows = client.execute("select * from t order by id").await.unwrap().rows;
    assert_eq!(rows, ["1", "2", "3"].map(|id| vec![text(id)]));
    cluster.stop_all().await.unwrap();
}

/// It cannot write its record, so it is never voted on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g9_a_read_only_transaction_that_locks_commits_without_a_vote() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    client.execute("insert into t values (1)").await.unwrap();
    client.session.begin(Modes { read_only: true, ..Modes::default() });
    let locks = OperationFlags { must_vote: true, ..OperationFlags::default() };
    let answer = client.run_flagged("lock table t in access share mode", locks).await.unwrap();
    assert_eq!(answer.sqlstate, None);
    assert_eq!(client.run("select id from t").await.unwrap().rows, [vec![text("1")]]);
    client.commit().await.unwrap();
    client.session.begin(Modes { read_only: true, ..Modes::default() });
    let answer = client.run_flagged("select id from t for update", locks).await.unwrap();
    assert_eq!(answer.sqlstate.as_deref(), Some("25006"));
    client.rollback().await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
