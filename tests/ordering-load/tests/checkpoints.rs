//! Checkpoints of real processes over TCP: the log is cut behind them, all start again from them, and who was away for
//! longer than the log reaches is given one.

use std::time::Duration;
use steeldb_ordering::{Account, InstanceNumber};
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_load::liar::Lie;
use steeldb_ordering_load::node::Checkpoints;
use steeldb_ordering_server::{Client, FollowError, Follower};
use steeldb_types::{ClientId, ReplicaId, SessionId};

const CLIENT: ClientId = ClientId(1);
const AWAY: ReplicaId = ReplicaId(2);
const LIAR: ReplicaId = ReplicaId(3);

fn options() -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options.tentative = true;
    options.checkpoints = Checkpoints {
        interval: 20,
        decisions_kept: 10,
        // One decision at least: so nothing comes from memory instead of the log.
        decisions_kept_bytes: 1,
        segment_bytes: 20_000,
    };
    options
}

async fn started(options: ClusterOptions) -> (Cluster, Client, Workload) {
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut workload = Workload::start(&client, CLIENT, 4);
    workload.more(50).await;
    (cluster, client, workload)
}

/// The number of the log's oldest segment.
fn oldest_segment(cluster: &Cluster, replica: ReplicaId) -> String {
    let names = std::fs::read_dir(cluster.log(replica)).unwrap();
    let names = names.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names.filter(|name| name.starts_with("segment-")).min().unwrap()
}

/// Works until all these replicas have let go of what is in their oldest segments now.
async fn cut(cluster: &Cluster, replicas: &[ReplicaId], workload: &mut Workload) {
    let before: Vec<String> = replicas.iter().map(|replica| oldest_segment(cluster, *replica)).collect();
    let newer = |(replica, before): (&ReplicaId, &String)| oldest_segment(cluster, *replica) > *before;
    while !replicas.iter().zip(&before).all(newer) {
        workload.more(20).await;
    }
}

async fn check(cluster: &Cluster, client: &Client, workload: Workload) {
    let acknowledged = workload.finish().await;
    acknowledged.check(&cluster.agreed_state(client).await.unwrap());
}

fn others() -> Vec<ReplicaId> {
    (0..4).map(ReplicaId).filter(|replica| *replica != AWAY).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_start_again_from_their_checkpoints() {
    let (mut cluster, client, mut workload) = started(options()).await;
    let all: Vec<ReplicaId> = cluster.view().replicas().collect();
    for round in 0..2 {
        cut(&cluster, &all, &mut workload).await;
        for replica in &all {
            cluster.crash(*replica).await.unwrap();
        }
        let mut order = all.clone();
        order.rotate_left(round);
        for replica in order {
            cluster.start_replica(replica).await.unwrap();
        }
        workload.more(50).await;
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_for_longer_than_the_log_reaches_is_given_a_checkpoint() {
    let (mut cluster, client, mut workload) = started(options()).await;
    cluster.crash(AWAY).await.unwrap();
    // Twice: the segment that was being written when it went is gone, too.
    for _ in 0..2 {
        cut(&cluster, &others(), &mut workload).await;
    }
    cluster.start_replica(AWAY).await.unwrap();
    // It takes part: without it and another there is no quorum.
    workload.more(20).await;
    cluster.crash(ReplicaId(1)).await.unwrap();
    workload.more(100).await;
    cluster.start_replica(ReplicaId(1)).await.unwrap();
    assert!(cluster.said(AWAY).contains("was fetched"), "{}", cluster.said(AWAY));
    // It starts from what it was given.
    cluster.crash(AWAY).await.unwrap();
    workload.more(20).await;
    cluster.start_replica(AWAY).await.unwrap();
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_checkpoint_is_given_one() {
    let (mut cluster, client, mut workload) = started(options()).await;
    let all: Vec<ReplicaId> = cluster.view().replicas().collect();
    cut(&cluster, &all, &mut workload).await;
    cluster.crash(AWAY).await.unwrap();
    std::fs::remove_dir_all(cluster.log(AWAY).join("checkpoints")).unwrap();
    cluster.start_replica(AWAY).await.unwrap();
    workload.more(50).await;
    check(&cluster, &client, workload).await;
    assert!(cluster.said(AWAY).contains("was fetched"), "{}", cluster.said(AWAY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_of_a_wrong_state_is_found_out_and_another_is_asked() {
    let options = ClusterOptions { liar: Some((LIAR, Lie::State)), ..options() };
    let (mut cluster, client, mut workload) = started(options).await;
    // Until it is the liar that is asked first.
    while !cluster.said(AWAY).contains("sent a wrong chunk") {
        cluster.crash(AWAY).await.unwrap();
        for _ in 0..2 {
            cut(&cluster, &others(), &mut workload).await;
        }
        cluster.start_replica(AWAY).await.unwrap();
        // It is up to date when it is needed for a quorum, and heard.
        cluster.crash(ReplicaId(1)).await.unwrap();
        workload.more(20).await;
        cluster.start_replica(ReplicaId(1)).await.unwrap();
    }
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_told_that_what_it_wants_is_not_kept() {
    let (cluster, client, mut workload) = started(options()).await;
    let all: Vec<ReplicaId> = cluster.view().replicas().collect();
    cut(&cluster, &all, &mut workload).await;
    let config = cluster.client_config(ClientId(2));
    let mut follower = Follower::start(config, InstanceNumber(1)).unwrap();
    let end = loop {
        match follower.next().await {
            Ok(blocks) => assert_eq!(blocks.decisions, []),
            Err(end) => break end,
        }
    };
    assert_eq!(end, FollowError::NotKept(InstanceNumber(1)));
    check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joined_is_known_to_a_replica_that_was_given_the_state() {
    let options = ClusterOptions { idle_timeout: Some(Duration::from_secs(3600)), ..options() };
    let (mut cluster, client, mut workload) = started(options).await;
    cluster.crash(AWAY).await.unwrap();
    let account = Account { name: b"tenant".to_vec(), sessions_max: 1 };
    let guest = cluster.join(1, account).await.unwrap();
    cut(&cluster, &others(), &mut workload).await;
    cluster.start_replica(AWAY).await.unwrap();
    workload.more(20).await;
    // From here on no quorum is without the one that has it from the checkpoint.
    cluster.crash(LIAR).await.unwrap();
    let mut session = guest.session(SessionId(1));
    for _ in 0..20 {
        assert_eq!(session.invoke(b"known").await.unwrap().result, b"known");
    }
    cluster.start_replica(LIAR).await.unwrap();
    let acknowledged = workload.finish().await;
    acknowledged.check_with(&cluster.agreed_state(&client).await.unwrap(), 20);
}
