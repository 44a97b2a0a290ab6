//! Temporary tables: ordinary ones in a schema of their session, cleared in the order when it is over.

use std::time::Duration;
use steeldb_cluster_tests::{Cluster, Connection, Cut, administrator_key, sqlstate};
use steeldb_types::{Execution, ReplicaId};
use steeldb_wire::transaction::MasterMove;
use tokio_postgres::{Client, SimpleQueryMessage};

const PATIENCE: Duration = Duration::from_secs(60);

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
        _ => None,
    });
    row.unwrap_or_default()
}

async fn fails(client: &Client, sql: &str) -> String {
    sqlstate(&client.batch_execute(sql).await.expect_err(sql))
}

/// Schemas of temporary relations at a replica.
async fn schemas(cluster: &mut Cluster, replica: u16) -> String {
    let mut behind = cluster.behind(replica).await.unwrap();
    let sql = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'steeldb\\_temp\\_%'";
    behind.simple(sql).await.unwrap().value().unwrap().to_string()
}

/// Waits until no replica has any.
async fn cleared(cluster: &mut Cluster) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for replica in 0..4 {
        while schemas(cluster, replica).await != "0" {
            assert!(tokio::time::Instant::now() < deadline, "replica {replica} keeps temporary relations");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_hide_what_is_permanent_from_their_session_alone_and_end_with_it() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let (one, other) = (proxy.connect().await.unwrap(), proxy.connect().await.unwrap());
    let (a, b) = (&one.client, &other.client);
    run(a, "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'permanent')").await;
    run(a, "CREATE TEMP TABLE t (id serial PRIMARY KEY, v text, at timestamptz DEFAULT now())").await;
    run(a, "INSERT INTO t (v) VALUES ('temporary'), ('too')").await;
    assert_eq!(value(a, "SELECT string_agg(id || v, ' ' ORDER BY id) FROM t").await, "1temporary 2too");
    assert_eq!(value(b, "SELECT v FROM t").await, "permanent");
    assert_eq!(value(a, "SELECT v FROM public.t").await, "permanent");
    assert_eq!(value(a, "SELECT count(*) FROM pg_temp.t").await, "2");
    assert_eq!(value(a, "SELECT current_schema").await, "public");
    // What else is made is made where it would be.
    run(a, "CREATE TABLE u AS SELECT v FROM t; CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t'").await;
    assert_eq!(value(b, "SELECT count(*) FROM public.u").await, "2");
    assert_eq!(value(a, "SELECT public.f()").await, "2", "a function sees its caller's");
    assert_eq!(value(b, "SELECT f()").await, "1");
    assert_eq!(fails(b, "SELECT * FROM pg_temp.t").await, "42P01");
    run(b, "CREATE TEMP TABLE t AS SELECT 7 AS id").await;
    assert_eq!(value(b, "SELECT id FROM t").await, "7");
    // Of the server's two, the permanent one stays.
    run(a, "DROP TABLE t").await;
    assert_eq!(value(a, "SELECT v FROM t").await, "permanent");
    // Definitions, and what uses them.
    run(a, "CREATE TEMP SEQUENCE s START 5; CREATE TEMP VIEW w AS SELECT v || '!' AS v FROM t").await;
    assert_eq!(value(a, "SELECT nextval('s') || v FROM w").await, "5permanent!");
    run(a, "SELECT v INTO TEMP x FROM t; CREATE INDEX ON x (v)").await;
    run(a, "ANALYZE x").await;
    run(a, "VACUUM pg_temp.x").await;
    run(a, "TRUNCATE x").await;
    assert_eq!(value(a, "SELECT count(*) FROM x").await, "0");
    run(
        a,
        "CREATE TEMP TABLE IF NOT EXISTS x (other int); ALTER TABLE x ADD COLUMN n int; DROP TABLE pg_temp.x",
    )
    .await;
    proxy.identical().await;
    assert_eq!(schemas(&mut cluster, 2).await, "2");
    drop((one, other));
    cleared(&mut cluster).await;
    let again = proxy.connect().await.unwrap().client;
    assert_eq!(value(&again, "SELECT v FROM t").await, "permanent");
    assert_eq!(fails(&again, "SELECT * FROM w").await, "42P01");
    proxy.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_as_their_transactions_do_and_their_rows_as_on_commit_says() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let a = proxy.connect().await.unwrap().client;
    let b = proxy.connect().await.unwrap().client;
    run(&b, "CREATE TABLE p (id int PRIMARY KEY); BEGIN; INSERT INTO p VALUES (1)").await;
    run(&a, "BEGIN; CREATE TEMP TABLE gone (a int); INSERT INTO gone VALUES (1); ROLLBACK").await;
    assert_eq!(fails(&a, "SELECT * FROM gone").await, "42P01");
    run(&a, "CREATE TEMP TABLE kept (a int) ON COMMIT PRESERVE ROWS; INSERT INTO kept VALUES (1)").await;
    run(&a, "CREATE TEMP TABLE emptied (a int) ON COMMIT DELETE ROWS").await;
    run(
        &a,
        "BEGIN; INSERT INTO emptied VALUES (1), (2); INSERT INTO kept SELECT a + 10 FROM emptied; COMMIT",
    )
    .await;
    assert_eq!(value(&a, "SELECT count(*) FROM emptied").await, "0");
    assert_eq!(value(&a, "SELECT count(*) FROM kept").await, "3");
    run(&a, "BEGIN; CREATE TEMP TABLE dropped ON COMMIT DROP AS SELECT 5 AS a; INSERT INTO kept TABLE dropped; COMMIT").await;
    assert_eq!(fails(&a, "SELECT * FROM dropped").await, "42P01");
    assert_eq!(value(&a, "SELECT max(a) FROM kept").await, "12");
    run(&a, "BEGIN; SAVEPOINT s; CREATE TEMP TABLE undone (a int); ROLLBACK TO s; CREATE TEMP TABLE undone (b int); COMMIT").await;
    run(
        &a,
        "BEGIN; DECLARE c CURSOR FOR SELECT a FROM emptied; INSERT INTO emptied VALUES (3); FETCH c; COMMIT",
    )
    .await;
    assert_eq!(value(&a, "SELECT count(b) FROM undone").await, "0");
    // Only reading changes nothing, and no definition of these made the other transaction end.
    assert_eq!(value(&a, "BEGIN READ ONLY; SELECT count(*) FROM kept; COMMIT").await, "4");
    run(&b, "INSERT INTO p VALUES (2); COMMIT").await;
    // By the extended protocol, with a statement that is kept.
    a.execute("CREATE TEMP TABLE q AS SELECT $1::int AS a", &[&10]).await.unwrap();
    let insert = a.prepare("INSERT INTO q VALUES ($1)").await.unwrap();
    for n in 0..3i32 {
        a.execute(&insert, &[&n]).await.unwrap();
    }
    assert_eq!(value(&a, "SELECT sum(a) FROM q").await, "13");
    // What would leave something behind, or reach further than its session.
    for (sql, expected) in [
        ("CREATE VIEW v AS SELECT * FROM pg_temp.kept", "0A000"),
        ("CREATE TEMP TABLE child () INHERITS (p)", "0A000"),
        ("CREATE TEMP TABLE r (a int REFERENCES p)", "42P16"),
        ("CREATE TEMP TABLE public.r (a int)", "42P16"),
        ("CREATE FUNCTION pg_temp.g() RETURNS int LANGUAGE sql AS 'SELECT 1'", "0A000"),
        ("CREATE TABLE steeldb_temp_0123456789abcdef0123.t (a int)", "3F000"),
        ("CALL steeldb.temporary('public', 'drop')", "42501"),
    ] {
        assert_eq!(fails(&a, sql).await, expected, "{sql}");
    }
    // Another session's schema can be made, and nothing of it committed.
    let foreign = "BEGIN; CALL steeldb.temporary('steeldb_temp_0123456789abcdef0123', 'drop'); COMMIT";
    assert_eq!(fails(&a, foreign).await, "42501");
    proxy.identical().await;
    run(&a, "DISCARD ALL").await;
    assert_eq!(fails(&a, "SELECT * FROM kept").await, "42P01");
    run(&a, "CREATE TEMP TABLE again (a int); DISCARD TEMP; CREATE TEMP TABLE again (a int)").await;
    drop((a, b));
    cleared(&mut cluster).await;
    proxy.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_stay_across_masters_and_replicas_that_come_and_go() {
    for execution in [Execution::Speculative, Execution::Deferred] {
        let mut cluster = Cluster::start_executing(4, execution).await.unwrap();
        let proxy = cluster.proxy().await.unwrap();
        let connection = proxy.connect().await.unwrap();
        let a = &connection.client;
        run(a, "CREATE TEMP TABLE early (id serial, v text); INSERT INTO early (v) VALUES ('a')").await;
        // One that was away makes what it missed by doing it again, and has the session again then.
        cluster.stop_replica(3).await.unwrap();
        run(
            a,
            "CREATE TEMP TABLE missed AS SELECT v || 'm' AS v FROM early; INSERT INTO early (v) VALUES ('b')",
        )
        .await;
        cluster.start_replica(3).await.unwrap();
        assert!(proxy.shim.connected(PATIENCE).await);
        run(a, "INSERT INTO missed VALUES ('n')").await;
        proxy.identical().await;
        // It is the master now.
        let (term, roster) = (proxy.shim.term(), proxy.shim.roster().unwrap());
        let wish = MasterMove::new(term, roster.digest(), ReplicaId(3), &administrator_key());
        run(a, "BEGIN").await;
        assert_eq!(value(a, "SELECT string_agg(v, ' ' ORDER BY v) FROM missed").await, "am n");
        proxy.shim.move_master(&wish, PATIENCE).await.unwrap();
        run(a, "INSERT INTO early (v) SELECT v FROM missed; COMMIT").await;
        assert_eq!(value(a, "SELECT string_agg(v, ' ' ORDER BY v) FROM early").await, "a am b n");
        proxy.identical().await;
        drop(connection);
        cleared(&mut cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_of_a_proxy_that_died_are_cleared_in_the_order_and_across_restarts() {
    let mut cluster = Cluster::start_with(4, Duration::from_secs(3)).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let living = proxy.connect().await.unwrap();
    run(&living.client, "CREATE TEMP TABLE here (a int); INSERT INTO here VALUES (1)").await;
    let doomed = cluster.doomed_proxy(Cut::Never).await.unwrap();
    let dead = Connection::open(&doomed.connection_string()).await.unwrap();
    run(&dead.client, "CREATE TEMP TABLE t (a int PRIMARY KEY)").await;
    // With a transaction open that holds locks; and without a word to anybody.
    run(&dead.client, "BEGIN; INSERT INTO t VALUES (1)").await;
    for replica in 0..4 {
        assert_eq!(schemas(&mut cluster, replica).await, "2");
    }
    doomed.kill();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for replica in 0..4 {
        while schemas(&mut cluster, replica).await != "1" {
            assert!(tokio::time::Instant::now() < deadline, "replica {replica} keeps those of the dead");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(value(&living.client, "SELECT a FROM here").await, "1");
    proxy.identical().await;
    // All hosts at once: no session outlives that.
    drop(living);
    drop(proxy);
    cluster.stop_all().await.unwrap();
    cluster.start_all().await.unwrap();
    cleared(&mut cluster).await;
    let client = cluster.session().await.unwrap();
    client.identical().await;
}
