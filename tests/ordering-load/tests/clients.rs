//! Clients that no configuration lists, over TCP, with replicas in processes of their own: they join, work and leave.

use std::time::Duration;
use steeldb_ordering::{Account, FIRST_JOINED_CLIENT, JoinRefusal};
use steeldb_ordering_load::cluster::{Cluster, ClusterOptions};
use steeldb_ordering_load::identity;
use steeldb_ordering_server::{Acceptance, Client, InvokeError, JoinError, Refused};
use steeldb_transport::ClientConfig;
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey};

const HOUR: Duration = Duration::from_secs(3600);

fn options(idle_timeout: Duration) -> ClusterOptions {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_ordering-load").into());
    options.request_timeout = Duration::from_millis(400);
    options.idle_timeout = Some(idle_timeout);
    options
}

fn account(sessions_max: u16) -> Account {
    Account { name: b"tenant".to_vec(), sessions_max }
}

async fn works(client: &Client, session: u64) {
    let mut session = client.session(SessionId(session));
    for _ in 0..20 {
        assert_eq!(session.invoke(b"hello").await.unwrap().result, b"hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_joins_works_and_leaves_and_one_too_many_is_told_why_it_may_not() {
    let cluster = Cluster::start(options(HOUR)).await.unwrap();
    let first = cluster.join(1, account(1)).await.unwrap();
    assert_eq!(first.id(), FIRST_JOINED_CLIENT);
    works(&first, 1).await;
    let second = cluster.join(2, account(1)).await.err().expect("one too many");
    assert!(matches!(second, JoinError::Refused(JoinRefusal::AccountFull { sessions_max: 1 })), "{second}");
    assert!(second.to_string().contains("as many as it may"), "{second}");
    works(&first, 2).await;
    first.leave().await.unwrap();
    first.leave().await.unwrap();
    let refused = first.session(SessionId(3)).invoke(b"late").await;
    assert_eq!(refused.err(), Some(InvokeError::Refused(Refused::NotJoined)));
    let second = cluster.join(2, account(1)).await.unwrap();
    assert_eq!(second.id(), ClientId(FIRST_JOINED_CLIENT.0 + 1));
    works(&second, 1).await;
    // What was executed is what was acknowledged, on every replica.
    let state = cluster.agreed_state(&second).await.unwrap();
    let executed = |client: &Client, session| {
        let session = SessionKey { client: client.id(), session: SessionId(session) };
        state.sessions.get(&session).map_or(0, |progress| progress.executed)
    };
    assert_eq!([1, 2, 3].map(|session| executed(&first, session)), [20, 20, 0]);
    assert_eq!(executed(&second, 1), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_credential_for_its_key_nobody_joins_and_a_listed_client_need_not() {
    let cluster = Cluster::start(options(HOUR)).await.unwrap();
    let stolen = identity::credential(&account(1), &identity::guest_key(1).public());
    let config = ClientConfig { key: identity::guest_key(2), ..cluster.client_config(ClientId(0)) };
    let refused =
        Client::join(config, cluster.genesis(), Acceptance::Quorum, account(1), stolen.clone()).await;
    let reason = refused.err().expect("a stolen credential").to_string();
    assert!(reason.contains("not the authority's for this key"), "{reason}");
    let listed = cluster.client_config(ClientId(1));
    let refused = Client::join(listed, cluster.genesis(), Acceptance::Quorum, account(1), stolen).await;
    assert!(matches!(refused.err(), Some(JoinError::Invoke(InvokeError::Refused(Refused::Invalid(_))))));
    let mut options = options(HOUR);
    options.idle_timeout = None;
    drop(cluster);
    let closed = Cluster::start(options).await.unwrap();
    works(&closed.client(ClientId(1)).await.unwrap(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_joined_survives_a_stop_of_all_and_goes_on_under_another_leader() {
    let mut cluster = Cluster::start(options(HOUR)).await.unwrap();
    let client = cluster.join(1, account(2)).await.unwrap();
    works(&client, 1).await;
    let view = cluster.view().clone();
    for replica in view.replicas() {
        cluster.crash(replica).await.unwrap();
    }
    for replica in view.replicas().skip(1) {
        cluster.start_replica(replica).await.unwrap();
    }
    works(&client, 2).await;
    let other = cluster.join(2, account(2)).await.unwrap();
    works(&other, 1).await;
    // It lost its memory, but has its key.
    client.stop();
    let again = cluster.join(1, account(2)).await.unwrap();
    assert_eq!(again.id(), client.id());
    works(&again, 3).await;
    cluster.start_replica(ReplicaId(0)).await.unwrap();
    cluster.agreed_state(&again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_client_makes_room() {
    // Idle is who had nothing executed since the batch before.
    let cluster = Cluster::start(options(Duration::ZERO)).await.unwrap();
    let first = cluster.join(1, account(1)).await.unwrap();
    works(&first, 1).await;
    let second = cluster.join(2, account(1)).await.unwrap();
    works(&second, 1).await;
    let gone = first.session(SessionId(2)).invoke(b"late").await;
    assert_eq!(gone.err(), Some(InvokeError::Refused(Refused::NotJoined)));
}
