//! A replica that was away takes what it missed from its peers' disks (A11).

use bytes::Bytes;
use futures::{SinkExt as _, pin_mut};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;
use steeldb_cluster_tests::{Client, Cluster, Proxy};
use steeldb_types::limits;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_a_replica_that_was_away_catches_up_though_its_peers_were_restarted_meanwhile() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    cluster.stop_replica(3).await.unwrap();
    for i in 0..20 {
        client.execute(&format!("insert into t values ({i}, 'v{i}')")).await.unwrap();
        client.execute(&format!("update t set v = 'w{i}' where id = {i}")).await.unwrap();
    }
    // More than a frame.
    client
        .execute("insert into t select i, repeat('x', 1000000) from generate_series(100, 120) i")
        .await
        .unwrap();
    // What DDL does depends on the session.
    client.execute("create schema other").await.unwrap();
    client.execute("set search_path = other, public, steeldb, pg_catalog").await.unwrap();
    client.execute("set app.name = 'somebody'").await.unwrap();
    client.begin();
    client
        .run("create table u (id serial primary key, at timestamptz default now(), who text)")
        .await
        .unwrap();
    client
        .run("insert into u (who) select current_setting('app.name') || i from generate_series(1, 10) i")
        .await
        .unwrap();
    client.run("alter table u add column r float8 default random()").await.unwrap();
    client.commit().await.unwrap();
    client.execute("do $$ begin create index on u (who); end $$").await.unwrap();
    client.execute("insert into u (who) values ('after')").await.unwrap();
    // Only rows, behind a wall.
    client.execute("truncate t").await.unwrap();
    client.execute("insert into t values (1, 'last')").await.unwrap();
    drop(client);
    cluster.stop_all().await.unwrap();
    cluster.start_all().await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.identical().await;
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a11_what_has_rotted_on_one_peers_disk_is_taken_from_another() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    cluster.stop_replica(3).await.unwrap();
    for i in 0..10 {
        client.execute(&format!("insert into t values ({i}, repeat('v', 1000))")).await.unwrap();
    }
    client.execute("alter table t add column w int default 7").await.unwrap();
    drop(client);
    // The first one that is asked.
    cluster.stop_replica(0).await.unwrap();
    rot(&cluster.data_dir(0).join("effects"));
    cluster.start_replica(0).await.unwrap();
    cluster.start_replica(3).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.identical().await;
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

/// Flips a bit now and then in every file.
fn rot(directory: &Path) {
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(200).step_by(331).for_each(|byte| *byte ^= 4);
        std::fs::write(&path, bytes).unwrap();
        files += 1;
    }
    assert!(files > 0);
}

/// One that has diverged would not vote: then three of four make no commit without the fourth.
pub(crate) async fn all_four_vouch(cluster: &mut Cluster, client: &mut Client) {
    client.execute("create table if not exists vouched (id serial primary key)").await.unwrap();
    cluster.stop_replica(2).await.unwrap();
    client.execute("insert into vouched default values").await.unwrap();
    cluster.start_replica(2).await.unwrap();
    client.identical().await;
}

/// What is above the bound of what is gathered in memory: few rows by COPY, and changed rows by statements.
const BULK_COPY: &str = "copy line from stdin";
const BULK_UPDATE: &str = "update t set v = repeat(chr(97 + id % 26), 18000)";

/// Two bulk transactions, and others between and behind them, that the replicas which are up commit.
async fn bulk_transactions(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    let sink = client.copy_in::<_, Bytes>(BULK_COPY).await.unwrap();
    pin_mut!(sink);
    let line = format!("{}\n", "z".repeat(99_999));
    for _ in 0..limits::BULK_BYTES / 100_000 / 50 + 2 {
        sink.send(line.repeat(50).into()).await.unwrap();
    }
    sink.finish().await.unwrap();
    client.batch_execute("insert into small values (1)").await.unwrap();
    assert_eq!(client.execute(BULK_UPDATE, &[]).await.unwrap(), 4000);
    client
        .batch_execute("update t set v = 'after' where id < 10; insert into small values (2)")
        .await
        .unwrap();
}

async fn with_tables(cluster: &mut Cluster) -> Proxy {
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    client
        .batch_execute(
            "create table line (text text); create table small (n int primary key); \
             create table t (id int primary key, v text)",
        )
        .await
        .unwrap();
    client.batch_execute("insert into t select i, 'before' from generate_series(1, 4000) i").await.unwrap();
    proxy
}

/// Bulk transactions' write sets that a replica keeps.
fn kept_bulks(cluster: &Cluster, id: u16) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(cluster.data_dir(id).join("effects")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == "bulk")).collect()
}

/// Waits until a replica has made the last of what it missed, as its own server says: a comparison waits for less long.
async fn until_caught_up(cluster: &Cluster, id: u16) {
    let mut server = cluster.behind(id).await.unwrap();
    // It may even have missed that there is such a table.
    while !matches!(server.simple("select count(*) from public.small").await, Ok(answer) if answer.value() == Some("2"))
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a replica has both for good.
async fn until_kept(cluster: &Cluster, id: u16) {
    while kept_bulks(cluster, id).len() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b13_a_replica_that_was_killed_before_bulk_transactions_comes_back_though_two_peers_serve_wrong_rows()
{
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = with_tables(&mut cluster).await;
    cluster.crash_replica(3).await.unwrap();
    bulk_transactions(&proxy).await;
    for id in 0..3 {
        until_kept(&cluster, id).await;
    }
    // The first two that are asked: one with wrong rows, one with wrong digests, which are at the end.
    for (id, from_end) in [(0, 30_000_000), (1, 100)] {
        for path in kept_bulks(&cluster, id) {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let at = file.metadata().unwrap().len() - from_end;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        }
    }
    // What a crash leaves on its own disk.
    let left = [
        cluster.data_dir(3).join("effects").join(".tmpleft.unfinished"),
        cluster.data_dir(3).join("spool").join("left"),
    ];
    left.iter().for_each(|file| std::fs::write(file, b"left").unwrap());
    cluster.start_all().await.unwrap();
    assert!(left.iter().all(|file| !file.exists()));
    until_caught_up(&cluster, 3).await;
    proxy.identical().await;
    let mut client = cluster.session().await.unwrap();
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}
