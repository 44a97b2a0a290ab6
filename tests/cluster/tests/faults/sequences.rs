//! A9: sequences. The master draws, the others take its draws; a transaction that drew is voted on even if it shows nothing.

use crate::{fails, run, value};
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_sequences_give_the_same_on_all_replicas() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    interleaved(&proxy).await;
    session_state(&proxy).await;
    caught_errors(&proxy).await;
    tampered(&cluster, &proxy).await;
    forged(&proxy).await;
    proxy.identical().await;
}

/// Sessions draw in turn inside open transactions, and end them in another order.
async fn interleaved(proxy: &Proxy) {
    let [a, b] = [proxy.connect().await.unwrap().client, proxy.connect().await.unwrap().client];
    run(
        &a,
        "CREATE TABLE drawn (id serial PRIMARY KEY, who text);
         CREATE TABLE born (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text)",
    )
    .await;
    run(&a, "BEGIN").await;
    run(&b, "BEGIN").await;
    for _ in 0..3 {
        run(&a, "INSERT INTO drawn (who) VALUES ('a'); INSERT INTO born (who) VALUES ('a')").await;
        run(&b, "INSERT INTO drawn (who) VALUES ('b'); INSERT INTO born (who) VALUES ('b')").await;
    }
    assert_eq!(value(&b, "INSERT INTO drawn (who) VALUES ('b') RETURNING id").await, "7");
    run(&b, "COMMIT").await;
    run(&a, "ROLLBACK").await;
    for table in ["drawn", "born"] {
        let ids = format!("SELECT string_agg(id::text, ' ' ORDER BY id) FROM {table}");
        let expected = if table == "drawn" { "2 4 6 7" } else { "2 4 6" };
        assert_eq!(value(&a, &ids).await, expected);
    }
    // What a transaction that was rolled back drew is not drawn again.
    assert_eq!(value(&a, "INSERT INTO drawn (who) VALUES ('a') RETURNING id").await, "8");
    assert_eq!(fails(&a, "INSERT INTO born VALUES (50, 'c')").await, "428C9");
    run(&a, "INSERT INTO born OVERRIDING SYSTEM VALUE VALUES (50, 'c')").await;
    assert_eq!(value(&a, "INSERT INTO born (who) VALUES ('d') RETURNING id").await, "7");
}

/// currval and lastval are the session's, everywhere.
async fn session_state(proxy: &Proxy) {
    let [a, b] = [proxy.connect().await.unwrap().client, proxy.connect().await.unwrap().client];
    run(&a, "CREATE SEQUENCE s; CREATE SEQUENCE other MAXVALUE 100 INCREMENT -10").await;
    assert_eq!(fails(&b, "SELECT currval('s')").await, "55000");
    assert_eq!(value(&a, "SELECT nextval('s')").await, "1");
    assert_eq!(value(&b, "SELECT nextval('s')").await, "2");
    assert_eq!(value(&b, "SELECT nextval('other') || ' ' || nextval('other')").await, "100 90");
    assert_eq!(value(&a, "SELECT currval('s') || ' ' || lastval()").await, "1 1");
    assert_eq!(value(&b, "SELECT currval('s') || ' ' || lastval()").await, "2 90");
    assert_eq!(value(&a, "SELECT setval('s', 500) || ' ' || nextval('s')").await, "500 501");
    assert_eq!(
        value(&b, "SELECT setval('s', 20, false) || ' ' || nextval('s') || ' ' || currval('s')").await,
        "20 20 20"
    );
    run(&a, "DISCARD SEQUENCES").await;
    assert_eq!(fails(&a, "SELECT lastval()").await, "55000");
    assert_eq!(value(&a, "SELECT nextval('s')").await, "21");
    run(&a, "BEGIN READ ONLY").await;
    assert_eq!(fails(&a, "SELECT nextval('s')").await, "25006");
    run(&a, "ROLLBACK").await;
    assert_eq!(value(&a, "SELECT nextval('s')").await, "22");
}

