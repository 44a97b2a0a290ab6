//! Several proxies side by side: connection strings with several hosts, as libpq and drivers read them.

use crate::{outcome, run, value};
use std::time::Duration;
use steeldb_cluster_tests::{APP, Cluster, Connection, Cut, Program, Said};
use steeldb_types::ReplicaId;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a driver and psql connect to: the doomed proxy first, the other one behind it.
struct Hosts {
    hosts: String,
    ports: String,
}

impl Hosts {
    fn string(&self, more: &str) -> String {
        format!("host={} port={} user={APP} dbname={APP} connect_timeout=10 {more}", self.hosts, self.ports)
    }

    async fn psql(&self, more: &str, sql: &str) -> Said {
        let string = self.string(more);
        Program::named("psql").args(&["-XAtq", "-d", &string, "-c", sql]).run().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_change_to_another_proxy_and_ask_there_what_became_of_their_commit() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let doomed = cluster.doomed_proxy(Cut::AfterOutcomes(3)).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let (first, second) = (doomed.address, proxy.address);
    let hosts = Hosts {
        hosts: format!("{},{}", first.ip(), second.ip()),
        ports: format!("{},{}", first.port(), second.port()),
    };
    let ids_of = |tx: &str| tx.split('.').next().unwrap_or_default().to_string();
    let current = "SELECT steeldb.current_tx()";

    run(&proxy.connect().await.unwrap().client, "CREATE TABLE t (id int PRIMARY KEY)").await;

    // Both are there: the first is taken, which is fit for writing, and not for who wants a standby.
    let attributes =
        ["", "target_session_attrs=any", "target_session_attrs=read-write", "target_session_attrs=primary"];
    let mut clients = Vec::new();
    for attribute in attributes {
        clients.push(ids_of(hosts.psql(attribute, current).await.lines()[0]));
    }
    clients.push(ids_of(hosts.psql("target_session_attrs=prefer-standby", current).await.lines()[0]));
    assert!(clients.iter().all(|client| *client == clients[0]), "{clients:?}");
    for (attribute, what) in [
        ("target_session_attrs=standby", "standby"),
        ("target_session_attrs=read-only", "read-only"),
        ("target_session_attrs=read-write options='-c default_transaction_read_only=on'", "read-only"),
    ] {
        let said = hosts.psql(attribute, current).await;
        assert!(said.status != 0 && said.err.contains(what), "{attribute}: {said:?}");
    }
    // A driver that asks by SHOW transaction_read_only.
    let string = hosts.string("target_session_attrs=read-write");
    let app = Connection::open(&string).await.unwrap().client;
    run(&app, "BEGIN; INSERT INTO t VALUES (1)").await;
    let tx = value(&app, current).await.unwrap();
    assert_eq!(ids_of(&tx), clients[0]);
    let commit = tokio::spawn(async move { app.batch_execute("COMMIT").await });
    doomed.severed.ended().await;
    doomed.kill();
    assert!(commit.await.unwrap().is_err());

    // The same strings lead to the other one.
    let app = Connection::open(&string).await.unwrap().client;
    assert_eq!(outcome(&app, &tx).await, "committed");
    assert_ne!(ids_of(&value(&app, current).await.unwrap()), clients[0]);
    for attribute in attributes {
        let said = hosts.psql(attribute, "SELECT count(*) FROM t").await;
        assert_eq!(said.lines(), ["1"], "{attribute}");
    }
    let asked = format!("SELECT steeldb.outcome('{tx}')");
    assert_eq!(hosts.psql("", &asked).await.lines(), ["committed"]);
    proxy.identical().await;
}

/// Replicas hear of a question by the order before they hear it from the proxy: then its answer waits for the proxy's own copy.
/// A session shows that which has said nothing before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_a_question_may_be_the_first_thing_that_a_session_says() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let asking = cluster.patient_proxy(Cut::QuestionsTo(ReplicaId(0))).await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&client, "BEGIN; INSERT INTO t VALUES (1)").await;
    let tx = value(&client, "SELECT steeldb.current_tx()").await.unwrap();
    run(&client, "COMMIT").await;
    let delivered = async || {
        let statuses = proxy.shim.status(PATIENCE).await;
        statuses.values().map(|status| status.delivered).collect::<Vec<_>>()
    };
    let before = delivered().await.into_iter().max().unwrap();

    let first = Connection::open(&asking.connection_string()).await.unwrap().client;
    let answer = tokio::spawn(async move { outcome(&first, &tx).await });
    asking.severed.held().await;
    // The leader has it ordered; nobody else has been asked.
    while delivered().await.into_iter().any(|delivered| delivered <= before) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!answer.is_finished(), "one replica's word");
    asking.severed.release();
    assert_eq!(answer.await.unwrap(), "committed");
    assert_eq!(asking.severed.questions(), 1, "it was not asked again");
}
