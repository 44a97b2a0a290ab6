//! Ends of transactions and what the application is told of them.

use super::*;

#[test]
fn abort_reasons_become_sqlstates() {
    let cases = [
        (AbortReason::Expired, "40001"),
        (AbortReason::Walled, "40001"),
        (AbortReason::Gone, "25P03"),
        (AbortReason::Client, "40000"),
        (AbortReason::Failed { sqlstate: SqlState(*b"23505") }, "23505"),
        (AbortReason::Failed { sqlstate: SqlState::BULK_BUSY }, "40001"),
        // PostgreSQL's own: a temp_file_limit that was reached, for one.
        (AbortReason::Failed { sqlstate: SqlState(*b"53400") }, "53400"),
        (AbortReason::Mismatch { operation: 0 }, "40000"),
    ];
    for (reason, sqlstate) in cases {
        let mut world = World::new();
        for replica in 0..4 {
            world.cluster.replica(replica).lie = Lie::Honest;
        }
        world.transaction(&["INSERT nextval('s')", "UPDATE 2"]);
        world.cut = (0..4).map(ReplicaId).collect();
        world.core.finish(Decision::Commit);
        let tx = world.core.tx().unwrap();
        for from in [1, 2] {
            assert!(world.finished().is_none());
            let outcome = Outcome::Aborted { reason };
            world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
            world.settle();
        }
        let error = world.finished().unwrap().unwrap_err();
        assert_eq!(error.sqlstate.as_str(), sqlstate);
        let of_bulk = reason == (AbortReason::Failed { sqlstate: SqlState::BULK_BUSY });
        assert_eq!(error.message.contains("bulk"), of_bulk, "{error:?}");
        if reason == (AbortReason::Mismatch { operation: 0 }) {
            assert_eq!(error.message, "replicas disagree on the effects of the transaction");
        }
    }
}

#[test]
fn effects_that_differ_name_the_likeliest_statement_first() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let writes = OperationFlags { writes: true, ..OperationFlags::default() };
    for (sql, flags) in
        [("SELECT 0", OperationFlags::default()), ("UPDATE t", writes), ("INSERT nextval('s')", writes)]
    {
        world.add(sql, flags);
    }
    world.settle();
    let transaction = world.core.transaction.as_ref().unwrap();
    let error = report::of_abort(transaction, AbortReason::Mismatch { operation: 0 });
    let detail = error.detail.unwrap();
    assert!(detail.find("nextval").unwrap() < detail.find("UPDATE").unwrap(), "{detail}");
    assert!(!detail.contains("SELECT 0"), "{detail}");
}

#[test]
fn a_transaction_that_the_order_ended_meanwhile_says_so_at_the_next_statement() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    let tx = world.core.tx().unwrap();
    for from in [1, 3] {
        let outcome = Outcome::Aborted { reason: AbortReason::Walled };
        world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
    }
    let events = world.run("SELECT 1");
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "40001")
    );
    assert!(world.finish(Decision::Rollback).is_ok());
}

/// Between two statements the order ends it, or the master is lost: nobody will vouch any more for what was shown.
#[test]
fn a15_a_rollback_of_what_ended_meanwhile_confirms_nothing() {
    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    let tx = world.core.tx().unwrap();
    for from in [1, 3] {
        let outcome = Outcome::Aborted { reason: AbortReason::Gone };
        world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
    }
    assert_eq!(code(world.finish(Decision::Rollback)), "25P03");

    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    world.core.link_down(ReplicaId(0));
    world.core.expire(Waiting::Master);
    assert_eq!(code(world.finish(Decision::Rollback)), "40001");
}

#[test]
fn a_commit_whose_outcome_nobody_can_tell_is_in_doubt() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.finish(Decision::Commit);
    let tx = world.core.tx().unwrap();
    world.settle();
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Outcome));
    for replica in 0..3 {
        assert!(world.finished().is_none(), "{replica}");
        world.core.link_down(ReplicaId(replica));
        world.settle();
    }
    let error = world.finished().unwrap().unwrap_err();
    assert_eq!(error.sqlstate.as_str(), "08007");
    assert!(error.message.contains(&tx.to_string()));

    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.finish(Decision::Commit);
    world.core.expire(Waiting::Outcome);
    world.settle();
    assert_eq!(code(world.finished().unwrap()), "08007");
}

#[test]
fn the_masters_lost_link_does_not_unsettle_a_commit_that_others_confirm() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.finish(Decision::Commit);
    let tx = world.core.tx().unwrap();
    world.core.link_down(ReplicaId(0));
    for from in 1..4 {
        let outcome = Outcome::Committed { position: Position(5) };
        world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
    }
    world.settle();
    assert_eq!(world.finished(), Some(Ok(Completion::Committed(Some(Position(5))))));
}

#[test]
fn a_begin_that_is_not_ordered_fails_and_is_undone_once_it_is() {
    let mut world = World::new();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.begin(Modes::default());
    assert!(world.run("INSERT 1").is_empty());
    let tx = world.core.tx().unwrap();
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Slot));
    world.core.expire(Waiting::Slot);
    assert!(matches!(world.run("SELECT 1")[0], Event::OperationFailed { .. }));
    assert!(world.finish(Decision::Rollback).is_ok());
    world.cut.clear();
    world
        .core
        .receive(ReplicaId(0), ReplicaMessage::Begun { tx, slot: Position(4), timestamp: Timestamp(0) });
    world.settle();
    assert_eq!(world.ordered(|ordered| matches!(ordered, Ordered::Rollback { slot: Position(4), .. })), 1);
}

#[test]
fn a_begin_refused_by_f_plus_1_is_an_error_and_by_one_is_not() {
    let mut world = World::new();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.begin(Modes::default());
    world.add("INSERT 1", OperationFlags::default());
    let refuse = || ReplicaMessage::Refused { session: SessionId(7), sequence: 1, reason: "full".into() };
    world.core.receive(ReplicaId(3), refuse());
    world.core.receive(ReplicaId(3), refuse());
    assert!(!world.core.in_failed_transaction());
    world.core.receive(ReplicaId(1), refuse());
    world.settle();
    assert!(
        matches!(&world.events[0], Event::OperationFailed { error, .. } if error.sqlstate.as_str() == "53300")
    );
}

#[test]
fn cancel_goes_to_the_master_and_ends_what_only_waits() {
    let mut world = World::new();
    world.core.cancel();
    world.transaction(&["SELECT 1"]);
    world.core.cancel();
    world.settle();
    let cancels = |message: &ClientMessage| matches!(message, ClientMessage::Cancel { .. });
    assert_eq!(world.heard(0, cancels), 0, "nothing runs");
    world.run("COPY t FROM STDIN");
    world.core.cancel();
    world.settle();
    assert_eq!((world.heard(0, cancels), world.heard(1, cancels)), (1, 0));
    world.events.clear();
    world.core.cancel();
    world.settle();
    assert!(matches!(&world.events[..], [Event::OperationFailed { .. }]), "the user insists");

    let mut world = World::new();
    world.core.link_down(ReplicaId(0));
    world.core.begin(Modes::default());
    world.run("SELECT 1");
    world.core.cancel();
    world.settle();
    assert!(
        matches!(&world.events[0], Event::OperationFailed { error, .. } if error.sqlstate.as_str() == "57014")
    );
}
