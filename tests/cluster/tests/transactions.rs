//! Transactions on four real servers.

use steeldb_cluster_tests::Cluster;

fn text(value: &str) -> Option<String> {
    Some(value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_commits_on_all_replicas() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    client.begin();
    client.run("insert into t values (1, 'one')").await.unwrap();
    client.run("insert into t values (2, 'two')").await.unwrap();
    client.commit().await.unwrap();
    let rows = client.execute("select v from t order by id").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("one")], vec![text("two")]]);

    // An error inside, a rollback, and what follows on the same session.
    client.begin();
    assert_eq!(client.run("insert into t values (1, 'again')").await.unwrap().sqlstate, text("23505"));
    assert_eq!(client.run("select 1").await.unwrap().sqlstate, text("25P02"));
    client.rollback().await.unwrap();
    client.begin();
    client.run("update t set v = 'gone' where id = 1").await.unwrap();
    client.rollback().await.unwrap();
    let rows = client.execute("select v from t where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("one")]]);
    client.identical().await;

    // Two sessions that update the same row: the second gets 40001 and the databases stay equal.
    let mut other = cluster.session().await.unwrap();
    client.begin();
    other.begin();
    client.run("select 1").await.unwrap();
    other.run("select 1").await.unwrap();
    client.run("update t set v = 'first' where id = 1").await.unwrap();
    client.commit().await.unwrap();
    let late = other.run("update t set v = 'second' where id = 1").await.unwrap();
    assert_eq!(late.sqlstate, text("40001"));
    other.rollback().await.unwrap();
    client.identical().await;

    // Everything is taken up again after a stop of all.
    drop((client, other));
    cluster.stop_all().await.unwrap();
    cluster.start_all().await.unwrap();
    let mut client = cluster.session().await.unwrap();
    let rows = client.execute("select v from t where id = 1").await.unwrap().rows;
    assert_eq!(rows, vec![vec![text("first")]]);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_catches_up() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    cluster.stop_replica(3).await.unwrap();
    for i in 0..20 {
        client.execute(&format!("insert into t values ({i}, 'v{i}')")).await.unwrap();
        client.execute(&format!("update t set v = 'w{i}' where id = {i}")).await.unwrap();
    }
    cluster.start_replica(3).await.unwrap();
    client.identical().await;
    client.execute("insert into t values (100, 'all four')").await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
