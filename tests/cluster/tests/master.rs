//! Changes of the master on real servers: what runs goes on, and clients see a pause.

use std::time::Duration;
use steeldb_client_shim::Completion;
use steeldb_cluster_tests::{Answer, Client, Cluster, Cut, administrator_key};
use steeldb_types::{Execution, ReplicaId, Term};
use steeldb_wire::transaction::MasterMove;

const PATIENCE: Duration = Duration::from_secs(60);

async fn move_master(client: &Client, to: u16) -> Result<Term, steeldb_client_shim::ShimError> {
    let (term, roster) = (client.shim.term(), client.shim.roster().unwrap());
    let wish = MasterMove::new(term, roster.digest(), ReplicaId(to), &administrator_key());
    client.shim.move_master(&wish, PATIENCE).await
}

fn value(answer: &Answer) -> &str {
    assert_eq!(answer.sqlstate, None);
    answer.rows[0][0].as_deref().unwrap()
}

/// Transactions at all stages, the master's host lost under them: none of them ends.
async fn survives_a_crash(execution: Execution) {
    let mut cluster = Cluster::start_watching(4, execution).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v text)").await.unwrap();
    client.execute("insert into t select i, 'old' from generate_series(1, 9) i").await.unwrap();

    let mut running = client.another().await.unwrap();
    running.begin();
    running.run("update t set v = 'first' where id = 1").await.unwrap();
    assert_eq!(value(&running.run("select v from t where id = 1").await.unwrap()), "first");
    let mut reading = client.another().await.unwrap();
    reading.begin();
    assert_eq!(value(&reading.run("select count(*) from t").await.unwrap()), "9");
    let mut failed = client.another().await.unwrap();
    failed.begin();
    failed.run("savepoint s").await.unwrap();
    let error = failed.run("insert into t values (9, 'twice')").await.unwrap();
    assert_eq!(error.sqlstate.as_deref(), Some("23505"));

    cluster.crash_replica(0).await.unwrap();
    // A new one has to wait for the new master, and changes what the readers must not see.
    client.execute("insert into t values (10, 'new')").await.unwrap();
    assert_eq!(client.shim.term(), Term { epoch: 1, master: ReplicaId(1) });
    assert_eq!(value(&reading.run("select count(*) from t").await.unwrap()), "9", "its own snapshot");
    assert!(matches!(reading.commit().await, Ok(Completion::Committed(_))));
    running.run("update t set v = 'second' where id = 2").await.unwrap();
    assert_eq!(value(&running.run("select v from t where id = 1").await.unwrap()), "first");
    running.commit().await.unwrap();
    failed.run("rollback to s").await.unwrap();
    failed.run("insert into t values (11, 'after')").await.unwrap();
    failed.commit().await.unwrap();
    let rows =
        client.execute("select string_agg(v, ' ' order by id) from t where id in (1, 2, 10, 11)").await;
    assert_eq!(value(&rows.unwrap()), "first second new after");

    // The old master comes back, follows, and holds the same.
    cluster.start_replica(0).await.unwrap();
    assert!(client.shim.connected(PATIENCE).await);
    client.execute("insert into t values (12, 'with all')").await.unwrap();
    client.identical().await;
    assert_eq!(client.shim.term().epoch, 1, "it does not take over again");
    drop((running, reading, failed, client));
    cluster.stop_all().await.unwrap();

    // Which term runs is in the order: all start again under the new master.
    cluster.start_all().await.unwrap();
    let mut client = cluster.session().await.unwrap();
    assert_eq!(value(&client.execute("select count(*) from t").await.unwrap()), "12");
    let statuses = client.shim.status(PATIENCE).await;
    assert!(statuses.values().all(|status| status.term == Term { epoch: 1, master: ReplicaId(1) }));
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_go_on_when_the_masters_host_crashes() {
    survives_a_crash(Execution::Speculative).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_go_on_when_the_masters_host_crashes_under_deferred_execution() {
    survives_a_crash(Execution::Deferred).await;
}

/// An administrator moves the master round, under transactions that draw from sequences and wait for locks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_moved_under_load_and_back() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id serial primary key, v int)").await.unwrap();
    client.execute("create table counter (id int primary key, n int)").await.unwrap();
    client.execute("insert into counter values (1, 0)").await.unwrap();

    let mut workers = Vec::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for worker in 0..3 {
        let mut session = client.another().await.unwrap();
        let stopped = stopped.clone();
        workers.push(tokio::spawn(async move {
            let (mut committed, mut retried) = (0, 0);
            while !*stopped.borrow() {
                session.begin();
                let sql = format!("insert into t (v) values ({worker}) returning id");
                let drawn = |answer: Answer| assert_eq!(answer.sqlstate, None, "drawing and inserting");
                let mut result = session.run(&sql).await.map(drawn);
                if result.is_ok() && worker == 0 {
                    result = session.run("update counter set n = n + 1").await.map(drop);
                }
                let result = match result {
                    Ok(()) => session.commit().await.map(|_| ()),
                    Err(error) => {
                        let _ = session.rollback().await;
                        Err(error)
                    }
                };
                match result {
                    Ok(()) => committed += 1,
                    Err(error) => {
                        assert!(["40001", "40P01"].contains(&error.sqlstate.as_str()), "{error:?}");
                        retried += 1;
                    }
                }
            }
            (committed, retried)
        }));
    }
    for (epoch, to) in (1..).zip([1, 3, 2, 0]) {
        let term = move_master(&client, to).await.unwrap();
        assert_eq!(term, Term { epoch, master: ReplicaId(to) });
        client.execute("select 1").await.unwrap();
        // Something is committed under each master.
        client.execute("insert into t (v) values (9)").await.unwrap();
    }
    stop.send(true).unwrap();
    let mut committed = 4;
    for worker in workers {
        let (done, retried) = worker.await.unwrap();
        assert!(done > 0 && retried < done.max(8), "{done} committed, {retried} to be retried");
        committed += done;
    }
    let rows = client.execute("select count(*)::int, count(distinct id)::int from t").await.unwrap();
    let committed = committed.to_string();
    assert_eq!(
        rows.rows[0],
        [Some(committed.clone()), Some(committed)],
        "nothing lost, no number drawn twice"
    );
    client.identical().await;

    let same = move_master(&client, 0).await.unwrap_err();
    assert!(same.message.contains("already"), "{same}");
    let nobody = move_master(&client, 7).await.unwrap_err();
    assert!(nobody.message.contains("no member"), "{nobody}");
    cluster.stop_all().await.unwrap();
}

