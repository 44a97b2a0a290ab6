//! Clusters whose links go through a wide-area network, in both models of faults.

use steeldb_ordering_load::cluster::{Cluster, ClusterOptions, Sites};
use steeldb_types::{ClientId, FaultModel, ReplicaId, SessionId};
use steeldb_wan::{Conditions, Matrix};

const SITES: [&str; 3] = ["near", "middle", "far"];

fn options(n: u16, model: FaultModel) -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    let between = Conditions { latency_ms: 1.0, ..Conditions::default() };
    let matrix = Matrix::uniform(SITES.map(String::from), between);
    let replicas = (0..usize::from(n)).map(|replica| SITES[replica % SITES.len()].into()).collect();
    (options.n, options.model, options.sites) = (n, model, Some(Sites { matrix, replicas, seed: 1 }));
    options
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_all_sites_are_served_with_weights() {
    let cluster = Cluster::start(options(5, FaultModel::Byzantine)).await.unwrap();
    assert_eq!((cluster.view().f(), cluster.view().spare()), (1, 1));
    for (client, site) in (1..).zip(SITES) {
        let (client, _relays) = cluster.client_at(site, ClientId(client)).await.unwrap();
        client.session(SessionId(1)).invoke(b"hello").await.unwrap();
        client.stop();
    }
    assert!(cluster.client_at("nowhere", ClientId(4)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_crash_model_three_go_on_as_two() {
    let mut cluster = Cluster::start(options(3, FaultModel::Crash)).await.unwrap();
    let (client, _relays) = cluster.client_at("middle", ClientId(1)).await.unwrap();
    let mut session = client.session(SessionId(1));
    session.invoke(b"three").await.unwrap();
    cluster.crash(ReplicaId(2)).await.unwrap();
    session.invoke(b"two").await.unwrap();
    client.stop();
}
