//! E1: a proxy is killed before the Finish is sent, while it is, after it, and after the outcome but before the application
//! is told. What is said of the transaction through another proxy is what the databases hold, and stays so.

use crate::{connect, outcome, run, value};
use steeldb_client_shim::Event;
use steeldb_cluster_tests::{Cluster, Connection, Cut, sqlstate};
use steeldb_types::ReplicaId;
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_a_proxy_killed_at_any_point_of_a_commit_leaves_one_answer() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = connect(&proxy).await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut told: Vec<(String, String)> = Vec::new();
    let cuts = [
        (Cut::BeforeFinish, &["no changes"][..]),
        (Cut::FinishTo(ReplicaId(3)), &["no changes", "committed"]),
        (Cut::FinishTo(ReplicaId(0)), &["no changes", "committed"]),
        (Cut::AfterFinish, &["no changes", "committed"]),
        (Cut::AfterOutcomes(1), &["committed"]),
        (Cut::AfterOutcomes(4), &["committed"]),
    ];
    for ((cut, expected), id) in cuts.into_iter().zip(1..) {
        let doomed = cluster.doomed_proxy(cut).await.unwrap();
        let app = Connection::open(&doomed.connection_string()).await.unwrap().client;
        run(&app, &format!("BEGIN; INSERT INTO t VALUES ({id})")).await;
        let tx = value(&app, "SELECT steeldb.current_tx()").await.unwrap();
        let commit = tokio::spawn(async move { app.batch_execute("COMMIT").await });
        doomed.severed.ended().await;
        doomed.kill_when_sent().await;
        assert!(commit.await.unwrap().is_err(), "{cut:?}: nobody has told the application");
        let state = outcome(&client, &tx).await;
        assert!(expected.contains(&state.as_str()), "{cut:?}: {state}");
        same_as_the_data(&client, id, &state).await;
        told.push((tx, state));
    }
    // A proxy that hangs instead of dying is not waited for.
    let hung = cluster.doomed_proxy(Cut::AfterFinish).await.unwrap();
    let app = Connection::open(&hung.connection_string()).await.unwrap().client;
    run(&app, "BEGIN; INSERT INTO t VALUES (100)").await;
    let tx = value(&app, "SELECT steeldb.current_tx()").await.unwrap();
    let commit = tokio::spawn(async move { app.batch_execute("COMMIT").await });
    hung.severed.ended().await;
    assert_eq!(outcome(&client, &tx).await, "committed");
    same_as_the_data(&client, 100, "committed").await;
    hung.kill();
    assert!(commit.await.unwrap().is_err());
    told.push((tx, "committed".into()));

    read_only_transactions(&mut cluster, &client, &mut told).await;

    // Whoever asks hears the same, also when all replicas have forgotten what they did not write down.
    let third = cluster.proxy().await.unwrap();
    let other = connect(&third).await;
    for (tx, state) in &told {
        assert_eq!(&outcome(&other, tx).await, state, "{tx}");
    }
    drop((client, other, proxy, third));
    cluster.stop_all().await.unwrap();
    cluster.start_all().await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = connect(&proxy).await;
    for (tx, state) in &told {
        assert_eq!(&outcome(&client, tx).await, state, "{tx}, after a restart");
    }
    proxy.identical().await;
}

async fn same_as_the_data(client: &Client, id: i32, state: &str) {
    let rows = value(client, &format!("SELECT count(*) FROM t WHERE id = {id}")).await.unwrap();
    assert_eq!(rows == "1", state == "committed", "{id}: {state}, and {rows} rows");
}

