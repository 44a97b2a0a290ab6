//! When replicas other than the master execute: ahead of COMMIT, or with it.

use steeldb_cluster_tests::{Client, Cluster};
use steeldb_types::Execution;

/// Whether somebody holds the row on a replica's server.
async fn is_locked(cluster: &Cluster, replica: u16) -> bool {
    let mut behind = cluster.behind(replica).await.unwrap();
    match behind.simple("SELECT v FROM public.t WHERE id = 1 FOR UPDATE NOWAIT").await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.sqlstate(), Some("55P03"), "{error}");
            true
        }
    }
}

async fn table(client: &mut Client) {
    client.execute("create table t (id int primary key, v int not null)").await.unwrap();
    client.execute("insert into t values (1, 0), (2, 0)").await.unwrap();
    client.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speculative_the_others_hold_what_was_written_before_commit() {
    let mut cluster = Cluster::start_executing(4, Execution::Speculative).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    table(&mut client).await;
    for commits in [true, false] {
        client.begin();
        client.run("update t set v = v + 1 where id = 1").await.unwrap();
        for replica in 1..4 {
            // It comes with the master's word on it, a moment after its answer.
            while !is_locked(&cluster, replica).await {
                tokio::task::yield_now().await;
            }
        }
        if commits {
            client.commit().await.unwrap();
        } else {
            client.rollback().await.unwrap();
        }
        client.identical().await;
    }
    let rows = client.execute("select v from t order by id").await.unwrap().rows;
    assert_eq!(rows, [[Some("1".to_string())], [Some("0".to_string())]]);
    // A client that goes away leaves nothing held.
    let mut other = cluster.session().await.unwrap();
    other.begin();
    other.run("update t set v = v + 1 where id = 1").await.unwrap();
    drop(other);
    client.execute("update t set v = v + 1 where id = 1").await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deferred_the_others_execute_with_commit() {
    let mut cluster = Cluster::start_executing(4, Execution::Deferred).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    table(&mut client).await;
    client.begin();
    client.run("update t set v = v + 1 where id = 1").await.unwrap();
    assert!(is_locked(&cluster, 0).await);
    for replica in 1..4 {
        assert!(!is_locked(&cluster, replica).await);
    }
    client.commit().await.unwrap();
    client.begin();
    client.run("update t set v = v + 10 where id = 1").await.unwrap();
    client.rollback().await.unwrap();
    let rows = client.execute("select v from t order by id").await.unwrap().rows;
    assert_eq!(rows, [[Some("1".to_string())], [Some("0".to_string())]]);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
