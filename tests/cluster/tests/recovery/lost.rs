//! A server that lost what its replica voted for (A12).

use crate::away::all_four_vouch;
use steeldb_cluster_tests::Cluster;

/// A transaction that two of four replicas have prepared and nobody can decide. The third loses it, with its server or
/// with its whole host: it is ended by the order, and that replica votes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a12_a_prepared_transaction_that_vanished_is_ended_by_the_order() {
    for agent_too in [false, true] {
        let mut cluster = Cluster::start(4).await.unwrap();
        let mut client = cluster.session().await.unwrap();
        client.execute("create table t (id int primary key)").await.unwrap();
        let mut other = client.another().await.unwrap();
        other.begin();
        other.run("insert into t values (1)").await.unwrap();
        for id in [1, 2] {
            cluster.cut_off(id).await;
        }
        let commit = tokio::spawn(async move { other.commit().await });
        let gid = loop {
            if let Some(gid) = cluster.prepared(3).await.unwrap().pop() {
                break gid;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        // It is kept for others once this is on disk; a host that crashes before that has voted for nothing durable.
        while !holds(&cluster.data_dir(3).join("effects"), &gid) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let mut behind = cluster.behind(3).await.unwrap();
        behind.simple(&format!("ROLLBACK PREPARED '{gid}'")).await.unwrap();
        if agent_too {
            cluster.cut_off(3).await;
        } else {
            cluster.kill_server(3);
        }
        cluster.start_all().await.unwrap();
        let ended = commit.await.unwrap();
        println!("{ended:?}");
        client.shim.connected(std::time::Duration::from_secs(60)).await;
        client.identical().await;
        cluster.nothing_prepared().await.unwrap();
        let mut client = client.another().await.unwrap();
        let rows = client.execute("select * from t").await.unwrap().rows;
        assert_eq!((rows.len(), ended.is_err()), (0, true));
        all_four_vouch(&mut cluster, &mut client).await;
        cluster.stop_all().await.unwrap();
    }
}

fn holds(directory: &std::path::Path, gid: &str) -> bool {
    let digest: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&gid[2 * at..2 * at + 2], 16).unwrap()).collect();
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(32).any(|window| window == digest)
    })
}
