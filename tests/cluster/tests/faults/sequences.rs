//! A9: sequences are not replicated yet. Where replicas draw different values the transaction is aborted and the error
//! names the statement; where a quorum agrees it commits.

use crate::run;
use steeldb_cluster_tests::{Cluster, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_sequences_that_differ_abort_and_the_error_names_the_statement() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    run(&client, "CREATE TABLE t (id serial PRIMARY KEY, name text)").await;
    run(&client, "INSERT INTO t (name) VALUES ('one'), ('two')").await;
    proxy.identical().await;

    // One replica draws another value: three agree.
    let set = |replica| cluster.behind(replica);
    set(2).await.unwrap().simple("SELECT setval('public.t_id_seq', 500)").await.unwrap();
    run(&client, "INSERT INTO t (name) VALUES ('three')").await;
    let id: i32 =
        client.query_one("INSERT INTO t (name) VALUES ('four') RETURNING id", &[]).await.unwrap().get(0);
    assert_eq!(id, 4);
    proxy.identical().await;

    // Two do: no quorum agrees.
    set(3).await.unwrap().simple("SELECT setval('public.t_id_seq', 700)").await.unwrap();
    let sql = "INSERT INTO t (name) VALUES ('effects')";
    let error = client.batch_execute(sql).await.unwrap_err();
    assert_eq!(sqlstate(&error), "40000", "{error:?}");
    let detail = error.as_db_error().unwrap().detail().unwrap_or_default().to_string();
    assert!(detail.contains("INSERT INTO t (name)"), "{error:?}");
    let error =
        client.query_one("INSERT INTO t (name) VALUES ('shown') RETURNING id", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&error), "40000", "{error:?}");
    let fields = error.as_db_error().unwrap();
    assert!(fields.message().contains("statement 1"), "{fields:?}");
    assert!(fields.detail().is_some_and(|detail| detail.contains("'shown'")), "{fields:?}");
    let error = client.query_one("SELECT nextval('t_id_seq')", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&error), "40000", "{error:?}");

    // Values that the client chooses are not concerned, and nothing of the aborted ones remains.
    run(&client, "INSERT INTO t VALUES (1000, 'chosen')").await;
    let names: String =
        client.query_one("SELECT string_agg(name, ' ' ORDER BY id) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(names, "one two three four chosen");
    proxy.identical().await;
}
