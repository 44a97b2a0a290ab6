//! A replica that comes back while clients go on catches up with them, and votes again.

use crate::away::all_four_vouch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use steeldb_cluster_tests::{Client, Cluster};
use steeldb_replica::agent::Point;
use tokio::task::JoinHandle;

/// Clients that write without a pause.
const WRITERS: usize = 6;

/// Prepared votes of the replica that was away, one after the other while clients write.
const VOTES: usize = 20;

/// Clients that write as fast as they can until they are told to stop.
struct Load {
    commits: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    async fn start(client: &Client) -> Load {
        let (commits, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let mut client = client.another().await.unwrap();
            let (commits, stop) = (commits.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Rows of its own, and one that all want.
                    client.begin();
                    let own = format!(
                        "update t set n = n + 1, list = array_append(list, n) where key = 'k{writer}'"
                    );
                    let mut done = client.run(&own).await.is_ok_and(|answer| answer.sqlstate.is_none());
                    if done && commits.load(Ordering::Relaxed).is_multiple_of(5) {
                        let shared = client.run("update t set n = n + 1 where key = 'shared'").await;
                        done = shared.is_ok_and(|answer| answer.sqlstate.is_none());
                    }
                    let ended = if done { client.commit().await } else { client.rollback().await };
                    if done && ended.is_ok() {
                        commits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Load { commits, stop, writers }
    }

    /// Waits for so many more commits.
    async fn commits(&self, more: u64) {
        let until = self.commits.load(Ordering::Relaxed) + more;
        while self.commits.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.commits.load(Ordering::Relaxed)
    }
}

async fn table(client: &mut Client) {
    client
        .execute("create table t (key text primary key, n int not null, list int[] default '{}')")
        .await
        .unwrap();
    let keys = "select 'k' || i, 0 from generate_series(0, 9) i union all select 'shared', 0";
    let answer = client.execute(&format!("insert into t (key, n) {keys}")).await.unwrap();
    assert_eq!(answer.sqlstate, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_comes_back_under_load_votes_again() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    table(&mut client).await;
    let load = Load::start(&client).await;
    cluster.crash_replica(3).await.unwrap();
    load.commits(150).await;
    cluster.start_replica(3).await.unwrap();
    for _ in 0..VOTES {
        cluster.reaches(3, Point::VoteSent).await.unwrap();
    }
    load.stop().await;
    client.identical().await;
    all_four_vouch(&mut cluster, &mut client).await;
    cluster.stop_all().await.unwrap();
}

/// What docs/performance.md says of catching up: `cargo test -p steeldb-cluster-tests --test recovery -- --ignored
/// --nocapture how_fast`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: part of make nightly"]
async fn how_fast_a_replica_catches_up() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    table(&mut client).await;
    cluster.stop_replica(3).await.unwrap();
    let load = Load::start(&client).await;
    load.commits(2_000).await;
    let commits = load.stop().await;
    let since = Instant::now();
    cluster.start_replica(3).await.unwrap();
    let started = since.elapsed();
    client.identical().await;
    let caught_up = since.elapsed() - started;
    println!("caught up with {commits} commits in {caught_up:?}, after {started:?} to start");
    cluster.stop_all().await.unwrap();
}
