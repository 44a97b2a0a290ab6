//! The schema steeldb: replicated functions, what is refused, what is protected.

mod common;

use common::{CLIENT_ROLE, TestServer};
use steeldb_postgres::roles::{self, RoleRefused};
use steeldb_postgres::transaction::{self, Record};
use steeldb_postgres::{AGENT_ROLE, migrations};
use steeldb_types::{Digest, Position, TxId};

const NOW: &str = "2023-11-14 22:13:20.123456+00";

#[tokio::test]
async fn installing_twice_changes_nothing() {
    let server = TestServer::shared();
    let mut db = server.database("twice").await;
    assert_eq!(migrations::install(&mut db.admin).await.unwrap(), Vec::<u32>::new());
    db.admin.simple("UPDATE steeldb.migration SET digest = 'x' WHERE number = 2").await.unwrap();
    let changed = migrations::install(&mut db.admin).await.unwrap_err();
    assert!(matches!(changed, migrations::MigrationError::Changed { number: 2 }));
}

#[tokio::test]
async fn time_is_the_slots() {
    let server = TestServer::shared();
    let mut db = server.database("times").await;
    for (expression, expected) in [
        ("now()", NOW),
        ("transaction_timestamp()", NOW),
        ("statement_timestamp()", NOW),
        ("clock_timestamp()", NOW),
        ("timeofday()", "Tue Nov 14 22:13:20.123456 2023 UTC"),
        ("steeldb.\"current_timestamp\"()", NOW),
        ("steeldb.\"current_timestamp\"(0)", "2023-11-14 22:13:20+00"),
        ("steeldb.\"current_date\"()", "2023-11-14"),
        ("steeldb.\"current_time\"()", "22:13:20.123456+00"),
        ("steeldb.\"current_time\"(2)", "22:13:20.12+00"),
        ("steeldb.\"localtime\"()", "22:13:20.123456"),
        ("steeldb.\"localtime\"(1)", "22:13:20.1"),
        ("steeldb.\"localtimestamp\"()", "2023-11-14 22:13:20.123456"),
        ("steeldb.\"localtimestamp\"(3)", "2023-11-14 22:13:20.123"),
    ] {
        assert_eq!(db.value(&format!("SELECT {expression}")).await, expected, "{expression}");
    }
    let plan = "EXPLAIN (VERBOSE, COSTS OFF) SELECT 1 FROM pg_class WHERE now() < now() + relpages * '1 s'::interval";
    db.begin().await;
    let plan = db.client.simple(plan).await.unwrap();
    db.client.simple("ROLLBACK").await.unwrap();
    assert!(format!("{:?}", plan.rows).contains("current_setting"), "now() is inlined: {:?}", plan.rows);
    // Without an agreed time there is an error, never the local clock.
    assert_eq!(db.client.simple("SELECT now()").await.unwrap_err().sqlstate(), Some("55000"));
}

#[tokio::test]
async fn e1_a_session_knows_its_transaction() {
    let server = TestServer::shared();
    let mut db = server.database("current_tx").await;
    assert_eq!(db.value("SELECT steeldb.current_tx()").await, common::start().tx.to_string());
    // A savepoint takes nothing back, and outside a transaction there is none.
    db.begin().await;
    db.client.simple("SAVEPOINT s; ROLLBACK TO s").await.unwrap();
    let inside = db.client.simple("SELECT steeldb.current_tx()").await.unwrap();
    assert_eq!(inside.value(), Some(common::start().tx.to_string().as_str()));
    db.client.simple("ROLLBACK").await.unwrap();
    assert_eq!(db.client.simple("SELECT steeldb.current_tx()").await.unwrap().value(), None);
}