/// What a session has SET holds at a replica that lost it, when that one becomes the master (B11).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b11_a_sessions_settings_follow_it_to_a_replica_that_was_away() {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("set datestyle = 'German, DMY'").await.unwrap();
    client.execute("set search_path = pg_catalog").await.unwrap();
    let date = |answer: &Answer| value(answer).to_string();
    let sql = "select '2026-11-26'::pg_catalog.date::pg_catalog.text";
    assert_eq!(date(&client.execute(sql).await.unwrap()), "26.11.2026");
    cluster.stop_replica(2).await.unwrap();
    cluster.start_replica(2).await.unwrap();
    assert!(client.shim.connected(PATIENCE).await);
    client.execute("select 1").await.unwrap();
    move_master(&client, 2).await.unwrap();
    assert_eq!(date(&client.execute(sql).await.unwrap()), "26.11.2026");
    cluster.stop_all().await.unwrap();
}

/// A replica that only follows may be lost at any time; the next master is lost as well, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_master_after_the_other_is_lost() {
    let mut cluster = Cluster::start_watching(4, Execution::Speculative).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key)").await.unwrap();
    for (lost, id) in [(0, 1), (1, 2), (2, 3)] {
        cluster.crash_replica(lost).await.unwrap();
        client.execute(&format!("insert into t values ({id})")).await.unwrap();
        assert_eq!(client.shim.term().master, ReplicaId(lost + 1));
        cluster.start_replica(lost).await.unwrap();
        assert!(client.shim.connected(PATIENCE).await);
        client.identical().await;
    }
    assert_eq!(value(&client.execute("select count(*) from t").await.unwrap()), "3");
    cluster.stop_all().await.unwrap();
}

