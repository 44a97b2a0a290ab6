//! The verifiable history of a running cluster: followed live, and read from the replicas' logs.

use std::collections::BTreeSet;
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Ledger};
use steeldb_ordering_load::acknowledged::Workload;
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_log::{Directory, History};
use steeldb_ordering_server::Follower;
use steeldb_types::{ClientId, Digest, ReplicaId};

const CLIENT: ClientId = ClientId(1);

/// The chain that a replica's log holds, up to a block.
fn logged(cluster: &Cluster, replica: ReplicaId, upto: InstanceNumber) -> Option<Digest> {
    let disk = Directory::open(&cluster.log(replica)).unwrap();
    let history = History::open(Arc::new(disk)).unwrap();
    let mut ledger = Ledger::new(cluster.genesis());
    while ledger.next() <= upto
        && let Some(decision) = history.decision(ledger.next()).unwrap()
    {
        ledger.append(&decision).unwrap();
    }
    (ledger.next() > upto).then(|| ledger.tip())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_what_the_logs_hold_and_changes_its_server_when_that_dies() {
    let mut cluster =
        Cluster::start(ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into())).await.unwrap();
    let client = cluster.client(CLIENT).await.unwrap();
    let mut workload = Workload::start(&client, CLIENT, 4);
    workload.more(50).await;
    // From the beginning, out of a server's log; then live; then from another server.
    let mut config = cluster.client_config(ClientId(2));
    config.replicas.retain(|replica| replica.id >= ReplicaId(2));
    let mut follower = Follower::start(config, InstanceNumber(1)).unwrap();
    let mut ledger = Ledger::new(cluster.genesis());
    for dies in [Some(ReplicaId(2)), None] {
        let target = InstanceNumber(ledger.next().0 + 60);
        let mut running = workload;
        let grown = tokio::spawn(async move {
            running.more(400).await;
            running
        });
        while ledger.next() < target {
            for decision in follower.next().await.unwrap().decisions {
                ledger.append(&decision).unwrap();
            }
        }
        workload = grown.await.unwrap();
        if let Some(replica) = dies {
            cluster.crash(replica).await.unwrap();
            workload.more(20).await;
            cluster.start_replica(replica).await.unwrap();
        }
    }
    let acknowledged = workload.finish().await;
    acknowledged.check(&cluster.agreed_state(&client).await.unwrap());
    let upto = InstanceNumber(ledger.next().0 - 1);
    let mut tips = BTreeSet::from([ledger.tip()]);
    for replica in cluster.view().replicas() {
        tips.insert(logged(&cluster, replica, upto).expect("every log goes that far"));
    }
    assert_eq!(tips.len(), 1, "one history");
}
