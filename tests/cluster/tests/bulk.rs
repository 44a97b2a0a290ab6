//! Bulk transactions (B13) and COPY data on disk, with real servers.

use bytes::Bytes;
use futures::{SinkExt as _, pin_mut};
use std::time::Duration;
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};
use steeldb_types::limits;
use tokio_postgres::{Client, CopyInSink, Error};

const LINE: usize = 20_000;

/// So many bytes of lines.
fn lines(bytes: usize) -> Bytes {
    format!("{}\n", "z".repeat(LINE - 1)).repeat(bytes / LINE + 1).into()
}

async fn begin_copy(client: &Client) -> CopyInSink<Bytes> {
    client.copy_in("COPY line FROM STDIN").await.unwrap()
}

async fn copy(client: &Client, bytes: usize) -> Result<u64, Error> {
    let sink = begin_copy(client).await;
    pin_mut!(sink);
    sink.send(lines(bytes)).await?;
    sink.finish().await
}

async fn count(proxy: &Proxy, table: &str) -> i64 {
    let client = proxy.connect().await.unwrap().client;
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

/// Waits until a replica has so many bytes of COPY data on disk. Files without names are seen by who has them open.
async fn spooled(bytes: u64) {
    let on_disk = || -> u64 {
        let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return 0 };
        let spooled = |path: &std::path::Path| path.to_string_lossy().contains("/spool/");
        files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|file| std::fs::read_link(file).is_ok_and(|path| spooled(&path)))
            .filter_map(|file| Some(std::fs::metadata(file).ok()?.len()))
            .sum()
    };
    while on_disk() < bytes {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b13_a_copy_waits_on_disk_and_becomes_bulk_one_at_a_time_while_others_commit() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let [first, second, third] =
        [proxy.connect().await.unwrap(), proxy.connect().await.unwrap(), proxy.connect().await.unwrap()];
    first
        .client
        .batch_execute("CREATE TABLE line (text text); CREATE TABLE small (n int PRIMARY KEY)")
        .await
        .unwrap();
    let large = limits::COPY_MEMORY_BYTES + 2 * 1024 * 1024;
    // What comes behind the data waits for their end, also where it is sent before.
    first.client.batch_execute("BEGIN").await.unwrap();
    let rows = copy(&first.client, large).await.unwrap();
    first.client.batch_execute("INSERT INTO small VALUES (0); DELETE FROM small; COMMIT").await.unwrap();
    assert_eq!(count(&proxy, "line").await, rows as i64);

    // One becomes bulk, and stays open.
    let bulk = begin_copy(&first.client).await;
    pin_mut!(bulk);
    bulk.send(lines(limits::BULK_BYTES + 1024 * 1024)).await.unwrap();
    spooled(3 * (limits::BULK_BYTES as u64 - large as u64)).await;
    // Others commit beside it, also with as much as is not bulk; another bulk transaction does not.
    second.client.execute("INSERT INTO small VALUES (1)", &[]).await.unwrap();
    let error = copy(&second.client, limits::BULK_BYTES + 1024 * 1024).await.unwrap_err();
    assert_eq!(sqlstate(&error), "40001", "{error:?}");
    assert!(error.as_db_error().is_some_and(|error| error.message().contains("bulk")), "{error:?}");
    second.client.execute("INSERT INTO small VALUES (2)", &[]).await.unwrap();
    third.client.execute("INSERT INTO small VALUES (3)", &[]).await.unwrap();
    let rows = rows + bulk.finish().await.unwrap();
    third.client.execute("INSERT INTO small VALUES (4)", &[]).await.unwrap();
    assert_eq!((count(&proxy, "line").await, count(&proxy, "small").await), (rows as i64, 4));
    proxy.identical().await;
    for id in 0..4 {
        let left = std::fs::read_dir(cluster.data_dir(id).join("spool")).unwrap().count();
        assert_eq!(left, 0, "replica {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_with_copy_data_on_disk_leaves_none_and_comes_back() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap();
    client.client.batch_execute("CREATE TABLE line (text text)").await.unwrap();
    let sink = begin_copy(&client.client).await;
    pin_mut!(sink);
    sink.send(lines(limits::COPY_MEMORY_BYTES + 8 * 1024 * 1024)).await.unwrap();
    spooled(3 * 4 * 1024 * 1024).await;
    cluster.crash_replica(3).await.unwrap();
    let rows = sink.finish().await.unwrap();
    cluster.start_all().await.unwrap();
    assert_eq!(std::fs::read_dir(cluster.data_dir(3).join("spool")).unwrap().count(), 0);
    assert_eq!(count(&proxy, "line").await, rows as i64);
    proxy.identical().await;
}
