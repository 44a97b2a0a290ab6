//! The wall (rule 9) on real servers: what an ordered definition ends, and what goes on behind it.

use steeldb_client_shim::{Modes, ShimError};
use steeldb_cluster_tests::{Client, Cluster};

async fn value(client: &mut Client, sql: &str) -> Result<String, ShimError> {
    let answer = client.run(sql).await?;
    assert_eq!(answer.sqlstate, None, "{sql}");
    Ok(answer.rows.into_iter().flatten().next().flatten().unwrap_or_default())
}

/// Begins, and takes the transaction's snapshot.
async fn begin(client: &mut Client, modes: Modes) {
    client.session.begin(modes);
    client.run("select 1").await.unwrap();
}

/// It ends with 40001, at this statement or at its COMMIT.
async fn is_walled(client: &mut Client, sql: &str) {
    let ended = match client.run(sql).await {
        Ok(answer) => {
            let of_timing = answer.sqlstate.as_deref() == Some("40001");
            let ended = client.commit().await;
            assert!(of_timing || ended.is_err(), "{sql}: {answer:?} was confirmed: {ended:?}");
            ended.err()
        }
        Err(error) => Some(error),
    };
    if let Some(error) = ended {
        assert_eq!(error.sqlstate.as_str(), "40001", "{sql}: {error:?}");
    }
}

async fn start() -> (Cluster, Client) {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    for sql in [
        "create table account (id int primary key, n int)",
        "create table other (id int primary key, n int)",
        "create view shown as select n from other",
        "insert into account values (1, 0), (2, 0)",
        "insert into other values (1, 0)",
    ] {
        client.execute(sql).await.unwrap();
    }
    (cluster, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g6_a_role_that_makes_and_drops_tables_ends_nobody_on_other_tables() {
    let (mut cluster, mut client) = start().await;
    let mut reader = client.another().await.unwrap();
    let mut writer = client.another().await.unwrap();
    begin(&mut reader, Modes { read_only: true, ..Modes::default() }).await;
    begin(&mut writer, Modes::default()).await;
    for round in 1..=2 {
        client.execute("create table mine (id serial primary key, n int default 7)").await.unwrap();
        client.execute("insert into mine (n) values (1)").await.unwrap();
        client.execute("alter table mine add column c text").await.unwrap();
        client.execute("create index on mine (n)").await.unwrap();
        assert_eq!(value(&mut reader, "select sum(n) from account").await.unwrap(), "0");
        let sql = format!("update account set n = n + {round} where id = 1 returning n");
        let sum = (1..=round).sum::<i32>().to_string();
        assert_eq!(value(&mut writer, &sql).await.unwrap(), sum);
        client.execute("drop table mine").await.unwrap();
    }
    assert_eq!(value(&mut reader, "select n from shown").await.unwrap(), "0");
    reader.commit().await.unwrap();
    writer.commit().await.unwrap();
    client.begin();
    assert_eq!(value(&mut client, "select n from account where id = 1").await.unwrap(), "3");
    client.commit().await.unwrap();
    client.identical().await;
    cluster.nothing_prepared().await.unwrap();
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_who_reaches_what_was_defined_behind_its_snapshot_ends_with_40001() {
    let (mut cluster, mut client) = start().await;
    for (definition, statement) in [
        // Rewritten: under the old snapshot it would look empty.
        ("alter table other alter n type bigint using n + 0", "select count(*) from other"),
        ("alter table other add column c text", "update other set n = n + 1"),
        ("create table late as select 1 as n", "select n from late"),
        ("drop table late", "select n from late"),
        // By what the text does not name.
        ("create view shown_too as select n from other", "select n from shown_too"),
        ("alter table account add column c text", "select n from sums"),
        ("create index on account (n)", "select lower(to_regclass('account')::text)"),
        ("truncate other", "select count(*) from account"),
    ] {
        if statement.contains("sums") {
            client.execute("create view sums as select sum(n) as n from account").await.unwrap();
        }
        if definition.starts_with("alter table other alter n") {
            client.execute("drop view shown").await.unwrap();
        }
        let mut other = client.another().await.unwrap();
        begin(&mut other, Modes::default()).await;
        client.execute(definition).await.unwrap();
        is_walled(&mut other, statement).await;
        client.identical().await;
    }
    cluster.nothing_prepared().await.unwrap();
    cluster.stop_all().await.unwrap();
}
