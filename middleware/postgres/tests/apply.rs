//! A write set applied on another server makes the same rows, by the digests of the tables.

mod common;

use common::{Database, TestServer};
use steeldb_postgres::apply::{ApplyError, Applying, apply_write_set, apply_write_sets};
use steeldb_postgres::decoding::DecodingStream;
use steeldb_postgres::digest::{self, TableDigest};
use steeldb_postgres::{Change, Identity, Operation, Row, WriteSet};
use steeldb_types::Digest;
use steeldb_wire::codec;

async fn digests(db: &mut Database<'_>, salt: &[u8]) -> (Vec<TableDigest>, Digest) {
    db.admin.simple("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    let tables = digest::table_digests(&mut db.admin, salt).await.unwrap();
    let catalog = digest::catalog_digest(&mut db.admin).await.unwrap();
    db.admin.simple("COMMIT").await.unwrap();
    (tables, catalog)
}

/// Runs `sql` at `from` and applies its write set, as shipped, at `to`.
async fn ship(from: &mut Database<'_>, stream: &mut DecodingStream, to: &mut Database<'_>, sql: &str) {
    let write_set = from.write_set(stream, sql).await;
    let bytes = codec::encode(&write_set);
    let shipped: WriteSet = codec::decode(&bytes, bytes.len()).unwrap();
    assert_eq!(shipped.digest(), write_set.digest());
    let applied = apply_write_set(&mut to.admin, &shipped).await;
    assert_eq!(applied.unwrap_or_else(|error| panic!("{sql}: {error}")), write_set.changes_len());
    to.admin.simple("COMMIT").await.unwrap();
    let salt = sql.as_bytes();
    let (a, b) = (digests(from, salt).await, digests(to, salt).await);
    assert_eq!(a.0, b.0, "{sql}");
    assert!(
        a.0.iter().any(|table| table.schema == "steeldb" && table.table == "transaction" && table.rows > 0)
    );
}

#[tokio::test]
async fn a_write_set_makes_the_same_rows_elsewhere() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("ship_a").await, server.database("ship_b").await);
    let tables = [
        "CREATE TABLE \"Odd \"\"name\" (id int PRIMARY KEY, \"sel ect\" text, g int GENERATED ALWAYS AS (id * 2) STORED)",
        "CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v varchar(20) NOT NULL DEFAULT 'd')",
        "CREATE TABLE nokey (a int, c char(5), b bool, t text)",
        "CREATE TYPE mood AS ENUM ('sad', 'it''s'); CREATE DOMAIN pos AS int CHECK (VALUE > 0); \
         CREATE TYPE pair AS (x int, y text); \
         CREATE TABLE types (id uuid PRIMARY KEY, j json, jb jsonb, a text[], m mood, p pos, r int4range, c pair, \
         f4 float4, f8 float8, n numeric(20, 5), mo money, ts timestamptz, i interval, by bytea, ip inet, pt point, x xml, bi bit(5))",
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent)",
        "CREATE TABLE part (a int, v text) PARTITION BY RANGE (a); CREATE TABLE part0 PARTITION OF part FOR VALUES FROM (0) TO (10); \
         CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (10) TO (20)",
        "CREATE TABLE uniq (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE later (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)",
        "CREATE TABLE nocolumns ()",
        "CREATE TABLE audited (a int PRIMARY KEY); CREATE TABLE log (a int); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (NEW.a); RETURN NEW; END'; \
         CREATE TRIGGER note AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note()",
    ];
    for sql in tables {
        a.commit(sql).await;
        b.commit(sql).await;
    }
    let (ca, cb) = (digests(&mut a, b"").await.1, digests(&mut b, b"").await.1);
    // The databases' own names and settings differ; nothing else may.
    let lines = "SELECT line FROM steeldb.catalog_lines() AS l (line) WHERE line NOT LIKE '%ship_%' AND line NOT LIKE '(role%' ORDER BY 1";
    let (la, lb) = (a.admin.simple(lines).await.unwrap().rows, b.admin.simple(lines).await.unwrap().rows);
    let differ: Vec<_> = la.iter().filter(|line| !lb.contains(line)).collect();
    assert!(differ.is_empty() && la.len() == lb.len(), "{differ:?}");
    assert!(la.len() > 50 && ca != cb);

    let mut stream = a.stream().await;
    for sql in [
        "INSERT INTO \"Odd \"\"name\" SELECT i, 'it''s \\ ' || i FROM generate_series(1, 1200) AS i",
        "UPDATE \"Odd \"\"name\" SET \"sel ect\" = repeat(md5(id::text), 300) WHERE id < 4",
        "UPDATE \"Odd \"\"name\" SET id = id + 5000 WHERE id < 6",
        "DELETE FROM \"Odd \"\"name\" WHERE id % 100 = 0",
        "INSERT INTO ident (v) VALUES ('a'), ('b'), (DEFAULT)",
        "UPDATE ident SET v = v || '!' WHERE v <> 'a'",
        "UPDATE ident SET id = DEFAULT WHERE v = 'a'",
        "INSERT INTO nokey SELECT i % 2, 'x', i % 2 = 0, CASE WHEN i % 3 > 0 THEN 't ' END FROM generate_series(1, 12) AS i; \
         INSERT INTO nokey VALUES (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL)",
        "UPDATE nokey SET c = 'y' WHERE a = 1",
        "DELETE FROM nokey WHERE ctid IN (SELECT ctid FROM nokey WHERE a = 0 LIMIT 2)",
        "DELETE FROM nokey WHERE a IS NULL",
        "INSERT INTO types VALUES (gen_random_uuid(), '{\"a\" :  1}', '{\"a\": [null, \"x\"]}', '{a,NULL,\"b,c\",\"\"}', 'it''s', 3, '[1,5)', \
         ROW(1, 'y\"'), 'NaN', 0.1, 1.50, '12.34', now(), '1 mon 2 days 03:00', '\\x00ff', '10.0.0.1', '(1.5,2)', '<a>b</a>', B'10101'), \
         (gen_random_uuid(), NULL, 'null', '{}', NULL, NULL, 'empty', NULL, '-Infinity', 1e300, 0, '-1', 'infinity', '-1 s', '', '::1/64', \
         NULL, '', NULL)",
        "UPDATE types SET f4 = 1, j = '[]' WHERE j IS NULL",
        "DELETE FROM types WHERE mo < '0'",
        "INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2)",
        "INSERT INTO part VALUES (1, 'x'), (11, 'y'), (12, 'y')",
        "UPDATE part SET a = a + 10 WHERE a < 10; UPDATE part SET v = 'z'",
        "INSERT INTO uniq VALUES (1, 1), (2, 2)",
        "UPDATE uniq SET u = 3 - u",
        "INSERT INTO later SELECT i, 'same' FROM generate_series(1, 5) AS i",
        "UPDATE later SET id = id + 1",
        "INSERT INTO nocolumns DEFAULT VALUES",
        "INSERT INTO audited VALUES (1), (2)",
        "TRUNCATE part1",
        "TRUNCATE parent CASCADE",
        "TRUNCATE part RESTART IDENTITY; INSERT INTO part VALUES (3, 'w')",
    ] {
        ship(&mut a, &mut stream, &mut b, sql).await;
    }
}

