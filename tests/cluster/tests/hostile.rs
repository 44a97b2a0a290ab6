//! Clients whose proxy does what no correct one does.

use std::time::Duration;
use steeldb_client_shim::Completion;
use steeldb_cluster_tests::Cluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

/// A message of the wire protocol.
fn message(tag: &[u8], body: &[u8]) -> Vec<u8> {
    [tag, &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_none_of_its_results_does_not_keep_its_locks() {
    let mut cluster = Cluster::start_with(4, Duration::from_secs(2)).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let other = proxy.connect().await.unwrap();
    other
        .client
        .batch_execute("create table t (id int primary key, v int); insert into t values (1, 0)")
        .await
        .unwrap();

    let mut stubborn = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
    let start_up = [&196_608u32.to_be_bytes()[..], b"user\0app\0database\0app\0\0"].concat();
    stubborn.write_all(&message(b"", &start_up)).await.unwrap();
    let query = |sql: &str| message(b"Q", &[sql.as_bytes(), b"\0"].concat());
    stubborn.write_all(&query("begin; update t set v = 1 where id = 1; select 'locked'")).await.unwrap();
    let mut said = Vec::new();
    while !said.windows(6).any(|bytes| bytes == b"locked") {
        assert_ne!(stubborn.read_buf(&mut said).await.unwrap(), 0);
    }
    // More than all buffers on the way hold; nothing of it is read.
    let much = "select repeat('x', 10000) from generate_series(1, 20000)";
    stubborn.write_all(&query(much)).await.unwrap();

    // The row is locked until the stubborn client's transaction is ended.
    other.client.batch_execute("update t set v = 2 where id = 1").await.unwrap();
    let row = other.client.query_one("select v from t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 2);
    drop(stubborn);
    cluster.stop_all().await.unwrap();
}
