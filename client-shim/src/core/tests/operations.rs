//! Operations, their answers, and the transcripts over them.

use super::*;

#[test]
fn results_are_shown_as_they_come_and_committed_by_a_quorum() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let events = world.run("SELECT 41");
    assert!(shown(&events).windows(2).any(|two| two == b"41"));
    assert!(matches!(events.last(), Some(Event::Executed { number: 1, failed: false, .. })));
    world.run("INSERT 1");
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
    assert_eq!(world.ordered(|_| true), 1, "only BEGIN came from the client");
}

#[test]
fn a_read_only_transaction_commits_on_f_plus_1_transcripts_without_an_outcome() {
    let mut world = World::new();
    for silent in [2, 3] {
        world.cluster.replica(silent).lie = Lie::Silent;
    }
    world.transaction(&["SELECT 1"]);
    assert_eq!(world.finish(Decision::Commit), Ok(Completion::Committed(None)));
}

#[test]
fn a_transaction_past_the_replicas_buffers_fails_and_the_session_goes_on() {
    use steeldb_types::limits::TRANSACTION_BYTES_MAX;
    let mut world = World::new();
    world.core.begin(Modes::default());
    let size = |bytes: usize| OperationKind::Execute { bind: vec![0; bytes] }.size();
    let overhead = size(0);
    let add = |world: &mut World, bytes: usize| {
        let text = Arc::new(StatementText { sql: "INSERT 1".into(), parameter_types: vec![] });
        let kind = OperationKind::Execute { bind: vec![0; bytes] };
        world.core.operation(NewOperation { text, keep: true, kind, flags: OperationFlags::default() });
        world.settle();
        world.events.drain(..).collect::<Vec<_>>()
    };
    for _ in 0..4 {
        let events = add(&mut world, TRANSACTION_BYTES_MAX / 4 - overhead);
        assert!(matches!(events.last(), Some(Event::Executed { failed: false, .. })), "{events:?}");
    }
    let events = add(&mut world, 0);
    let Some(Event::OperationFailed { error, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(error.sqlstate.as_str(), "54000");
    assert!(error.hint.is_some());
    let _ = world.finish(Decision::Rollback);
    world.transaction(&["INSERT 1"]);
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
}

#[test]
fn a_transaction_without_operations_needs_nothing() {
    let mut world = World::new();
    for decision in [Decision::Commit, Decision::Rollback] {
        world.core.begin(Modes::default());
        assert!(world.finish(decision).is_ok());
    }
    assert_eq!(world.ordered(|_| true), 0);
}

#[test]
fn operations_may_be_sent_ahead_and_their_transcripts_still_agree() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    for sql in ["SELECT 1", "INSERT 1", "SELECT rows_500", "UPDATE 2", "SELECT 3"] {
        world.add(sql, OperationFlags::default());
    }
    world.settle();
    let done: Vec<u32> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Executed { number, .. } => Some(*number),
            _ => None,
        })
        .collect();
    assert_eq!(done, [1, 2, 3, 4, 5]);
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
}

#[test]
fn a_failed_statement_fails_what_follows_until_a_rollback_to() {
    let mut world = World::new();
    world.transaction(&["INSERT 1", "SAVEPOINT a"]);
    let failed = |events: Vec<Event>| matches!(events.last(), Some(Event::Executed { failed: true, .. }));
    assert!(failed(world.run("SELECT fail_23505")));
    assert!(world.core.in_failed_transaction());
    assert!(failed(world.run("SELECT 1")));
    assert!(!failed(world.run("ROLLBACK TO a")));
    assert!(!world.core.in_failed_transaction());
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
}

#[test]
fn copy_data_are_part_of_what_is_vouched_for_however_they_end() {
    for (failure, fails) in [(None, false), (Some("no more".to_string()), true)] {
        let mut world = World::new();
        world.core.begin(Modes::default());
        let asked = world.run("COPY t FROM STDIN");
        assert!(matches!(&asked[..], [Event::Result { .. }]));
        for chunk in ["1\n", "2\n"] {
            world.core.copy_data(chunk.as_bytes());
        }
        world.core.copy_end(failure);
        world.settle();
        assert!(
            matches!(world.events.last(), Some(Event::Executed { failed, .. }) if *failed == fails),
            "{:?}",
            world.events
        );
        world.core.copy_data(b"too late");
        let data = |message: &ClientMessage| matches!(message, ClientMessage::CopyData { .. });
        for replica in 0..4 {
            assert_eq!(world.heard(replica, data), 2);
        }
        let decision = if fails { Decision::Rollback } else { Decision::Commit };
        assert!(world.finish(decision).is_ok());
    }
}

