//! The DDL wall (rule 9).

use super::backend::Held;
use super::*;

#[test]
fn b9_an_ordered_ddl_ends_older_unfinished_transactions_and_is_voted_as_a_wall() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let t = tx(2, 1);
    one.begin(t);
    let slot = one.run(tx(1, 1), &[DDL]);
    assert!(matches!(
        one.cast(tx(1, 1))[..],
        [VoteKind::Prepared { wall: steeldb_wire::transaction::Wall::Database, .. }]
    ));
    one.deliver(commit(tx(1, 1), slot, &[DDL]));
    assert_eq!(one.cast(t), [VoteKind::Walled]);
    assert_eq!(one.committed(tx(1, 1)), 1);
}

#[test]
fn b9_the_wall_waits_for_older_finished_transactions_and_later_begins_wait_for_it() {
    let mut one = One::slave();
    for of in 1..=3 {
        one.open(of);
    }
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    let slot_u = one.run(u, &[DDL]);
    one.operations(t, &[WRITE]);
    one.finish(t, slot_t, Decision::Commit, &[WRITE]);
    one.deliver(commit(u, slot_u, &[DDL]));
    one.begin(tx(3, 1));
    assert_eq!(one.committed(u), 0);
    assert!(!one.backend.snapshots.contains_key(&tx(3, 1)));
    one.stream(t, 1, 0);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot_t)]);
    assert_eq!(one.committed(u), 1);
    assert!(one.backend.snapshots.contains_key(&tx(3, 1)));
}

/// After TRUNCATE an old snapshot reads what never was; with a lying master that would be f + 1 equal transcripts.
#[test]
fn b9_who_is_not_done_when_the_wall_is_applied_answers_no_more() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    let slot_u = one.run(u, &[DDL]);
    one.operations(t, &[READ]);
    one.finish(t, slot_t, Decision::Commit, &[READ]);
    one.deliver(commit(u, slot_u, &[DDL]));
    one.pass(VOTE_TIMEOUT + SECOND);
    assert_eq!((one.cast(t), one.committed(u)), (vec![VoteKind::Expired], 1));
    one.stream(t, 1, 0);
    assert_eq!((one.executed(t), one.transcripts()), (0, 0));
}

#[test]
fn b9_a_rollback_that_waits_for_its_transcripts_is_waited_for_too() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    let slot_u = one.run(u, &[DDL]);
    one.operations(t, &[READ]);
    one.finish(t, slot_t, Decision::Rollback, &[READ]);
    one.deliver(commit(u, slot_u, &[DDL]));
    assert_eq!(one.committed(u), 0);
    one.stream(t, 1, 0);
    assert_eq!((one.transcripts(), one.committed(u)), (1, 1));
}

#[test]
fn rule_9_ddl_at_the_master_waits_for_others_and_not_for_ever() {
    let mut one = One::master();
    one.open(1);
    one.open(2);
    one.begin(tx(1, 1));
    one.begin(tx(2, 1));
    one.operation(tx(2, 1), 1, DDL);
    assert_eq!(one.executed(tx(2, 1)), 0);
    one.pass(SECOND);
    assert_eq!(one.executed(tx(2, 1)), 1);
}

#[test]
fn rule_9_ddl_at_the_master_starts_when_the_others_have_ended() {
    let mut one = One::master();
    for of in 1..=3 {
        one.open(of);
    }
    let slot = one.begin(tx(1, 1));
    one.operation(tx(1, 1), 1, WRITE);
    one.begin(tx(2, 1));
    one.operation(tx(2, 1), 1, DDL);
    assert_eq!(one.executed(tx(2, 1)), 0);
    one.finish(tx(1, 1), slot, Decision::Commit, &[WRITE]);
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    assert_eq!(one.executed(tx(2, 1)), 1);
}

#[test]
fn g6_a_wall_ends_nothing_in_another_database() {
    let mut one = One::slave();
    one.open(1);
    let session = SessionId(2);
    let (database, role) = ("other".into(), "alice".into());
    one.say(ClientMessage::OpenSession { session, database, role, parameters: vec![] });
    let t = tx(2, 1);
    one.deliver(begin(t, "other"));
    let slot = one.run(tx(1, 1), &[DDL]);
    one.deliver(commit(tx(1, 1), slot, &[DDL]));
    assert_eq!((one.committed(tx(1, 1)), one.cast(t)), (1, vec![]));
}

