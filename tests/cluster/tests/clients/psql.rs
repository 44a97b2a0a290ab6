//! psql: simple queries, several statements in one, errors and savepoints, COPY, DDL, \d.

use steeldb_cluster_tests::{Cluster, Proxy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_works_as_on_one_server() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    statements(&proxy).await;
    transactions(&proxy).await;
    copies(&proxy).await;
    definitions(&proxy).await;
    proxy.identical().await;
}

async fn statements(proxy: &Proxy) {
    let said = proxy
        .psql(
            "CREATE TABLE fruit (id int PRIMARY KEY, name text NOT NULL, price numeric(6, 2));
             INSERT INTO fruit VALUES (1, 'apple', 1.20), (2, 'pear', 2), (3, 'fig', NULL);
             SELECT * FROM fruit ORDER BY id;
             SELECT count(*), sum(price) FROM fruit;
             UPDATE fruit SET price = price * 2 WHERE id < 3 RETURNING id, price;
             DELETE FROM fruit WHERE id = 3;
             TABLE fruit ORDER BY price DESC;",
        )
        .await;
    assert_eq!(
        said.lines(),
        [
            "1|apple|1.20",
            "2|pear|2.00",
            "3|fig|",
            "3|3.20",
            "1|2.40",
            "2|4.00",
            "2|pear|4.00",
            "1|apple|2.40"
        ]
    );

    // -c sends all statements in one Query: one transaction, undone whole by an error.
    let one_query = |sql: &'static str| proxy.program("psql").args(&["-XAtqc", sql]).run();
    let said =
        one_query("SELECT 1; INSERT INTO fruit VALUES (4, 'plum', 3); SELECT count(*) FROM fruit").await;
    assert_eq!(said.lines(), ["1", "3"]);
    let said = one_query("INSERT INTO fruit VALUES (5, 'kiwi', 1); SELECT 1/0; SELECT 'not reached'").await;
    assert!(said.status == 1 && said.out.is_empty() && said.err.contains("division by zero"), "{said:?}");
    let said = one_query("INSERT INTO fruit VALUES (5, 'kiwi', 1); COMMIT; SELECT 1/0").await;
    assert_eq!(said.status, 1);
    assert_eq!(one_query("SELECT name FROM fruit WHERE id >= 4 ORDER BY id").await.lines(), ["plum", "kiwi"]);

    // Errors point at where they are, also behind other statements of the Query.
    let said = one_query("SELECT 1; SELECT nothing FROM fruit").await;
    assert!(
        said.err.contains("SELECT 1; SELECT nothing FROM fruit\n                         ^"),
        "{}",
        said.err
    );
}

async fn transactions(proxy: &Proxy) {
    let said = proxy
        .psql(
            "CREATE TABLE step (id int PRIMARY KEY);
             BEGIN;
             INSERT INTO step VALUES (1);
             SAVEPOINT a;
             INSERT INTO step VALUES (1);
             SELECT 'in a failed transaction';
             ROLLBACK TO a;
             INSERT INTO step VALUES (2);
             SAVEPOINT b;
             INSERT INTO step VALUES (3);
             ROLLBACK TO SAVEPOINT b;
             RELEASE a;
             COMMIT;
             SELECT id FROM step ORDER BY id;
             BEGIN;
             INSERT INTO step VALUES (4);
             SELECT 1/0;
             COMMIT;
             BEGIN;
             INSERT INTO step VALUES (5);
             ROLLBACK;
             SELECT max(id) FROM step;
             BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             INSERT INTO step VALUES (6);
             ROLLBACK;
             BEGIN ISOLATION LEVEL SERIALIZABLE;
             SELECT count(*) FROM step;",
        )
        .await;
    assert_eq!(said.errors(), ["23505", "25P02", "22012", "25006", "0A000"], "{said:?}");
    assert_eq!(said.out.lines().collect::<Vec<_>>(), ["1", "2", "2", "2"]);
}

async fn copies(proxy: &Proxy) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let rows: String = (0..2000).map(|i| format!("{i},\"name, with \"\"{i}\"\"\"\n")).collect();
    std::fs::write(file("in.csv"), &rows).unwrap();
    std::fs::write(file("bad.csv"), "9000,fine\nnot a number,bad\n").unwrap();
    let said = proxy
        .psql(&format!(
            "CREATE TABLE line (id int PRIMARY KEY, name text);
             \\copy line FROM '{}' WITH (FORMAT csv)
             \\copy line FROM '{}' WITH (FORMAT csv)
             SELECT count(*), sum(id) FROM line;
             \\copy (SELECT * FROM line ORDER BY id) TO '{}' WITH (FORMAT csv)
             COPY line FROM STDIN;
5000\ttab
5001\t\\N
\\.
             COPY (SELECT * FROM line WHERE id >= 5000 ORDER BY id) TO STDOUT;",
            file("in.csv"),
            file("bad.csv"),
            file("out.csv"),
        ))
        .await;
    assert_eq!(said.errors(), ["22P02"], "{said:?}");
    assert_eq!(said.out.lines().collect::<Vec<_>>(), ["2000|1999000", "5000\ttab", "5001\t\\N"]);
    assert_eq!(std::fs::read_to_string(file("out.csv")).unwrap(), rows);
}

async fn definitions(proxy: &Proxy) {
    let said = proxy
        .psql(
            "CREATE TABLE parent (id int PRIMARY KEY, at timestamptz DEFAULT now());
             CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
             CREATE INDEX child_parent ON child (parent);
             CREATE VIEW family AS SELECT child.id AS child, parent FROM child JOIN parent p ON p.id = parent;
             CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
             ALTER TABLE child ADD COLUMN note text DEFAULT 'none';
             INSERT INTO parent (id) VALUES (1), (2);
             INSERT INTO child VALUES (10, 1), (20, 2);
             DELETE FROM parent WHERE id = 1;
             SELECT child, parent, twice(parent) FROM family;
             INSERT INTO child VALUES (30, 7);
             COMMENT ON TABLE child IS 'of a parent';",
        )
        .await;
    assert_eq!((said.errors(), said.out.trim()), (vec!["23503"], "20|2|4"), "{said:?}");

    let said = proxy.psql("\\dt\n\\df twice\n\\dv\n\\l\n\\du\n\\dn").await;
    assert!(said.lines().contains(&"public|family|view|app"), "{said:?}");
    let described = proxy.program("psql").args(&["-XAc", "\\d child"]).run().await;
    let expected = [
        "Table \"public.child\"",
        "Column|Type|Collation|Nullable|Default",
        "id|integer||not null|",
        "parent|integer|||",
        "note|text|||'none'::text",
        "Indexes:",
        "    \"child_pkey\" PRIMARY KEY, btree (id)",
        "    \"child_parent\" btree (parent)",
        "Foreign-key constraints:",
        "    \"child_parent_fkey\" FOREIGN KEY (parent) REFERENCES parent(id) ON DELETE CASCADE",
    ];
    let shown = described.lines();
    assert_eq!(shown[..expected.len()], expected, "{shown:?}");
    let said =
        proxy.psql("DROP VIEW family; DROP TABLE child, parent; DROP FUNCTION twice; \\dt child").await;
    assert!(said.status == 0 && said.out.is_empty(), "{said:?}");
}
