//! Load, run and check against a real server, scaled down.

mod server;

use server::Server;
use steeldb_tpcc::transactions::Kind;
use steeldb_tpcc::{Error, LoadOptions, Report, RunOptions, Scale, check, load, run, schema};
use tokio_postgres::error::SqlState;

const SCALE: Scale = Scale { warehouses: 2, items: 200, customers_per_district: 30 };

fn load_options(server: &Server) -> LoadOptions {
    LoadOptions { scale: SCALE, seed: Some(11), ..LoadOptions::new(server.connection(), SCALE.warehouses) }
}

fn run_options(server: &Server, transactions: u64) -> RunOptions {
    RunOptions {
        terminals: Some(4),
        duration: None,
        transactions: Some(transactions),
        seed: Some(12),
        max_tries: 100,
        ..RunOptions::new(server.connection())
    }
}

async fn query_number(server: &Server, sql: &str) -> i64 {
    let session = server.connection().open().await.expect("a session");
    session.client.query_one(sql, &[]).await.expect(sql).get(0)
}

/// Every transaction of the budget ended, none unexpectedly.
fn assert_all_completed(report: &Report, transactions: u64) {
    assert!(report.errors.is_empty(), "{report}");
    let completed: u64 = report.kinds.iter().map(|kind| kind.committed + kind.rolled_back).sum();
    assert_eq!(completed, transactions, "{report}");
    assert_eq!((report.setup.terminals_lost, report.setup.terminals_hung), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_database_stays_consistent_under_the_mix() {
    let server = Server::start();
    let loaded = load(&load_options(&server)).await.expect("load");
    assert!(loaded.warnings.is_empty(), "{loaded}");
    assert!(!loaded.specification_scale);
    assert_eq!(query_number(&server, "SELECT count(*) FROM stock").await, 400);
    assert_eq!(query_number(&server, "SELECT count(*) FROM customer").await, 600);
    assert_eq!(query_number(&server, "SELECT count(*) FROM new_order").await, 180);
    let fresh = check(&server.connection()).await.expect("check");
    assert!(fresh.is_consistent() && fresh.conditions.len() == 12, "{fresh}");

    let orders = "SELECT count(*) FROM orders";
    let before = query_number(&server, orders).await;
    let one_by_one = run(&run_options(&server, 1000)).await.expect("run");
    assert_all_completed(&one_by_one, 1000);
    assert!(one_by_one.kinds.iter().all(|kind| kind.committed > 0), "{one_by_one}");
    let pipelined = RunOptions { pipelining: true, seed: Some(13), ..run_options(&server, 600) };
    let pipelined = run(&pipelined).await.expect("run");
    assert_all_completed(&pipelined, 600);

    let new_orders = |report: &Report| {
        let kind = report.kinds.iter().find(|kind| kind.kind == Kind::NewOrder).expect("NEW-ORDER");
        (kind.committed, kind.rolled_back)
    };
    let ((first, rolled_back), (second, _)) = (new_orders(&one_by_one), new_orders(&pipelined));
    assert!(rolled_back > 0, "one order in a hundred is rolled back: {one_by_one}");
    let added = query_number(&server, orders).await - before;
    assert_eq!(added as u64, first + second, "each counted commit left one order, and nothing else did");
    let after = check(&server.connection()).await.expect("check");
    assert!(after.is_consistent(), "{after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_notices_planted_inconsistencies() {
    let server = Server::start();
    load(&LoadOptions { foreign_keys: false, analyze: false, ..load_options(&server) }).await.expect("load");
    for (statement, undo, clauses) in [
        (
            "UPDATE warehouse SET w_ytd = w_ytd + 0.01 WHERE w_id = 2",
            "UPDATE warehouse SET w_ytd = w_ytd - 0.01 WHERE w_id = 2",
            &["3.3.2.1", "3.3.2.8"][..],
        ),
        (
            "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_id = 4",
            "UPDATE district SET d_next_o_id = d_next_o_id - 1 WHERE d_id = 4",
            &["3.3.2.2"],
        ),
        (
            "DELETE FROM new_order WHERE no_w_id = 1 AND no_d_id = 1 AND no_o_id = 25",
            "INSERT INTO new_order VALUES (1, 1, 25)",
            &["3.3.2.3", "3.3.2.5", "3.3.2.11"],
        ),
        (
            "UPDATE orders SET o_ol_cnt = o_ol_cnt + 1 WHERE o_w_id = 1 AND o_d_id = 1 AND o_id = 1",
            "UPDATE orders SET o_ol_cnt = o_ol_cnt - 1 WHERE o_w_id = 1 AND o_d_id = 1 AND o_id = 1",
            &["3.3.2.4", "3.3.2.6"],
        ),
        (
            "UPDATE orders SET o_carrier_id = NULL WHERE o_w_id = 1 AND o_d_id = 1 AND o_id = 1",
            "UPDATE orders SET o_carrier_id = 1 WHERE o_w_id = 1 AND o_d_id = 1 AND o_id = 1",
            &["3.3.2.5", "3.3.2.7"],
        ),
        (
            "UPDATE district SET d_ytd = d_ytd + CASE d_id WHEN 1 THEN 1 ELSE -1 END WHERE d_id < 3",
            "UPDATE district SET d_ytd = d_ytd - CASE d_id WHEN 1 THEN 1 ELSE -1 END WHERE d_id < 3",
            &["3.3.2.9"],
        ),
        (
            "UPDATE customer SET c_balance = c_balance + 1 WHERE c_id = 7",
            "UPDATE customer SET c_balance = c_balance - 1 WHERE c_id = 7",
            &["3.3.2.10", "3.3.2.12"],
        ),
    ] {
        let session = server.connection().open().await.expect("a session");
        assert!(session.client.execute(statement, &[]).await.expect(statement) > 0);
        let report = check(&server.connection()).await.expect("check");
        let violated: Vec<&str> = report.violated().map(|condition| condition.clause.as_str()).collect();
        assert_eq!(violated, clauses, "after {statement}\n{report}");
        session.client.execute(undo, &[]).await.expect(undo);
    }
    let report = check(&server.connection()).await.expect("check");
    assert!(report.is_consistent(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_replaces_tables_only_when_told_to() {
    let server = Server::start();
    let not_loaded = run(&run_options(&server, 1)).await.expect_err("nothing to run on");
    assert!(matches!(not_loaded, Error::NotLoaded(_)), "{not_loaded}");
    assert!(matches!(check(&server.connection()).await, Err(Error::NotLoaded(_))));

    let quick = LoadOptions { analyze: false, connections: 2, ..load_options(&server) };
    load(&quick).await.expect("load");
    let digest = "SELECT sum(hashtext(stock::text))::bigint FROM stock";
    let first = query_number(&server, digest).await;
    let refused = load(&quick).await.expect_err("a second load is refused");
    assert!(matches!(&refused, Error::TablesExist(tables) if tables.contains("order_line")), "{refused}");
    assert!(refused.to_string().contains("--drop"));

    // The same seed gives the same rows over another number of connections.
    load(&LoadOptions { drop: true, connections: 5, ..quick }).await.expect("load");
    assert_eq!(query_number(&server, digest).await, first);
    let keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'";
    let expected: usize =
        schema::CREATE_FOREIGN_KEYS.iter().map(|sql| sql.matches("FOREIGN KEY").count()).sum();
    assert_eq!(query_number(&server, keys).await, expected as i64);
    let too_many = RunOptions { warehouses: Some(3), ..run_options(&server, 1) };
    assert!(matches!(run(&too_many).await, Err(Error::Options(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_sqlstate() {
    let server = Server::start();
    load(&LoadOptions { analyze: false, ..load_options(&server) }).await.expect("load");
    let session = server.connection().open().await.expect("a session");
    // Every PAYMENT will break this constraint.
    let constraint = "ALTER TABLE history ADD CONSTRAINT no_more CHECK (h_amount < 0) NOT VALID";
    session.client.batch_execute(constraint).await.expect("a constraint");
    let report = run(&RunOptions { terminals: Some(1), ..run_options(&server, 100) }).await.expect("run");
    let refused = &report.errors[SqlState::CHECK_VIOLATION.code()];
    assert_eq!(refused.count, 43, "the deck holds 43 PAYMENTs: {report}");
    assert!(refused.example.contains("no_more"), "{report}");
    assert!(check(&server.connection()).await.expect("check").is_consistent());
}

/// Makes the server end the session of the first transaction that inserts a HISTORY row: at the statement,
/// or, with a deferred trigger, at COMMIT.
async fn plant_session_end(server: &Server, timing: &str) {
    let sql = format!(
        "CREATE SEQUENCE once;
         CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('once') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER end_session AFTER INSERT ON history {timing}
         FOR EACH ROW EXECUTE FUNCTION end_session();"
    );
    let session = server.connection().open().await.expect("a session");
    session.client.batch_execute(&sql).await.expect("a trigger");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lost_before_commit_is_replaced() {
    let server = Server::start();
    load(&LoadOptions { analyze: false, ..load_options(&server) }).await.expect("load");
    plant_session_end(&server, "NOT DEFERRABLE").await;
    let report = run(&RunOptions { terminals: Some(1), ..run_options(&server, 100) }).await.expect("run");
    assert_eq!(report.errors[SqlState::ADMIN_SHUTDOWN.code()].count, 1, "{report}");
    assert_eq!((report.failed(), report.commits_in_doubt, report.reconnects), (1, 0, 1), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_to_commit_is_reported_and_not_retried() {
    let server = Server::start();
    load(&LoadOptions { analyze: false, ..load_options(&server) }).await.expect("load");
    plant_session_end(&server, "DEFERRABLE INITIALLY DEFERRED").await;
    let report = run(&RunOptions { terminals: Some(1), ..run_options(&server, 100) }).await.expect("run");
    assert_eq!((report.failed(), report.commits_in_doubt, report.reconnects), (1, 1, 1), "{report}");
    assert!(report.retries.is_empty(), "{report}");
    let payments = query_number(&server, "SELECT count(*) FROM history").await - 600;
    assert_eq!(payments, 42, "the doubtful PAYMENT was not tried again: {report}");
}

/// Minutes and 200 MB; cargo test -p steeldb-tpcc --release -- --ignored --nocapture
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "loads a warehouse at the specification's scale"]
async fn the_specification_scale_loads_runs_and_is_consistent() {
    let server = Server::start();
    let loaded = load(&LoadOptions { progress: true, ..LoadOptions::new(server.connection(), 1) })
        .await
        .expect("load");
    println!("{loaded}");
    assert!(loaded.specification_scale && loaded.warnings.is_empty());
    let options =
        RunOptions { terminals: Some(4), progress: true, max_tries: 100, ..run_options(&server, 20_000) };
    for pipelining in [false, true] {
        let report = run(&RunOptions { pipelining, ..options.clone() }).await.expect("run");
        println!("{report}");
        assert_all_completed(&report, 20_000);
    }
    let checked = check(&server.connection()).await.expect("check");
    println!("{checked}");
    assert!(checked.is_consistent());
}
