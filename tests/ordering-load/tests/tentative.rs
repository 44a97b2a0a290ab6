//! Replies before the decision, from real processes over TCP: what a client was told stays true whatever happens next.

use nix::sys::signal::Signal;
use std::time::Duration;
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_load::liar::{Forger, Lie};
use steeldb_ordering_server::{Acceptance, Client};
use steeldb_types::{ClientId, ReplicaId, SessionId};

const CLIENT: ClientId = ClientId(1);
const LEADER: ReplicaId = ReplicaId(0);
const LIAR: ReplicaId = ReplicaId(3);

fn options() -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options.tentative = true;
    options
}

async fn started(options: ClusterOptions) -> (Cluster, Client, Workload) {
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut workload = Workload::start(&client, CLIENT, 8);
    workload.more(50).await;
    (cluster, client, workload)
}

async fn check(cluster: &Cluster, client: &Client, workload: Workload) {
    let acknowledged = workload.finish().await;
    assert!(acknowledged.ahead() > 0, "no request was acknowledged before its decision");
    acknowledged.check(&cluster.agreed_state(client).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_are_cut_off_between_reply_and_decision_are_replaced_without_a_loss() {
    let (cluster, client, mut workload) = started(ClusterOptions { relayed: true, ..options() }).await;
    for leader in [LEADER, ReplicaId(1), ReplicaId(2)] {
        cluster.isolate(leader, true).unwrap();
        workload.more(100).await;
        cluster.isolate(leader, false).unwrap();
        workload.more(20).await;
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_its_decision_outlives_all_processes() {
    let (mut cluster, client, mut workload) = started(options()).await;
    let view = cluster.view().clone();
    for round in 0..4 {
        // All stand still where they are, and are no more.
        for replica in view.replicas() {
            cluster.signal(replica, Signal::SIGSTOP).unwrap();
        }
        for replica in view.replicas() {
            cluster.crash(replica).await.unwrap();
        }
        let mut order: Vec<_> = view.replicas().collect();
        order.rotate_left(round);
        for replica in order {
            cluster.start_replica(replica).await.unwrap();
        }
        workload.more(60).await;
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_among_the_replicas_is_not_believed() {
    let (cluster, client, mut workload) =
        started(ClusterOptions { liar: Some((LIAR, Lie::Replies)), ..options() }).await;
    // The workload itself compares each result with what it sent.
    workload.more(100).await;
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forger_that_answers_at_once_is_not_believed() {
    let (mut cluster, client, mut workload) = started(options()).await;
    cluster.crash(LIAR).await.unwrap();
    let listen = cluster.addresses()[usize::from(LIAR.0)].clone();
    let forger = Forger::start(LIAR, &listen, cluster.clients()).await.unwrap();
    workload.more(100).await;
    // With one correct replica silent, too, there is no quorum, whatever the forger says.
    cluster.signal(ReplicaId(2), Signal::SIGSTOP).unwrap();
    let other = cluster.client_config(ClientId(2));
    let other = Client::start(other, cluster.genesis(), Acceptance::Correct).unwrap();
    let mut session = other.session(SessionId(1));
    let lonely = tokio::spawn(async move { session.invoke(b"alone").await });
    for _ in 0..50 {
        for replica in [LEADER, ReplicaId(1)] {
            client.query(replica, Vec::new()).await.unwrap();
        }
        assert!(!lonely.is_finished(), "two of four and a forger acknowledged a request");
    }
    cluster.signal(ReplicaId(2), Signal::SIGCONT).unwrap();
    lonely.await.unwrap().unwrap();
    drop(forger);
    cluster.start_replica(LIAR).await.unwrap();
    workload.more(20).await;
    let acknowledged = workload.finish().await;
    acknowledged.check_with(&cluster.agreed_state(&client).await.unwrap(), 1);
}
