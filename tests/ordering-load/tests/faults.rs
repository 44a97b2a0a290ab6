//! Faults done to real processes over TCP. In each test sessions send requests all the time; whatever happens, nothing
//! acknowledged is lost, nothing is executed twice, and the service goes on. What is waited for are acknowledgements and
//! states; a test that hangs has found a fault.

use nix::sys::signal::Signal;
use std::time::Duration;
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::application::State;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_server::{Acceptance, Client};
use steeldb_types::{ClientId, ReplicaId, SessionId};

const CLIENT: ClientId = ClientId(1);
const LEADER: ReplicaId = ReplicaId(0);
const FOLLOWER: ReplicaId = ReplicaId(2);

fn options() -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options
}

async fn started(options: ClusterOptions) -> (Cluster, Client, Workload) {
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut workload = Workload::start(&client, CLIENT, 8);
    workload.more(50).await;
    (cluster, client, workload)
}

/// Every replica must come to hold what was acknowledged.
async fn check(cluster: &Cluster, client: &Client, workload: Workload) {
    let acknowledged = workload.finish().await;
    acknowledged.check(&cluster.agreed_state(client).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back() {
    let (mut cluster, client, mut workload) = started(options()).await;
    cluster.crash(LEADER).await.unwrap();
    workload.more(100).await;
    cluster.start_replica(LEADER).await.unwrap();
    workload.more(100).await;
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_follower_comes_back_with_what_it_missed() {
    let (mut cluster, client, mut workload) = started(options()).await;
    for follower in [FOLLOWER, ReplicaId(3)] {
        cluster.crash(follower).await.unwrap();
        workload.more(100).await;
        cluster.start_replica(follower).await.unwrap();
        workload.more(20).await;
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_is_replaced_and_goes_on_as_a_follower() {
    let (cluster, client, mut workload) = started(options()).await;
    cluster.signal(LEADER, Signal::SIGSTOP).unwrap();
    workload.more(100).await;
    cluster.signal(LEADER, Signal::SIGCONT).unwrap();
    workload.more(100).await;
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_of_the_leader_heals() {
    let (cluster, client, mut workload) = started(ClusterOptions { relayed: true, ..options() }).await;
    cluster.isolate(LEADER, true).unwrap();
    workload.more(100).await;
    cluster.isolate(LEADER, false).unwrap();
    workload.more(50).await;
    // The next leader, too, so that the one that was away must lead or follow again.
    cluster.isolate(ReplicaId(1), true).unwrap();
    workload.more(100).await;
    cluster.isolate(ReplicaId(1), false).unwrap();
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_replicas_killed_at_once_continue_where_they_were() {
    let (mut cluster, client, mut workload) = started(options()).await;
    for round in 0..2 {
        let view = cluster.view().clone();
        for replica in view.replicas() {
            cluster.crash(replica).await.unwrap();
        }
        // In another order each time.
        let mut order: Vec<_> = view.replicas().collect();
        order.rotate_left(round + 1);
        for replica in order {
            cluster.start_replica(replica).await.unwrap();
        }
        workload.more(100).await;
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged_and_with_one_all_is() {
    let (mut cluster, client, mut workload) = started(options()).await;
    cluster.crash(FOLLOWER).await.unwrap();
    cluster.signal(ReplicaId(3), Signal::SIGSTOP).unwrap();
    let other = cluster.client_config(ClientId(2));
    let other = Client::start(other, cluster.genesis(), Acceptance::Quorum).unwrap();
    let mut session = other.session(SessionId(1));
    let lonely = tokio::spawn(async move { session.invoke(b"alone").await });
    for _ in 0..50 {
        // The two that are left are well, and know of nothing new.
        for replica in [LEADER, ReplicaId(1)] {
            let state = State::decode(&client.query(replica, Vec::new()).await.unwrap()).unwrap();
            assert!(state.sessions.keys().all(|session| session.client != ClientId(2)), "{replica}");
        }
        assert!(!lonely.is_finished(), "two of four acknowledged a request");
    }
    cluster.signal(ReplicaId(3), Signal::SIGCONT).unwrap();
    lonely.await.unwrap().unwrap();
    workload.more(50).await;
    // Else it counts as a request nobody acknowledged.
    let acknowledged = workload.finish().await;
    cluster.start_replica(FOLLOWER).await.unwrap();
    acknowledged.check_with(&cluster.agreed_state(&client).await.unwrap(), 1);
}
