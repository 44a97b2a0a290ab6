//! pg_dump through the proxy, and what it wrote loaded again.

use steeldb_cluster_tests::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_dump_writes_what_psql_loads() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy
        .psql(
            "CREATE TABLE author (id int PRIMARY KEY, name text NOT NULL, born date, at timestamptz DEFAULT now());
             CREATE TABLE book (id int PRIMARY KEY, author int REFERENCES author, title text);
             CREATE INDEX ON book (title);
             CREATE VIEW shelf AS SELECT name, title FROM book JOIN author ON author.id = author;
             CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
             INSERT INTO author VALUES (1, 'Ada', '1815-12-10', '2020-01-01'), (2, E'tab\\tand \\\\', NULL, '2021-01-01');
             INSERT INTO book SELECT i, 1 + i % 2, 'title ' || i FROM generate_series(1, 1000) i;",
        )
        .await;
    assert!(said.status == 0 && said.err.is_empty(), "{said:?}");
    let contents = "TABLE author; TABLE book; SELECT * FROM shelf ORDER BY 1, 2; SELECT twice(4)";
    let before = proxy.psql(contents).await.lines().join("\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.sql");
    let file = file.to_str().unwrap();
    // One schema: without -n, what SteelDB put into the database would be dumped, too. Public itself is there already.
    let said = proxy.program("pg_dump").args(&["-n", "public", "-f", file]).run().await;
    assert!(said.status == 0 && said.err.is_empty(), "{said:?}");
    let dump = std::fs::read_to_string(file).unwrap();
    assert!(dump.contains("COPY public.book"), "{dump}");
    let lines = dump.lines().filter(|line| !line.contains(" SCHEMA public"));
    std::fs::write(file, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();

    let said = proxy.psql("DROP VIEW shelf; DROP TABLE book; DROP TABLE author; DROP FUNCTION twice").await;
    assert!(said.status == 0 && said.err.is_empty(), "{said:?}");
    let said = proxy.program("psql").args(&["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file]).run().await;
    assert!(said.status == 0 && said.err.is_empty(), "{said:?}");
    assert_eq!(proxy.psql(contents).await.lines().join("\n"), before);
    let said =
        proxy.psql("INSERT INTO author (id, name) VALUES (3, 'new') RETURNING at > '2021-01-01'").await;
    assert_eq!(said.lines(), ["t"]);
    proxy.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_lock_of_a_select_may_be_taken_late() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy
        .psql(
            "CREATE TABLE t (id int PRIMARY KEY);
             BEGIN; SELECT count(*) FROM t; LOCK TABLE t IN ACCESS SHARE MODE; INSERT INTO t VALUES (1); COMMIT;
             BEGIN READ ONLY; SELECT count(*) FROM t; LOCK TABLE t IN ACCESS SHARE MODE; COMMIT;
             BEGIN; SELECT count(*) FROM t; LOCK TABLE t IN ROW SHARE MODE; COMMIT;
             SELECT count(*) FROM t",
        )
        .await;
    assert_eq!(
        (said.errors(), said.out.lines().collect()),
        (vec!["0A000"], vec!["0", "1", "1", "1"]),
        "{said:?}"
    );
    proxy.identical().await;
}