#[test]
fn g6_definitions_of_a_role_wait_for_their_turn_when_there_are_too_many() {
    let mut one = One::master();
    one.open(1);
    let mut last = tx(1, 0);
    for counter in 1..=limits::WALL_BURST + 2 {
        last = tx(1, counter);
        let slot = one.begin(last);
        one.operation(last, 1, DDL);
        if counter <= limits::WALL_BURST + 1 {
            assert_eq!(one.executed(last), 1, "{counter}");
            one.finish(last, slot, Decision::Rollback, &[DDL]);
            one.deliver(Ordered::Rollback { tx: last, slot });
        }
    }
    assert_eq!(one.executed(last), 0);
    one.pass(limits::WALL_INTERVAL.as_micros() as u64);
    assert_eq!(one.executed(last), 1);
}

/// It cannot be had from a peer: a replica that is merely slow must not take itself out for it.
#[test]
fn a_committed_ddl_that_still_executes_here_is_waited_for() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Executed];
    let t = tx(1, 1);
    let slot = one.run(t, &[DDL]);
    one.deliver_late(commit(t, slot, &[DDL]), true);
    one.pass(10 * VOTE_TIMEOUT);
    assert_eq!(one.scheduler.diverged(), None);
    let report = BackendReport::Executed {
        tx: t,
        number: 1,
        result: backend::result_of(1),
        sqlstate: None,
        status: b'T',
        tag: TagKind::Ddl,
        copy_started: false,
        draws: Draws::NONE,
    };
    one.event(Event::Backend { session: session(1), report });
    assert_eq!(one.committed(t), 1);
}

/// Walled here before its Finish came, and committed by the others: its rows are taken as they are, so the table must
/// still be the one they were made for.
#[test]
fn b9_ddl_at_the_master_waits_for_the_outcome_of_what_was_given_up_there() {
    let mut one = One::master();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    one.operations(t, &[WRITE]);
    let report = BackendReport::NotBegun { tx: t, reason: String::new() };
    one.event(Event::Backend { session: session(1), report });
    assert_eq!(one.cast(t), [VoteKind::Blocked]);
    one.begin(u);
    one.operations(u, &[DDL]);
    assert_eq!(one.executed(u), 0);
    one.deliver(abort(t, slot_t));
    one.event(Event::Tick);
    assert_eq!(one.executed(u), 1);
}

/// Both are prepared where they were quick enough; a replica that was not has ended the second, and DDL cannot be caught up
/// with. So the second is aborted everywhere, by the order alone.
#[test]
fn b9_of_two_ddl_transactions_at_once_the_second_is_aborted_by_its_own_commit() {
    for late in [false, true] {
        let mut one = One::slave();
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        let slot_t = one.run(t, &[DDL]);
        let slot_u = if late { one.begin(u) } else { one.run(u, &[DDL]) };
        one.deliver(commit(t, slot_t, &[DDL]));
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!((one.committed(t), one.committed(u)), (1, 0), "late: {late}");
        assert_eq!(one.outcomes(u), [Outcome::Aborted { reason: AbortReason::Walled }]);
        assert_eq!(one.scheduler.diverged(), None, "late: {late}");
        // What begins behind the first is another matter.
        let v = tx(2, 2);
        let slot_v = one.run(v, &[DDL]);
        one.deliver(commit(v, slot_v, &[DDL]));
        assert_eq!(one.committed(v), 1);
    }
}

/// A definition of a session of its own, complete and known to be about a table.
fn define(one: &mut One, by: TxId, table: &str) -> Slot {
    one.backend.names = Some(format!("r{}", hex::encode(table)));
    one.run(by, &[DDL])
}

#[test]
fn g6_who_reaches_nothing_that_a_wall_names_goes_on_behind_it() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    let slot_u = define(&mut one, u, "u");
    one.deliver(commit(u, slot_u, &[DDL]));
    assert_eq!((one.committed(u), one.cast(t)), (1, vec![]));
    one.operations(t, &[READ, WRITE]);
    one.finish(t, slot_t, Decision::Commit, &[READ, WRITE]);
    one.stream(t, 2, 0);
    assert_eq!(one.cast(t), [prepared(&[READ, WRITE], t, slot_t)]);
    one.deliver(commit(t, slot_t, &[READ, WRITE]));
    assert_eq!(one.committed(t), 1);
}

/// Though the master has not run it: it will not, and nobody else may wait for that.
#[test]
fn b9_an_operation_behind_a_wall_that_reaches_what_it_names_ends_its_transaction() {
    for (one, names) in [(One::slave(), "t"), (One::master(), "t"), (One::slave(), "u"), (One::master(), "u")]
    {
        let mut one = one;
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        one.begin(t);
        let slot_u = define(&mut one, u, names);
        one.pass(SECOND);
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!((one.committed(u), one.cast(t)), (1, vec![]));
        one.operations(t, &[READ, WRITE]);
        let ends = names == "t";
        assert_eq!(one.cast(t), if ends { vec![VoteKind::Walled] } else { vec![] });
        // What begins behind the wall is another matter.
        let v = tx(1, 2);
        one.begin(v);
        one.operations(v, &[WRITE]);
        assert_eq!(one.cast(v), []);
    }
}

