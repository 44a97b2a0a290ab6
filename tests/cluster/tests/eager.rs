//! `steeldb.verify = 'eager'` (rule 11) beside a master whose PostgreSQL was tampered with behind its agent's back.

use steeldb_cluster_tests::{Cluster, Proxy, Said};
use steeldb_types::Execution;

async fn tampered(execution: Execution) -> (Cluster, Proxy) {
    let mut cluster = Cluster::start_executing(4, execution).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy
        .psql(
            "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
             -- Its owner sees all rows; nothing on it is certified deterministic, so that the master stays who it is.
             ALTER TABLE account ENABLE ROW LEVEL SECURITY;
             INSERT INTO account VALUES (1, 100), (2, 100);
             CREATE TABLE wide (id int PRIMARY KEY, t text)",
        )
        .await;
    assert_eq!(said.errors(), [""; 0], "{said:?}");
    proxy.identical().await;
    let mut behind = cluster.behind(0).await.unwrap();
    behind.simple("UPDATE public.account SET balance = 999 WHERE id = 1").await.unwrap();
    // Snapshots are shared until the next commit: this is it.
    let said = proxy.psql("CREATE TABLE wave (id int)").await;
    assert_eq!(said.errors(), [""; 0], "{said:?}");
    (cluster, proxy)
}

fn show(said: &Said) -> String {
    format!("{:?} {:?}", said.out.lines().collect::<Vec<_>>(), said.errors())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_row_is_shown_by_default_and_never_eagerly() {
    for execution in [Execution::Speculative, Execution::Deferred] {
        let (_cluster, proxy) = tampered(execution).await;
        // By default it is shown, and the end of the transaction says that it was false.
        let said = proxy.psql("BEGIN; SELECT balance FROM account WHERE id = 1; COMMIT").await;
        assert_eq!(show(&said), r#"["999"] ["40000"]"#, "{said:?}");

        let said = proxy
            .psql(
                "SET steeldb.verify = 'eager'; SHOW steeldb.verify;
                 BEGIN; SELECT balance FROM account WHERE id = 1; ROLLBACK;
                 SELECT balance FROM account WHERE id = 1;
                 BEGIN; SELECT 'before'; SELECT sum(balance) FROM account; SELECT 'not reached'; COMMIT;
                 COPY account TO STDOUT;
                 BEGIN; DECLARE c CURSOR FOR SELECT balance FROM account ORDER BY id; FETCH c; ROLLBACK;
                 INSERT INTO account SELECT 3, balance FROM account WHERE id = 1 RETURNING balance;
                 SELECT balance FROM account WHERE id = 2;
                 UPDATE account SET balance = balance + 1 WHERE id = 2 RETURNING balance",
            )
            .await;
        assert!(!said.out.contains("999") && !said.out.contains("1099"), "{said:?}");
        assert_eq!(said.out.lines().collect::<Vec<_>>(), ["eager", "before", "100", "101"], "{said:?}");
        assert!(said.errors().iter().all(|code| ["40000", "25P02"].contains(code)), "{said:?}");
        assert_eq!(said.errors().iter().filter(|code| **code == "40000").count(), 6, "{said:?}");

        // The statement is named.
        let said = proxy
            .program("psql")
            .env("PGOPTIONS", "-c steeldb.verify=eager")
            .args(&["-XAtqc", "SELECT balance FROM account WHERE id = 1"])
            .run()
            .await;
        assert!(
            said.out.is_empty() && said.err.contains("SELECT balance FROM account WHERE id = 1"),
            "{said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_true_is_shown_as_postgresql_does() {
    for execution in [Execution::Speculative, Execution::Deferred] {
        let (_cluster, proxy) = tampered(execution).await;
        let said = proxy
            .psql(
                "SET steeldb.verify = 'eager';
                 INSERT INTO account VALUES (5, 1) RETURNING id;
                 BEGIN; LOCK TABLE account; SAVEPOINT a; INSERT INTO account VALUES (5, 2); ROLLBACK TO a;
                 SELECT count(*) FROM account; COMMIT;
                 COPY wide FROM STDIN;\n1\tone\n2\ttwo\n\\.\n
                 COPY wide (id) FROM STDIN;\nx\n\\.\n
                 SELECT * FROM wide ORDER BY id;
                 SELECT 1 / 0;
                 CREATE TABLE later (id int PRIMARY KEY);
                 DROP TABLE absent;
                 BEGIN; CREATE TABLE inside (id int); ROLLBACK;
                 BEGIN; SET LOCAL steeldb.verify = 'commit'; CREATE TABLE inside (id int); COMMIT;
                 SHOW steeldb.verify;
                 SET steeldb.verify = 'sometimes';
                 SELECT set_config('steeldb.verify', 'commit', false);
                 INSERT INTO wide SELECT g, repeat('x', 1000000) FROM generate_series(10, 30) g;
                 SELECT length(t) FROM wide WHERE id = 10;
                 SELECT t FROM wide;
                 RESET steeldb.verify; SHOW steeldb.verify",
            )
            .await;
        let lines = ["5", "3", "1|one", "2|two", "eager", "1000000", "commit"];
        assert_eq!(said.out.lines().collect::<Vec<_>>(), lines, "{said:?}");
        let errors = ["23505", "22P02", "22012", "42P01", "0A000", "22023", "0A000", "54000"];
        assert_eq!(said.errors(), errors, "{said:?}");
        let said = proxy.psql("SELECT count(*) FROM inside; SELECT count(*) FROM later").await;
        assert_eq!(said.out.lines().collect::<Vec<_>>(), ["0", "0"], "{said:?}");

        // A pipeline, and a driver that asks for descriptions first.
        let connection = proxy.connect_with("options='-c steeldb.verify=eager'").await.unwrap();
        let statement = connection.client.prepare("SELECT balance FROM account WHERE id = $1").await.unwrap();
        let ids = [2i32, 5, 1];
        let rows = futures::future::join_all(ids.iter().map(|id| {
            let (client, statement) = (connection.client.clone(), statement.clone());
            async move { client.query_one(&statement, &[id]).await }
        }))
        .await;
        let values: Vec<Option<i32>> = rows.into_iter().map(|row| row.ok().map(|row| row.get(0))).collect();
        assert_eq!(values, [Some(100), Some(1), None]);
        let created = connection.client.execute("CREATE TABLE by_driver (id int)", &[]).await;
        assert!(created.is_ok(), "{created:?}");
    }
}
