//! What a transaction's definitions may be reached by (rule 9, G6): `steeldb.ddl_reach`.

mod common;

use common::{Database, TestServer};
use std::collections::BTreeSet;

/// What is known when `sql` is complete: names, those that only who writes reaches in brackets.
async fn reach(db: &mut Database<'_>, statements: &[&str]) -> Option<BTreeSet<String>> {
    db.begin().await;
    for sql in statements {
        db.client.simple(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    let answer = db.client.simple("SELECT steeldb.ddl_reach()").await.unwrap();
    db.client.simple("ROLLBACK").await.unwrap();
    let names = answer.value()?.split(',').map(|item| {
        let (kind, digits) = item.split_at(1);
        let name = String::from_utf8(hex::decode(digits).unwrap()).unwrap();
        if kind == "w" { format!("({name})") } else { name }
    });
    Some(names.collect())
}

fn set(names: &[&str]) -> Option<BTreeSet<String>> {
    Some(names.iter().map(ToString::to_string).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_definitions_of_tables_name_them_and_what_hangs_on_them() {
    let server = TestServer::shared();
    let mut db = server.database("named").await;
    db.commit("CREATE TABLE p (id int PRIMARY KEY, n int)").await;
    db.commit("CREATE TABLE f (id int PRIMARY KEY, p int REFERENCES p)").await;
    db.commit("CREATE TABLE alone (id int PRIMARY KEY)").await;
    db.commit("CREATE VIEW v AS SELECT n FROM p").await;
    db.commit("CREATE VIEW vv AS SELECT n FROM v").await;
    db.commit("CREATE TABLE of_row (id int, r alone)").await;

    let new = set(&["t", "_t"]);
    assert_eq!(reach(&mut db, &["CREATE TABLE t (id int PRIMARY KEY)"]).await, new);
    assert_eq!(reach(&mut db, &["CREATE TABLE t AS SELECT * FROM p"]).await, new);
    assert_eq!(reach(&mut db, &["CREATE TABLE t (LIKE p INCLUDING ALL)"]).await, new);
    // Made and gone again.
    assert_eq!(reach(&mut db, &["CREATE TABLE t (id int)", "DROP TABLE t"]).await, new);
    let serial = reach(&mut db, &["CREATE TABLE t (id serial, i int GENERATED ALWAYS AS IDENTITY)"]).await;
    assert_eq!(serial, set(&["t", "_t", "t_id_seq", "t_i_seq"]));
    // The other side of a foreign key is reached by who writes.
    let referring = ["(f)", "(_f)", "(p)", "(_p)", "(v)", "(_v)", "(vv)", "(_vv)"];
    let with = |own: &[&str]| set(&[own, referring.as_slice()].concat());
    assert_eq!(reach(&mut db, &["CREATE TABLE t (id int REFERENCES p)"]).await, with(&["t", "_t"]));
    // Views are reached by who reads.
    let of_p = ["p", "_p", "v", "_v", "vv", "_vv", "(f)", "(_f)"];
    assert_eq!(reach(&mut db, &["ALTER TABLE p ADD COLUMN c text DEFAULT 'x'"]).await, set(&of_p));
    assert_eq!(
        reach(&mut db, &["CREATE INDEX ON alone (id)"]).await,
        set(&["alone", "_alone", "of_row", "_of_row"])
    );
    assert_eq!(
        reach(&mut db, &["ALTER TABLE f ALTER p TYPE bigint"]).await.map(|names| names.contains("f")),
        Some(true)
    );
    // A table that others referred to has lost a trigger of theirs.
    let gone = reach(&mut db, &["DROP TABLE f"]).await.unwrap();
    assert!(["f", "_f", "p", "v", "vv"].iter().all(|name| gone.contains(*name)), "{gone:?}");
    assert!(!gone.contains("alone"), "{gone:?}");
    let cascade = reach(&mut db, &["DROP TABLE p CASCADE"]).await.unwrap();
    assert!(["f", "p", "v", "vv"].iter().all(|name| cascade.contains(*name)), "{cascade:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_parents_and_partitions_are_reached_with_each_other() {
    let server = TestServer::shared();
    let mut db = server.database("named_family").await;
    db.commit("CREATE TABLE top (id int, n int) PARTITION BY LIST (id)").await;
    db.commit("CREATE TABLE one PARTITION OF top FOR VALUES IN (1)").await;
    db.commit("CREATE TABLE parent (id int)").await;
    db.commit("CREATE TABLE child () INHERITS (parent)").await;
    db.commit("CREATE TABLE alone (id int)").await;
    for (sql, reached) in [
        ("CREATE TABLE two PARTITION OF top FOR VALUES IN (2)", "two top one"),
        ("DROP TABLE one", "one top"),
        ("DROP TABLE child", "child parent"),
        ("ALTER TABLE parent ADD COLUMN n int", "parent child"),
        ("CREATE TABLE other () INHERITS (parent)", "other parent"),
    ] {
        let names = reach(&mut db, &[sql]).await.unwrap();
        assert!(reached.split(' ').all(|name| names.contains(name)), "{sql}: {names:?}");
        assert!(!names.contains("alone"), "{sql}: {names:?}");
    }
    // What they were of before nobody tells.
    for sql in [
        "ALTER TABLE child NO INHERIT parent",
        "ALTER TABLE top DETACH PARTITION one",
        "ALTER TABLE alone INHERIT parent",
        "ALTER TABLE alone RENAME TO other",
        "ALTER TABLE alone SET SCHEMA public",
    ] {
        assert_eq!(reach(&mut db, &[sql]).await, None, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_of_all_other_definitions_nothing_is_known() {
    let server = TestServer::shared();
    let mut db = server.database("named_others").await;
    db.commit("CREATE TABLE t (id int PRIMARY KEY, n int)").await;
    db.commit("CREATE INDEX i ON t (n)").await;
    db.commit("CREATE SCHEMA s").await;
    let function = "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    let nested = "DO $$ BEGIN CREATE TABLE u (id int); END $$";
    let by_function = "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'DROP TABLE t; SELECT 1'";
    for statements in [
        &["GRANT SELECT ON t TO PUBLIC"] as &[&str],
        &["CREATE TABLE u (id int)", "GRANT SELECT ON u TO PUBLIC"],
        &["DROP INDEX i"],
        &["COMMENT ON TABLE t IS 'x'"],
        &["CREATE TYPE e AS ENUM ('a')"],
        &["CREATE SCHEMA r CREATE TABLE u (id int)"],
        &["DROP SCHEMA s"],
        &["CREATE MATERIALIZED VIEW m AS SELECT 1 AS a"],
        &[function],
        &[nested],
        &[by_function, "SELECT g()"],
    ] {
        assert_eq!(reach(&mut db, statements).await, None, "{statements:?}");
    }
}

/// Nobody knows what they read. So what runs them is reached by whatever is defined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_functions_of_clients_and_what_runs_them_are_among_the_names() {
    let server = TestServer::shared();
    let mut db = server.database("named_functions").await;
    let new = &["CREATE TABLE t (id int)"];
    db.commit("CREATE TABLE plain (id int)").await;
    db.commit("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'").await;
    db.commit("CREATE FUNCTION trg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'").await;
    db.commit("CREATE TABLE fires (id int)").await;
    db.commit("CREATE TRIGGER x BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION trg()").await;
    db.commit("CREATE TABLE defaults (id int DEFAULT f())").await;
    db.commit("CREATE VIEW shows AS SELECT f()").await;
    db.commit("CREATE DOMAIN checked AS int CHECK (value > f())").await;
    db.commit("CREATE TABLE has_domain (c checked)").await;
    let expected = [
        "t",
        "_t",
        "f",
        "trg",
        "shows",
        "_shows",
        "checked",
        "_checked",
        "has_domain",
        "_has_domain",
        "(fires)",
        "(_fires)",
        "(defaults)",
        "(_defaults)",
    ];
    assert_eq!(reach(&mut db, new).await, set(&expected));
    // Run without a name.
    db.commit("CREATE FUNCTION add(bool, bool) RETURNS bool LANGUAGE sql AS 'SELECT $1 OR $2'").await;
    assert!(reach(&mut db, new).await.is_some());
    db.commit("CREATE OPERATOR + (LEFTARG = bool, RIGHTARG = bool, FUNCTION = add)").await;
    assert_eq!(reach(&mut db, new).await, None);
    db.commit("DROP OPERATOR + (bool, bool)").await;
    assert!(reach(&mut db, new).await.is_some());
    // Run at the end; and whose values are names.
    for sql in ["CREATE TABLE late (id int UNIQUE DEFERRABLE)", "CREATE TABLE names (r regclass[])"] {
        db.commit(sql).await;
        assert_eq!(reach(&mut db, new).await, None, "{sql}");
        let dropped = sql.replace("CREATE", "DROP");
        db.commit(dropped.split('(').next().unwrap()).await;
        assert!(reach(&mut db, new).await.is_some());
    }
}
