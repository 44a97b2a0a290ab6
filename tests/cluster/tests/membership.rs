//! Changes of the membership on real servers: five of which one is spare, then four.

use std::time::Duration;
use steeldb_client_shim::{Shim, ShimError};
use steeldb_cluster_tests::{Client, Cluster, administrator_key};
use steeldb_ordering::{Change, Joining};
use steeldb_types::{ReplicaId, ViewNumber};
use steeldb_wire::auth::SecretKey;

const PATIENCE: Duration = Duration::from_secs(60);

fn ids(list: &[u16]) -> Vec<ReplicaId> {
    list.iter().map(|id| ReplicaId(*id)).collect()
}

async fn change_with(
    shim: &Shim,
    key: &SecretKey,
    set: impl FnOnce(&mut Change),
) -> Result<ViewNumber, ShimError> {
    let mut change = Change::of(&shim.roster().unwrap());
    set(&mut change);
    shim.change(&change.signed(key), PATIENCE).await
}

async fn change(shim: &Shim, set: impl FnOnce(&mut Change)) -> Result<ViewNumber, ShimError> {
    change_with(shim, &administrator_key(), set).await
}

/// Waits until the client knows the view, as it is told by those who are in it.
async fn knows(client: &Client, view: u64) {
    while client.shim.view().number() < ViewNumber(view) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_addresses_and_members_change_on_a_running_cluster() {
    let mut cluster = Cluster::start(5).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    client.execute("insert into t values (1, 'one')").await.unwrap();

    // Weights. What is open there ends and can be tried again; the session goes on.
    let mut open = client.another().await.unwrap();
    open.begin();
    open.run("update t set v = 'lost' where id = 1").await.unwrap();
    let mut weights = Change::of(&client.shim.roster().unwrap());
    weights.heavy = Some(ids(&[0, 3]));
    let weights = weights.signed(&administrator_key());
    assert_eq!(client.shim.change(&weights, PATIENCE).await.unwrap(), ViewNumber(1));
    knows(&client, 1).await;
    assert_eq!(client.shim.view().heavy(), ids(&[0, 3]));
    // A replica that the request reaches when the others have had it ordered says what became of it.
    let again = client.shim.change(&weights, PATIENCE).await;
    assert_eq!(again.unwrap(), ViewNumber(1));
    let lost = open.commit().await.unwrap_err();
    assert_eq!(lost.sqlstate.as_str(), "40001", "{lost}");
    open.execute("update t set v = 'kept' where id = 1").await.unwrap();
    client.identical().await;

    // An address: replica 2 moves, with its data and its key.
    cluster.stop_replica(2).await.unwrap();
    let address = cluster.move_replica(2);
    let moved = change(&client.shim, |to| to.move_to.push((ReplicaId(2), address))).await;
    assert_eq!(moved.unwrap(), ViewNumber(2));
    client.execute("insert into t values (2, 'two')").await.unwrap();
    cluster.start_replica(2).await.unwrap();
    knows(&client, 2).await;
    assert!(client.shim.connected(PATIENCE).await, "the client finds it where it is now");
    client.identical().await;

    // From five to four.
    assert_eq!(change(&client.shim, |to| to.remove = ids(&[4])).await.unwrap(), ViewNumber(3));
    knows(&client, 3).await;
    client.execute("insert into t values (3, 'three')").await.unwrap();
    client.identical().await;
    let statuses = client.shim.status(PATIENCE).await;
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), ids(&[0, 1, 2, 3]));
    assert!(statuses.values().all(|status| status.view == ViewNumber(3) && status.votes));
    // Three of the four are a quorum now, whether the removed one is there or not.
    cluster.stop_replica(4).await.unwrap();
    cluster.stop_replica(1).await.unwrap();
    client.execute("insert into t values (4, 'four')").await.unwrap();
    cluster.start_replica(1).await.unwrap();

    // What cannot be is refused, with the reason.
    let strange = change_with(&client.shim, &SecretKey::from_seed(&[77; 32]), |to| to.heavy = None).await;
    assert!(strange.unwrap_err().message.contains("administrator"));
    let master = change(&client.shim, |to| {
        to.remove = ids(&[0]);
        to.add.push(Joining { key: SecretKey::from_seed(&[78; 32]).public(), address: "127.0.0.1:9".into() });
    });
    assert!(master.await.unwrap_err().message.contains("transfers the database"));
    let few = change(&client.shim, |to| to.remove = ids(&[3])).await.unwrap_err();
    assert!(few.message.contains("at least 4"), "{few}");

    // All is taken up again after a stop of all, by a client that knows the first view alone.
    drop((client, open));
    cluster.stop_all().await.unwrap();
    for id in 0..4 {
        cluster.start_replica(id).await.unwrap();
    }
    let mut client = cluster.session().await.unwrap();
    knows(&client, 3).await;
    client.execute("insert into t values (5, 'five')").await.unwrap();
    let rows = client.execute("select id from t order by id").await.unwrap().rows;
    assert_eq!(rows.len(), 5);
    client.identical().await;
    cluster.stop_all().await.unwrap();
}
