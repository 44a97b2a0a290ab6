//! A replica that was away takes what it missed from its peers' disks (A11).

use std::path::Path;
use steeldb_cluster_tests::{Client, Cluster};

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
