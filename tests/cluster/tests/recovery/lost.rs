//! A server that lost what its replica voted for (A12), and a journal that did.

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

/// A journal from a backup, beside data of today: whether the commit that only the data hold began before the backup or
/// after it, the replica does not start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_journal_older_than_the_data_stops_its_replica() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    for begun_before in [true, false] {
        let mut other = client.another().await.unwrap();
        if begun_before {
            other.begin();
            other.run("insert into t values (1)").await.unwrap();
        }
        cluster.stop_replica(3).await.unwrap();
        let journal = cluster.data_dir(3).join("journal");
        let (today, backup) = (journal.with_extension("today"), journal.with_extension("backup"));
        copy(&journal, &backup);
        if begun_before {
            other.commit().await.unwrap();
        } else {
            other.execute("insert into t values (2)").await.unwrap();
        }
        cluster.start_replica(3).await.unwrap();
        client.identical().await;
        cluster.stop_replica(3).await.unwrap();
        std::fs::rename(&journal, &today).unwrap();
        std::fs::rename(&backup, &journal).unwrap();
        let error = format!("{:#}", cluster.start_replica(3).await.unwrap_err());
        println!("{error}");
        assert!(error.contains("the journal is older than the data"), "{error}");
        std::fs::remove_dir_all(&journal).unwrap();
        std::fs::rename(&today, &journal).unwrap();
        cluster.start_replica(3).await.unwrap();
        client.identical().await;
    }
    cluster.stop_all().await.unwrap();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
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
