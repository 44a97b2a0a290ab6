//! The proxy as a client sees it, over replicas in the same process.

mod support;

use steeldb_client_shim::testing::{FakeCluster, Lie};
use steeldb_pg_proxy::{Authentication, Users};
use steeldb_wire::transaction::{ClientMessage, Ordered};
use support::{World, show, start, start_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn world() -> World {
    start(FakeCluster::new(4)).await
}

fn ordered(world: &World, is: impl Fn(&Ordered) -> bool) -> usize {
    world.cluster.lock().unwrap().ordered.iter().filter(|ordered| is(ordered)).count()
}

fn begins(world: &World) -> usize {
    ordered(world, |ordered| matches!(ordered, Ordered::Begin { .. }))
}

// --- Start-up.

#[tokio::test]
async fn encryption_is_declined_and_the_session_goes_on() {
    let world = world().await;
    let mut wire = world.raw().await;
    for code in [80_877_103u32, 80_877_104] {
        wire.stream.write_all(&[&8u32.to_be_bytes()[..], &code.to_be_bytes()].concat()).await.unwrap();
        assert_eq!(wire.stream.read_u8().await.unwrap(), b'N');
    }
    wire.startup(&[("user", "app")]).await;
    let greeting = show(&wire.until(b'Z').await);
    assert_eq!(greeting.first().unwrap(), "R");
    assert_eq!(&greeting[greeting.len() - 2..], ["K", "ready I"]);
}

#[tokio::test]
async fn garbage_ends_in_an_error_or_a_closed_connection() {
    let world = world().await;
    let huge = [&u32::MAX.to_be_bytes()[..], &[0, 3, 0, 0]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &huge, &[0xff; 300]] {
        let mut wire = world.raw().await;
        wire.stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = wire.stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer[0] == b'E', "{bytes:?}");
    }
    let mut wire = world.connect().await;
    wire.stream.write_all(b"\x01\0\0\0\x04").await.unwrap();
    assert_eq!(show(&wire.until(b'Z').await), ["error 08P01"]);
    let mut wire = world.connect().await;
    wire.stream.write_all(b"Q\x7f\xff\xff\xff").await.unwrap();
    assert_eq!(show(&wire.until(b'Z').await), ["error 08P01"]);
    assert_eq!(world.connect().await.query("SELECT 1").await.last().unwrap(), "ready I");
}

#[tokio::test]
async fn what_startup_asks_and_cannot_have_is_refused() {
    let world = world().await;
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("database", "db")], "error 28000"),
        (&[("user", "app"), ("replication", "true")], "error 0A000"),
        (&[("user", "app"), ("client_encoding", "LATIN1")], "error 0A000"),
        (&[("user", "nobody")], "error 28000"),
    ];
    for (parameters, expected) in cases {
        let mut wire = world.raw().await;
        wire.startup(parameters).await;
        assert_eq!(show(&wire.until(b'Z').await), [expected]);
    }
}

#[tokio::test]
async fn sessions_are_bounded() {
    let world =
        start_with(FakeCluster::new(4), |options| options.set(|settings| settings.sessions_max = 2)).await;
    let (_one, two) = (world.connect().await, world.connect().await);
    let mut three = world.raw().await;
    three.startup(&[("user", "app")]).await;
    assert_eq!(show(&three.until(b'Z').await), ["error 53300"]);
    drop(two);
    loop {
        let mut wire = world.raw().await;
        wire.startup(&[("user", "app")]).await;
        if show(&wire.until(b'Z').await).last().unwrap() == "ready I" {
            break;
        }
    }
}

#[tokio::test]
async fn scram_lets_in_who_knows_the_password() {
    let verifier = postgres_protocol::password::scram_sha_256(b"secret");
    let users = Users::parse(&format!("app {verifier}"), "users").unwrap();
    let world = start_with(FakeCluster::new(4), |options| {
        options.set(|settings| settings.authentication = Authentication::Scram(users.into()));
    })
    .await;
    for (user, password, passes) in
        [("app", "secret", true), ("app", "wrong", false), ("eve", "secret", false)]
    {
        let config = format!("host=127.0.0.1 port={} user={user} password={password} dbname=db", world.port);
        let result = tokio_postgres::connect(&config, tokio_postgres::NoTls).await;
        match result {
            Ok(_) => assert!(passes, "{user} {password}"),
            Err(error) => {
                assert!(!passes, "{user} {password}: {error}");
                assert_eq!(error.code().map(|code| code.code()), Some("28P01"));
            }
        }
    }
}

// --- The simple protocol.

