//! Clients that vanish, bytes that mean nothing, many connections.

use crate::{run, value};
use futures::future;
use steeldb_cluster_tests::{Cluster, Memory, Proxy};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vanished_clients_garbage_and_crowds_harm_nobody() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t VALUES (1), (2)",
    )
    .await;
    vanished_client(&proxy).await;
    let _left_open = garbage(&cluster, &proxy).await;
    run(&client, "UPDATE t SET n = 5 WHERE id = 2").await;
    crowd(&cluster, &proxy).await;
    assert_eq!(value(&client, "SELECT count(*), sum(n) FROM t").await, "102");
    proxy.identical().await;
}

/// Its locks are released by an ordered Abort.
async fn vanished_client(proxy: &Proxy) {
    let (first, second) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    run(&first.client, "BEGIN; UPDATE t SET n = 10 WHERE id = 1").await;
    let waiting = second.client.clone();
    let update =
        tokio::spawn(async move { waiting.execute("UPDATE t SET n = n + 1 WHERE id = 1", &[]).await });
    first.vanish();
    assert_eq!(update.await.unwrap().unwrap(), 1);
    assert_eq!(value(&second.client, "SELECT n FROM t WHERE id = 1").await, "1");

    // In the middle of a statement, of a COPY, and with a statement that still waits.
    let (third, fourth) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    run(&third.client, "BEGIN; UPDATE t SET n = 20 WHERE id = 1").await;
    let sink = fourth.client.copy_in::<_, bytes::Bytes>("COPY t (id) FROM STDIN").await.unwrap();
    let waiting = proxy.connect().await.unwrap();
    let client = waiting.client.clone();
    let update = tokio::spawn(async move { client.execute("UPDATE t SET n = 30 WHERE id = 1", &[]).await });
    tokio::task::yield_now().await;
    waiting.vanish();
    fourth.vanish();
    third.vanish();
    assert!(update.await.unwrap().is_err());
    drop(sink);
    run(&second.client, "UPDATE t SET n = 0 WHERE id = 1").await;
    assert_eq!(value(&second.client, "SELECT n FROM t WHERE id = 1").await, "0");
}

/// Connections that say nothing sensible, some of them left open.
async fn garbage(cluster: &Cluster, proxy: &Proxy) -> Vec<TcpStream> {
    let half_startup = [&64u32.to_be_bytes()[..], &[0, 3, 0, 0], b"user\0ap"].concat();
    let huge = [&u32::MAX.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
    let tls_record = [&[22, 3, 1, 0xff, 0xff][..], &[1; 400]].concat();
    let noise: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut addresses = vec![proxy.address.to_string()];
    addresses.extend((0..4).map(|id| cluster.address(id).to_string()));
    let mut left_open = Vec::new();
    for address in &addresses {
        for bytes in
            [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &half_startup, &huge, &tls_record, &noise, &[0; 9000]]
        {
            for open in [false, true] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // It may be closed at the first byte that is wrong.
                let _ = stream.write_all(bytes).await;
                if open {
                    left_open.push(stream);
                }
            }
        }
    }
    left_open
}

async fn crowd(cluster: &Cluster, proxy: &Proxy) {
    const CROWD: i32 = 100;
    let postmasters = cluster.postmasters().unwrap();
    let before = Memory::of_trees(&postmasters);
    // In two halves: the proxy bounds how many may be starting at once.
    let half = || future::try_join_all((0..CROWD / 2).map(|_| proxy.connect()));
    let mut connections = half().await.unwrap();
    connections.extend(half().await.unwrap());
    future::join_all(connections.iter().zip(1000..).map(async |(connection, id)| {
        run(
            &connection.client,
            &format!("BEGIN; INSERT INTO t VALUES ({id}, 0); SELECT count(*) FROM t; COMMIT"),
        )
        .await;
    }))
    .await;
    println!("memory of four servers, idle: {before}");
    println!("memory of four servers, {CROWD} sessions: {}", Memory::of_trees(&postmasters));
    println!("memory of four agents, the proxy and this test: {}", Memory::of_this_process());
}
