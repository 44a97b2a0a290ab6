//! Another master takes over: what the application notices of it.

use super::*;

fn first_change() -> Term {
    Term { epoch: 1, master: ReplicaId(1) }
}

impl World {
    /// The master is gone.
    fn lose_master(&mut self) {
        self.core.link_down(ReplicaId(0));
        self.cluster.disconnect(ReplicaId(0));
        self.cut.push(ReplicaId(0));
        self.settle();
    }

    /// Replica 1 takes over.
    fn take_over(&mut self) {
        self.cluster.change_master(ReplicaId(1));
        self.core.begin_term(first_change());
        self.settle();
    }

    /// Lets the master answer `sql` with so many pieces, and no more.
    fn run_in_part(&mut self, sql: &str, pieces: usize) -> Vec<Event> {
        self.cluster.piece_bytes = 1;
        self.add(sql, OperationFlags::default());
        while let Some(transmit) = self.core.poll_transmit() {
            for to in transmit.to {
                let mut left = pieces;
                for (from, answer) in self.cluster.deliver(to, transmit.message.clone()) {
                    match answer {
                        ReplicaMessage::Result { .. } | ReplicaMessage::Executed { .. } if left == 0 => {}
                        ReplicaMessage::Result { .. } => {
                            left -= 1;
                            self.core.receive(from, answer);
                        }
                        answer => self.core.receive(from, answer),
                    }
                }
            }
        }
        self.settle();
        std::mem::take(&mut self.events)
    }
}

fn executed(events: &[Event]) -> Vec<u32> {
    let number = |event: &Event| match event {
        Event::Executed { number, .. } => Some(*number),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

fn failed(events: &[Event]) -> Option<String> {
    events.iter().find_map(|event| match event {
        Event::OperationFailed { error, .. } => Some(error.sqlstate.to_string()),
        _ => None,
    })
}

#[test]
fn a_transaction_goes_on_at_the_new_master_from_what_was_shown() {
    let mut world = World::new();
    world.transaction(&["INSERT 1", "SELECT 2"]);
    world.lose_master();
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Master));
    let events = world.run("SELECT 3");
    assert!(events.is_empty(), "a pause, not an error: {events:?}");
    world.take_over();
    let events = std::mem::take(&mut world.events);
    assert_eq!(executed(&events), [3]);
    let resumed =
        |message: &ClientMessage| matches!(message, ClientMessage::Resume { epoch: 1, operations: 2, .. });
    assert_eq!(world.heard(1, resumed), 1);
    assert!(world.finish(Decision::Commit).is_ok());
    world.transaction(&["SELECT 4"]);
    assert!(world.finish(Decision::Commit).is_ok(), "the next one runs there, too");
}

#[test]
fn an_answer_that_was_shown_in_part_is_shown_to_its_end_once() {
    let mut whole = World::new();
    whole.core.begin(Modes::default());
    let expected = shown(&whole.run("SELECT rows_7"));

    for pieces in [0, 1, 4, 8] {
        let mut world = World::new();
        world.core.begin(Modes::default());
        let mut events = world.run_in_part("SELECT rows_7", pieces);
        assert!(executed(&events).is_empty());
        world.lose_master();
        world.take_over();
        events.append(&mut world.events);
        assert_eq!(shown(&events), expected, "{pieces} pieces");
        assert_eq!(executed(&events), [1]);
        assert!(world.finish(Decision::Commit).is_ok());
    }
}

#[test]
fn what_was_shown_and_comes_out_otherwise_is_an_error_to_retry() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    let events = world.run_in_part("SELECT diverge rows_3", 2);
    assert!(!shown(&events).is_empty());
    world.lose_master();
    world.take_over();
    assert_eq!(failed(&world.events), Some("40001".into()));
    assert!(executed(&world.events).is_empty());

    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    world.take_over();
    let tx = world.core.tx().unwrap();
    world.core.receive(ReplicaId(2), ReplicaMessage::NotReproduced { tx });
    assert!(!world.core.in_failed_transaction(), "only the master's word counts");
    world.core.receive(ReplicaId(1), ReplicaMessage::NotReproduced { tx });
    assert_eq!(code(world.finish(Decision::Commit)), "40001");
}

#[test]
fn what_an_earlier_master_says_late_changes_nothing() {
    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    world.take_over();
    let tx = world.core.tx().unwrap();
    let messages = message(b'C', b"SELECT 9\0");
    world.core.receive(ReplicaId(0), ReplicaMessage::Result { tx, number: 2, messages });
    let executed =
        ReplicaMessage::Executed { tx, number: 2, transcript: Digest([1; 32]), status: b'T', drew: false };
    world.core.receive(ReplicaId(0), executed);
    assert!(!world.core.in_failed_transaction());
    assert!(world.finish(Decision::Commit).is_ok());
}

