//! What a connection begins with, and what configuration alone can change.

use steeldb_cluster_tests::Cluster;
use steeldb_types::is_temporary_schema;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_path_given_at_start_up_still_finds_the_replicated_functions() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy
        .program("psql")
        .env("PGOPTIONS", "-c search_path=shop,public")
        .args(&["-XAtq"])
        .input(
            "SHOW search_path;
             CREATE SCHEMA shop;
             -- Dynamic SQL is rewritten by nobody: it is the path that leads now() and random() to their equivalents.
             CREATE FUNCTION stamp() RETURNS timestamptz LANGUAGE plpgsql AS
                 $$ DECLARE t timestamptz; BEGIN EXECUTE 'SELECT now()' INTO t; RETURN t; END $$;
             CREATE TABLE sale (id int PRIMARY KEY, at timestamptz);
             INSERT INTO sale VALUES (1, stamp());
             SELECT count(*) FROM shop.sale;",
        )
        .run()
        .await;
    // The schema of its temporary relations comes first, though there are none yet.
    let given = |path: &str| {
        path.split_once(", ").filter(|(first, _)| is_temporary_schema(first)).unwrap().1.to_string()
    };
    let lines = said.lines();
    assert_eq!((given(lines[0]).as_str(), &lines[1..]), ("shop,public, steeldb, pg_catalog", &["1"][..]));
    // The same as a parameter of its own.
    let connection = proxy.connect_with("options='-c search_path=shop'").await.unwrap();
    let path: String = connection.client.query_one("SHOW search_path", &[]).await.unwrap().get(0);
    assert_eq!(given(&path), "shop, steeldb, pg_catalog");
    proxy.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_are_allowed_by_the_one_list_in_the_database() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let said = proxy.psql("CREATE EXTENSION dict_int; CREATE EXTENSION seg; CREATE EXTENSION citext").await;
    assert!(said.status == 0 && said.err.is_empty(), "{said:?}");
    let said = proxy.psql("SELECT '1 .. 2'::seg @> '1.5'::seg; CREATE EXTENSION pgcrypto").await;
    assert_eq!((said.out.trim(), said.errors()), ("t", vec!["0A000"]), "{said:?}");
    let said = proxy.program("psql").args(&["-Xqc", "CREATE EXTENSION pgcrypto"]).run().await;
    assert!(said.err.contains("HINT:") && said.err.contains("steeldb.allowed_extension"), "{said:?}");
    proxy.identical().await;
}
