//! Reads without order from real processes over TCP, while others write: never older than what was acknowledged before,
//! never newer than what was sent, never going back.

use std::time::Duration;
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::application::Progress;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_load::liar::Lie;
use steeldb_ordering_server::{Client, Session};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey};

const CLIENT: ClientId = ClientId(1);
const READER: ClientId = ClientId(2);
const STALE: ReplicaId = ReplicaId(2);
const LIAR: ReplicaId = ReplicaId(3);
const SESSIONS: u64 = 4;

fn options(tentative: bool) -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options.tentative = tentative;
    options
}

async fn started(options: ClusterOptions) -> (Cluster, Client, Workload, Reader) {
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let reader = cluster.client(READER).await.unwrap().session(SessionId(1));
    let mut workload = Workload::start(&client, CLIENT, SESSIONS);
    workload.more(20).await;
    let last = vec![0; SESSIONS as usize + 1];
    (cluster, client, workload, Reader { session: reader, last, ordered: 0, unordered: 0 })
}

struct Reader {
    session: Session,
    /// What was last read, by session.
    last: Vec<u64>,
    ordered: u64,
    unordered: u64,
}

impl Reader {
    /// Reads each session's progress.
    async fn round(&mut self, workload: &Workload) {
        for number in 1..=SESSIONS {
            let session = SessionKey { client: CLIENT, session: SessionId(number) };
            let before = workload.acknowledged(session);
            let read = self.session.query(&Progress::query(session)).await.unwrap();
            let after = workload.acknowledged(session);
            let executed = Progress::decode(&read.result).unwrap().executed;
            assert!(executed >= before, "{session}: read {executed} after {before} were acknowledged");
            assert!(executed <= after + 1, "{session}: read {executed}, sent {}", after + 1);
            let last = &mut self.last[number as usize];
            assert!(executed >= *last, "{session}: read {executed} after {last}");
            *last = executed;
            if read.ordered {
                self.ordered += 1;
            } else {
                self.unordered += 1;
            }
        }
    }

    async fn check(self, cluster: &Cluster, client: &Client, workload: Workload) {
        let acknowledged = workload.finish().await;
        acknowledged.check_with(&cluster.agreed_state(client).await.unwrap(), self.ordered);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_among_writes_see_what_was_acknowledged() {
    for tentative in [false, true] {
        let (cluster, client, workload, mut reader) = started(options(tentative)).await;
        while reader.unordered < 100 {
            reader.round(&workload).await;
        }
        reader.check(&cluster, &client, workload).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_replica_makes_no_read_stale() {
    for tentative in [false, true] {
        let options = ClusterOptions { relayed: true, ..options(tentative) };
        let (cluster, client, workload, mut reader) = started(options).await;
        cluster.isolate(STALE, true).unwrap();
        while reader.unordered < 50 {
            reader.round(&workload).await;
        }
        cluster.isolate(STALE, false).unwrap();
        reader.check(&cluster, &client, workload).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_makes_no_read_wrong() {
    let (cluster, client, workload, mut reader) =
        started(ClusterOptions { liar: Some((LIAR, Lie::Queries)), ..options(true) }).await;
    while reader.unordered < 50 {
        reader.round(&workload).await;
    }
    reader.check(&cluster, &client, workload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_liar_and_a_stale_replica_that_say_the_same_are_no_quorum_and_the_query_is_ordered() {
    let options = ClusterOptions { relayed: true, liar: Some((LIAR, Lie::Queries)), ..options(false) };
    let cluster = Cluster::start(options).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut reader = cluster.client(READER).await.unwrap().session(SessionId(1));
    cluster.isolate(STALE, true).unwrap();
    let mut writer = client.session(SessionId(1));
    for _ in 0..5 {
        writer.invoke(b"x").await.unwrap();
    }
    // Two say five, two say none: the liar's answer to the ordered query is no better, so it takes the fourth.
    let query = Progress::query(SessionKey { client: CLIENT, session: SessionId(1) });
    let reading = tokio::spawn(async move { reader.query(&query).await.unwrap() });
    for _ in 0..50 {
        for replica in [ReplicaId(0), ReplicaId(1)] {
            client.query(replica, Vec::new()).await.unwrap();
        }
        assert!(!reading.is_finished(), "half of the replicas were believed");
    }
    cluster.isolate(STALE, false).unwrap();
    let read = reading.await.unwrap();
    assert_eq!(Progress::decode(&read.result).unwrap().executed, 5);
    assert!(read.ordered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_and_come_back_answer_with_nothing_older_than_they_said() {
    let (mut cluster, client, mut workload, mut reader) = started(options(true)).await;
    for round in 0..3u16 {
        for replica in [ReplicaId(round % 4), ReplicaId((round + 1) % 4)] {
            cluster.crash(replica).await.unwrap();
            cluster.start_replica(replica).await.unwrap();
            for _ in 0..5 {
                reader.round(&workload).await;
            }
        }
        workload.more(20).await;
    }
    reader.check(&cluster, &client, workload).await;
}
