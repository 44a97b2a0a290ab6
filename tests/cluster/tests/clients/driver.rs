//! tokio-postgres: statements, values, portals, pipelines, errors, notices, cancel, sessions' state.

use crate::raw::Raw;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, pin_mut};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steeldb_cluster_tests::{Cluster, Proxy, sqlstate};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{IsolationLevel, SimpleQueryMessage};

async fn count(proxy: &Proxy, sql: &str) -> i64 {
    let connection = proxy.connect().await.unwrap();
    connection.client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_works_as_on_one_server() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    values(&proxy).await;
    statements(&proxy).await;
    portals(&proxy).await;
    copies(&proxy).await;
    pipelines(&proxy).await;
    errors_and_notices(&proxy).await;
    cancels(&proxy).await;
    session_state(&proxy).await;
    isolation(&proxy).await;
    proxy.identical().await;
}

async fn values(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    client
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'glad');
             CREATE TABLE value (id int PRIMARY KEY, i8 int8, f8 float8, b bool, t text, data bytea, at timestamptz,
                 ints int[], texts text[], amount numeric, body json, bodyb jsonb, feeling mood)",
        )
        .await
        .unwrap();
    // Rounded to what the server stores.
    let at = UNIX_EPOCH + Duration::from_micros(1_709_209_815_123_456);
    let (ints, texts) = (vec![Some(1), None, Some(-3)], vec!["a", "b,\"c\"", ""]);
    let data: Vec<u8> = (0..=255).collect();
    // numeric on the wire: digits, weight, sign, scale, then digits in base 10,000: 12345.678.
    let amount = Raw(vec![0, 3, 0, 1, 0, 0, 0, 3, 0, 1, 0x09, 0x29, 0x1a, 0x7c]);
    let (json, jsonb) =
        (Raw(b"{\"b\": 1,  \"a\": [null]}".to_vec()), Raw(b"\x01{\"b\": 1, \"a\": [null]}".to_vec()));
    let feeling = Raw(b"glad".to_vec());
    let insert = "INSERT INTO value VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let row: &[&(dyn ToSql + Sync)] = &[
        &1,
        &i64::MIN,
        &0.1f64,
        &true,
        &"schön \u{1f40d}",
        &data,
        &at,
        &ints,
        &texts,
        &amount,
        &json,
        &jsonb,
        &feeling,
    ];
    assert_eq!(client.execute(insert, row).await.unwrap(), 1);
    let nothing: &[&(dyn ToSql + Sync)] = &[
        &2,
        &None::<i64>,
        &f64::NAN,
        &None::<bool>,
        &"",
        &Vec::<u8>::new(),
        &None::<SystemTime>,
        &Vec::<i32>::new(),
        &None::<Vec<String>>,
        &None::<Raw>,
        &None::<Raw>,
        &None::<Raw>,
        &None::<Raw>,
    ];
    client.execute(insert, nothing).await.unwrap();

    let found = client.query_one("SELECT * FROM value WHERE id = $1", &[&1]).await.unwrap();
    assert_eq!(
        (found.get::<_, i64>(1), found.get::<_, f64>(2), found.get::<_, bool>(3)),
        (i64::MIN, 0.1, true)
    );
    assert_eq!((found.get::<_, String>(4), found.get::<_, Vec<u8>>(5)), ("schön \u{1f40d}".into(), data));
    assert_eq!(found.get::<_, SystemTime>(6), at);
    assert_eq!(
        (found.get::<_, Vec<Option<i32>>>(7), found.get::<_, Vec<String>>(8)),
        (ints, texts.iter().map(|t| t.to_string()).collect())
    );
    assert_eq!((found.get::<_, Raw>(9), found.get::<_, Raw>(10)), (amount, json));
    assert_eq!(
        (found.get::<_, Raw>(11), found.get::<_, Raw>(12)),
        (Raw(b"\x01{\"a\": [null], \"b\": 1}".to_vec()), feeling)
    );
    assert_eq!(found.columns()[12].type_().name(), "mood");
    let found = client.query_one("SELECT * FROM value WHERE id = 2", &[]).await.unwrap();
    assert_eq!(found.get::<_, Option<i64>>(1), None);
    assert!(found.get::<_, f64>(2).is_nan());
    assert_eq!((found.get::<_, Option<Raw>>(9), found.get::<_, Vec<i32>>(7)), (None, vec![]));

    // The same in text.
    let said = client
        .simple_query("SELECT i8, ints, amount, body, bodyb, feeling, at, b FROM value ORDER BY id")
        .await
        .unwrap();
    let rows: Vec<Vec<Option<&str>>> = said
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i)).collect()),
            _ => None,
        })
        .collect();
    let first = [
        "-9223372036854775808",
        "{1,NULL,-3}",
        "12345.678",
        "{\"b\": 1,  \"a\": [null]}",
        "{\"a\": [null], \"b\": 1}",
        "glad",
        "2024-02-29 12:30:15.123456+00",
        "t",
    ];
    assert_eq!(rows[0], first.map(Some));
    assert_eq!(rows[1], [None, Some("{}"), None, None, None, None, None, None]);

    // What is no text is refused, and nothing else suffers.
    let refused = client.execute("INSERT INTO value (id, t) VALUES (3, $1)", &[&"a\0b"]).await.unwrap_err();
    assert_eq!(sqlstate(&refused), "22021");
    assert!(client.execute("SELECT 'a\0b'", &[]).await.is_err(), "the driver itself refuses it");
    let empty = client.simple_query("").await.unwrap();
    assert!(!empty.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))));
    assert_eq!(client.execute("", &[]).await.unwrap(), 0);
    assert_eq!(client.execute(" -- only a comment\n", &[]).await.unwrap(), 0);
    client.batch_execute(";;; SELECT 1;;").await.unwrap();
}

