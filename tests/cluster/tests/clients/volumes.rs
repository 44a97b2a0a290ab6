//! Large results, values and copies: answers are those of a plain PostgreSQL; past the limits, a clear error, and the
//! session goes on.

use bytes::Bytes;
use futures::{SinkExt as _, TryStreamExt as _, pin_mut};
use steeldb_cluster_tests::{BULK_BYTES_MAX, Cluster, Plain, Proxy, sqlstate};
use steeldb_types::limits;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

const ROWS: usize = 100_000;
const VALUE_BYTES: usize = 10_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_volumes_are_answered_as_by_one_server() {
    let plain = Plain::start().await.unwrap();
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let (expected, ours) = (plain.connect().await.unwrap(), proxy.connect().await.unwrap().client);
    for client in [&expected, &*ours] {
        client
            .batch_execute(
                "CREATE TABLE line (id int PRIMARY KEY, word text, amount numeric(12, 2), note text);
                 CREATE TABLE blob (id int PRIMARY KEY, data bytea)",
            )
            .await
            .unwrap();
    }

    // COPY in and out.
    let lines: String = (0..ROWS)
        .map(|i| {
            format!(
                "{i}\tword {}\t{}.{:02}\t{}\n",
                i % 997,
                i * 7,
                i % 100,
                if i % 3 == 0 { "\\N" } else { "x" }
            )
        })
        .collect();
    for client in [&expected, &*ours] {
        assert_eq!(copy_in(client, "COPY line FROM STDIN", &lines, 8192).await.unwrap(), ROWS as u64);
    }
    let copy = "COPY (SELECT * FROM line ORDER BY id) TO STDOUT";
    let copied = copy_out(&ours, copy).await;
    assert!(copied == lines.as_bytes() && copied == copy_out(&expected, copy).await);
    let binary = "COPY line TO STDOUT (FORMAT binary)";
    assert!(copy_out(&ours, binary).await == copy_out(&expected, binary).await);

    // 100,000 rows, by either protocol.
    for sql in ["SELECT * FROM line ORDER BY id", "SELECT id, word || note FROM line WHERE amount > 10"] {
        assert!(text_rows(&ours, sql).await == text_rows(&expected, sql).await, "{sql}");
        let rows = ours.query(sql, &[]).await.unwrap();
        let others = expected.query(sql, &[]).await.unwrap();
        assert_eq!(rows.len(), others.len());
        let words = |row: &tokio_postgres::Row| (row.get::<_, i32>(0), row.get::<_, Option<String>>(1));
        assert!(rows.iter().map(words).eq(others.iter().map(words)), "{sql}");
    }

    // One large value as a parameter and as a result.
    let data: Vec<u8> = (0..VALUE_BYTES).map(|i| ((i * i) >> 3) as u8).collect();
    for client in [&expected, &*ours] {
        assert_eq!(client.execute("INSERT INTO blob VALUES (1, $1)", &[&data]).await.unwrap(), 1);
        let row = client.query_one("SELECT data, md5(data) FROM blob", &[]).await.unwrap();
        assert!(row.get::<_, &[u8]>(0) == data);
        client.execute("UPDATE blob SET data = data || '\\x00' WHERE id = 1", &[]).await.unwrap();
    }
    let digest = "SELECT md5(data), length(data) FROM blob";
    assert_eq!(text_rows(&ours, digest).await, text_rows(&expected, digest).await);
    proxy.identical().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_limits_is_a_clear_error_and_the_session_goes_on() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let client = proxy.connect().await.unwrap().client;
    client.batch_execute("CREATE TABLE blob (id int PRIMARY KEY, data bytea)").await.unwrap();

    // A message past the bound: a parameter, a statement's text, and one that is merely a long statement.
    let large = vec![7u8; limits::MESSAGE_BYTES_MAX];
    let error = client.execute("INSERT INTO blob VALUES (1, $1)", &[&large]).await.unwrap_err();
    too_large(&proxy, &client, &error).await;
    for length in [limits::STATEMENT_BYTES_MAX, limits::MESSAGE_BYTES_MAX] {
        let sql = format!("SELECT '{}'", "x".repeat(length));
        let error = client.batch_execute(&sql).await.unwrap_err();
        too_large(&proxy, &client, &error).await;
    }
    // The largest one that is taken.
    let parameter = &large[..limits::MESSAGE_BYTES_MAX - 1024];
    client.execute("INSERT INTO blob VALUES (1, $1)", &[&parameter]).await.unwrap();

    // A row past the bound, larger than any message that made it; in text the row above is one, too.
    let error = client.batch_execute("SELECT data FROM blob").await.unwrap_err();
    too_large(&proxy, &client, &error).await;
    let error = client.query("SELECT i, repeat('x', i * 9000000) FROM generate_series(1, 3) i", &[]).await;
    too_large(&proxy, &client, &error.unwrap_err()).await;
    client
        .execute("INSERT INTO blob SELECT 2, string_agg(data, NULL) FROM blob, generate_series(1, 3)", &[])
        .await
        .unwrap();
    let length: i32 =
        client.query_one("SELECT length(data) FROM blob WHERE id = 2", &[]).await.unwrap().get(0);
    assert_eq!(length as usize, 3 * parameter.len());

    // A transaction past what replicas buffer: by parameters and by COPY. A block fails, and can be rolled back.
    client.batch_execute("BEGIN").await.unwrap();
    let mut failed = None;
    for id in 10..20 {
        failed = client.execute("INSERT INTO blob VALUES ($1, $2)", &[&id, &parameter]).await.err();
        if failed.is_some() {
            break;
        }
    }
    let failed = failed.expect("no transaction is so large");
    assert_eq!(sqlstate(&failed), "54000");
    assert!(failed.as_db_error().is_some_and(|error| error.hint().is_some()));
    client.batch_execute("ROLLBACK").await.unwrap();
    client.batch_execute("CREATE TABLE line (text text)").await.unwrap();
    // The proxy knows of no bound here: the replicas end it, by the order.
    let lines = format!("{}\n", "y".repeat(9_999)).repeat(BULK_BYTES_MAX as usize / 10_000 + 10);
    let error = copy_in(&client, "COPY line FROM STDIN", &lines, 1 << 20).await.unwrap_err();
    too_large(&proxy, &client, &error).await;
    // One message of COPY data may be longer than what is kept of any other.
    let part = &lines[..20_000_000];
    assert_eq!(copy_in(&client, "COPY line FROM STDIN", part, part.len()).await.unwrap(), 2000);
    proxy.identical().await;
}

/// Asserts that the error says what to do, and that the session, and another one, go on.
async fn too_large(proxy: &Proxy, client: &Client, error: &Error) {
    assert_eq!(sqlstate(error), "54000", "{error:?}");
    assert!(error.as_db_error().is_some_and(|error| error.hint().is_some()), "{error:?}");
    assert_eq!(client.query_one("SELECT 5", &[]).await.unwrap().get::<_, i32>(0), 5);
    assert_eq!(proxy.psql("SELECT 6").await.lines(), ["6"]);
}

async fn copy_in(client: &Client, sql: &str, lines: &str, piece: usize) -> Result<u64, Error> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    pin_mut!(sink);
    for piece in lines.as_bytes().chunks(piece) {
        sink.feed(Bytes::copy_from_slice(piece)).await?;
    }
    sink.finish().await
}

async fn copy_out(client: &Client, sql: &str) -> Vec<u8> {
    let pieces: Vec<Bytes> = client.copy_out(sql).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

async fn text_rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let said = client.simple_query(sql).await.unwrap();
    let rows = said.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect())
        }
        _ => None,
    });
    rows.collect()
}