/// The write set names the whole old row, since a value may be TOASTed; its primary key identifies it all the same.
#[tokio::test]
async fn a_row_that_differs_is_healed_where_there_is_a_primary_key() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("heal_a").await, server.database("heal_b").await);
    for db in [&mut a, &mut b] {
        db.commit("CREATE TABLE keyed (key text, part int, list text[], seen int, PRIMARY KEY (key, part) INCLUDE (seen))").await;
        db.commit("CREATE TABLE nokey (key text, list text[])").await;
        db.commit("INSERT INTO keyed SELECT 'k' || i, 1, '{a}', 0 FROM generate_series(1, 4) AS i").await;
        db.commit("INSERT INTO nokey VALUES ('k1', '{a}')").await;
        let identity =
            "SELECT count(*) FROM pg_class WHERE relname IN ('keyed', 'nokey') AND relreplident = 'f'";
        assert_eq!(db.admin.simple(identity).await.unwrap().value(), Some("2"));
    }
    b.admin.simple("UPDATE public.keyed SET list = '{tampered}', seen = 7 WHERE key <> 'k4'").await.unwrap();
    let mut stream = a.stream().await;
    let sql = "UPDATE keyed SET list = list || '{b}' WHERE key = 'k1'; DELETE FROM keyed WHERE key = 'k2'; \
               UPDATE keyed SET part = 2 WHERE key = 'k3'";
    ship(&mut a, &mut stream, &mut b, sql).await;
    b.admin.simple("UPDATE public.nokey SET list = '{tampered}'").await.unwrap();
    let lost = a.write_set(&mut stream, "UPDATE nokey SET list = list || '{b}'").await;
    let error = apply_write_set(&mut b.admin, &lost).await.unwrap_err();
    assert!(matches!(error, ApplyError::NotOneRow { hit: 0, .. }), "{error}");
}

