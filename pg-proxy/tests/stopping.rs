//! A proxy that stops: who rests is told so at once, who has something under way may end it.

mod support;

use std::time::Duration;
use steeldb_client_shim::testing::FakeCluster;

#[tokio::test]
async fn transactions_may_end_and_sessions_that_rest_do_not_hold_up_the_stop() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let long = Duration::from_secs(600);
    let world = support::start_stopping(FakeCluster::new(4), long, async move { drop(stopped.await) }).await;
    let mut rests = world.connect().await;
    let mut works = world.connect().await;
    works.query("BEGIN").await;
    works.query("INSERT INTO t VALUES (1)").await;
    stop.send(()).unwrap();
    let said = support::show(&rests.until(b'Z').await);
    assert_eq!(said, ["error 57P01"]);
    // Nobody is let in any more; who has a block open goes on to its end.
    let said = works.query("INSERT INTO t VALUES (2)").await;
    assert!(!said.iter().any(|line| line.contains("error")), "{said:?}");
    let said = works.query("COMMIT").await;
    assert!(said.iter().any(|line| line.contains("COMMIT")), "{said:?}");
    let said = support::show(&works.until(b'Z').await);
    assert_eq!(said, ["error 57P01"]);
}

#[tokio::test]
async fn who_does_not_end_in_time_is_broken_off() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let world =
        support::start_stopping(FakeCluster::new(4), Duration::ZERO, async move { drop(stopped.await) })
            .await;
    let mut works = world.connect().await;
    works.query("BEGIN").await;
    works.query("INSERT INTO t VALUES (1)").await;
    stop.send(()).unwrap();
    let said = support::show(&works.until(b'Z').await);
    assert_eq!(said, ["error 57P01"]);
}