async fn statements(proxy: &Proxy) {
    let mut connection = proxy.connect().await.unwrap();
    connection.client.batch_execute("CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL)").await.unwrap();
    let insert = connection.client.prepare("INSERT INTO stock VALUES ($1, $2)").await.unwrap();
    assert_eq!(insert.params(), [Type::INT4, Type::INT4]);
    let select = connection
        .client
        .prepare_typed("SELECT n + $2 AS sum FROM stock WHERE id = $1", &[Type::INT4, Type::INT4])
        .await
        .unwrap();
    assert_eq!((select.columns()[0].name(), select.columns()[0].type_()), ("sum", &Type::INT4));
    for id in 0..10 {
        connection.client.execute(&insert, &[&id, &(id * id)]).await.unwrap();
    }
    // Prepared outside, run inside a transaction, also after an error undid one.
    let client = std::sync::Arc::get_mut(&mut connection.client).unwrap();
    for round in 0..3 {
        let transaction = client.transaction().await.unwrap();
        let sum: i32 = transaction.query_one(&select, &[&3, &round]).await.unwrap().get(0);
        assert_eq!(sum, 9 + round);
        let inside = transaction.prepare("UPDATE stock SET n = n + 0 WHERE id = $1").await.unwrap();
        assert_eq!(transaction.execute(&inside, &[&3]).await.unwrap(), 1);
        if round == 1 {
            let error = transaction.execute(&insert, &[&3, &0]).await.unwrap_err();
            assert_eq!(sqlstate(&error), "23505");
            transaction.rollback().await.unwrap();
        } else {
            transaction.commit().await.unwrap();
        }
        // A statement prepared in a transaction outlives it, committed or not.
        assert_eq!(client.execute(&inside, &[&4]).await.unwrap(), 1);
    }
    // A nested transaction is a savepoint.
    let mut outer = client.transaction().await.unwrap();
    outer.execute(&insert, &[&100, &0]).await.unwrap();
    let inner = outer.savepoint("within").await.unwrap();
    inner.execute(&insert, &[&101, &0]).await.unwrap();
    inner.rollback().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(count(proxy, "SELECT count(*) FROM stock WHERE id >= 100").await, 1);
    // SQL's own named statements.
    let said = client
        .simple_query("PREPARE q(int) AS SELECT n FROM stock WHERE id = $1; EXECUTE q(5); DEALLOCATE q")
        .await
        .unwrap();
    assert!(
        said.iter()
            .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("25")))
    );
}