/// An open transaction drew a number under the old master. Nobody else has executed that, and no commit tells of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_what_an_open_transaction_drew_the_next_master_does_not_draw_again() {
    let mut cluster = Cluster::start_watching(4, Execution::Deferred).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id serial primary key)").await.unwrap();
    let mut open = client.another().await.unwrap();
    open.begin();
    let sql = "insert into t default values returning id";
    let drawn = value(&open.run(sql).await.unwrap()).to_string();
    move_master(&client, 1).await.unwrap();
    assert_ne!(value(&client.execute(sql).await.unwrap()), drawn);
    drop(open);
    // Draws of others leave a sequence set to what comes next.
    for replica in 0..4 {
        let set = "select pg_catalog.setval('public.t_id_seq', 5000, false)";
        cluster.behind(replica).await.unwrap().simple(set).await.unwrap();
    }
    move_master(&client, 2).await.unwrap();
    assert_eq!(value(&client.execute(sql).await.unwrap()), "6000");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Waits until a term runs at all replicas.
async fn all_under(client: &Client, term: Term) {
    while !client.shim.status(PATIENCE).await.values().all(|status| status.term == term) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Transactions that end before their client has heard of the new master, whose term has begun: their Finish is all that it
/// says to that one.
async fn ends_without_having_heard_of_the_new_master(execution: Execution) {
    let mut cluster = Cluster::start_executing(4, execution).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id serial primary key, v int)").await.unwrap();
    let (unaware, _severed) = cluster.severed_session(Cut::Terms).await.unwrap();
    for round in 0..5 {
        let mut writing = unaware.another().await.unwrap();
        writing.begin();
        let sql = format!("insert into t (v) values ({round}) returning v");
        assert_eq!(value(&writing.run(&sql).await.unwrap()), round.to_string());
        let mut reading = unaware.another().await.unwrap();
        reading.begin();
        assert_eq!(value(&reading.run("select count(*) from t").await.unwrap()), round.to_string());
        let mut undone = unaware.another().await.unwrap();
        undone.begin();
        undone.run("insert into t (v) values (99)").await.unwrap();

        let term = move_master(&client, 1).await.unwrap();
        all_under(&client, term).await;
        assert!(matches!(writing.commit().await, Ok(Completion::Committed(Some(_)))));
        assert!(matches!(reading.commit().await, Ok(Completion::Committed(None))));
        assert!(matches!(undone.rollback().await, Ok(Completion::RolledBack)));
        // Back to the one that the client takes for the master.
        let term = move_master(&client, 0).await.unwrap();
        all_under(&client, term).await;
    }
    let rows = client.execute("select string_agg(v::text, ' ' order by v) from t").await.unwrap();
    assert_eq!(value(&rows), "0 1 2 3 4");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_a_transaction_before_hearing_of_the_new_master_is_answered() {
    ends_without_having_heard_of_the_new_master(Execution::Speculative).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_a_transaction_before_hearing_of_the_new_master_is_answered_under_deferred_execution() {
    ends_without_having_heard_of_the_new_master(Execution::Deferred).await;
}

/// The master moves while transactions commit: their Finishes are under way at any moment of it, and none of them ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_moves_at_any_moment_of_a_commit_under_deferred_execution() {
    let mut cluster = Cluster::start_executing(4, Execution::Deferred).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, round int)").await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(client.another().await.unwrap());
    }
    for round in 1..=8 {
        for (session, of) in sessions.iter_mut().zip(1..) {
            session.begin();
            let sql = format!("insert into t values ({round}{of}, {round})");
            assert_eq!(session.run(&sql).await.unwrap().sqlstate, None);
        }
        let moves = move_master(&client, round % 4);
        // At moments spread over that.
        let commits = sessions.iter_mut().zip(0..).map(async |(session, nth)| {
            tokio::time::sleep(Duration::from_millis(4 * nth)).await;
            session.commit().await
        });
        let (moved, committed) = tokio::join!(moves, futures::future::join_all(commits));
        moved.unwrap();
        for completion in committed {
            assert!(matches!(completion, Ok(Completion::Committed(_))), "round {round}: {completion:?}");
        }
    }
    assert_eq!(value(&client.execute("select count(*)::int from t").await.unwrap()), "64");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Under deferred execution a master gathers what it says of running transactions. It is moved right behind what they drew: the
