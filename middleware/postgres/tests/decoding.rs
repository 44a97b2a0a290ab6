//! Write sets from two-phase decoding, on servers with different histories.

mod common;

use common::{Database, TestServer, next};
use steeldb_postgres::decoding::{Decoded, DecodingStream};
use steeldb_postgres::{Operation, PUBLICATION, WriteSet};

/// The write sets of the same transaction on two databases.
async fn both(
    a: (&mut Database<'_>, &mut DecodingStream),
    b: (&mut Database<'_>, &mut DecodingStream),
    sql: &str,
) -> (WriteSet, WriteSet) {
    // The record is in the write set, so both must run it as the same transaction.
    a.0.counter = a.0.counter.max(b.0.counter);
    b.0.counter = a.0.counter;
    (a.0.write_set(a.1, sql).await, b.0.write_set(b.1, sql).await)
}

#[tokio::test]
async fn g2_equal_transactions_have_equal_write_sets_whatever_the_history() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("history_a").await, server.database("history_b").await);
    // The same tables and rows, by different ways: other OIDs, column order, dropped columns, dead rows, and values that
    // are TOASTed in one alone.
    a.commit(
        "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, j jsonb, f float8, b bytea); \
         CREATE TABLE nokey (a int, c char(5), x text)",
    )
    .await;
    b.commit("CREATE TABLE junk (a int)").await;
    b.commit(
        "CREATE TABLE nokey (x text, c char(5), a int); \
         CREATE TABLE t (b bytea, gone text, f float8, j jsonb, n numeric, v text, id int PRIMARY KEY)",
    )
    .await;
    b.commit("ALTER TABLE t DROP COLUMN gone").await;
    let rows = "INSERT INTO t (id, v, n, j, f, b) SELECT i, repeat(md5(i::text), 200), i / 3.0, '{\"a\": 1}', i / 3.0, '\\x00ff' \
                FROM generate_series(1, 20) AS i; \
                INSERT INTO nokey (a, c, x) SELECT i % 3, 'c', CASE WHEN i % 2 = 0 THEN 'x' END FROM generate_series(1, 9) AS i";
    a.commit(rows).await;
    b.commit("ALTER TABLE t ALTER v SET STORAGE EXTERNAL").await;
    b.commit(rows).await;
    b.commit("UPDATE t SET n = n; UPDATE t SET v = v || ''; UPDATE nokey SET a = a").await;
    for db in [&mut a, &mut b] {
        db.commit("ANALYZE").await;
    }
    b.admin.simple("VACUUM FULL").await.unwrap();
    let (mut sa, mut sb) = (a.stream().await, b.stream().await);
    for (sql, changes) in [
        ("UPDATE t SET n = n + 1", 21),
        ("UPDATE t SET id = id + 100 WHERE id < 5", 5),
        ("UPDATE t SET v = 'short' WHERE id = 7", 2),
        ("UPDATE nokey SET x = x || 'y' WHERE a = 1", 4),
        ("DELETE FROM nokey WHERE a = 2", 4),
        ("DELETE FROM t WHERE id = 8", 2),
        ("INSERT INTO t (id, f) VALUES (1000, 'NaN'), (1001, 1e-300)", 3),
        ("SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; UPDATE t SET f = -0.0 WHERE id = 9", 2),
    ] {
        let (wa, wb) = both((&mut a, &mut sa), (&mut b, &mut sb), sql).await;
        assert_eq!(wa.changes_len(), changes, "{sql}");
        assert_eq!(
            wa.digest().unwrap(),
            wb.digest().unwrap(),
            "{sql}\n{:?}\n{:?}",
            wa.changes(),
            wb.changes()
        );
        assert!(!wa.truncates() && wa.ddl().is_empty());
    }
    let (wa, wb) = both((&mut a, &mut sa), (&mut b, &mut sb), "UPDATE nokey SET a = 5 WHERE a = 1").await;
    assert_eq!(wa.digest(), wb.digest());
    let wc = a.write_set(&mut sa, "UPDATE nokey SET a = 6 WHERE a = 5").await;
    assert_ne!(wa.digest(), wc.digest());
}