#[test]
fn copy_data_that_the_master_fails_on_end_where_the_answer_ended() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    world.run("COPY t FROM STDIN");
    world.core.copy_data(b"1\n");
    let error = message(b'E', b"SERROR\0C22P04\0Mbad\0\0");
    let tx = world.core.tx().unwrap();
    world.core.receive(ReplicaId(0), ReplicaMessage::Result { tx, number: 1, messages: error });
    let ends =
        world.core.transmits.iter().filter(|t| matches!(t.message, ClientMessage::CopyEnd { .. })).count();
    assert_eq!(ends, 1);
    world.core.copy_data(b"2\n");
    world.core.copy_end(None);
    let ends =
        world.core.transmits.iter().filter(|t| matches!(t.message, ClientMessage::CopyEnd { .. })).count();
    assert_eq!(ends, 1, "once");
}

#[test]
fn a10_leading_locks_run_before_the_begin_is_ordered() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let lock = OperationFlags { leading: true, must_vote: true, ..OperationFlags::default() };
    world.add("LOCK TABLE t", lock);
    world.add("INSERT 1", OperationFlags::default());
    world.cut = vec![ReplicaId(0)];
    world.settle();
    assert_eq!(world.ordered(|_| true), 0, "the master does not hold the lock yet");
    // The lock reaches the master at last.
    world.cut.clear();
    let tx = world.core.tx().unwrap();
    let define = ClientMessage::Define {
        session: SessionId(7),
        statement: steeldb_wire::transaction::StatementId(1),
        text: StatementText { sql: "LOCK TABLE t".into(), parameter_types: vec![] },
    };
    let operation = world
        .cluster
        .replica(1)
        .heard
        .iter()
        .find(|message| matches!(message, ClientMessage::Operation(_)))
        .cloned()
        .unwrap();
    for message in [define, operation] {
        for (from, answer) in world.cluster.deliver(ReplicaId(0), message) {
            world.core.receive(from, answer);
        }
    }
    world.settle();
    assert_eq!(
        world.ordered(|ordered| matches!(ordered, Ordered::Begin { tx: begun, .. } if *begun == tx)),
        1
    );
    assert!(matches!(world.finish(Decision::Commit), Ok(Completion::Committed(Some(_)))));
}

#[test]
fn a_transaction_of_leading_locks_alone_ends_without_the_order() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    world.add("LOCK TABLE t", OperationFlags { leading: true, ..OperationFlags::default() });
    world.settle();
    world.events.clear();
    assert_eq!(world.finish(Decision::Commit), Ok(Completion::Committed(None)));
    assert_eq!(world.ordered(|_| true), 0);
    let dropped = |message: &ClientMessage| {
        matches!(message, ClientMessage::Finish(finish)
            if finish.finish.slot == Slot::default() && finish.finish.decision == Decision::Rollback)
    };
    for replica in 0..4 {
        assert_eq!(world.heard(replica, dropped), 1);
    }
}

#[test]
fn result_bytes_are_acknowledged_to_the_master_as_they_are_consumed() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let events = world.run("SELECT rows_100000");
    let bytes = shown(&events).len();
    let acknowledged: usize = world
        .cluster
        .replica(0)
        .heard
        .iter()
        .filter_map(|message| match message {
            ClientMessage::Acknowledge { bytes, .. } => Some(*bytes as usize),
            _ => None,
        })
        .sum();
    assert!(acknowledged <= bytes && bytes - acknowledged < steeldb_types::limits::RESULT_WINDOW_BYTES / 4);
    assert_eq!(world.heard(1, |message| matches!(message, ClientMessage::Acknowledge { .. })), 0);
}