/// Changes in another order than they were made in: of another *w*, or they fail, or they make the same rows.
#[tokio::test]
async fn b13_changes_of_one_row_in_another_order_make_no_other_rows() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("order_a").await, server.database("order_b").await);
    for db in [&mut a, &mut b] {
        // Found by its key; by all values though it has a key; by all values.
        db.commit("CREATE TABLE keyed (id int PRIMARY KEY, v int)").await;
        db.commit("CREATE TABLE toasted (id text PRIMARY KEY, v text)").await;
        db.commit("CREATE TABLE nokey (v text)").await;
        db.commit("INSERT INTO keyed VALUES (1, 0); INSERT INTO toasted VALUES ('1', '0'); INSERT INTO nokey VALUES ('0')").await;
    }
    let mut stream = a.stream().await;
    let mut refused = 0;
    for (table, of_other_w) in [("keyed", true), ("toasted", false), ("nokey", false)] {
        // The last value is another one, and the one of before.
        for values in [["1", "2"], ["1", "0"]] {
            let sql = values.map(|value| format!("UPDATE {table} SET v = {value}")).join("; ");
            let write_set = a.write_set(&mut stream, &sql).await;
            let mut turned = write_set.changes().to_vec();
            let at: Vec<usize> = (0..turned.len()).filter(|at| turned[*at].table == table).collect();
            turned.swap(at[0], at[1]);
            let turned = WriteSet::new(turned);
            assert_eq!(turned.digest() != write_set.digest(), of_other_w, "{sql}");
            if !of_other_w {
                let error = apply_write_set(&mut b.admin, &turned).await.unwrap_err();
                assert!(matches!(error, ApplyError::NotOneRow { hit: 0, .. }), "{sql}: {error}");
                b.admin.simple("ROLLBACK").await.unwrap();
                // A bulk transaction's come in pieces.
                let mut pieces = Applying::default();
                assert!(pieces.apply(&mut b.admin, turned.changes()).await.is_err(), "{sql}");
                b.admin.simple("ROLLBACK").await.unwrap();
                refused += 1;
            }
            apply_write_set(&mut b.admin, &write_set).await.unwrap();
            b.admin.simple("COMMIT").await.unwrap();
            assert_eq!(digests(&mut a, b"order").await.0, digests(&mut b, b"order").await.0, "{sql}");
            let back = format!("UPDATE {table} SET v = 0");
            ship(&mut a, &mut stream, &mut b, &back).await;
        }
    }
    assert_eq!(refused, 4);
}

#[tokio::test]
async fn write_sets_of_several_commits_are_made_in_their_order_or_not_at_all() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("some_a").await, server.database("some_b").await);
    for db in [&mut a, &mut b] {
        db.commit("CREATE TABLE t (id int PRIMARY KEY, v text)").await;
    }
    let mut stream = a.stream().await;
    let mut sets = Vec::new();
    for sql in [
        "INSERT INTO t SELECT i, 'first' FROM generate_series(1, 3) AS i",
        "UPDATE t SET v = v || ', second'",
        "DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (2, repeat('long ', 300000))",
        "UPDATE t SET id = id + 10",
    ] {
        sets.push(a.write_set(&mut stream, sql).await);
    }
    let all: Vec<&WriteSet> = sets.iter().collect();
    assert!(apply_write_sets(&mut b.admin, &all[1..]).await.is_err(), "the rows of the first are missing");
    b.admin.simple("ROLLBACK").await.unwrap();
    let changes = apply_write_sets(&mut b.admin, &all).await.unwrap();
    b.admin.simple("COMMIT").await.unwrap();
    assert_eq!(changes, sets.iter().map(WriteSet::changes_len).sum::<u64>());
    assert_eq!(digests(&mut a, b"all").await.0, digests(&mut b, b"all").await.0);
}