#[tokio::test]
async fn g4_a_transaction_without_row_changes_has_its_record() {
    let server = TestServer::shared();
    let mut db = server.database("empty").await;
    db.commit("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    let mut stream = db.stream().await;
    let set = db.write_set(&mut stream, "SELECT * FROM t FOR UPDATE").await;
    assert_eq!(set.changes_len(), 1);
    assert_eq!(set.changes()[0].relation(), "steeldb.transaction");
}

#[tokio::test]
async fn g5_truncate_of_a_leaf_partition_is_seen() {
    let server = TestServer::shared();
    let mut db = server.database("leaf").await;
    db.commit(
        "CREATE TABLE p (a int, v text) PARTITION BY RANGE (a); CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (10) TO (20)",
    )
    .await;
    let mut stream = db.stream().await;
    let set = db.write_set(&mut stream, "INSERT INTO p VALUES (1, 'x'); UPDATE p SET a = 11").await;
    let relations: Vec<String> = set.changes().iter().map(|change| change.relation()).collect();
    assert_eq!(relations, ["public.p0", "public.p0", "public.p1", "steeldb.transaction"]);
    let set = db.write_set(&mut stream, "TRUNCATE p1").await;
    assert!(set.truncates());
    assert_eq!(set.changes()[0].relation(), "public.p1");
    assert!(matches!(set.changes()[0].operation, Operation::Truncate { restart_identity: false }));
    let again = db.write_set(&mut stream, "TRUNCATE p RESTART IDENTITY").await;
    assert!(matches!(again.changes()[0].operation, Operation::Truncate { restart_identity: true }));
}

#[tokio::test]
async fn b13_a_table_without_a_key_can_be_updated() {
    let server = TestServer::shared();
    let mut db = server.database("nokey").await;
    let mut stream = db.stream().await;
    let set = db
        .write_set(&mut stream, "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1); UPDATE t SET a = 2")
        .await;
    assert_eq!(set.changes().iter().filter(|c| matches!(c.operation, Operation::Update { .. })).count(), 2);
}

#[tokio::test]
async fn ddl_shows_in_the_write_set() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("ddl_a").await, server.database("ddl_b").await);
    b.commit("CREATE TABLE junk (a int); DROP TABLE junk").await;
    let (mut sa, mut sb) = (a.stream().await, b.stream().await);
    let mut tags = Vec::new();
    for sql in [
        "CREATE TABLE t (id serial PRIMARY KEY, v text)",
        "ALTER TABLE t ADD COLUMN w int DEFAULT random() * 10",
        "ALTER TABLE t ALTER w TYPE text",
        "CREATE VIEW vw AS SELECT * FROM t",
        "GRANT SELECT ON t TO PUBLIC",
        "DROP TABLE t CASCADE",
    ] {
        let (wa, wb) = both((&mut a, &mut sa), (&mut b, &mut sb), sql).await;
        assert_eq!(
            wa.digest().unwrap(),
            wb.digest().unwrap(),
            "{sql}\n{:?}\n{:?}",
            wa.changes(),
            wb.changes()
        );
        tags.extend(wa.ddl().iter().map(|d| format!("{} {} {}", d.phase, d.command_tag, d.identity)));
    }
    for expected in [
        "end CREATE TABLE public.t",
        "rewrite ALTER TABLE public.t",
        "end CREATE VIEW public.vw",
        "end GRANT ",
        "drop DROP TABLE public.t",
        "drop DROP TABLE public.vw",
    ] {
        assert!(tags.iter().any(|tag| tag == expected), "{expected} in {tags:?}");
    }
    // The agent's own DDL leaves no trace.
    a.admin.simple("CREATE TABLE public.agents (a int); DROP TABLE public.agents").await.unwrap();
    let seen = a
        .admin
        .simple("SELECT count(*) FROM steeldb.ddl_command WHERE object_identity LIKE '%agents%'")
        .await;
    assert_eq!(seen.unwrap().value(), Some("0"));
}

