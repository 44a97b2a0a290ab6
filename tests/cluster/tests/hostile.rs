//! Clients whose proxy does what no correct one does.

use steeldb_client_shim::Completion;
use steeldb_cluster_tests::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_answer_for_the_agent_nor_hang_its_backend() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();

    // A4: statements prepared under whatever name do not make a write look like a read: it is voted and ordered.
    client.begin();
    for name in ["steeldb_complete", "steeldb_record", "steeldb_begin"] {
        let sql = format!("do $$ begin execute 'prepare {name} as select false, null::bytea'; end $$");
        client.run(&sql).await.unwrap();
    }
    client.run("insert into t values (1)").await.unwrap();
    assert!(matches!(client.commit().await.unwrap(), Completion::Committed(Some(_))));

    // COPY FROM STDIN that does not come as a COPY operation fails; it does not leave the backend waiting for data.
    client.begin();
    client.run("insert into t values (2)").await.unwrap();
    let answer = client.run("copy t from stdin").await.unwrap();
    assert_eq!(answer.sqlstate.as_deref(), Some("57014"));
    client.rollback().await.unwrap();
    client.execute("insert into t values (2)").await.unwrap();
    let rows = client.execute("select count(*) from t").await.unwrap().rows;
    assert_eq!(rows, vec![vec![Some("2".to_string())]]);
    cluster.stop_all().await.unwrap();
}