#[tokio::test]
async fn a_row_that_is_not_there_is_an_error_that_names_it() {
    let server = TestServer::shared();
    let mut db = server.database("miss").await;
    db.commit("CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); INSERT INTO t VALUES (1, 'a')").await;
    let row = |id: &str| Row::new(vec![("id".into(), Some(id.into()))]).unwrap();
    let change = |table: &str, operation| {
        let identity = Identity::Key(vec![0]);
        Change { schema: "public".into(), table: table.into(), identity, operation }
    };
    let missing = WriteSet::new([change("t", Operation::Delete { old: row("7") })]);
    let error = apply_write_set(&mut db.admin, &missing).await.unwrap_err();
    assert_eq!(error.to_string(), "0 rows of public.t instead of one have id = 7");
    db.admin.simple("ROLLBACK").await.unwrap();
    let unknown = WriteSet::new([change("u", Operation::Delete { old: row("7") })]);
    assert!(matches!(apply_write_set(&mut db.admin, &unknown).await, Err(ApplyError::NoRelation { .. })));
    db.admin.simple("ROLLBACK").await.unwrap();
    db.admin.simple("CREATE RULE r AS ON INSERT TO public.t DO ALSO SELECT 1; ALTER TABLE public.t ENABLE ALWAYS RULE r").await.unwrap();
    let doubled = WriteSet::new([change("t", Operation::Delete { old: row("1") })]);
    assert!(matches!(apply_write_set(&mut db.admin, &doubled).await, Err(ApplyError::AlwaysTrigger { .. })));
}

#[tokio::test]
async fn table_digests_see_every_difference_and_no_order() {
    let server = TestServer::shared();
    let (mut a, mut b) = (server.database("digest_a").await, server.database("digest_b").await);
    a.commit("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, NULL), (2, NULL)").await;
    b.commit("CREATE TABLE t (b text, a int); INSERT INTO t VALUES (NULL, 2), (NULL, 2), ('x', 1)").await;
    let of = async |db: &mut Database<'_>| {
        digests(db, b"salt").await.0.into_iter().find(|t| t.table == "t").unwrap()
    };
    assert_eq!(of(&mut a).await, of(&mut b).await);
    for sql in [
        "UPDATE t SET b = '' WHERE b IS NULL AND ctid = (SELECT min(ctid) FROM t WHERE b IS NULL)",
        "UPDATE t SET b = 'null'",
        "DELETE FROM t WHERE a = 1",
        "INSERT INTO t (a) VALUES (2)",
    ] {
        let before = of(&mut b).await;
        b.commit(sql).await;
        assert_ne!(of(&mut b).await.digest, before.digest, "{sql}");
    }
    let catalog = digests(&mut b, b"").await.1;
    for sql in [
        "ALTER TABLE t ALTER a SET DEFAULT 3",
        "ALTER TABLE t ADD CHECK (a > 0)",
        "CREATE INDEX i ON t (a)",
        "GRANT SELECT ON t TO PUBLIC",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE OR REPLACE VIEW v AS SELECT a + 0 AS a FROM t",
        "CREATE TYPE e AS ENUM ('a', 'b')",
        "CREATE SEQUENCE s INCREMENT 2",
        "CREATE POLICY p ON t USING (a > 1)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "COMMENT ON TABLE t IS 'x'",
    ] {
        b.begin().await;
        b.client.simple(sql).await.unwrap();
        // The client's own changes are seen in its own session.
        let own = digest::catalog_digest(&mut b.client).await.unwrap();
        b.prepare().await;
        b.resolve(true).await;
        let after = digests(&mut b, b"").await.1;
        assert_ne!(after, catalog, "{sql}");
        assert_eq!(after, own, "{sql}");
    }
    b.admin.simple("CREATE ROLE made_later").await.unwrap();
    let before = digests(&mut b, b"").await.1;
    b.admin.simple("ALTER ROLE made_later VALID UNTIL '2030-01-01'").await.unwrap();
    assert_ne!(digests(&mut b, b"").await.1, before);
    assert_eq!(digests(&mut b, b"").await.1, digests(&mut b, b"").await.1);
}