/// A draw is not undone with the block that drew.
async fn caught_errors(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE tried (id serial PRIMARY KEY, n int UNIQUE);
         CREATE FUNCTION try(int) RETURNS int LANGUAGE plpgsql AS $$
         DECLARE got int; BEGIN
             BEGIN INSERT INTO tried (n) VALUES ($1) RETURNING id INTO got;
             EXCEPTION WHEN unique_violation THEN INSERT INTO tried (n) VALUES (-nextval('tried_id_seq')) RETURNING id INTO got;
             END;
             RETURN got;
         END $$",
    )
    .await;
    assert_eq!(value(&client, "SELECT try(1)").await, "1");
    assert_eq!(value(&client, "SELECT try(1)").await, "3");
    run(&client, "CREATE SEQUENCE short MAXVALUE 2").await;
    assert_eq!(value(&client, "SELECT nextval('short') + nextval('short')").await, "3");
    assert_eq!(fails(&client, "SELECT nextval('short')").await, "2200H");
    run(&client, "BEGIN; SAVEPOINT p; INSERT INTO tried (n) VALUES (10); ROLLBACK TO p").await;
    assert_eq!(value(&client, "INSERT INTO tried (n) VALUES (11) RETURNING id").await, "6");
    run(&client, "COMMIT").await;
    let rows = "SELECT string_agg(id || ':' || n, ' ' ORDER BY id) FROM tried";
    assert_eq!(value(&client, rows).await, "1:1 3:-4 6:11");
}

/// Other replicas' own sequences are of no consequence; the master's are.
async fn tampered(cluster: &Cluster, proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    // Every replica has the sequence by now.
    proxy.identical().await;
    for replica in 1..4 {
        let sql = format!("SELECT setval('public.drawn_id_seq', {}000)", replica + 5);
        cluster.behind(replica).await.unwrap().simple(&sql).await.unwrap();
    }
    assert_eq!(value(&client, "INSERT INTO drawn (who) VALUES ('t') RETURNING id").await, "9");
    assert_eq!(value(&client, "SELECT currval('drawn_id_seq') || ' ' || lastval()").await, "9 9");
    // A value that the master draws a second time is in the way of the first.
    cluster.behind(0).await.unwrap().simple("SELECT setval('public.drawn_id_seq', 8)").await.unwrap();
    assert_eq!(fails(&client, "INSERT INTO drawn (who) VALUES ('u')").await, "23505");
    assert_eq!(value(&client, "INSERT INTO drawn (who) VALUES ('v') RETURNING id").await, "10");
}

/// Clients cannot speak for the functions, nor command them.
async fn forged(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    for sql in [
        "SELECT steeldb.hand_draws(1, NULL)",
        "SELECT steeldb.arm_draws(1, true, '\\x00')",
        "SELECT steeldb.take_draw('n', 'public.s')",
        "SELECT steeldb.report_draw('n', 1, 0, 'public.s')",
        "SELECT nextval('steeldb.draw_token')",
        "SELECT currval('steeldb.draw_token')",
        "SELECT setval('steeldb.draw_next', 2)",
    ] {
        assert_eq!(fails(&client, sql).await, "42501", "{sql}");
    }
    run(&client, "SELECT nextval('s')").await;
    assert_eq!(fails(&client, "SELECT steeldb.drawn('s', 100000)").await, "42501");
    // What looks like a report is the client's own notice.
    run(&client, "DO $$ BEGIN RAISE INFO '1 n 77 0 public.s' USING ERRCODE = 'SDSEQ'; END $$").await;
    assert_eq!(value(&client, "SELECT nextval('s')").await, "24");
    // A draw that is shown and voted on, with nothing written: its transaction is ordered (A9).
    let error = client.query_one("SELECT nextval('no_such')", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&error), "42P01");
}