#[tokio::test]
async fn one_statement_is_one_transaction() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("SELECT 42").await, ["T", "row 42", "SELECT 1", "ready I"]);
    assert_eq!(wire.query("INSERT INTO t VALUES (1)").await, ["INSERT 0 1", "ready I"]);
    assert_eq!(begins(&world), 2);
    assert_eq!(wire.query("").await, ["I", "ready I"]);
    assert_eq!(wire.query(" ; ; ").await, ["I", "ready I"]);
    assert_eq!(wire.query("SELECT fail_22012").await, ["error 22012 at 3", "ready I"]);
    assert_eq!(wire.query("SELEC 1").await, ["error 42601 at 1", "ready I"]);
    assert_eq!(begins(&world), 3, "nothing is ordered for what is not run");
}

#[tokio::test]
async fn statements_of_one_query_share_a_transaction_and_errors_end_it() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(
        wire.query("INSERT INTO t VALUES (1); SELECT 2; SELECT 3").await,
        ["INSERT 0 1", "T", "row 2", "SELECT 1", "T", "row 3", "SELECT 1", "ready I"]
    );
    assert_eq!(begins(&world), 1);
    assert_eq!(
        wire.query("SELECT 1; SELECT fail_22012; SELECT 3").await,
        ["T", "row 1", "SELECT 1", "error 22012 at 13", "ready I"]
    );
    assert_eq!(begins(&world), 2);
    assert_eq!(
        wire.query("SELECT 1; COMMIT; SELECT 2").await,
        ["T", "row 1", "SELECT 1", "notice 25P01", "COMMIT", "T", "row 2", "SELECT 1", "ready I"]
    );
    assert_eq!(begins(&world), 4);
    assert_eq!(
        wire.query("SELECT 1; BEGIN; SELECT 2").await,
        ["T", "row 1", "SELECT 1", "BEGIN", "T", "row 2", "SELECT 1", "ready T"]
    );
    assert_eq!(begins(&world), 5);
    assert_eq!(wire.query("COMMIT").await, ["COMMIT", "ready I"]);
}

#[tokio::test]
async fn blocks_are_as_in_postgresql() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("BEGIN").await, ["BEGIN", "ready T"]);
    assert_eq!(begins(&world), 0, "the first statement takes the snapshot");
    assert_eq!(wire.query("BEGIN").await, ["notice 25001", "BEGIN", "ready T"]);
    assert_eq!(wire.query("INSERT INTO t VALUES (1)").await, ["INSERT 0 1", "ready T"]);
    assert_eq!(wire.query("SELECT fail_23505").await, ["error 23505 at 3", "ready E"]);
    assert_eq!(wire.query("SELECT 1").await, ["error 25P02", "ready E"]);
    assert_eq!(wire.query("COMMIT").await, ["ROLLBACK", "ready I"]);
    assert_eq!(wire.query("COMMIT").await, ["notice 25P01", "COMMIT", "ready I"]);
    assert_eq!(wire.query("ROLLBACK").await, ["notice 25P01", "ROLLBACK", "ready I"]);
    assert_eq!(wire.query("BEGIN; COMMIT").await, ["BEGIN", "COMMIT", "ready I"]);
    assert_eq!(begins(&world), 1);
}

#[tokio::test]
async fn savepoints_bring_a_failed_block_back() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("SAVEPOINT a").await, ["error 25P01", "ready I"]);
    wire.query("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a").await;
    // One error that replicas know of, one that only the proxy knows of.
    for sql in ["SELECT fail_23505", "LISTEN x", "SELEC"] {
        assert_eq!(wire.query(sql).await.last().unwrap(), "ready E", "{sql}");
        assert_eq!(wire.query("ROLLBACK TO a").await, ["ROLLBACK", "ready T"], "{sql}");
    }
    assert_eq!(wire.query("COMMIT").await, ["COMMIT", "ready I"]);
}

#[tokio::test]
async fn chains_and_modes() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("BEGIN READ ONLY").await, ["BEGIN", "ready T"]);
    assert_eq!(wire.query("SELECT 1; COMMIT AND CHAIN").await.last().unwrap(), "ready T");
    wire.query("SELECT 2").await;
    assert_eq!(wire.query("SET TRANSACTION READ WRITE").await, ["error 25001", "ready E"]);
    assert_eq!(wire.query("ROLLBACK AND CHAIN").await, ["ROLLBACK", "ready T"]);
    wire.query("ROLLBACK").await;
    assert_eq!(wire.query("COMMIT AND CHAIN").await, ["error 25P01", "ready I"]);
    wire.query("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").await;
    wire.query("SELECT 3").await;
    let read_only =
        ordered(&world, |ordered| matches!(ordered, Ordered::Begin { modes, .. } if modes.read_only));
    assert_eq!(read_only, 3);
    assert_eq!(wire.query("BEGIN ISOLATION LEVEL SERIALIZABLE").await, ["error 0A000", "ready I"]);
}

