//! One replica after the other is stopped and started again, as docs/operations.md says, while applications work. They see
//! a pause; of errors those alone that are to be retried anyway: 40001, 40P01.

use crate::processes::{N, Processes, Which, connect};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Applications at work.
const CLIENTS: usize = 4;

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    committed: AtomicU64,
    retried: AtomicU64,
}

/// One transaction after the other; gives the longest time between two of its commits.
async fn work(mut client: Client, id: usize, seen: Arc<Seen>) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut number = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        match transaction(&mut client, id, number).await {
            Ok(()) => {
                number += 1;
                seen.committed.fetch_add(1, Ordering::Relaxed);
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => {
                let code = error.code().map(|code| code.code().to_string());
                let retry = matches!(code.as_deref(), Some("40001" | "40P01"));
                assert!(retry, "client {id}, transaction {number}: {error:?}");
                seen.retried.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    longest
}

async fn transaction(client: &mut Client, id: usize, number: i32) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let id = i32::try_from(id).unwrap();
    transaction.execute("UPDATE account SET balance = balance + 1 WHERE id = $1", &[&id]).await?;
    transaction.execute("INSERT INTO history VALUES ($1, $2)", &[&id, &number]).await?;
    let row = transaction.query_one("SELECT balance FROM account WHERE id = $1", &[&id]).await?;
    assert_eq!(row.get::<_, i32>(0), number + 1, "a transaction sees its own");
    transaction.commit().await
}

fn master(cluster: &Processes) -> usize {
    let output = cluster.command(&["status", "--json"]);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let master = status["master"]["replica"].as_u64();
    usize::try_from(master.unwrap_or_else(|| panic!("nobody is the master: {status}"))).unwrap()
}

#[test]
fn a_rolling_restart_is_a_pause() {
    let mut cluster = Processes::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = cluster.url();
    let seen = Arc::new(Seen::default());
    let workers = runtime.block_on(async {
        let client = connect(&url).await.unwrap();
        client
            .batch_execute(
                "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
                 CREATE TABLE history (id int, number int, PRIMARY KEY (id, number));",
            )
            .await
            .unwrap();
        let mut workers = Vec::new();
        for id in 0..CLIENTS {
            client.batch_execute(&format!("INSERT INTO account VALUES ({id}, 0)")).await.unwrap();
            workers.push((connect(&url).await.unwrap(), id));
        }
        let spawn = |(client, id)| tokio::spawn(work(client, id, seen.clone()));
        workers.into_iter().map(spawn).collect::<Vec<_>>()
    });

    let key = cluster.administrator();
    for id in 0..N {
        if master(&cluster) == id {
            let to = ((id + 1) % N).to_string();
            let moved = cluster.command(&["master", "move", "--key", key.to_str().unwrap(), &to]);
            assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
        }
        cluster.stop_one(Which::Replica(id));
        cluster.start_one(Which::Replica(id));
        cluster.wait_until_ready(Which::Replica(id));
        // All go on before the next one is taken.
        let before = seen.committed.load(Ordering::Relaxed);
        crate::processes::until("commits after a restart", || {
            assert!(workers.iter().all(|worker| !worker.is_finished()), "a client saw an error");
            (seen.committed.load(Ordering::Relaxed) >= before + 20).then_some(())
        });
    }

    seen.stop.store(true, Ordering::Relaxed);
    let (committed, retried) = runtime.block_on(async {
        let mut longest = Duration::ZERO;
        for worker in workers {
            longest = longest.max(worker.await.expect("a client saw an error that is not to be retried"));
        }
        let (committed, retried) =
            (seen.committed.load(Ordering::Relaxed), seen.retried.load(Ordering::Relaxed));
        println!("{committed} commits, {retried} retries, longest pause {longest:?}");
        let client = connect(&url).await.unwrap();
        let row = client.query_one("SELECT count(*) FROM history", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::try_from(committed).unwrap(), "what was confirmed is there");
        let row = client.query_one("SELECT sum(balance) FROM account", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::try_from(committed).unwrap());
        (committed, retried)
    });
    assert!(committed > 0 && retried < committed, "{committed} commits, {retried} retries");
    let verified = cluster.command(&["verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
