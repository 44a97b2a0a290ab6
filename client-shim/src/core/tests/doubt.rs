//! E1: transactions in doubt, and what is believed of the answers.

use super::*;

const COMMITTED: TransactionState = TransactionState::Committed { position: Position(77) };

fn told(world: &mut World) -> Option<Result<TransactionState, ShimError>> {
    std::mem::take(&mut world.events).into_iter().find_map(|event| match event {
        Event::Told(state) => Some(state),
        _ => None,
    })
}

/// Asks; what every replica says is delivered in the order of their numbers.
fn ask(world: &mut World, tx: TxId) -> TransactionState {
    world.core.ask(tx);
    world.settle();
    told(world).expect("an answer").expect("no error")
}

#[test]
fn e1_the_outcome_of_a_transaction_is_asked_of_the_order() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    let first = world.core.tx().unwrap();
    let committed = world.finish(Decision::Commit).unwrap();
    let state = ask(&mut world, first);
    assert!(
        matches!((state, committed), (TransactionState::Committed { position }, Completion::Committed(Some(at))) if position == at)
    );
    assert_eq!(ask(&mut world, TxId { counter: 9, ..first }), TransactionState::Aborted);
    let asked = |ordered: &Ordered| matches!(ordered, Ordered::Outcome { .. });
    assert_eq!(world.ordered(asked), 2);
}

#[test]
fn e1_an_answer_is_believed_on_f_plus_1_equal_ones_and_liars_are_outvoted() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    let tx = world.core.tx().unwrap();
    world.finish(Decision::Rollback).unwrap();
    let mut never = TxId { counter: 9, ..tx };
    for lie in [Lie::SaysCommitted, Lie::SaysAborted] {
        // The liar is heard first.
        world.cluster.replica(0).lie = lie;
        assert_eq!(ask(&mut world, never), TransactionState::Aborted, "{lie:?}");
        never.counter += 1;
    }
    // By hand: one word is none, said twice or not.
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.ask(tx);
    world.settle();
    let sequence = world.core.ordering.as_ref().unwrap().sequence;
    let word = |state| ReplicaMessage::Told { session: SessionId(7), sequence, state };
    world.core.receive(ReplicaId(3), word(COMMITTED));
    world.core.receive(ReplicaId(3), word(COMMITTED));
    world.core.receive(ReplicaId(2), word(TransactionState::NoChanges));
    world.core.receive(ReplicaId(3), word(TransactionState::NoChanges));
    let stale = ReplicaMessage::Told { session: SessionId(7), sequence: sequence - 1, state: COMMITTED };
    world.core.receive(ReplicaId(1), stale);
    world.settle();
    assert_eq!(told(&mut world), None);
    world.core.receive(ReplicaId(1), word(TransactionState::NoChanges));
    world.settle();
    assert_eq!(told(&mut world), Some(Ok(TransactionState::NoChanges)));
}

#[test]
fn e1_a_question_that_nobody_can_answer_ends() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    let tx = world.core.tx().unwrap();
    world.finish(Decision::Rollback).unwrap();
    let failed = |world: &mut World| told(world).map(|result| result.unwrap_err().sqlstate.to_string());
    world.cut = (0..4).map(ReplicaId).collect();
    // It takes too long.
    world.core.ask(tx);
    world.settle();
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Answer));
    // What became lost may have been the answer: it is asked again.
    for _ in 0..5 {
        world.core.expire(Waiting::Answer);
        world.settle();
        assert_eq!(failed(&mut world), None);
    }
    world.core.expire(Waiting::Answer);
    world.settle();
    assert_eq!(failed(&mut world).as_deref(), Some("08006"));
    world.core.ask(tx);
    world.settle();
    world.cut.clear();
    world.core.expire(Waiting::Answer);
    world.settle();
    assert_eq!(told(&mut world), Some(Ok(TransactionState::NoChanges)));
    world.cut = (0..4).map(ReplicaId).collect();
    // Links are lost until f + 1 cannot answer any more. It needs neither the master nor a quorum.
    world.core.ask(tx);
    for replica in [0, 1] {
        world.core.link_down(ReplicaId(replica));
        world.settle();
        assert_eq!(told(&mut world), None);
    }
    world.core.link_down(ReplicaId(2));
    world.settle();
    assert_eq!(failed(&mut world).as_deref(), Some("08006"));
    world.core.ask(tx);
    world.settle();
    assert_eq!(failed(&mut world).as_deref(), Some("08006"), "without links it is not even asked");
    // Inside a transaction it is none.
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.ask(tx);
    world.settle();
    assert_eq!(failed(&mut world).as_deref(), Some("XX000"));
}