async fn portals(proxy: &Proxy) {
    let mut connection = proxy.connect().await.unwrap();
    let client = std::sync::Arc::get_mut(&mut connection.client).unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal =
        transaction.bind("SELECT i FROM generate_series(1, $1::int) i ORDER BY i", &[&25]).await.unwrap();
    let mut sizes = Vec::new();
    let mut next = 1;
    loop {
        let rows = transaction.query_portal(&portal, 10).await.unwrap();
        for row in &rows {
            assert_eq!(row.get::<_, i32>(0), next);
            next += 1;
        }
        sizes.push(rows.len());
        if rows.len() < 10 {
            break;
        }
        // Something else between the portions.
        transaction.query_one("SELECT 1", &[]).await.unwrap();
    }
    assert_eq!(sizes, [10, 10, 5]);
    // Two portals in turn, one left unfinished.
    let (a, b) = (
        transaction.bind("SELECT id FROM stock ORDER BY id", &[]).await.unwrap(),
        transaction.bind("SELECT id FROM stock ORDER BY id DESC", &[]).await.unwrap(),
    );
    for (portal, expected) in [(&a, [0, 1]), (&b, [100, 9]), (&a, [2, 3])] {
        let ids: Vec<i32> =
            transaction.query_portal(portal, 2).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, expected);
    }
    transaction.commit().await.unwrap();

    // A cursor of SQL's.
    let transaction = client.transaction().await.unwrap();
    transaction.batch_execute("DECLARE c CURSOR FOR SELECT id FROM stock ORDER BY id").await.unwrap();
    let fetched: Vec<i32> =
        transaction.query("FETCH 4 FROM c", &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(fetched, [0, 1, 2, 3]);
    transaction.batch_execute("MOVE 2 IN c").await.unwrap();
    assert_eq!(transaction.query_one("FETCH c", &[]).await.unwrap().get::<_, i32>(0), 6);
    transaction.batch_execute("CLOSE c").await.unwrap();
    transaction.commit().await.unwrap();
}

async fn copies(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    client.batch_execute("CREATE TABLE copied (id int PRIMARY KEY, name text)").await.unwrap();
    let sink = client.copy_in("COPY copied FROM STDIN BINARY").await.unwrap();
    let writer = BinaryCopyInWriter::new(sink, &[Type::INT4, Type::TEXT]);
    pin_mut!(writer);
    for id in 0..500 {
        writer.as_mut().write(&[&id, &Some(format!("n{id}")).filter(|_| id % 2 == 0)]).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 500);
    let stream = client.copy_out("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT BINARY").await.unwrap();
    let rows: Vec<_> =
        BinaryCopyOutStream::new(stream, &[Type::INT4, Type::TEXT]).try_collect().await.unwrap();
    assert_eq!(rows.len(), 500);
    assert_eq!((rows[4].get::<i32>(0), rows[4].get::<Option<&str>>(1)), (4, Some("n4")));
    assert_eq!(rows[5].get::<Option<&str>>(1), None);
    let pieces: Vec<Bytes> = client
        .copy_out("COPY (SELECT id FROM copied WHERE id < 3 ORDER BY id) TO STDOUT")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(pieces.concat(), b"0\n1\n2\n");

    // Given up by the client: nothing remains, and the session goes on.
    let sink = client.copy_in::<_, Bytes>("COPY copied FROM STDIN").await.unwrap();
    {
        pin_mut!(sink);
        sink.send(Bytes::from_static(b"1000\tx\n")).await.unwrap();
    }
    assert_eq!(count(proxy, "SELECT count(*) FROM copied").await, 500);
    client.query_one("SELECT 1", &[]).await.unwrap();
    // Refused by the server.
    let sink = client.copy_in::<_, Bytes>("COPY copied FROM STDIN").await.unwrap();
    pin_mut!(sink);
    let sent = sink.send(Bytes::from_static(b"1\tagain\n")).await;
    let error = match sent {
        Ok(()) => sink.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(sqlstate(&error), "23505");
}

async fn pipelines(proxy: &Proxy) {
    let client = proxy.connect().await.unwrap().client;
    client.batch_execute("CREATE TABLE piped (id int PRIMARY KEY)").await.unwrap();
    let insert = client.prepare("INSERT INTO piped VALUES ($1)").await.unwrap();
    // Sent together on one connection; each is a transaction of its own, so one error undoes only itself.
    let ids: Vec<i32> = (0..20).map(|i| if i == 10 { 3 } else { i }).collect();
    let results = future::join_all(ids.iter().map(|id| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[id]).await }
    }))
    .await;
    for (i, result) in results.iter().enumerate() {
        match result {
            Ok(rows) => assert!(*rows == 1 && i != 10),
            Err(error) => assert_eq!((i, sqlstate(error).as_str()), (10, "23505")),
        }
    }
    assert_eq!(count(proxy, "SELECT count(*) FROM piped").await, 19);
    // Rows come as a stream, while others wait their turn.
    let stream =
        client.query_raw("SELECT i FROM generate_series(1, 1000) i", Vec::<i32>::new()).await.unwrap();
    let (rows, one) = future::join(stream.collect::<Vec<_>>(), client.query_one("SELECT 5", &[])).await;
    assert_eq!((rows.len(), one.unwrap().get::<_, i32>(0)), (1000, 5));
}

