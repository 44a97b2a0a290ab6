//! What looks like a read and writes (A9), what asks for time or chance (A14), constraints that wait for COMMIT (B5).

use crate::{fails, run, value};
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_statements_do_the_same_everywhere() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    writing_functions(&proxy).await;
    time_and_chance(&proxy).await;
    deferred_constraints(&proxy).await;
    triggers(&proxy).await;
    proxy.identical().await;
}

async fn writing_functions(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE log (id int PRIMARY KEY, note text);
         CREATE FUNCTION writes(int) RETURNS int LANGUAGE plpgsql AS
             'BEGIN INSERT INTO log VALUES ($1, ''hidden''); RETURN $1; END';
         CREATE FUNCTION claims_not_to(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT writes($1)'",
    )
    .await;
    assert_eq!(value(&client, "SELECT writes(1)").await, "1");
    let row = client.query_one("SELECT claims_not_to($1)", &[&2]).await;
    // PostgreSQL may refuse it (0A000); what it does must be the same everywhere, and last.
    let expected = match row {
        Ok(_) => "2",
        Err(error) => {
            assert_eq!(sqlstate(&error), "0A000");
            "1"
        }
    };
    assert_eq!(value(&client, "SELECT count(*) FROM log").await, expected);
    run(&client, "BEGIN READ ONLY").await;
    assert_eq!(fails(&client, "SELECT writes(3)").await, "25006");
    run(&client, "ROLLBACK").await;
    assert_eq!(fails(&client, "SELECT writes(1)").await, "23505");
    proxy.identical().await;
}

async fn time_and_chance(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE chance (
             id int PRIMARY KEY, a timestamptz DEFAULT now(), b timestamptz DEFAULT CURRENT_TIMESTAMP,
             c date DEFAULT CURRENT_DATE, d timestamp DEFAULT LOCALTIMESTAMP, e uuid DEFAULT gen_random_uuid(),
             f float8 DEFAULT random(), g timestamptz DEFAULT clock_timestamp(), h timestamptz)",
    )
    .await;
    run(&client, "INSERT INTO chance (id) SELECT generate_series(1, 5)").await;
    run(
        &client,
        "INSERT INTO chance (id, e, f, h) VALUES (10, gen_random_uuid(), random(), statement_timestamp())",
    )
    .await;
    run(&client, "BEGIN; UPDATE chance SET f = random() * id, h = transaction_timestamp(), e = gen_random_uuid(); COMMIT")
        .await;
    client
        .execute(
            "UPDATE chance SET h = $1::timestamptz + (now() - CURRENT_TIMESTAMP) WHERE id = 1",
            &[&std::time::SystemTime::now()],
        )
        .await
        .unwrap();
    let told = client
        .query_one("SELECT now(), random(), gen_random_uuid()::text, clock_timestamp()", &[])
        .await
        .unwrap();
    assert!((0.0..1.0).contains(&told.get::<_, f64>(1)));
    assert_eq!(
        value(&client, "SELECT count(DISTINCT f) = 6 AND count(DISTINCT e) = 6 AND count(a) = 6 FROM chance")
            .await,
        "t"
    );
    // One transaction, one time.
    assert_eq!(value(&client, "SELECT count(DISTINCT (a, b)) FROM chance WHERE id < 10").await, "1");
    assert_eq!(fails(&client, "SELECT 'now'::timestamptz").await, "0A000");
    assert_eq!(fails(&client, "SELECT ctid FROM chance").await, "0A000");
    proxy.identical().await;
}

async fn deferred_constraints(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE place (id int PRIMARY KEY, place int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE head (id int PRIMARY KEY);
         CREATE TABLE tail (id int PRIMARY KEY, head int REFERENCES head DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO place VALUES (1, 1), (2, 2)",
    )
    .await;
    run(&client, "BEGIN; UPDATE place SET place = 3 - place; COMMIT").await;
    run(&client, "BEGIN; INSERT INTO place VALUES (3, 1)").await;
    assert_eq!(fails(&client, "COMMIT").await, "23505");
    run(&client, "BEGIN; INSERT INTO tail VALUES (1, 1)").await;
    assert_eq!(fails(&client, "COMMIT").await, "23503");
    assert_eq!(fails(&client, "INSERT INTO place VALUES (4, 2)").await, "23505");
    run(&client, "BEGIN; INSERT INTO tail VALUES (1, 1); INSERT INTO head VALUES (1); COMMIT").await;
    assert_eq!(
        value(&client, "SELECT string_agg(id || ':' || place, ' ' ORDER BY id) FROM place").await,
        "1:2 2:1"
    );
    proxy.identical().await;
}

async fn triggers(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    run(
        &client,
        "CREATE TABLE watched (id int PRIMARY KEY, n int);
         CREATE TABLE history (id int, old int, new int, at timestamptz DEFAULT now());
         CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO history VALUES (NEW.id, OLD.n, NEW.n); RETURN NEW; END';
         CREATE TRIGGER watch AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
         INSERT INTO watched VALUES (1, 1), (2, 2);
         UPDATE watched SET n = n * 10;
         UPDATE watched SET n = n + 1 WHERE id = 2",
    )
    .await;
    assert_eq!(value(&client, "SELECT sum(new - old) FROM history").await, "28");
    proxy.identical().await;
}
