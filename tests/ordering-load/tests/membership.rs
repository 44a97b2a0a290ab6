//! The membership of running servers changes: links and clients follow, the order goes on.

use nix::sys::signal::Signal;
use std::time::Duration;
use steeldb_ordering::{Change, Joining};
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_load::identity;
use steeldb_ordering_load::node::Checkpoints;
use steeldb_ordering_server::{Client, InvokeError, Refused};
use steeldb_types::{ClientId, ReplicaId, SessionId, ViewNumber};

const CLIENT: ClientId = ClientId(1);
const OTHER: ClientId = ClientId(2);
const FIFTH: ReplicaId = ReplicaId(4);

fn options() -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options.tentative = true;
    options
}

async fn started(options: ClusterOptions) -> (Cluster, Client, Workload) {
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut workload = Workload::start(&client, CLIENT, 4);
    workload.more(50).await;
    (cluster, client, workload)
}

fn joining(cluster: &Cluster, replica: ReplicaId) -> Joining {
    let key = identity::replica_key(replica).public();
    Joining { key, address: cluster.addresses()[usize::from(replica.0)].clone() }
}

async fn change(client: &Client, change: impl FnOnce(&mut Change)) -> Result<ViewNumber, InvokeError> {
    let mut next = Change::of(&client.roster());
    change(&mut next);
    let made = client.change(next.signed(&identity::administrator_key())).await?;
    Ok(made.view().number())
}

/// Changes, and queries that were ordered, have places in the order, too.
async fn check(cluster: &Cluster, client: &Client, workload: Workload, others: u64) {
    let acknowledged = workload.finish().await;
    acknowledged.check_with(&cluster.agreed_state(client).await.unwrap(), others);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_server_joins_under_load_and_the_first_is_removed() {
    let (mut cluster, client, mut workload) = started(options()).await;
    let fifth = joining(&cluster, FIFTH);
    assert_eq!(change(&client, |change| change.add.push(fifth)).await.unwrap(), ViewNumber(1));
    cluster.start_replica(FIFTH).await.unwrap();
    workload.more(100).await;
    // Another client, that has yet to learn of it.
    let other = cluster.client(OTHER).await.unwrap();
    let read = other.session(SessionId(1)).query(b"").await.unwrap();
    assert_eq!(other.roster().view().number(), ViewNumber(1));
    // The leader leaves.
    let made = change(&client, |change| change.remove.push(ReplicaId(0))).await.unwrap();
    assert_eq!(made, ViewNumber(2));
    workload.more(100).await;
    cluster.crash(ReplicaId(0)).await.unwrap();
    // Of four, f = 1: without the fifth there is no quorum now.
    cluster.crash(ReplicaId(1)).await.unwrap();
    workload.more(100).await;
    cluster.start_replica(ReplicaId(1)).await.unwrap();
    check(&cluster, &client, workload, 2 + u64::from(read.ordered)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_replaced_with_weights_changed_and_all_start_again_in_the_new_view() {
    let short =
        Checkpoints { interval: 20, decisions_kept: 10, decisions_kept_bytes: 1, segment_bytes: 20_000 };
    let (mut cluster, client, mut workload) =
        started(ClusterOptions { checkpoints: short, ..options() }).await;
    let fifth = joining(&cluster, FIFTH);
    change(&client, |change| change.add.push(fifth)).await.unwrap();
    // It comes later than what it lacks is kept: it is given a checkpoint, with the views.
    let first_segment = |replica: ReplicaId| cluster.log(replica).join("segment-000000000001");
    while cluster.view().replicas().any(|replica| first_segment(replica).exists()) {
        workload.more(50).await;
    }
    cluster.start_replica(FIFTH).await.unwrap();
    let heavy = vec![ReplicaId(2), FIFTH];
    let made = change(&client, |change| change.heavy = Some(heavy.clone())).await.unwrap();
    assert_eq!((made, client.roster().view().heavy()), (ViewNumber(2), &heavy[..]));
    workload.more(50).await;
    change(&client, |change| change.remove.push(ReplicaId(3))).await.unwrap();
    cluster.crash(ReplicaId(3)).await.unwrap();
    let members: Vec<ReplicaId> = client.roster().view().replicas().collect();
    assert_eq!(members, [0, 1, 2, 4].map(ReplicaId));
    workload.more(50).await;
    for replica in &members {
        cluster.crash(*replica).await.unwrap();
    }
    for replica in &members {
        cluster.start_replica(*replica).await.unwrap();
    }
    workload.more(50).await;
    check(&cluster, &client, workload, 3).await;
    assert!(cluster.said(FIFTH).contains("was fetched"), "{}", cluster.said(FIFTH));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_not_legal_or_signed_by_nobody_who_may_is_refused_and_one_that_comes_again_is_not() {
    let (cluster, client, mut workload) = started(options()).await;
    let refused = |result: Result<ViewNumber, InvokeError>| match result {
        Err(InvokeError::Refused(Refused::Invalid(reason))) => reason,
        other => panic!("{other:?}"),
    };
    let reason = refused(change(&client, |change| change.remove.push(ReplicaId(0))).await);
    assert!(reason.contains("at least 4 are needed"), "{reason}");
    let mut forged = Change::of(&client.roster());
    forged.first_leader = Some(ReplicaId(2));
    let result = client.change(forged.signed(&identity::client_key(CLIENT))).await;
    let reason = refused(result.map(|made| made.view().number()));
    assert!(reason.contains("administrator"), "{reason}");

    let request = forged.signed(&identity::administrator_key());
    let made = client.change(request.clone()).await.unwrap();
    assert_eq!(made.view().first_leader(), ReplicaId(2));
    // By a client that has yet to learn of the view.
    let other = Client::start(cluster.client_config(OTHER), cluster.genesis(), Default::default()).unwrap();
    assert_eq!(other.change(request).await.unwrap(), made);
    workload.more(20).await;
    check(&cluster, &client, workload, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_know_of_the_new_view_serves_no_reads_of_the_old_one() {
    let (mut cluster, client, mut workload) = started(options()).await;
    let fifth = joining(&cluster, FIFTH);
    cluster.start_replica(FIFTH).await.unwrap();
    cluster.signal(ReplicaId(3), Signal::SIGSTOP).unwrap();
    change(&client, |change| change.add.push(fifth)).await.unwrap();
    workload.more(50).await;
    // A client of the genesis view, and a replica that has slept since.
    cluster.signal(ReplicaId(3), Signal::SIGCONT).unwrap();
    let other = cluster.client(OTHER).await.unwrap();
    let mut session = other.session(SessionId(1));
    let before = workload.acknowledged_in_all();
    let read = session.query(b"").await.unwrap();
    let state = steeldb_ordering_load::application::State::decode(&read.result).unwrap();
    assert!(state.position.0 >= before, "read {:?} after {before} were acknowledged", state.position);
    check(&cluster, &client, workload, 1 + u64::from(read.ordered)).await;
}