async fn errors_and_notices(proxy: &Proxy) {
    let mut connection = proxy.connect().await.unwrap();
    let client = connection.client.clone();
    client
        .batch_execute("CREATE TABLE checked (id int PRIMARY KEY CONSTRAINT positive CHECK (id > 0))")
        .await
        .unwrap();
    let error = client.execute("INSERT INTO checked VALUES (-1)", &[]).await.unwrap_err();
    let fields = error.as_db_error().unwrap();
    assert_eq!(
        (fields.code().code(), fields.severity(), fields.constraint()),
        ("23514", "ERROR", Some("positive"))
    );
    assert_eq!((fields.schema(), fields.table()), (Some("public"), Some("checked")));
    assert!(fields.detail().is_some_and(|detail| detail.contains("(-1)")), "{fields:?}");
    let error = client.execute("SELECT id, nonsense FROM checked", &[]).await.unwrap_err();
    let fields = error.as_db_error().unwrap();
    assert_eq!((fields.code().code(), fields.position()), ("42703", Some(&ErrorPosition::Original(12))));
    // The place is that in what the client wrote, though the proxy rewrote what stands before it.
    let error = client.execute("SELECT CURRENT_TIMESTAMP, nonsense FROM checked", &[]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().position(), Some(&ErrorPosition::Original(27)));
    let error = client.execute("SELEC 1", &[]).await.unwrap_err();
    assert_eq!(
        (sqlstate(&error).as_str(), error.as_db_error().unwrap().position()),
        ("42601", Some(&ErrorPosition::Original(1)))
    );

    client
        .batch_execute("DO $$ BEGIN RAISE NOTICE 'seen %', 7; RAISE WARNING 'and this'; END $$")
        .await
        .unwrap();
    let notices = [connection.notices.recv().await.unwrap(), connection.notices.recv().await.unwrap()];
    assert_eq!((notices[0].message(), notices[0].severity()), ("seen 7", "NOTICE"));
    assert_eq!((notices[1].message(), notices[1].code().code()), ("and this", "01000"));
    client.batch_execute("DROP TABLE IF EXISTS no_such_table").await.unwrap();
    assert!(connection.notices.recv().await.unwrap().message().contains("no_such_table"));
}