#[tokio::test]
async fn names_resolve_as_an_application_expects() {
    let server = TestServer::shared();
    let mut db = server.database("names").await;
    db.commit(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz DEFAULT now(), u uuid DEFAULT gen_random_uuid())",
    )
    .await;
    assert_eq!(
        db.value("SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 't'").await,
        "public"
    );
    db.commit("INSERT INTO t (id) VALUES (1)").await;
    assert_eq!(db.value("SELECT at FROM t").await, NOW);
    assert_eq!(
        db.value("SELECT 'a' || 1 || lower('B') || count(*)::text FROM t WHERE id = ANY ('{1}')").await,
        "a1b1"
    );
    assert_eq!(
        db.value(
            "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass AND adnum = 2"
        )
        .await,
        "now()"
    );
    db.commit("CREATE SCHEMA app AUTHORIZATION app; CREATE TABLE own (id int)").await;
    assert_eq!(
        db.value("SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'own'").await,
        "app"
    );
    // The agent's own sessions are not affected.
    let real = db.admin.simple("SELECT now() > '2024-01-01'").await.unwrap();
    assert_eq!(real.value(), Some("t"));
}

#[tokio::test]
async fn uuids_and_random_numbers_are_the_transactions() {
    let server = TestServer::shared();
    let mut db = server.database("uuids").await;
    let sql = "SELECT string_agg(gen_random_uuid()::text || random()::text, ' ') FROM generate_series(1, 3)";
    let first = db.value(sql).await;
    assert_eq!(db.value(sql).await, first);
    assert_eq!(first.as_bytes()[14], b'4');
    assert!(b"89ab".contains(&first.as_bytes()[19]));
    let distinct = db.value("SELECT count(DISTINCT gen_random_uuid()) FROM generate_series(1, 1000)").await;
    assert_eq!(distinct, "1000");
    // Not even a rollback to a savepoint draws one again.
    db.begin().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        db.client.simple("SAVEPOINT s").await.unwrap();
        seen.push(db.client.simple("SELECT gen_random_uuid()").await.unwrap().rows);
        db.client.simple("ROLLBACK TO s").await.unwrap();
    }
    db.client.simple("ROLLBACK").await.unwrap();
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn a5_a_record_needs_the_agents_mac() {
    let server = TestServer::shared();
    let mut db = server.database("records").await;
    let tx = TxId { counter: 9, ..TxId::default() };
    let record = Record { tx, slot: Position(5), operations: 3, transcript: Digest::of("t", &[]) };
    let sql = record.sql(&db.secret, false);
    let other_tx = Record { tx: TxId { counter: 8, ..tx }, ..record.clone() };
    let other_slot = Record { slot: Position(6), ..record.clone() };
    let other_operations = Record { operations: 4, ..record.clone() };
    let other_transcript = Record { transcript: Digest::of("u", &[]), ..record.clone() };
    for other in [other_tx, other_slot, other_operations, other_transcript] {
        let mac = |record: &Record| hex::encode(db.secret.mac(record));
        let forged = sql.replacen(&mac(&record), &mac(&other), 1);
        assert_ne!(forged, sql);
        let error = db.client.simple(&forged).await.unwrap_err();
        assert_eq!(error.sqlstate(), Some("42501"), "{forged}");
    }
    assert!(!transaction::is_recorded(&mut db.admin, tx).await.unwrap());
    transaction::record_transaction(&mut db.client, &db.secret, &record).await.unwrap();
    assert!(transaction::is_recorded(&mut db.admin, tx).await.unwrap());
    let again = transaction::record_transaction(&mut db.client, &db.secret, &record).await.unwrap_err();
    assert_eq!(again.sqlstate(), Some("23505"));
    let null =
        db.client.simple("SELECT steeldb.record_transaction('\\x01', 1, 1, '\\x01', NULL, false)").await;
    null.unwrap();
    let rows = db.admin.simple("SELECT count(*) FROM steeldb.transaction").await.unwrap();
    assert_eq!(rows.value(), Some("1"));
}