#[tokio::test]
async fn outcomes_are_seen_and_confirmed_transactions_do_not_come_again() {
    let server = TestServer::shared();
    let mut db = server.database("outcomes").await;
    db.commit("CREATE TABLE t (a int)").await;
    let mut stream = db.stream().await;
    db.begin().await;
    db.client.simple("INSERT INTO t VALUES (1)").await.unwrap();
    db.prepare().await;
    let Decoded::Prepared { gid, lsn: first, .. } = next(&mut stream).await else { panic!("not prepared") };
    assert_eq!(gid, db.gid());
    db.resolve(false).await;
    let Decoded::Resolved { committed: false, lsn: rolled_back, .. } = next(&mut stream).await else {
        panic!("not rolled back")
    };
    assert!(rolled_back > first);
    // A plain commit of the agent is passed over.
    db.admin.simple("INSERT INTO public.t VALUES (5)").await.unwrap();
    db.begin().await;
    db.client.simple("INSERT INTO t VALUES (2)").await.unwrap();
    db.prepare().await;
    let Decoded::Prepared { gid, lsn, write_set } = next(&mut stream).await else { panic!("not prepared") };
    assert_eq!((gid, write_set.changes_len()), (db.gid(), 2));
    stream.confirm(rolled_back).await.unwrap();

    // Started again, what was not confirmed comes again with the same digest, and nothing before it.
    drop(stream);
    let mut stream = restart(&server, &mut db).await;
    let again = next(&mut stream).await;
    assert_eq!(again, Decoded::Prepared { gid: db.gid(), lsn, write_set });
    stream.confirm(lsn).await.unwrap();
    drop(stream);
    let mut stream = restart(&server, &mut db).await;
    db.resolve(true).await;
    let Decoded::Resolved { gid, committed: true, .. } = next(&mut stream).await else {
        panic!("not committed")
    };
    assert_eq!(gid, db.gid());
}

/// Starts the stream again once the old walsender has let the slot go.
async fn restart(server: &TestServer, db: &mut Database<'_>) -> DecodingStream {
    let slot = format!("slot_{}", db.name);
    let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while db.admin.simple(&active).await.unwrap().value() != Some("f") {}
    DecodingStream::start(server.server.socket_dir(), &db.name, &slot, PUBLICATION).await.unwrap()
}

#[tokio::test]
async fn a2_equal_results_with_different_effects_have_different_write_sets() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("a2_a").await, server.database("a2_b").await);
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v varchar(10)); INSERT INTO t VALUES (1, 'old'); \
                 CREATE FUNCTION addk() RETURNS int LANGUAGE sql AS $$ INSERT INTO t VALUES (1, 'new') ON CONFLICT DO NOTHING; SELECT 0 $$";
    a.commit(setup).await;
    b.commit(setup).await;
    b.commit("DELETE FROM t").await;
    let (mut sa, mut sb) = (a.stream().await, b.stream().await);
    let (wa, wb) = both((&mut a, &mut sa), (&mut b, &mut sb), "SELECT addk()").await;
    assert_ne!(wa.digest(), wb.digest());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_what_the_stream_never_confirms() {
    let server = TestServer::start();
    let mut db = server.database("stopping").await;
    let mut stream = db.stream().await;
    db.commit("CREATE TABLE t (a int)").await;
    let Decoded::Prepared { lsn, .. } = next(&mut stream).await else { panic!("not prepared") };
    stream.confirm(lsn).await.unwrap();
    let reading = tokio::spawn(async move { while stream.next().await.is_ok() {} });
    drop(db);
    let stopped = tokio::task::spawn_blocking(move || {
        let log = server.server.data_dir().join(steeldb_postgres::server::LOG_FILE);
        let TestServer { server, _dir } = server;
        server.stop().unwrap();
        std::fs::read_to_string(log).unwrap()
    });
    let log = tokio::time::timeout(common::HANG, stopped).await.unwrap().unwrap();
    tokio::time::timeout(common::HANG, reading).await.unwrap().unwrap();
    // A shutdown that had to be forced would not have been this one.
    assert!(!log.contains("immediate shutdown"), "{log}");
}
