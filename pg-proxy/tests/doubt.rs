//! Transactions in doubt (E1) and statements that the proxy runs again (E2), over replicas in the same process.

mod support;

use steeldb_client_shim::testing::{FakeCluster, Lie};
use steeldb_types::{ClientId, SessionId, SessionKey, TxId};
use steeldb_wire::transaction::{ClientMessage, Ordered};
use support::{Wire, World, start, start_with};

/// Bind of the unnamed statement to the unnamed portal, with no parameters.
const BIND: &[u8] = b"\0\0\0\0\0\0\0\0";
const EXECUTE: &[u8] = b"\0\0\0\0\0";

async fn world() -> World {
    start(FakeCluster::new(4)).await
}

fn begins(world: &World) -> usize {
    let cluster = world.cluster.lock().unwrap();
    cluster.ordered.iter().filter(|ordered| matches!(ordered, Ordered::Begin { .. })).count()
}

/// The transaction that began last.
fn last_begun(world: &World) -> TxId {
    let cluster = world.cluster.lock().unwrap();
    let begun = cluster.ordered.iter().rev().find_map(|ordered| match ordered {
        Ordered::Begin { tx, .. } => Some(*tx),
        _ => None,
    });
    begun.expect("a transaction")
}

fn conflicts(world: &World, count: usize) {
    world.cluster.lock().unwrap().conflicts = count;
}

fn parse(sql: &str) -> Vec<u8> {
    format!("\0{sql}\0\0\0").into_bytes()
}

// --- Outcomes.

#[tokio::test]
async fn e1_the_outcome_of_a_transaction_is_asked_for_in_sql() {
    let world = world().await;
    let mut wire = world.connect().await;
    wire.query("INSERT INTO t VALUES (1)").await;
    let tx = last_begun(&world);
    let begun = begins(&world);
    let asked = |tx| format!("SELECT steeldb.outcome('{tx}')");
    assert_eq!(wire.query(&asked(tx)).await, ["T", "row committed", "SELECT 1", "ready I"]);
    let never = TxId { counter: 99, ..tx };
    assert_eq!(
        wire.query(&format!("{} AS what;", &asked(never))).await,
        ["T", "row aborted", "SELECT 1", "ready I"]
    );
    wire.query("BEGIN").await;
    wire.query("INSERT INTO t VALUES (1)").await;
    let open = last_begun(&world);
    let mut other = world.connect().await;
    assert_eq!(other.query(&asked(open)).await[1], "row in progress");
    wire.query("ROLLBACK").await;
    assert_eq!(other.query(&asked(open)).await[1], "row no changes");
    assert_eq!(begins(&world), begun + 1, "to ask is no transaction");
    assert_eq!(wire.query("SELECT steeldb.outcome(NULL)").await, ["T", "row ", "SELECT 1", "ready I"]);
    for text in ["", "c1.s1", "c01.s1.1", "x'; DROP"] {
        let text = text.replace('\'', "''");
        assert_eq!(
            wire.query(&format!("SELECT steeldb.outcome('{text}')")).await,
            ["error 22P02", "ready I"]
        );
    }
    // It stands alone.
    assert_eq!(wire.query(&format!("SELECT 1; {}", asked(tx))).await.last().unwrap(), "ready I");
    assert!(wire.query(&format!("{}; SELECT 1", asked(tx))).await.contains(&"error 25001".to_string()));
    wire.query("BEGIN").await;
    assert_eq!(wire.query(&asked(tx)).await, ["error 25001", "ready E"]);
    wire.query("ROLLBACK").await;
    for sql in [
        "SELECT 1, steeldb.outcome('x')",
        "SELECT length(steeldb.outcome('x'))",
        "SELECT steeldb.outcome('x') FROM t",
    ] {
        assert_eq!(wire.query(sql).await[0].split(" at").next(), Some("error 0A000"), "{sql}");
    }
}