#[tokio::test]
async fn clients_cannot_tamper_with_the_schema() {
    let server = TestServer::shared();
    let mut db = server.database("tamper").await;
    for sql in [
        "INSERT INTO steeldb.transaction VALUES ('\\x00', 1, 1, '\\x00')",
        "DELETE FROM steeldb.transaction",
        "TRUNCATE steeldb.transaction",
        "SELECT * FROM steeldb.agent_secret",
        "INSERT INTO steeldb.ddl_command VALUES ('end', 'X')",
        "INSERT INTO steeldb.allowed_extension VALUES ('dblink')",
        "CREATE TABLE steeldb.t (a int)",
        "CREATE FUNCTION steeldb.now(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION steeldb.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'",
        "ALTER FUNCTION steeldb.record_transaction(bytea, int8, int4, bytea, bytea, bool) SECURITY INVOKER",
        "DROP SCHEMA steeldb CASCADE",
        "CREATE TRIGGER x BEFORE INSERT ON steeldb.transaction FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER EVENT TRIGGER steeldb_ddl_end DISABLE",
        "DROP EVENT TRIGGER steeldb_ddl_end",
        "SET session_replication_role = replica",
        "SET SESSION AUTHORIZATION steeldb_agent",
        "SET ROLE steeldb_agent",
        "SELECT steeldb.fix_replica_identities()",
        "SELECT * FROM steeldb.catalog_lines()",
        "SELECT pg_notify('a', 'b')",
        "SELECT pg_export_snapshot()",
        "SELECT pg_logical_emit_message(true, 'a', 'b')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_terminate_backend(1)",
        "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION steeldb.on_ddl_end()",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ] {
        assert_eq!(db.refused(sql).await, "42501", "{sql}");
    }
    db.value("SELECT pg_advisory_xact_lock(1)").await;
}

#[tokio::test]
async fn what_cannot_be_replicated_is_refused() {
    let server = TestServer::shared();
    let mut db = server.database("refuse").await;
    db.commit("CREATE TABLE t (a int)").await;
    db.commit("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'").await;
    db.commit("CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()").await;
    for sql in [
        "CREATE UNLOGGED TABLE u (a int)",
        "ALTER TABLE t SET UNLOGGED",
        "CREATE TEMP TABLE u (a int)",
        "CREATE TEMP TABLE u AS SELECT 1 AS a",
        "CREATE TEMP SEQUENCE s",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE PUBLICATION p FOR TABLE t",
        "DROP PUBLICATION steeldb",
        "CREATE EXTENSION pgcrypto",
        "ALTER TABLE t ENABLE ALWAYS TRIGGER g",
        "ALTER TABLE t ENABLE REPLICA TRIGGER g",
    ] {
        assert_eq!(db.refused(sql).await, "0A000", "{sql}");
    }
    db.commit("ALTER TABLE t DISABLE TRIGGER g").await;
}