/// A replica turns it away that judges it by the client's rights.
#[test]
fn e1_a_question_that_is_turned_away_says_why() {
    let mut world = World::new();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.ask(TxId { session: SessionKey { client: ClientId(9), session: SessionId(1) }, counter: 1 });
    world.settle();
    let sequence = world.core.ordering.as_ref().unwrap().sequence;
    for from in [1, 2] {
        assert_eq!(told(&mut world), None);
        let reason = "invalid: client may not ask".to_string();
        let refused = ReplicaMessage::Refused { session: SessionId(7), sequence, reason };
        world.core.receive(ReplicaId(from), refused);
        world.settle();
    }
    let error = told(&mut world).unwrap().unwrap_err();
    assert!(error.sqlstate.as_str() == "42501" && error.message.contains("may not ask"), "{error:?}");
}

fn backend_gone() -> ReplicaMessage {
    ReplicaMessage::SessionRefused {
        session: SessionId(7),
        sqlstate: SqlState::parse("57P01"),
        message: "its backend is gone".into(),
    }
}

/// The master's server crashes: the order has the outcome all the same, and the others tell it.
#[test]
fn e1_a_commit_whose_master_loses_its_backend_ends_as_the_others_say() {
    let committed = Outcome::Committed { position: Position(9) };
    let aborted = Outcome::Aborted { reason: AbortReason::Failed { sqlstate: SqlState::parse("57P01") } };
    for outcome in [committed, aborted] {
        let mut world = World::new();
        world.transaction(&["INSERT 1"]);
        world.cut = (0..4).map(ReplicaId).collect();
        world.core.finish(Decision::Commit);
        let tx = world.core.tx().unwrap();
        world.settle();
        world.core.receive(ReplicaId(0), backend_gone());
        for from in 1..4 {
            let outcome = outcome.clone();
            world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
        }
        world.settle();
        match (world.finished(), outcome) {
            (Some(Ok(Completion::Committed(Some(position)))), _) => assert_eq!(position, Position(9)),
            (Some(Err(error)), Outcome::Aborted { .. }) => assert_eq!(error.sqlstate.as_str(), "40001"),
            (other, _) => panic!("{other:?}"),
        }
        // The session is opened there again, and goes on.
        world.cut.clear();
        let opened = ReplicaMessage::SessionOpened { session: SessionId(7), parameters: vec![] };
        world.core.receive(ReplicaId(0), opened);
        world.settle();
        world.transaction(&["SELECT 2"]);
        assert!(world.finish(Decision::Commit).is_ok());
    }
}

/// Whatever ends a session between a COMMIT and its answer, the application hears that it is in doubt, and of what.
#[test]
fn e1_a_session_that_ends_while_its_commit_is_under_way_leaves_it_in_doubt() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.cut = (0..4).map(ReplicaId).collect();
    assert_eq!(world.core.in_doubt(), None, "nothing was sent yet");
    world.core.finish(Decision::Commit);
    let tx = world.core.tx().unwrap();
    assert_eq!(world.core.in_doubt(), Some(tx));
    world.core.receive(ReplicaId(0), backend_gone());
    world.settle();
    assert!(world.events.is_empty(), "the others may tell");
    // None is left that could.
    for replica in 1..4 {
        world.core.link_down(ReplicaId(replica));
    }
    world.settle();
    let error = world.finished().expect("the transaction is in doubt").unwrap_err();
    assert_eq!(error.sqlstate.as_str(), "08007");
    assert!(error.message.contains(&tx.to_string()), "{error:?}");
    assert!(error.hint.unwrap().contains(&format!("steeldb.outcome('{tx}')")));
    // A session that ends by its proxy says the same, and why.
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.finish(Decision::Commit);
    let error = world.core.last_word(ShimError::new("57P01", "the proxy is stopped"));
    assert_eq!(error.sqlstate.as_str(), "08007");
    assert!(error.detail.unwrap().contains("the proxy is stopped"));
}

#[test]
fn e1_what_is_void_before_it_began_can_be_tried_again() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    let tx = world.core.tx().unwrap();
    for from in [1, 3] {
        let outcome = Outcome::Aborted { reason: AbortReason::Void };
        world.core.receive(ReplicaId(from), ReplicaMessage::Outcome { tx, outcome });
    }
    let events = world.run("SELECT 1");
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "40001")
    );
}
