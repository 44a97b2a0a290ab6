//! The core against replicas in the same process (see `testing`): what the application is told, and what is sent.

use super::*;
use crate::testing::{FakeCluster, Lie, message};
use steeldb_types::{ClientId, SessionId, Slot, Timestamp};
use steeldb_wire::transaction::{AbortReason, Outcome, SqlState};

struct World {
    core: Core,
    cluster: FakeCluster,
    events: Vec<Event>,
    /// Messages to these replicas are kept back.
    cut: Vec<ReplicaId>,
}

impl World {
    fn with(cluster: FakeCluster) -> World {
        let config = CoreConfig {
            view: cluster.view(),
            master: ReplicaId(0),
            session: SessionKey { client: ClientId(1), session: SessionId(7) },
            key: Arc::new(SecretKey::from_seed(&[3; 32])),
            database: "db".into(),
            role: "app".into(),
            parameters: vec![("application_name".into(), "test".into())],
            backends: true,
        };
        let mut world =
            World { core: Core::new(config, |_| true), cluster, events: Vec::new(), cut: Vec::new() };
        world.settle();
        world
    }

    fn new() -> World {
        let mut world = World::with(FakeCluster::new(4));
        assert!(matches!(world.events.remove(0), Event::Opened { .. }));
        world
    }

    /// Delivers all messages until nothing moves.
    fn settle(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            for to in transmit.to {
                if self.cut.contains(&to) {
                    continue;
                }
                for (from, answer) in self.cluster.deliver(to, transmit.message.clone()) {
                    self.core.receive(from, answer);
                }
            }
        }
        while let Some(event) = self.core.poll_event() {
            if let Event::Result { messages, .. } = &event {
                self.core.consumed(messages.len());
            }
            self.events.push(event);
        }
        if self.core.transmits.front().is_some() {
            self.settle();
        }
    }

    fn add(&mut self, sql: &str, flags: OperationFlags) -> u32 {
        let text = Arc::new(StatementText { sql: sql.into(), parameter_types: vec![] });
        let bind = vec![0, 0, 0, 0, 0, 0];
        let kind = match sql.starts_with("COPY t FROM") {
            true => OperationKind::CopyIn { bind },
            false => OperationKind::Execute { bind },
        };
        self.core.operation(NewOperation { text, keep: true, kind, flags })
    }

    fn run(&mut self, sql: &str) -> Vec<Event> {
        self.add(sql, OperationFlags::default());
        self.settle();
        std::mem::take(&mut self.events)
    }

    fn finish(&mut self, decision: Decision) -> Result<Completion, ShimError> {
        self.core.finish(decision);
        self.settle();
        self.finished().expect("no end of the transaction")
    }

    fn finished(&mut self) -> Option<Result<Completion, ShimError>> {
        std::mem::take(&mut self.events).into_iter().find_map(|event| match event {
            Event::Finished(result) => Some(result),
            _ => None,
        })
    }

    fn transaction(&mut self, statements: &[&str]) {
        self.core.begin(Modes::default());
        for sql in statements {
            self.run(sql);
        }
    }

    fn heard(&mut self, replica: u16, is: impl Fn(&ClientMessage) -> bool) -> usize {
        self.cluster.replica(replica).heard.iter().filter(|message| is(message)).count()
    }

    fn ordered(&self, is: impl Fn(&Ordered) -> bool) -> usize {
        self.cluster.ordered.iter().filter(|ordered| is(ordered)).count()
    }
}

fn code(result: Result<Completion, ShimError>) -> String {
    result.expect_err("an error").sqlstate.to_string()
}

fn shown(events: &[Event]) -> Vec<u8> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Result { messages, .. } => Some(messages.to_vec()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .concat()
}

// --- Sessions.

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
fn the_masters_lost_link_ends_the_transaction_and_the_next_one_waits_for_it() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.link_down(ReplicaId(0));
    world.cluster.disconnect(ReplicaId(0));
    let events = world.run("SELECT 2");
    assert!(
        matches!(&events[..], [Event::OperationFailed { error, .. }] if error.sqlstate.as_str() == "08006")
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

// --- Operations and transcripts.

#[test]
fn results_are_shown_as_they_come_and_committed_by_a_quorum() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let events = world.run("SELECT 41");
    assert!(shown(&events).windows(2).any(|two| two == b"41"));
    assert!(matches!(events.last(), Some(Event::Executed { number: 1, failed: false })));
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

// --- Liars.

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
    world
        .core
        .receive(ReplicaId(0), ReplicaMessage::Executed { tx, number: 9, transcript: digest, status: b'T' });
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

// --- Outcomes and errors.

#[test]
fn abort_reasons_become_sqlstates() {
    let cases = [
        (AbortReason::Expired, "40001"),
        (AbortReason::Walled, "40001"),
        (AbortReason::Gone, "25P03"),
        (AbortReason::Client, "40000"),
        (AbortReason::Failed { sqlstate: SqlState(*b"23505") }, "23505"),
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

// --- Ordered work outside transactions.

#[test]
fn maintenance_is_shown_once_f_plus_1_answer_alike() {
    let mut world = World::new();
    world.core.maintain("VACUUM t".into());
    world.settle();
    assert!(
        matches!(&world.events[..], [Event::Maintained(Ok(messages))] if messages.as_ref() == message(b'C', b"VACUUM\0"))
    );
    world.events.clear();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.maintain("VACUUM t".into());
    let answer = |tag: &str| ReplicaMessage::Maintained {
        session: SessionId(7),
        sequence: 2,
        messages: message(b'C', format!("{tag}\0").as_bytes()),
    };
    world.core.receive(ReplicaId(0), answer("LIE"));
    world.core.receive(ReplicaId(0), answer("VACUUM"));
    world.core.receive(ReplicaId(1), answer("VACUUM"));
    assert!(world.core.events.is_empty());
    world.core.receive(ReplicaId(2), answer("VACUUM"));
    world.settle();
    assert!(
        matches!(&world.events[..], [Event::Maintained(Ok(messages))] if messages.as_ref() == message(b'C', b"VACUUM\0"))
    );
}

#[test]
fn verify_reports_what_each_replica_says_once() {
    let mut world = World::new();
    world.cluster.replica(2).lie = Lie::OtherRows;
    world.core.verify();
    world.settle();
    let digests: Vec<String> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Verified { tables: Ok(tables), .. } => Some(tables[0].digest.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(digests, ["abc", "abc", "f00", "abc"]);
}

#[test]
fn requests_are_signed_as_the_ordering_core_checks_them() {
    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    let key = SecretKey::from_seed(&[3; 32]).public();
    let request = world.cluster.replica(1).heard.iter().find_map(|message| match message {
        ClientMessage::Request { session, sequence, payload, signature } => Some(Request::Client {
            id: RequestId {
                session: SessionKey { client: ClientId(1), session: *session },
                sequence: *sequence,
            },
            payload: payload.clone(),
            signature: *signature,
        }),
        _ => None,
    });
    assert_eq!(request.unwrap().verify_signature(&[(ClientId(1), key)].into()), Ok(()));
}

#[test]
fn closing_tells_every_replica() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.close();
    world.settle();
    for replica in 0..4 {
        assert_eq!(world.heard(replica, |message| matches!(message, ClientMessage::CloseSession { .. })), 1);
    }
}