#[tokio::test]
async fn every_table_keeps_the_right_replica_identity() {
    let server = TestServer::shared();
    let mut db = server.database("identity").await;
    let identity = "SELECT string_agg(relname || ':' || relreplident::text, ' ' ORDER BY relname) \
                    FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace";
    for (sql, expected) in [
        ("CREATE TABLE k (id int PRIMARY KEY, v varchar(100))", "k:d"),
        ("CREATE TABLE n (a int)", "k:d n:f"),
        ("CREATE TABLE w (id int PRIMARY KEY, v text)", "k:d n:f w:f"),
        ("ALTER TABLE n ADD PRIMARY KEY (a)", "k:d n:d w:f"),
        ("ALTER TABLE n DROP CONSTRAINT n_pkey", "k:d n:f w:f"),
        ("ALTER TABLE k ADD COLUMN j jsonb", "k:f n:f w:f"),
        ("ALTER TABLE k DROP COLUMN j", "k:d n:f w:f"),
        ("ALTER TABLE k ALTER v TYPE varchar(600)", "k:f n:f w:f"),
        ("ALTER TABLE k ALTER v TYPE varchar(60), REPLICA IDENTITY NOTHING", "k:d n:f w:f"),
        ("DROP TABLE n, w", "k:d"),
        ("CREATE TYPE e AS ENUM ('a'); CREATE TABLE c (e e PRIMARY KEY, x int)", "c:d k:d"),
        ("DROP TYPE e CASCADE", "c:f k:d"),
        ("CREATE TABLE p (a int PRIMARY KEY, v int) PARTITION BY RANGE (a)", "c:f k:d p:d"),
        ("CREATE TABLE q PARTITION OF p FOR VALUES FROM (0) TO (9)", "c:f k:d p:d q:d"),
        ("ALTER TABLE p ADD COLUMN t text", "c:f k:d p:f q:f"),
        ("CREATE TABLE s AS SELECT 1 AS a", "c:f k:d p:f q:f s:f"),
        ("CREATE TABLE d (a int PRIMARY KEY DEFERRABLE)", "c:f d:f k:d p:f q:f s:f"),
    ] {
        db.commit(sql).await;
        assert_eq!(db.value(identity).await, expected, "{sql}");
    }
    // The declared sizes never say no where PostgreSQL made a TOAST table.
    let missed = "SELECT count(*) FROM pg_class WHERE reltoastrelid <> 0 AND relreplident <> 'f' AND relnamespace = 'public'::regnamespace";
    for (index, columns) in [
        "v varchar(480)",
        "v varchar(500)",
        "n numeric(1000)",
        "v bit(16000)",
        "a text[]",
        "c char(505), i int",
        "b bit varying(15000)",
    ]
    .iter()
    .enumerate()
    {
        db.commit(&format!("CREATE TABLE sized{index} (id int PRIMARY KEY, {columns})")).await;
    }
    assert_eq!(db.value(&format!("{missed} AND relname LIKE 'sized%'")).await, "0");
}

#[tokio::test]
async fn a4_roles_that_reach_past_the_database_are_refused() {
    let server = TestServer::shared();
    let mut db = server.database("rolecheck").await;
    roles::check_role(&mut db.admin, CLIENT_ROLE).await.unwrap();
    db.admin
        .simple(
            "CREATE ROLE r_super LOGIN SUPERUSER; CREATE ROLE r_repl LOGIN REPLICATION; CREATE ROLE r_create LOGIN CREATEROLE; \
             CREATE ROLE r_files LOGIN; GRANT pg_read_server_files TO r_files; \
             CREATE ROLE r_group NOLOGIN; GRANT pg_execute_server_program TO r_group; \
             CREATE ROLE r_member LOGIN NOINHERIT; GRANT r_group TO r_member; \
             CREATE ROLE r_data LOGIN; GRANT pg_write_all_data TO r_data",
        )
        .await
        .unwrap();
    for role in ["r_super", "r_repl", "r_create", "r_files", "r_member", "r_data", AGENT_ROLE] {
        let refused = roles::check_role(&mut db.admin, role).await.unwrap_err();
        assert!(matches!(refused, RoleRefused::TooPowerful { .. }), "{role}: {refused}");
    }
    for role in ["r_group", "nobody", "x'; DROP ROLE app; --"] {
        let refused = roles::check_role(&mut db.admin, role).await.unwrap_err();
        assert!(matches!(refused, RoleRefused::NoLogin { .. }), "{role}: {refused}");
    }
}

#[tokio::test]
async fn a9_whether_a_transaction_wrote_is_known() {
    let server = TestServer::shared();
    let mut db = server.database("wrote").await;
    db.commit("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    for (sql, wrote) in
        [("SELECT * FROM t", "f"), ("SELECT * FROM t FOR UPDATE", "t"), ("DELETE FROM t", "t")]
    {
        db.begin().await;
        db.client.simple(sql).await.unwrap();
        assert_eq!(
            db.client.simple(&transaction::complete_sql("", false)).await.unwrap().value(),
            Some(wrote),
            "{sql}"
        );
        db.client.simple("ROLLBACK").await.unwrap();
    }
}