#[test]
fn a_copy_goes_on_at_the_new_master_while_its_data_come() {
    let mut world = World::new();
    world.core.begin(Modes::default());
    world.run("COPY t FROM STDIN");
    world.core.copy_data(b"one\n");
    world.settle();
    world.lose_master();
    world.core.copy_data(b"two\n");
    world.settle();
    world.take_over();
    world.core.copy_data(b"three\n");
    world.core.copy_end(None);
    world.settle();
    assert_eq!(executed(&world.events), [1]);
    assert!(world.finish(Decision::Commit).is_ok());
    let data = |message: &ClientMessage| matches!(message, ClientMessage::CopyData { .. });
    assert_eq!(world.heard(1, data), 3, "none was lost in between");
}

#[test]
fn without_another_master_the_transaction_ends_and_can_be_retried() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.lose_master();
    world.core.expire(Waiting::Master);
    assert_eq!(code(world.finish(Decision::Commit)), "40001");

    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.lose_master();
    world.core.link_up(ReplicaId(0));
    assert_eq!(code(world.finish(Decision::Commit)), "40001", "it is back, and has lost the transaction");
}

#[test]
fn a_commit_between_two_masters_is_sent_once_the_new_one_has_named_the_slot() {
    for decision in [Decision::Commit, Decision::Rollback] {
        let mut world = World::new();
        world.transaction(&["INSERT 1"]);
        world.cluster.change_master(ReplicaId(1));
        world.core.begin_term(first_change());
        world.core.finish(decision);
        assert_eq!(world.core.in_doubt(), None, "the slot is the old master's word alone");
        world.settle();
        assert!(world.finished().expect("an end").is_ok());
    }
}

/// The others vouch for it without the master, and the order has the last word.
#[test]
fn a_commit_that_is_sent_is_not_called_aborted_for_what_the_master_says_or_lost() {
    let lost = |world: &mut World, _| world.core.link_up(ReplicaId(0));
    let unshown = |world: &mut World, tx| {
        world.core.receive(ReplicaId(0), ReplicaMessage::NotReproduced { tx });
    };
    let unasked = |world: &mut World, tx| {
        let transcript = Digest([1; 32]);
        let executed = ReplicaMessage::Executed { tx, number: 2, transcript, status: b'T', drew: false };
        world.core.receive(ReplicaId(0), executed);
    };
    let happen: [fn(&mut World, TxId); 3] = [lost, unshown, unasked];
    for (nth, happens) in happen.into_iter().enumerate() {
        for commits in [true, false] {
            let mut world = World::new();
            world.transaction(&["INSERT 1"]);
            world.cluster.conflicts = usize::from(!commits);
            if nth == 0 {
                world.lose_master();
            }
            let tx = world.core.tx().unwrap();
            world.core.finish(Decision::Commit);
            happens(&mut world, tx);
            assert_eq!(world.core.in_doubt(), Some(tx), "{nth}");
            world.settle();
            let result = world.finished().expect("an end");
            assert_eq!(result.is_ok(), commits, "{nth}: {result:?}");
            if !commits {
                assert_eq!(code(result), ["40001", "40001", "08P01"][nth]);
            }
            let rollback = |ordered: &Ordered| matches!(ordered, Ordered::Rollback { .. });
            assert_eq!(world.ordered(rollback) > 0, nth > 0, "only the master's own word gives it up");
        }
    }
}

#[test]
fn a_transaction_that_has_not_begun_waits_for_the_new_master() {
    let mut world = World::new();
    world.lose_master();
    world.core.begin(Modes::default());
    assert!(world.run("SELECT 1").is_empty());
    assert_eq!(world.core.waiting().map(|(waiting, _)| waiting), Some(Waiting::Replicas));
    world.take_over();
    assert_eq!(executed(&world.events), [1]);
    assert!(world.finish(Decision::Commit).is_ok());
}

#[test]
fn a_session_can_be_opened_at_a_master_that_is_new() {
    let mut cluster = FakeCluster::new(4);
    cluster.replica(0).lie = Lie::Silent;
    let mut world = World::with(cluster);
    assert!(world.events.is_empty());
    world.take_over();
    assert!(matches!(world.events[..], [Event::Opened { .. }]));
}

#[test]
fn a_commit_that_is_sent_does_not_wait_for_the_master() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.lose_master();
    world.core.begin_term(first_change());
    world.cluster.change_master(ReplicaId(1));
    world.settle();
    world.core.finish(Decision::Commit);
    world.settle();
    world.core.begin_term(Term { epoch: 2, master: ReplicaId(2) });
    world.settle();
    assert!(world.finished().unwrap().is_ok());
}