async fn cancels(proxy: &Proxy) {
    let connection = proxy.connect().await.unwrap();
    let client = connection.client.clone();
    let token = client.cancel_token();
    let sleeper = tokio::spawn(async move { client.query("SELECT pg_sleep(3600)", &[]).await });
    // A cancel that comes before its statement cancels nothing: it is sent until it has met it.
    while !sleeper.is_finished() {
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(sqlstate(&sleeper.await.unwrap().unwrap_err()), "57014");
    // The last of them may be late and meet another statement, as it would in PostgreSQL.
    while let Err(error) = connection.client.query_one("SELECT 1", &[]).await {
        assert_eq!(sqlstate(&error), "57014");
    }
}

async fn session_state(proxy: &Proxy) {
    let connection = proxy.connect_with("application_name=tests options='-c work_mem=5MB'").await.unwrap();
    let client = connection.client;
    let show =
        async |name: &str| -> String { client.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0) };
    assert_eq!((show("application_name").await, show("work_mem").await), ("tests".into(), "5MB".into()));
    client.batch_execute("SET work_mem = '6MB'; SET search_path = public, pg_catalog").await.unwrap();
    client
        .batch_execute("BEGIN; SET work_mem = '7MB'; SET LOCAL statement_timeout = 12345; ROLLBACK")
        .await
        .unwrap();
    assert_eq!((show("work_mem").await, show("statement_timeout").await), ("6MB".into(), "0".into()));
    client.batch_execute("BEGIN; SET work_mem = '7MB'; COMMIT").await.unwrap();
    assert_eq!(show("work_mem").await, "7MB");

    let prepared = client.prepare("SELECT 1").await.unwrap();
    client.batch_execute("DEALLOCATE ALL").await.unwrap();
    assert_eq!(sqlstate(&client.query(&prepared, &[]).await.unwrap_err()), "26000");
    client.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(show("work_mem").await, "5MB");
    let error = client.batch_execute("BEGIN; SELECT 1; DISCARD ALL").await.unwrap_err();
    assert_eq!(sqlstate(&error), "25001");
    client.batch_execute("ROLLBACK").await.unwrap();
}

async fn isolation(proxy: &Proxy) {
    let mut connection = proxy.connect().await.unwrap();
    let client = std::sync::Arc::get_mut(&mut connection.client).unwrap();
    for level in
        [IsolationLevel::ReadUncommitted, IsolationLevel::ReadCommitted, IsolationLevel::RepeatableRead]
    {
        let transaction = client.build_transaction().isolation_level(level).start().await.unwrap();
        assert_eq!(
            transaction.query_one("SELECT count(*) FROM stock", &[]).await.unwrap().get::<_, i64>(0),
            11
        );
        transaction.commit().await.unwrap();
    }
    let serializable = client.build_transaction().isolation_level(IsolationLevel::Serializable).start().await;
    assert_eq!(sqlstate(&serializable.err().unwrap()), "0A000");
    let transaction = client.build_transaction().read_only(true).deferrable(true).start().await.unwrap();
    assert_eq!(transaction.query_one("SELECT count(*) FROM stock", &[]).await.unwrap().get::<_, i64>(0), 11);
    let error = transaction.execute("DELETE FROM stock", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&error), "25006");
    transaction.rollback().await.unwrap();

    // One snapshot: a commit in between is not seen, and writing what it wrote is 40001.
    let transaction = client.transaction().await.unwrap();
    transaction.query_one("SELECT n FROM stock WHERE id = 1", &[]).await.unwrap();
    proxy.connect().await.unwrap().client.execute("UPDATE stock SET n = 77 WHERE id = 1", &[]).await.unwrap();
    assert_eq!(
        transaction.query_one("SELECT n FROM stock WHERE id = 1", &[]).await.unwrap().get::<_, i32>(0),
        1
    );
    let error = transaction.execute("UPDATE stock SET n = n + 1 WHERE id = 1", &[]).await.unwrap_err();
    assert_eq!(sqlstate(&error), "40001");
    transaction.rollback().await.unwrap();
    assert_eq!(client.query_one("SELECT n FROM stock WHERE id = 1", &[]).await.unwrap().get::<_, i32>(0), 77);
}