#[tokio::test]
async fn e1_outcomes_are_asked_for_by_drivers_too() {
    let world = world().await;
    let mut wire = world.connect().await;
    wire.query("INSERT INTO t VALUES (1)").await;
    let tx = last_begun(&world);
    let begun = begins(&world);
    // Unnamed and in one go, the result in binary.
    let text = tx.to_string();
    let mut bind = b"\0\0\0\x01\0\0\0\x01".to_vec();
    bind.extend((text.len() as u32).to_be_bytes());
    bind.extend(text.as_bytes());
    bind.extend(b"\0\x01\0\x01");
    let question = parse("SELECT steeldb.outcome($1)");
    assert_eq!(
        wire.pipeline(&[(b'P', &question), (b'B', &bind), (b'D', b"P\0"), (b'E', EXECUTE)]).await,
        ["1", "2", "T", "row committed", "SELECT 1", "ready I"]
    );
    assert_eq!(
        wire.pipeline(&[(b'P', &question), (b'B', BIND), (b'E', EXECUTE)]).await,
        ["1", "2", "error 42P02", "ready I"]
    );
    // Prepared by name first, as drivers do.
    let driver = world.driver().await;
    let row = driver.query_one("SELECT steeldb.outcome($1)", &[&text]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.columns()[0].name()), ("committed", "outcome"));
    let never = TxId { session: SessionKey { client: ClientId(1), session: SessionId(5) }, counter: 1 };
    let row = driver.query_one("SELECT steeldb.outcome($1::text)", &[&never.to_string()]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "aborted");
    assert_eq!(begins(&world), begun);
}

/// The error names the transaction so that it can be asked for as it is written there.
#[tokio::test]
async fn e1_a_proxy_that_stops_tells_whose_commit_it_leaves_in_doubt() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let world = support::start_until(FakeCluster::new(4), async move { drop(stopped.await) }).await;
    let mut idle = world.connect().await;
    let mut wire = world.connect().await;
    wire.query("BEGIN").await;
    wire.query("INSERT INTO t VALUES (1)").await;
    let tx = last_begun(&world);
    for replica in 0..4 {
        world.cluster.lock().unwrap().replica(replica).lie = Lie::Silent;
    }
    wire.send(&[(b'Q', b"COMMIT\0")]).await;
    while !world
        .cluster
        .lock()
        .unwrap()
        .replica(0)
        .heard
        .iter()
        .any(|m| matches!(m, ClientMessage::Finish(_)))
    {
        tokio::task::yield_now().await;
    }
    stop.send(()).unwrap();
    let (tag, body) = wire.next().await.unwrap();
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(tag, b'E');
    assert!(text.contains("C08007\0") && text.contains(&tx.to_string()), "{text}");
    let last = support::show(&idle.until(b'Z').await);
    assert_eq!(last, ["error 57P01"], "whoever has no COMMIT under way is not in doubt");
}

// --- Running again.

#[tokio::test]
async fn e2_a_statement_that_conflicts_alone_is_run_again_and_nobody_notices() {
    let world = world().await;
    let mut wire = world.connect().await;
    // At its COMMIT.
    conflicts(&world, 2);
    assert_eq!(wire.query("UPDATE t SET x = 1").await, ["UPDATE", "ready I"]);
    assert_eq!(begins(&world), 3);
    // At the statement, with an answer that came in part; and by the extended protocol, with all that surrounds it.
    for sql in ["SELECT odd_fail_40001", "UPDATE odd_fail_40P01 SET x = 1"] {
        let before = begins(&world);
        while last_begun(&world).counter % 2 == 1 {
            wire.query("SELECT 1").await;
        }
        let answer = wire.query(sql).await;
        assert!(answer.iter().all(|line| !line.starts_with("error")), "{answer:?}");
        assert!(begins(&world) >= before + 2);
    }
    for messages in [
        vec![
            (b'P', parse("UPDATE t SET x = 1")),
            (b'B', BIND.to_vec()),
            (b'D', b"P\0".to_vec()),
            (b'E', EXECUTE.to_vec()),
        ],
        vec![
            (b'P', parse("UPDATE t SET x = 1")),
            (b'B', BIND.to_vec()),
            (b'E', EXECUTE.to_vec()),
            (b'C', b"P\0".to_vec()),
        ],
    ] {
        let messages: Vec<(u8, &[u8])> = messages.iter().map(|(tag, body)| (*tag, body.as_slice())).collect();
        let smooth = wire.pipeline(&messages).await;
        let before = begins(&world);
        conflicts(&world, 1);
        assert_eq!(wire.pipeline(&messages).await, smooth);
        assert_eq!(begins(&world), before + 2);
    }
    // A driver, with a named statement and a result.
    let driver = world.driver().await;
    conflicts(&world, 1);
    assert_eq!(driver.execute("UPDATE t SET x = $1", &[&"1"]).await.unwrap(), 0);
}

