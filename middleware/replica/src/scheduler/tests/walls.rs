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
