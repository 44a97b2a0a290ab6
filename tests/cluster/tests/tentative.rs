//! COMMIT answered before its decision (A7), on real servers.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::time::Duration;
use steeldb_client_shim::Completion;
use steeldb_cluster_tests::{Answer, Client, Cluster, Crash, administrator_key};
use steeldb_replica::agent::Point;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::MasterMove;

const PATIENCE: Duration = Duration::from_secs(60);

fn value(answer: &Answer) -> &str {
    assert_eq!(answer.sqlstate, None);
    answer.rows[0][0].as_deref().unwrap()
}

/// Three replicas have told the client and go no further; nothing is applied there. Then all hosts lose power.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_what_was_told_before_its_decision_is_there_after_all_hosts_lost_power() {
    let mut cluster = Cluster::start_tentative(4, 1).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    for round in 1..=2 {
        client.identical().await;
        let mut session = client.another().await.unwrap();
        let mut told: FuturesUnordered<_> =
            (0..4).map(|id| cluster.crash_at(id, Point::Bound, Crash::Agent)).collect();
        session.begin();
        session.run(&format!("insert into t values ({round}, 'told')")).await.unwrap();
        assert!(matches!(session.commit().await, Ok(Completion::Committed(Some(_)))));
        // One may have decided by the word of the others.
        for _ in 0..3 {
            told.next().await.unwrap().unwrap();
        }
        let mut prepared = 0;
        for id in 0..4 {
            prepared += cluster.prepared(id).await.unwrap().len();
        }
        assert!(prepared >= 3, "it is applied at {} replicas", 4 - prepared);
        for id in 0..4 {
            // Where the trap was not sprung it must not be later.
            drop(cluster.reaches(id, Point::BeforeRestart));
            cluster.crash_replica(id).await.unwrap();
        }
        cluster.start_all().await.unwrap();
        assert!(client.shim.connected(PATIENCE).await);
        client.identical().await;
        cluster.nothing_prepared().await.unwrap();
        client = client.another().await.unwrap();
        let rows = client.execute("select count(*) from t where v = 'told'").await.unwrap();
        assert_eq!(value(&rows), round.to_string());
    }
    client.execute("insert into t values (9, 'goes on')").await.unwrap();
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

async fn counts_up(client: &mut Client, reader: &mut Client, from: i32, upto: i32) {
    for n in from..upto {
        client.execute(&format!("update t set n = {n} where id = 1 and n = {}", n - 1)).await.unwrap();
        // Strong: who begins behind the answer sees what it told of, through another session too.
        assert_eq!(value(&reader.execute("select n from t where id = 1").await.unwrap()), n.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_seen_by_all_that_begin_behind_it_and_masters_may_change() {
    is_seen_and_masters_change(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_four_instances_in_flight() {
    is_seen_and_masters_change(4).await;
}

async fn is_seen_and_masters_change(window: usize) {
    let mut cluster = Cluster::start_tentative(4, window).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, n int)").await.unwrap();
    client.execute("insert into t values (1, 0)").await.unwrap();
    let mut reader = client.another().await.unwrap();
    counts_up(&mut client, &mut reader, 1, 20).await;
    let (term, roster) = (client.shim.term(), client.shim.roster().unwrap());
    let wish = MasterMove::new(term, roster.digest(), ReplicaId(2), &administrator_key());
    client.shim.move_master(&wish, PATIENCE).await.unwrap();
    counts_up(&mut client, &mut reader, 20, 40).await;

    // Of two that write the same row one is told so, early or late.
    let mut other = client.another().await.unwrap();
    client.begin();
    other.begin();
    for session in [&mut client, &mut other] {
        assert_eq!(session.run("select 1").await.unwrap().sqlstate, None);
    }
    client.run("update t set n = 100 where id = 1").await.unwrap();
    client.commit().await.unwrap();
    let lost = other.run("update t set n = 200 where id = 1").await.unwrap();
    assert_eq!(lost.sqlstate.as_deref(), Some("40001"));
    other.rollback().await.unwrap();
    assert_eq!(value(&reader.execute("select n from t").await.unwrap()), "100");

    // The leader's host goes, and its regency with it; then it comes back.
    cluster.crash_replica(0).await.unwrap();
    counts_up(&mut client, &mut reader, 101, 106).await;
    cluster.start_replica(0).await.unwrap();
    assert!(client.shim.connected(PATIENCE).await);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
