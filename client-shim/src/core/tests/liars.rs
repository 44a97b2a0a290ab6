//! What lying replicas can and cannot do.

use super::*;

#[test]
fn a_lying_masters_answer_is_found_out_at_commit_and_names_the_statement() {
    for sql in ["SELECT 1", "INSERT 1"] {
        let mut world = World::new();
        world.cluster.replica(0).lie = Lie::OtherRows;
        world.transaction(&["SELECT 7", sql]);
        let error = world.finish(Decision::Commit).unwrap_err();
        assert_eq!(error.sqlstate.as_str(), "40000", "{error}");
        assert_eq!(error.message, "replicas disagree on the result of statement 1");
        assert!(error.detail.unwrap().contains("SELECT 7"));
    }
}

#[test]
fn a15_a_rollback_on_a_lie_is_an_error() {
    let mut world = World::new();
    world.cluster.replica(0).lie = Lie::OtherRows;
    world.transaction(&["SELECT 'insufficient funds'"]);
    assert_eq!(code(world.finish(Decision::Rollback)), "40000");
    let mut world = World::new();
    world.transaction(&["SELECT 1", "INSERT 1"]);
    assert_eq!(world.finish(Decision::Rollback), Ok(Completion::RolledBack));
    assert_eq!(world.ordered(|ordered| matches!(ordered, Ordered::Rollback { .. })), 1, "it wrote");
}

#[test]
fn no_lie_of_one_other_replica_changes_what_the_application_is_told() {
    let lies = [Lie::OtherRows, Lie::Silent, Lie::OtherTranscript, Lie::SaysAborted, Lie::SaysCommitted];
    for lie in lies {
        for liar in 1..4 {
            let mut world = World::new();
            world.cluster.replica(liar).lie = lie;
            world.transaction(&["SELECT 1"]);
            assert!(world.finish(Decision::Commit).is_ok(), "{lie:?} at {liar}");
            world.transaction(&["SELECT 1", "INSERT 1"]);
            let committed = world.finish(Decision::Commit);
            assert!(
                matches!(committed, Ok(Completion::Committed(Some(_)))),
                "{lie:?} at {liar}: {committed:?}"
            );
            world.transaction(&["SELECT 1", "INSERT 1"]);
            assert!(world.finish(Decision::Rollback).is_ok(), "{lie:?} at {liar}");
        }
    }
}

#[test]
fn diverging_effects_abort() {
    let mut world = World::new();
    world.transaction(&["SELECT diverge", "INSERT 1"]);
    assert_eq!(code(world.finish(Decision::Commit)), "40000");
}

#[test]
fn a_master_that_breaks_the_protocol_loses_the_transaction_and_not_the_session() {
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("halves", b"C\0\0".to_vec()),
        ("ready for query", message(b'Z', b"I")),
        ("authentication", message(b'R', &[0, 0, 0, 0])),
        ("rows after the end", [message(b'C', b"X\0"), message(b'D', &[0, 0])].concat()),
        ("a bad row description", message(b'T', &[0, 9, 1])),
        ("an error without a code", message(b'E', b"\0")),
    ];
    for (name, bytes) in garbage {
        let mut world = World::new();
        world.core.begin(Modes::default());
        world.add("SELECT 1", OperationFlags::default());
        let tx = world.core.tx().unwrap();
        world
            .core
            .receive(ReplicaId(0), ReplicaMessage::Begun { tx, slot: Position(1), timestamp: Timestamp(0) });
        world.core.receive(ReplicaId(0), ReplicaMessage::Result { tx, number: 1, messages: bytes });
        let event = std::iter::from_fn(|| world.core.poll_event())
            .find(|event| matches!(event, Event::OperationFailed { .. }));
        let Some(Event::OperationFailed { error, .. }) = event else { panic!("{name}") };
        assert_eq!(error.sqlstate.as_str(), "08P01", "{name}");
        world.settle();
        world.events.clear();
        assert_eq!(world.finish(Decision::Rollback), Ok(Completion::RolledBack), "{name}");
        world.transaction(&["SELECT 1"]);
        assert!(world.finish(Decision::Commit).is_ok(), "{name}");
    }
}

#[test]
fn messages_out_of_turn_change_nothing_or_end_the_transaction() {
    let digest = Digest::default();
    let other = TxId { session: SessionKey { client: ClientId(1), session: SessionId(7) }, counter: 99 };
    let mut world = World::new();
    world.core.begin(Modes::default());
    let tx = world.core.tx().unwrap();
    for from in (0..6).map(ReplicaId) {
        for tx in [tx, other] {
            let outcome = Outcome::Committed { position: Position(1) };
            let strays = [
                ReplicaMessage::Begun { tx, slot: Position(3), timestamp: Timestamp(0) },
                ReplicaMessage::Result { tx, number: 1, messages: message(b'C', b"X\0") },
                ReplicaMessage::Transcript {
                    tx,
                    operations: 0,
                    transcript: digest,
                    read_only: true,
                    mismatch: None,
                },
                ReplicaMessage::Maintained { session: SessionId(7), sequence: 1, messages: vec![] },
                ReplicaMessage::Refused { session: SessionId(7), sequence: 5, reason: "x".into() },
                ReplicaMessage::Outcome { tx: other, outcome },
            ];
            for stray in strays {
                world.core.receive(from, stray);
            }
        }
    }
    world.settle();
    assert!(world.events.is_empty(), "{:?}", world.events);
    assert!(!shown(&world.run("SELECT 5")).is_empty());
    world.core.receive(
        ReplicaId(0),
        ReplicaMessage::Executed { tx, number: 9, transcript: digest, status: b'T', drew: false },
    );
    assert!(world.core.in_failed_transaction());
}

#[test]
fn a_master_that_floods_the_window_is_cut_off() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    world.add("SELECT 1", OperationFlags::default());
    let tx = world.core.tx().unwrap();
    world
        .core
        .receive(ReplicaId(0), ReplicaMessage::Begun { tx, slot: Position(1), timestamp: Timestamp(0) });
    let megabyte = message(b'N', &vec![0; 1 << 20]);
    for _ in 0..40 {
        let messages = megabyte.clone();
        world.core.receive(ReplicaId(0), ReplicaMessage::Result { tx, number: 1, messages });
    }
    assert!(world.core.in_failed_transaction());
    let held: usize = world
        .core
        .events
        .iter()
        .map(|event| match event {
            Event::Result { messages, .. } => messages.len(),
            _ => 0,
        })
        .sum();
    assert!(held <= steeldb_types::limits::RESULT_WINDOW_BYTES + steeldb_types::limits::FRAME_BYTES_MAX);
}