/// One that only read has no ordered outcome, and its client was told that it committed: it is not called aborted.
async fn read_only_transactions(cluster: &mut Cluster, client: &Client, told: &mut Vec<(String, String)>) {
    let doomed = cluster.doomed_proxy(Cut::Never).await.unwrap();
    let app = Connection::open(&doomed.connection_string()).await.unwrap().client;
    let mut read = Vec::new();
    for _ in 0..2 {
        run(&app, "BEGIN; SELECT count(*) FROM t").await;
        read.push(value(&app, "SELECT steeldb.current_tx()").await.unwrap());
        run(&app, "COMMIT").await;
    }
    run(&app, "BEGIN; INSERT INTO t VALUES (200)").await;
    let undone = value(&app, "SELECT steeldb.current_tx()").await.unwrap();
    assert_eq!(value(client, &format!("SELECT steeldb.outcome('{undone}')")).await.unwrap(), "in progress");
    run(&app, "ROLLBACK; BEGIN; SELECT 1").await;
    read.push(value(&app, "SELECT steeldb.current_tx()").await.unwrap());
    run(&app, "COMMIT").await;
    doomed.kill();
    // The last one of its session is ended by the question.
    for tx in read.into_iter().chain([undone]) {
        assert_eq!(outcome(client, &tx).await, "no changes");
        told.push((tx, "no changes".into()));
    }
}

/// A BEGIN that is still on its way when its transaction is asked for never begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_g7_a_transaction_that_was_asked_for_before_its_begin_was_ordered_never_begins() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = connect(&proxy).await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    let (mut slow, severed) = cluster.severed_session(Cut::Begins).await.unwrap();
    slow.begin();
    let tx = {
        let operation = slow.run("INSERT INTO t VALUES (1)");
        // The operation is sent; nothing can come of it yet.
        let mut operation = std::pin::pin!(operation);
        tokio::select! {
            answer = &mut operation => panic!("{answer:?}"),
            tx = severed.held() => tx.to_string(),
        }
    };
    assert_eq!(outcome(&client, &tx).await, "aborted");
    severed.release();
    let error = loop {
        match slow.session.event().await {
            Event::OperationFailed { error, .. } => break error,
            Event::Result { .. } | Event::Executed { .. } => panic!("it began"),
            _ => {}
        }
    };
    assert_eq!(error.sqlstate.as_str(), "40001", "{error:?}");
    slow.rollback().await.unwrap();
    // Its session goes on.
    slow.execute("INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(outcome(&client, &tx).await, "aborted");
    assert_eq!(value(&client, "SELECT string_agg(id::text, ' ') FROM t").await.unwrap(), "2");
    // Nobody asks for what another's rights made, nor for what is no transaction's number.
    let unknown = value(&client, "SELECT steeldb.outcome('c99.s1.1')").await;
    assert_eq!(unknown, Err("42501".into()));
    assert_eq!(value(&client, "SELECT steeldb.outcome('tomorrow')").await, Err("22P02".into()));
    let row = client.query_one("SELECT steeldb.outcome($1)", &[&tx]).await.map_err(|error| sqlstate(&error));
    assert_eq!(row.unwrap().get::<_, &str>(0), "aborted");
    proxy.identical().await;
}

/// The application vanishes right behind its COMMIT, and the proxy lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e1_an_application_that_vanishes_behind_its_commit_can_ask_later() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = connect(&proxy).await;
    run(&client, "CREATE TABLE t (id int PRIMARY KEY)").await;
    for id in 1..=8 {
        let connection = proxy.connect().await.unwrap();
        let app = connection.client.clone();
        run(&app, &format!("BEGIN; INSERT INTO t VALUES ({id})")).await;
        let tx = value(&app, "SELECT steeldb.current_tx()").await.unwrap();
        let commit = tokio::spawn(async move { app.batch_execute("COMMIT").await });
        // Sooner or later in the COMMIT, as it comes.
        for _ in 0..id * 8 {
            tokio::task::yield_now().await;
        }
        connection.vanish();
        let answered = commit.await.unwrap().is_ok();
        let state = outcome(&client, &tx).await;
        assert!(state == "committed" || (state == "no changes" && !answered), "{state}, {answered}");
        same_as_the_data(&client, id, &state).await;
    }
    proxy.identical().await;
}