#[tokio::test]
async fn e2_tries_are_bounded_and_can_be_turned_off() {
    let mut cluster = FakeCluster::new(4);
    cluster.conflicts = 100;
    let world = start_with(cluster, |options| options.set(|settings| settings.statement_tries = 3)).await;
    assert_eq!(world.connect().await.query("UPDATE t SET x = 1").await, ["error 40001", "ready I"]);
    assert_eq!(begins(&world), 3);
    let mut cluster = FakeCluster::new(4);
    cluster.conflicts = 100;
    let world = start_with(cluster, |options| options.set(|settings| settings.statement_tries = 1)).await;
    assert_eq!(world.connect().await.query("UPDATE t SET x = 1").await, ["error 40001", "ready I"]);
    assert_eq!(begins(&world), 1);
}

/// E2: only what nobody has seen, and what left nothing behind.
#[tokio::test]
async fn e2_what_was_seen_or_has_lasting_effects_is_never_run_again() {
    let world = world().await;
    let mut wire = world.connect().await;
    let once = async |wire: &mut Wire, sql: &str, runs: usize| {
        let before = begins(&world);
        conflicts(&world, 1);
        let answer = wire.query(sql).await;
        let errors = answer.iter().filter(|line| *line == "error 40001").count();
        assert_eq!((begins(&world) - before, errors), (runs, 1), "{sql}: {answer:?}");
    };
    // It drew from a sequence.
    once(&mut wire, "INSERT INTO t VALUES (nextval('s'))", 1).await;
    // Other statements share its transaction.
    once(&mut wire, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)", 1).await;
    // Its transaction was begun explicitly, so the application has seen a part of it.
    wire.query("BEGIN").await;
    wire.query("INSERT INTO t VALUES (1)").await;
    once(&mut wire, "COMMIT", 0).await;
    // Its answers have left.
    let before = begins(&world);
    conflicts(&world, 1);
    wire.send(&[(b'P', &parse("INSERT INTO t VALUES (1)")), (b'B', BIND), (b'E', EXECUTE), (b'H', b"")])
        .await;
    assert_eq!(support::show(&wire.until(b'C').await), ["1", "2", "INSERT 0 1"]);
    wire.send(&[(b'S', b"")]).await;
    assert_eq!(support::show(&wire.until(b'Z').await), ["error 40001", "ready I"]);
    assert_eq!(begins(&world), before + 1);
    // Two executions in one pipeline.
    conflicts(&world, 1);
    let pipeline: &[(u8, &[u8])] = &[
        (b'P', &parse("INSERT INTO t VALUES (1)")),
        (b'B', BIND),
        (b'E', EXECUTE),
        (b'B', BIND),
        (b'E', EXECUTE),
    ];
    assert_eq!(wire.pipeline(pipeline).await.iter().filter(|line| *line == "error 40001").count(), 1);
    assert_eq!(begins(&world), before + 2);
    // Other errors.
    let before = begins(&world);
    assert_eq!(wire.query("UPDATE fail_23505 SET x = 1").await[0].split(' ').nth(1), Some("23505"));
    assert!(begins(&world) <= before + 1);
}

/// More rows than are held back: they are on their way before the end is known.
#[tokio::test]
async fn e2_rows_that_have_left_are_not_taken_back() {
    let world = start_with(FakeCluster::new(4), |_| {}).await;
    let mut wire = world.connect().await;
    conflicts(&world, 1);
    // Writes as well, by a lock, so that its COMMIT is voted on.
    let before = begins(&world);
    let answer = wire.query("SELECT rows_9000 FOR UPDATE").await;
    let rows = answer.iter().filter(|line| line.starts_with("row ")).count();
    assert_eq!((rows, answer.iter().filter(|line| *line == "error 40001").count()), (9000, 1));
    assert_eq!(begins(&world), before + 1);
    // Few rows: they are held back, and shown once.
    conflicts(&world, 1);
    let answer = wire.query("SELECT rows_3 FOR UPDATE").await;
    assert_eq!(answer, ["T", "row row 0", "row row 1", "row row 2", "SELECT 3", "ready I"]);
    assert_eq!(begins(&world), before + 3);
}

/// Never after a COMMIT whose outcome is not known.
#[tokio::test]
async fn e2_a_commit_in_doubt_is_not_repeated() {
    let world = support::start_patient(FakeCluster::new(4), std::time::Duration::ZERO).await;
    let mut wire = world.connect().await;
    wire.query("SELECT 1").await;
    let before = begins(&world);
    for replica in 1..4 {
        world.cluster.lock().unwrap().replica(replica).lie = Lie::Silent;
    }
    assert_eq!(wire.query("UPDATE t SET x = 1").await, ["error 08007", "ready I"]);
    assert_eq!(begins(&world), before + 1);
}
