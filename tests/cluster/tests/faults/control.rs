//! A4: transaction control inside an operation, as a lying proxy would send it. The replicas refuse it, not the proxy.

use steeldb_cluster_tests::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_no_operation_controls_transactions() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    client.execute("create procedure p() language plpgsql as 'begin commit; end'").await.unwrap();
    client
        .execute("create function f() returns int language plpgsql as 'begin rollback; return 1; end'")
        .await
        .unwrap();

    // The session that tries is dropped, and its transaction undone.
    for sql in [
        "COMMIT",
        "COMMIT; BEGIN",
        " /* a comment */ end",
        "-- one\nCommit",
        "(COMMIT)",
        "; COMMIT",
        "ROLLBACK",
        "ABORT",
        "BEGIN",
        "START TRANSACTION",
        "PREPARE TRANSACTION 'x'",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "SET TRANSACTION READ ONLY",
        "SET SESSION AUTHORIZATION app",
        "VACUUM t",
        "LISTEN a",
        "ALTER SYSTEM SET fsync = off",
    ] {
        let mut liar = client.another().await.unwrap();
        liar.begin();
        liar.run("insert into t values (1)").await.unwrap();
        let error = match liar.run(sql).await {
            Ok(answer) => panic!("{sql}: {answer:?}"),
            Err(error) => error,
        };
        assert_eq!(error.sqlstate.as_str(), "42501", "{sql}: {error:?}");
    }
    // PostgreSQL's own words: an error in the transaction, which goes on failed.
    for (sql, sqlstate) in [
        ("select 1; COMMIT", "42601"),
        ("insert into t values (2); COMMIT; BEGIN", "42601"),
        ("do $$ begin commit; end $$", "2D000"),
        ("do $$ begin execute 'commit'; end $$", "0A000"),
        ("call p()", "2D000"),
        ("select f()", "2D000"),
        ("execute nothing", "26000"),
    ] {
        client.begin();
        client.run("insert into t values (1)").await.unwrap();
        assert_eq!(client.run(sql).await.unwrap().sqlstate.as_deref(), Some(sqlstate), "{sql}");
        client.rollback().await.unwrap();
    }
    // Superuser's business.
    for sql in [
        "set role steeldb_agent",
        "set session_replication_role = replica",
        "copy t to program 'true'",
        "copy t from '/etc/passwd'",
        "select pg_read_file('/etc/passwd')",
        "create extension dblink",
        "select * from steeldb.agent_secret",
        "delete from steeldb.transaction",
        "alter event trigger steeldb_ddl_end disable",
        "drop publication steeldb",
    ] {
        let answer = client.execute(sql).await.unwrap();
        assert!(answer.sqlstate.is_some(), "{sql}");
    }
    assert!(client.execute("select * from t").await.unwrap().rows.is_empty());
    client.identical().await;
}