#[test]
fn b9_an_operation_under_way_that_reaches_what_a_wall_names_ends_with_it() {
    for (operation, ends) in [(READ, false), (WRITE, true)] {
        let mut one = One::speculative();
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        one.begin(t);
        let slot_u = define(&mut one, u, "t");
        one.backend.held = vec![Held::Executed];
        one.operations(t, &[operation]);
        one.entry(t, 1, 0, None);
        assert_eq!(one.executed(t), 1);
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!((one.committed(u), one.cast(t).len()), (1, usize::from(ends)));
    }
}

#[test]
fn b9_what_was_done_before_a_wall_is_not_done_again_behind_it_if_it_reaches_what_that_names() {
    for (names, ends) in [("u", false), ("t", true)] {
        let mut one = One::speculative();
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        one.begin(t);
        one.operations(t, &[WRITE, READ]);
        one.entry(t, 1, 0, None);
        let slot_u = define(&mut one, u, names);
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!((one.committed(u), one.executed(t), one.cast(t)), (1, 1, vec![]), "{names}");
        one.backend.fails.insert((t, 2), "40001");
        one.entry(t, 2, 0, None);
        let (cast, executed) = if ends { (vec![VoteKind::Walled], 2) } else { (vec![], 4) };
        assert_eq!((one.cast(t), one.executed(t)), (cast, executed), "{names}");
    }
}

#[test]
fn b9_what_is_not_known_to_be_about_something_ends_everything_older() {
    for what in ["nothing", "a truncated table", "another write set"] {
        let mut one = One::slave();
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        one.begin(t);
        match what {
            "nothing" => {}
            "a truncated table" => one.backend.truncates = true,
            _ => drop(one.backend.differs.insert(u)),
        }
        let slot_u = match what {
            "nothing" => one.run(u, &[DDL]),
            _ => define(&mut one, u, "u"),
        };
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!(one.cast(t), [VoteKind::Walled], "{what}");
    }
}

#[test]
fn b9_two_definitions_at_once_end_each_other_whatever_they_name() {
    let mut one = One::master();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    one.begin(u);
    one.backend.names = Some(format!("r{}", hex::encode("x")));
    one.operations(t, &[DDL]);
    one.pass(SECOND);
    one.operations(u, &[DDL]);
    one.pass(SECOND);
    assert_eq!((one.executed(t), one.executed(u)), (1, 1));
    one.finish(t, slot_t, Decision::Commit, &[DDL]);
    one.deliver(commit(t, slot_t, &[DDL]));
    assert_eq!((one.committed(t), one.cast(u)), (1, vec![VoteKind::Walled]));
}

/// A replica that is slower than the others does not know yet what it is about.
#[test]
fn g6_a_wall_that_is_not_prepared_here_yet_ends_nobody_and_not_for_ever() {
    for waits in [false, true] {
        let mut one = One::slave();
        one.open(1);
        one.open(2);
        let (t, u) = (tx(1, 1), tx(2, 1));
        one.begin(t);
        one.backend.held = vec![Held::Decoded];
        let slot_u = define(&mut one, u, "u");
        one.deliver(commit(u, slot_u, &[DDL]));
        assert_eq!((one.committed(u), one.cast(t)), (0, vec![]));
        if waits {
            // It may be this one that it waits for.
            one.pass(2 * SECOND);
            assert_eq!(one.cast(t), [VoteKind::Walled]);
        } else {
            let gid = steeldb_postgres::transaction::gid(u, slot_u);
            let digest = backend::write_set_of(u, 1);
            let wall = steeldb_wire::transaction::Wall::Database;
            let write_set = Ok(DecodedSet { digest, wall, truncates: false, changes: 1 });
            one.event(Event::Decoded { gid, write_set });
            assert_eq!((one.committed(u), one.cast(t)), (1, vec![]));
        }
    }
}

#[test]
fn g6_walls_are_remembered_for_what_is_older_alone() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let t = tx(1, 1);
    one.begin(t);
    for counter in 1..=300 {
        let u = tx(2, counter);
        let slot = define(&mut one, u, "u");
        one.deliver(commit(u, slot, &[DDL]));
        assert_eq!(one.committed(u), 1);
        assert!(one.scheduler.named_walls() <= 256);
        // There is a limit to what is remembered.
        assert_eq!(one.cast(t).is_empty(), counter <= 256, "{counter}");
    }
    let u = tx(2, 301);
    let slot = define(&mut one, u, "u");
    one.deliver(commit(u, slot, &[DDL]));
    assert_eq!(one.scheduler.named_walls(), 0);
}