/// next one does that again with the same numbers, whether it is told next that they commit or that they go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a9_what_was_drawn_right_before_the_master_moves_is_reproduced() {
    let mut cluster = Cluster::start_executing(4, Execution::Deferred).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id serial primary key, round int)").await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..6 {
        sessions.push(client.another().await.unwrap());
    }
    for round in 1..=6 {
        // Not in the order in which they are told to go on.
        let mut drawn = Vec::new();
        for session in sessions.iter_mut().rev() {
            session.begin();
            let answer = session.run("insert into t (round) values (1) returning id").await.unwrap();
            drawn.insert(0, value(&answer).to_string());
        }
        move_master(&client, round % 4).await.unwrap();
        let ends = sessions.iter_mut().zip(&drawn).zip(0..).map(async |((session, id), nth)| {
            if nth % 2 == 0 {
                let last = session.run("select currval('t_id_seq')").await?;
                assert_eq!(value(&last), id);
            }
            session.commit().await
        });
        for completion in futures::future::join_all(ends).await {
            assert!(matches!(completion, Ok(Completion::Committed(_))), "round {round}: {completion:?}");
        }
    }
    assert_eq!(value(&client.execute("select count(*)::int from t").await.unwrap()), "36");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

/// Its first master was just showing it, and is the master again before it ends.
async fn is_moved_away_and_back_while_it_shows(execution: Execution) {
    let mut cluster = Cluster::start_executing(4, execution).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, v int)").await.unwrap();
    client.execute("insert into t values (1, 0)").await.unwrap();
    let (mut holder, mut watcher) = (cluster.behind(0).await.unwrap(), cluster.behind(0).await.unwrap());
    holder.simple("begin; select from public.t for update").await.unwrap();
    let mut session = client.another().await.unwrap();
    session.begin();
    let moves = async {
        // The statement waits for a lock that the first master alone knows of.
        let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
        while watcher.simple(waits).await.unwrap().value() == Some("0") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let term = move_master(&client, 1).await.unwrap();
        all_under(&client, term).await;
    };
    let (answer, ()) = tokio::join!(session.run("update t set v = v + 1 returning v"), moves);
    assert_eq!(value(&answer.unwrap()), "1", "as the second master says");
    let term = move_master(&client, 0).await.unwrap();
    all_under(&client, term).await;
    holder.simple("rollback").await.unwrap();
    assert!(matches!(session.commit().await, Ok(Completion::Committed(Some(_)))));
    assert_eq!(value(&client.execute("select v from t").await.unwrap()), "1");
    client.identical().await;
    cluster.stop_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_master_was_showing_goes_on_when_it_is_moved_away_and_back() {
    is_moved_away_and_back_while_it_shows(Execution::Speculative).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_master_was_showing_goes_on_when_it_is_moved_away_and_back_under_deferred_execution() {
    is_moved_away_and_back_while_it_shows(Execution::Deferred).await;
}

/// Its client acknowledges results in portions, and what is left of one in a term it never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_its_whole_window_at_a_master_that_was_moved_away_and_back() {
    let mut cluster = Cluster::start_with(4, Duration::from_secs(10)).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    for round in 1..=14 {
        let answer = client.execute("select repeat('x', 900000)").await.unwrap();
        assert_eq!(value(&answer).len(), 900_000);
        let term = move_master(&client, round % 2).await.unwrap();
        all_under(&client, term).await;
    }
    cluster.stop_all().await.unwrap();
}
