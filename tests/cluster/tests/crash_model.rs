//! The crash model on real servers: three replicas, any one of which may stop.

use steeldb_cluster_tests::Cluster;
use steeldb_types::{FaultModel, View, ViewNumber};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_replicas_commit_and_the_third_catches_up() {
    let view = View::new(ViewNumber(0), FaultModel::Crash, 3, 1, vec![]).unwrap();
    let mut cluster = Cluster::start_in(view).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    client.execute("insert into t values (1, 'one')").await.unwrap();
    client.identical().await;
    cluster.stop_replica(2).await.unwrap();
    client.execute("insert into t values (2, 'two')").await.unwrap();
    client.begin();
    client.run("update t set v = 'none'").await.unwrap();
    client.rollback().await.unwrap();
    cluster.start_replica(2).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("update t set v = 'three' where id = 1").await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