#[tokio::test]
async fn leading_locks_come_before_the_begin() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("LOCK TABLE t").await, ["error 25P01", "ready I"]);
    assert_eq!(wire.query("BEGIN; LOCK TABLE t").await, ["BEGIN", "LOCK", "ready T"]);
    assert_eq!(begins(&world), 0);
    assert_eq!(wire.query("INSERT INTO t VALUES (1); COMMIT").await, ["INSERT 0 1", "COMMIT", "ready I"]);
    assert_eq!(begins(&world), 1);
    assert_eq!(wire.query("BEGIN; SELECT 1; LOCK TABLE t").await.iter().rev().nth(1).unwrap(), "error 0A000");
}

#[tokio::test]
async fn a_lie_is_found_out_before_the_statement_is_said_to_be_done() {
    let mut cluster = FakeCluster::new(4);
    cluster.replica(0).lie = Lie::OtherRows;
    let world = start(cluster).await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("SELECT 7").await, ["T", "row a lie", "error 40000", "ready I"]);
    assert_eq!(
        wire.query("SELECT 7; INSERT INTO t VALUES (1)").await.iter().rev().nth(1).unwrap(),
        "error 40000"
    );
    wire.query("BEGIN; SELECT 7").await;
    assert_eq!(wire.query("ROLLBACK").await, ["error 40000", "ready I"]);
}

#[tokio::test]
async fn maintenance_is_ordered_by_itself() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("VACUUM ANALYZE t").await, ["VACUUM", "ready I"]);
    assert_eq!(ordered(&world, |ordered| matches!(ordered, Ordered::Maintain { .. })), 1);
    assert_eq!(wire.query("BEGIN; VACUUM").await, ["BEGIN", "error 25001", "ready E"]);
    assert_eq!(wire.query("ROLLBACK").await, ["ROLLBACK", "ready I"]);
    assert_eq!(wire.query("SELECT 1; VACUUM").await.iter().rev().nth(1).unwrap(), "error 25001");
}

