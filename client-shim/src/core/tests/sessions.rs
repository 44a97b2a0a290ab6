//! Sessions: opened, refused, lost with a link and made good.

use super::*;

#[test]
fn a_session_opens_on_the_master_and_a_quorum() {
    let mut cluster = FakeCluster::new(4);
    cluster.replica(3).lie = Lie::Silent;
    let world = World::with(cluster);
    assert!(matches!(world.events[..], [Event::Opened { .. }]));

    for silent in [vec![0], vec![2, 3]] {
        let mut cluster = FakeCluster::new(4);
        for replica in silent {
            cluster.replica(replica).lie = Lie::Silent;
        }
        let mut world = World::with(cluster);
        assert!(world.events.is_empty());
        assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Opening));
        world.core.expire(Waiting::Opening);
        world.settle();
        assert!(matches!(&world.events[..], [Event::Lost(error)] if error.sqlstate.as_str() == "57P03"));
    }
}

#[test]
fn a_refused_session_fails_with_what_the_master_says_and_one_liar_cannot_refuse_it() {
    let mut world = World::new();
    let session = SessionId(7);
    let refuse = || ReplicaMessage::SessionRefused {
        session,
        sqlstate: SqlState::parse("28000"),
        message: "no".into(),
    };
    world.core.receive(ReplicaId(2), refuse());
    world.settle();
    assert!(world.events.is_empty());
    world.core.receive(ReplicaId(0), refuse());
    world.settle();
    assert!(matches!(&world.events[..], [Event::Lost(error)] if error.sqlstate.as_str() == "28000"));
}

#[test]
fn a_lost_link_is_made_good_before_the_next_transaction_with_all_statements() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.link_down(ReplicaId(2));
    world.cluster.disconnect(ReplicaId(2));
    world.core.link_up(ReplicaId(2));
    world.settle();
    let opens = |message: &ClientMessage| matches!(message, ClientMessage::OpenSession { .. });
    assert_eq!(world.heard(2, opens), 1, "not within the transaction");
    assert!(world.finish(Decision::Commit).is_ok(), "three of four suffice");
    assert_eq!(world.heard(2, opens), 2);
    world.transaction(&["INSERT 1", "SELECT 2"]);
    assert!(world.finish(Decision::Commit).is_ok());
    let defines = |message: &ClientMessage| matches!(message, ClientMessage::Define { .. });
    assert_eq!(world.heard(2, defines), 3, "INSERT 1 twice, SELECT 2 once");
}

#[test]
fn a_transaction_that_loses_one_replica_after_another_can_be_retried_at_once() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    for replica in [2, 3] {
        world.core.link_down(ReplicaId(replica));
        world.cluster.disconnect(ReplicaId(replica));
        if replica == 2 {
            world.core.link_up(ReplicaId(2));
        }
        world.settle();
    }
    let events = world.run("SELECT 2");
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "40001"),
        "{events:?}"
    );
    assert_eq!(world.finish(Decision::Rollback), Ok(Completion::RolledBack));
    world.transaction(&["INSERT 1"]);
    assert!(world.finish(Decision::Commit).is_ok(), "replica 2 takes part again");
}

#[test]
fn b11_a_session_that_is_opened_again_takes_its_settings_along() {
    let mut world = World::new();
    world.transaction(&["SET DateStyle = 'German'"]);
    world.finish(Decision::Commit).unwrap();
    world.transaction(&["SET TimeZone = 'UTC'"]);
    world.finish(Decision::Rollback).unwrap();
    world.core.link_down(ReplicaId(2));
    world.cluster.disconnect(ReplicaId(2));
    world.core.link_up(ReplicaId(2));
    world.settle();
    let restores = |message: &ClientMessage| match message {
        ClientMessage::Restore { settings, .. } => *settings == ["SET DateStyle = 'German'"],
        _ => false,
    };
    assert_eq!(world.heard(2, restores), 1);
    world.transaction(&["INSERT 1"]);
    assert!(world.finish(Decision::Commit).is_ok());
}

#[test]
fn the_masters_lost_link_ends_the_transaction_and_the_next_one_waits_for_it() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.link_down(ReplicaId(0));
    world.cluster.disconnect(ReplicaId(0));
    assert!(world.run("SELECT 2").is_empty(), "another master may take over");
    world.core.expire(Waiting::Master);
    world.settle();
    let events = std::mem::take(&mut world.events);
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "40001")
    );
    let events = world.run("SELECT 3");
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "25P02")
    );
    assert_eq!(world.finish(Decision::Rollback), Ok(Completion::RolledBack));
    assert_eq!(world.ordered(|ordered| matches!(ordered, Ordered::Rollback { .. })), 1);

    world.core.begin(Modes::default());
    assert!(world.run("SELECT 4").is_empty());
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Replicas));
    world.core.link_up(ReplicaId(0));
    world.settle();
    assert!(matches!(world.events[..], [Event::Result { .. }, Event::Executed { failed: false, .. }]));
    world.events.clear();
    assert!(world.finish(Decision::Commit).is_ok());
}

#[test]
fn a_master_that_stays_away_and_a_quorum_that_is_impossible_are_clear_errors() {
    for lost in [vec![0], vec![1, 2]] {
        let mut world = World::new();
        for replica in lost {
            world.core.link_down(ReplicaId(replica));
        }
        world.core.begin(Modes::default());
        assert!(world.run("SELECT 1").is_empty());
        world.core.expire(Waiting::Replicas);
        let events = world.run("SELECT 2");
        assert!(
            matches!(&events[0], Event::OperationFailed { error, .. } if error.sqlstate.as_str() == "57P03")
        );
        assert_eq!(world.finish(Decision::Rollback), Ok(Completion::RolledBack));
    }
}
