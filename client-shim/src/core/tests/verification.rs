//! `steeldb.verify = 'eager'`: nothing is shown on one replica's word (rule 11).

use super::*;
use steeldb_types::limits::VERIFIED_RESULT_BYTES_MAX;

const VERIFY: OperationFlags =
    OperationFlags { leading: false, row_order: false, must_vote: false, verify: true, writes: false };

fn eager(world: &mut World, sql: &str) -> Vec<Event> {
    world.add(sql, VERIFY);
    world.settle();
    std::mem::take(&mut world.events)
}

fn error_of(events: &[Event]) -> Option<&ShimError> {
    events.iter().find_map(|event| match event {
        Event::OperationFailed { error, .. } => Some(error),
        _ => None,
    })
}

fn only_master(world: &mut World) {
    world.cut = (1..4).map(ReplicaId).collect();
}

#[test]
fn a_result_is_shown_when_one_more_replica_has_it() {
    let mut world = World::new();
    for silent in [2, 3] {
        world.cluster.replica(silent).lie = Lie::Silent;
    }
    world.core.begin(Modes::default());
    let events = eager(&mut world, "SELECT 41");
    assert!(shown(&events).windows(2).any(|two| two == b"41"));
    assert!(matches!(events.last(), Some(Event::Executed { number: 1, failed: false, .. })));
    assert_eq!(world.finish(Decision::Commit), Ok(Completion::Committed(None)));
}

#[test]
fn a_lying_masters_row_is_never_shown() {
    for sql in ["SELECT 7", "SELECT rows_500"] {
        let mut world = World::new();
        world.cluster.replica(0).lie = Lie::OtherRows;
        world.core.begin(Modes::default());
        let events = eager(&mut world, sql);
        assert!(shown(&events).is_empty(), "{events:?}");
        let error = error_of(&events).expect("an error");
        assert_eq!(error.sqlstate.as_str(), "40000");
        assert!(error.detail.as_ref().unwrap().contains(sql), "{error:?}");
        assert!(world.core.in_failed_transaction());
        assert!(world.finish(Decision::Rollback).is_ok());
        // The session goes on.
        world.cluster.replica(0).lie = Lie::Honest;
        world.core.begin(Modes::default());
        assert!(!shown(&eager(&mut world, "SELECT 1")).is_empty());
    }
}

#[test]
fn the_masters_word_alone_shows_nothing_and_one_liar_beside_it_hides_nothing() {
    let mut world = World::new();
    only_master(&mut world);
    world.core.begin(Modes::default());
    assert!(eager(&mut world, "SELECT 41").is_empty());
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Verification));
    let tx = world.core.tx().unwrap();
    let lie =
        ReplicaMessage::Executed { tx, number: 1, transcript: Digest([8; 32]), status: b'T', drew: false };
    for _ in 0..3 {
        world.core.receive(ReplicaId(1), lie.clone());
        world.settle();
    }
    assert!(world.events.is_empty(), "it counts once: {:?}", world.events);
    // A master that says twice what it said is not two replicas either.
    let heads: Vec<Digest> =
        world.core.transaction.as_ref().unwrap().unverified.iter().map(|u| u.head).collect();
    world.core.vouched(ReplicaId(0), tx, 1, heads[0]);
    world.settle();
    assert!(shown(&world.events).is_empty());
    let truth = ReplicaMessage::Executed { tx, number: 1, transcript: heads[0], status: b'T', drew: false };
    world.core.receive(ReplicaId(2), truth);
    world.settle();
    assert!(shown(&world.events).windows(2).any(|two| two == b"41"));
}

#[test]
fn a_replica_may_better_what_it_said() {
    let mut world = World::new();
    only_master(&mut world);
    world.core.begin(Modes::default());
    eager(&mut world, "SELECT 41");
    let tx = world.core.tx().unwrap();
    let head = world.core.transaction.as_ref().unwrap().unverified[0].head;
    for (transcript, done) in [(Digest([8; 32]), false), (head, true)] {
        world.core.receive(
            ReplicaId(1),
            ReplicaMessage::Executed { tx, number: 1, transcript, status: b'T', drew: false },
        );
        world.settle();
        assert_eq!(!world.events.is_empty(), done, "redone: {:?}", world.events);
    }
}

#[test]
fn what_is_sent_ahead_is_shown_in_order() {
    let mut world = World::new();
    only_master(&mut world);
    world.core.begin(Modes::default());
    world.add("SELECT 1", VERIFY);
    world.add("SELECT 2", OperationFlags::default());
    world.add("SELECT 3", VERIFY);
    world.core.finish(Decision::Commit);
    world.settle();
    assert!(world.events.is_empty());
    let tx = world.core.tx().unwrap();
    let heads: Vec<(u32, Digest)> =
        world.core.transaction.as_ref().unwrap().unverified.iter().map(|u| (u.number, u.head)).collect();
    assert_eq!(heads.len(), 3);
    let done = |world: &World| world.events.iter().filter(|e| matches!(e, Event::Executed { .. })).count();
    for (index, expected) in [(2, 0), (0, 3)] {
        let (number, transcript) = heads[index];
        world.core.receive(
            ReplicaId(3),
            ReplicaMessage::Executed { tx, number, transcript, status: b'T', drew: false },
        );
        world.settle();
        assert_eq!(done(&world), expected);
    }
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Outcome));
}

#[test]
fn without_others_in_time_the_statement_fails_and_is_not_shown() {
    let mut world = World::new();
    only_master(&mut world);
    world.core.begin(Modes::default());
    eager(&mut world, "SELECT 41");
    world.core.expire(Waiting::Verification);
    world.settle();
    let error = error_of(&world.events).expect("an error");
    assert_eq!(error.sqlstate.as_str(), "40001");
    assert!(shown(&world.events).is_empty());
}

#[test]
fn a_copy_asks_for_its_data_and_answers_when_verified() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let events = eager(&mut world, "COPY t FROM STDIN");
    assert_eq!(shown(&events)[0], b'G');
    world.core.copy_data(b"1\n");
    world.core.copy_end(None);
    world.settle();
    assert!(matches!(world.events.last(), Some(Event::Executed { failed: false, .. })));
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
}

/// What is held back leaves the master's window open, up to its own bound.
#[test]
fn a_result_past_the_bound_fails_its_statement() {
    let row = |world: &mut World, bytes: usize| {
        let tx = world.core.tx().unwrap();
        let messages = message(
            b'D',
            &[vec![0, 1], (bytes as u32 - 11).to_be_bytes().to_vec(), vec![b'x'; bytes - 11]].concat(),
        );
        assert_eq!(messages.len(), bytes);
        world.core.receive(ReplicaId(0), ReplicaMessage::Result { tx, number: 1, messages });
        world.settle();
    };
    let mut world = World::new();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.begin(Modes::default());
    world.add("SELECT 1", VERIFY);
    let tx = world.core.tx().unwrap();
    world
        .core
        .receive(ReplicaId(0), ReplicaMessage::Begun { tx, slot: Position(1), timestamp: Timestamp(0) });
    world.cluster.replica(0).heard.clear();
    for _ in 0..16 {
        row(&mut world, VERIFIED_RESULT_BYTES_MAX / 16);
    }
    assert!(world.events.is_empty());
    assert_eq!(world.core.unconsumed, 0, "acknowledged");
    row(&mut world, 100);
    let error = error_of(&world.events).expect("an error");
    assert_eq!(error.sqlstate.as_str(), "54000");
    assert!(error.hint.is_some());
}