#[tokio::test]
async fn copy_in_and_out() {
    let world = world().await;
    let mut wire = world.connect().await;
    assert_eq!(wire.query("COPY t TO STDOUT").await, ["H", "data one", "data two", "c", "COPY 2", "ready I"]);
    for (end, expected) in [((b'c', &b""[..]), "COPY 1"), ((b'f', &b"no\0"[..]), "error 57014")] {
        wire.send(&[(b'Q', b"COPY t FROM STDIN\0")]).await;
        assert_eq!(wire.next().await.unwrap().0, b'G');
        let row = vec![b'x'; 100_000];
        wire.send(&[(b'd', &row), (b'd', &row), (b'd', &row), (b'd', b"1\n"), end]).await;
        let answer = show(&wire.until(b'Z').await);
        assert!(answer[0].starts_with(expected), "{answer:?}");
        assert_eq!(answer[1], "ready I");
    }
    let bytes: usize = world
        .cluster
        .lock()
        .unwrap()
        .replica(3)
        .heard
        .iter()
        .map(|message| match message {
            ClientMessage::CopyData { data, .. } => data.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(bytes, 2 * 300_002);
    // What is left over after a COPY that was refused is dropped.
    wire.send(&[(b'Q', b"COPY t FROM STDIN; SELECT 1\0")]).await;
    assert_eq!(wire.next().await.unwrap().0, b'G');
    wire.send(&[(b'c', b""), (b'd', b"late"), (b'c', b"")]).await;
    assert_eq!(show(&wire.until(b'Z').await).last().unwrap(), "ready I");
    assert_eq!(wire.query("SELECT 5").await.last().unwrap(), "ready I");
}

#[tokio::test]
async fn large_results_pass_whole() {
    let world = world().await;
    let mut wire = world.connect().await;
    let answer = wire.query("SELECT rows_200000").await;
    assert_eq!(answer.len(), 200_000 + 3);
    assert_eq!(answer[200_000], "row row 199999");
}

// --- The extended protocol.

const PARSE: &[u8] = b"\0SELECT $1\0\0\0";

fn bind(value: &str) -> Vec<u8> {
    let mut body = b"\0\0\0\0\0\x01".to_vec();
    body.extend((value.len() as u32).to_be_bytes());
    body.extend(value.bytes());
    body.extend([0, 0]);
    body
}

#[tokio::test]
async fn an_unnamed_statement_is_one_operation_in_one_transaction() {
    let world = world().await;
    let mut wire = world.connect().await;
    let answer =
        wire.pipeline(&[(b'P', PARSE), (b'B', &bind("hello")), (b'D', b"P\0"), (b'E', b"\0\0\0\0\0")]).await;
    assert_eq!(answer, ["1", "2", "T", "row hello", "SELECT 1", "ready I"]);
    let answer = wire.pipeline(&[(b'B', &bind("again")), (b'E', b"\0\0\0\0\0")]).await;
    assert_eq!(answer, ["2", "row again", "SELECT 1", "ready I"]);
    assert_eq!(begins(&world), 2);
    let operations = world
        .cluster
        .lock()
        .unwrap()
        .replica(1)
        .heard
        .iter()
        .filter(|message| matches!(message, ClientMessage::Operation(_)))
        .count();
    assert_eq!(operations, 2);
}

#[tokio::test]
async fn a_pipeline_is_one_transaction_up_to_sync_and_skips_after_an_error() {
    let world = world().await;
    let mut wire = world.connect().await;
    let execute: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
    let (one, two) = (bind("1"), bind("2"));
    let answer =
        wire.pipeline(&[(b'P', PARSE), (b'B', &one), execute, (b'B', &two), execute, (b'C', b"S\0")]).await;
    assert_eq!(answer, ["1", "2", "row 1", "SELECT 1", "2", "row 2", "SELECT 1", "3", "ready I"]);
    assert_eq!(begins(&world), 1);
    let fail = b"\0SELECT fail_22012\0\0\0";
    let nothing = b"\0\0\0\0\0\0\0\0";
    let answer = wire
        .pipeline(&[(b'P', fail), (b'B', nothing), execute, (b'B', &two), execute, (b'Q', b"SELECT 9\0")])
        .await;
    assert_eq!(answer, ["1", "2", "error 22012 at 3", "ready I"]);
    assert_eq!(wire.query("SELECT 1").await.last().unwrap(), "ready I");
}

#[tokio::test]
async fn flush_lets_answers_go_before_sync() {
    let world = world().await;
    let mut wire = world.connect().await;
    wire.send(&[(b'P', PARSE), (b'B', &bind("x")), (b'D', b"P\0"), (b'H', b"")]).await;
    assert_eq!(show(&wire.until(b'T').await), ["1", "2", "T"]);
    wire.send(&[(b'E', b"\0\0\0\0\0"), (b'H', b"")]).await;
    assert_eq!(show(&wire.until(b'C').await), ["row x", "SELECT 1"]);
    assert_eq!(wire.pipeline(&[]).await, ["ready I"]);
}

#[tokio::test]
async fn portals_are_read_in_portions() {
    let world = world().await;
    let mut wire = world.connect().await;
    wire.query("BEGIN").await;
    let answer = wire
        .pipeline(&[
            (b'P', b"s\0SELECT rows_5\0\0\0"),
            (b'B', b"p\0s\0\0\0\0\0\0\0"),
            (b'E', b"p\0\0\0\0\x02"),
            (b'E', b"p\0\0\0\0\x02"),
            (b'E', b"p\0\0\0\0\x02"),
            (b'E', b"p\0\0\0\0\0"),
        ])
        .await;
    assert_eq!(
        answer,
        [
            "1",
            "2",
            "row row 0",
            "row row 1",
            "s",
            "row row 2",
            "row row 3",
            "s",
            "row row 4",
            "SELECT 1",
            "SELECT 0",
            "ready T"
        ]
    );
    wire.query("COMMIT").await;
    assert_eq!(wire.pipeline(&[(b'E', b"p\0\0\0\0\0")]).await, ["error 34000", "ready I"]);
}

#[tokio::test]
async fn transaction_control_can_be_prepared() {
    let world = world().await;
    let mut wire = world.connect().await;
    let run = |sql: &str| {
        let parse = format!("\0{sql}\0\0\0").into_bytes();
        [parse, b"\0\0\0\0\0\0\0\0".to_vec(), b"P\0".to_vec(), b"\0\0\0\0\0".to_vec()]
    };
    for (sql, expected) in
        [("BEGIN", "BEGIN"), ("INSERT INTO t VALUES (1)", "INSERT 0 1"), ("COMMIT", "COMMIT")]
    {
        let [parse, bind, describe, execute] = run(sql);
        let answer =
            wire.pipeline(&[(b'P', &parse), (b'B', &bind), (b'D', &describe), (b'E', &execute)]).await;
        assert_eq!(&answer[..4], ["1", "2", "n", expected]);
    }
    assert_eq!(begins(&world), 1);
}

#[tokio::test]
async fn errors_of_names_and_of_texts() {
    let world = world().await;
    let mut wire = world.connect().await;
    let nothing = b"\0\0\0\0\0\0";
    let bind_missing = [&b"\0missing\0"[..], nothing].concat();
    assert_eq!(wire.pipeline(&[(b'B', &bind_missing)]).await, ["error 26000", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'D', b"Px\0")]).await, ["error 34000", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'P', b"\0SELECT 1; SELECT 2\0\0\0")]).await, ["error 42601", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'P', b"\0SELEC\0\0\0")]).await, ["error 42601 at 1", "ready I"]);
    assert_eq!(
        wire.pipeline(&[(b'P', b"s\0SELECT fail_42P01\0\0\0")]).await,
        ["error 42P01 at 3", "ready I"]
    );
    assert_eq!(wire.pipeline(&[(b'P', b"s\0SELECT 1\0\0\0")]).await, ["1", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'P', b"s\0SELECT 1\0\0\0")]).await, ["error 42P05", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'D', b"Ss\0")]).await, ["t", "T", "ready I"]);
    assert_eq!(wire.query("DEALLOCATE s").await, ["DEALLOCATE", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'D', b"Ss\0")]).await, ["error 26000", "ready I"]);
    assert_eq!(wire.pipeline(&[(b'F', b"\0\0\0\0")]).await, ["error 0A000", "ready I"]);
    let empty = wire
        .pipeline(&[(b'P', b"\0\0\0\0"), (b'B', b"\0\0\0\0\0\0\0\0"), (b'D', b"P\0"), (b'E', b"\0\0\0\0\0")])
        .await;
    assert_eq!(empty, ["1", "2", "n", "I", "ready I"]);
}

// --- Clients that leave, and cancel.

#[tokio::test]
async fn a_client_that_vanishes_takes_its_session_with_it() {
    let world = world().await;
    let mut wire = world.connect().await;
    wire.query("BEGIN; INSERT INTO t VALUES (1)").await;
    drop(wire);
    let closed = |replica: u16| {
        let mut cluster = world.cluster.lock().unwrap();
        cluster
            .replica(replica)
            .heard
            .iter()
            .any(|message| matches!(message, ClientMessage::CloseSession { .. }))
    };
    while !(0..4).all(closed) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancel_request_reaches_the_session_it_names_and_no_other() {
    let world = world().await;
    let mut wire = world.raw().await;
    wire.startup(&[("user", "app"), ("database", "db")]).await;
    let greeting = wire.until(b'Z').await;
    let key = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap().1.clone();
    wire.send(&[(b'Q', b"COPY t FROM STDIN\0")]).await;
    assert_eq!(wire.next().await.unwrap().0, b'G');
    let cancels = || {
        let mut cluster = world.cluster.lock().unwrap();
        cluster
            .replica(0)
            .heard
            .iter()
            .filter(|message| matches!(message, ClientMessage::Cancel { .. }))
            .count()
    };
    let request = |key: &[u8]| [&16u32.to_be_bytes()[..], &80_877_102u32.to_be_bytes(), key].concat();
    for key in [vec![0; 8], key] {
        let mut canceller = world.raw().await;
        canceller.stream.write_all(&request(&key)).await.unwrap();
        assert!(canceller.next().await.is_none(), "closed without an answer");
    }
    while cancels() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cancels(), 1);
}

// --- A driver.

#[tokio::test]
async fn a_driver_prepares_executes_copies_and_rolls_back() {
    let world = world().await;
    let mut client = world.driver().await;
    let statement = client.prepare("SELECT $1").await.unwrap();
    for value in ["a", "b"] {
        let row = client.query_one(&statement, &[&value]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
    let transaction = client.transaction().await.unwrap();
    assert_eq!(transaction.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap(), 1);
    let error = transaction.query("SELECT fail_23505", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23505");
    transaction.rollback().await.unwrap();
    let error = client.prepare("SELECT fail_42703").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    let sink = client.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    use futures::SinkExt as _;
    sink.send(bytes::Bytes::from_static(b"1\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1);
    assert_eq!(client.batch_execute("SELECT 1; SELECT 2").await.ok(), Some(()));
}
