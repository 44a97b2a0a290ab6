//! Speculation: executed ahead of COMMIT, in the master's order, undone and done again (rules 5 and 6, B7, G8).

use super::backend::{Held, process_of};
use super::*;

/// What a session's backend was told of a transaction, in short.
fn told(one: &One, tx: TxId) -> Vec<String> {
    one.commands()
        .iter()
        .filter_map(|command| match command {
            Command::Begin { tx: of, .. } if *of == tx => Some("begin".to_string()),
            Command::Execute { tx: of, number, .. } if *of == tx => Some(number.to_string()),
            Command::Complete { tx: of } if *of == tx => Some("complete".to_string()),
            Command::Prepare { tx: of, .. } if *of == tx => Some("prepare".to_string()),
            Command::End { tx: of, .. } if *of == tx => Some("end".to_string()),
            _ => None,
        })
        .collect()
}

#[test]
fn an_operation_runs_with_the_masters_entry_and_behind_its_barrier_before_any_finish() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    one.backend.held = vec![Held::Applied];
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.run(t, &[WRITE]);
    one.begin(u);
    let position = one.deliver(commit(t, slot_t, &[WRITE]));
    one.operations(u, &[READ, WRITE]);
    assert_eq!(one.executed(u), 0, "no entry");
    one.entry(u, 1, 0, None);
    assert_eq!(one.executed(u), 1);
    one.entry(u, 2, position.0, None);
    assert_eq!((one.committed(t), one.executed(u)), (1, 1), "what it rests on is not applied");
    one.event(Event::Applied { tx: t, result: Ok(()) });
    assert_eq!(one.executed(u), 2);
}

#[test]
fn ddl_is_not_speculated() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[DDL, WRITE]);
    one.stream(t, 2, 0);
    assert_eq!(one.executed(t), 0);
    one.finish(t, slot, Decision::Commit, &[DDL, WRITE]);
    assert_eq!(one.executed(t), 2);
}

#[test]
fn b7_writes_start_in_the_masters_order_and_reads_need_not() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    one.open(3);
    let (t, u, v) = (tx(1, 1), tx(2, 1), tx(3, 1));
    for tx in [t, u, v] {
        one.begin(tx);
    }
    one.operation(t, 1, WRITE);
    one.operation(u, 1, WRITE);
    one.operation(v, 1, READ);
    // The master ran t's first, but behind a commit that is not applied here.
    one.entry(t, 1, 100, None);
    one.entry(u, 1, 100, None);
    one.entry(v, 1, 0, None);
    assert_eq!((one.executed(t), one.executed(u), one.executed(v)), (0, 0, 1));
    one.position = 99;
    one.deliver(Ordered::Rollback { tx: tx(9, 9), slot: Position(1) });
    one.event(Event::Tick);
    assert_eq!((one.executed(t), one.executed(u)), (1, 1));
    let order: Vec<SessionKey> = one
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Backend { session, command: Command::Execute { .. } } => Some(*session),
            _ => None,
        })
        .collect();
    assert_eq!(order, [session(3), session(1), session(2)]);
}

/// Two transactions, of which the first has its write in front and cannot run it: the master's word on what comes before
/// is missing.
fn one_in_front() -> (One, TxId, TxId, Slot) {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot = one.begin(t);
    one.begin(u);
    one.operations(t, &[READ, WRITE]);
    one.operations(u, &[WRITE]);
    one.entry(t, 2, 0, None);
    one.entry(u, 1, 0, None);
    assert_eq!((one.executed(t), one.executed(u)), (0, 0));
    (one, t, u, slot)
}

#[test]
fn b7_a_write_waits_for_its_turn_no_longer_than_t_soft() {
    let (mut one, t, u, _) = one_in_front();
    let at = one.scheduler.next_wake().unwrap();
    assert_eq!(at, one.now + SOFT_BARRIER);
    one.now = at;
    one.event(Event::Wake);
    assert_eq!((one.executed(t), one.executed(u)), (0, 1));
}

#[test]
fn b7_a_write_has_its_turn_once_the_one_in_front_has_started() {
    let (mut one, t, u, _) = one_in_front();
    one.entry(t, 1, 0, None);
    assert_eq!((one.executed(t), one.executed(u)), (2, 1));
}

#[test]
fn b7_a_write_has_its_turn_once_the_one_in_front_has_ended() {
    let (mut one, t, u, slot) = one_in_front();
    one.deliver(abort(t, slot));
    assert_eq!((one.executed(t), one.executed(u)), (0, 1));
}

/// T_soft is no measure for how long a commit takes to be applied here. And what rests on a later commit is not in front.
#[test]
fn b7_a_commit_waits_for_what_rests_on_the_one_before_it() {
    let mut one = One::speculative();
    for of in 1..=3 {
        one.open(of);
    }
    one.backend.held = vec![Held::Applied];
    let (c, d, t) = (tx(1, 1), tx(2, 1), tx(3, 1));
    let (slot_c, slot_d) = (one.run(c, &[WRITE]), one.run(d, &[WRITE]));
    one.begin(t);
    let position = one.deliver(commit(c, slot_c, &[WRITE]));
    one.operation(t, 1, WRITE);
    one.entry(t, 1, position.0, None);
    one.deliver(commit(d, slot_d, &[WRITE]));
    one.pass(SECOND);
    assert_eq!((one.committed(c), one.committed(d), one.executed(t)), (1, 0, 0));
    one.event(Event::Applied { tx: c, result: Ok(()) });
    assert_eq!((one.committed(d), one.executed(t)), (1, 1));
}

/// The master's word may be faster than the order, too.
#[test]
fn b7_the_masters_order_is_kept_among_transactions_that_become_known_in_another() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    one.operation(u, 1, WRITE);
    one.entry(t, 1, 0, None);
    one.entry(u, 1, 0, None);
    one.begin(t);
    one.begin(u);
    assert_eq!((one.executed(t), one.executed(u)), (0, 0));
    one.operation(t, 1, WRITE);
    assert_eq!((one.executed(t), one.executed(u)), (1, 1));
}

/// The master's word may be faster than the client's message. But no client can make others wait for what it never sends.
#[test]
fn b7_a_write_waits_for_one_whose_message_is_late_and_for_such_a_client_not_again() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    one.begin(t);
    one.begin(u);
    one.operations(u, &[WRITE, WRITE]);
    one.entry(t, 1, 0, None);
    one.entry(u, 1, 0, None);
    assert_eq!(one.executed(u), 0);
    one.operation(t, 1, WRITE);
    assert_eq!((one.executed(t), one.executed(u)), (1, 1));
    one.entry(t, 2, 0, None);
    one.entry(u, 2, 0, None);
    assert_eq!(one.executed(u), 1);
    one.now = one.scheduler.next_wake().unwrap();
    one.event(Event::Wake);
    assert_eq!(one.executed(u), 2);
    let u = tx(2, 2);
    one.begin(u);
    one.operations(u, &[WRITE]);
    one.entry(t, 3, 0, None);
    one.entry(u, 1, 0, None);
    assert_eq!(one.executed(u), 1, "at once");
}

/// A2's ON CONFLICT DO NOTHING took no lock at the master, and deletes committed right after it. Elsewhere the delete must
/// not be first.
#[test]
fn a2_b7_a_commit_waits_for_what_the_master_ran_before_it_and_no_longer_than_t_soft() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot = one.run(t, &[WRITE]);
    one.begin(u);
    one.backend.held = vec![Held::Executed];
    one.operation(u, 1, WRITE);
    one.entry(u, 1, 0, None);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!((one.executed(u), one.committed(t)), (1, 0), "u's runs here, and ran before at the master");
    let report = BackendReport::Executed {
        tx: u,
        number: 1,
        result: backend::result_of(1),
        sqlstate: None,
        status: b'T',
        tag: TagKind::Plain,
        copy_started: false,
        draws: Default::default(),
    };
    one.event(Event::Backend { session: session(2), report });
    assert_eq!(one.committed(t), 1);
    // One that never ends.
    let v = tx(1, 2);
    one.backend.held = vec![];
    let slot = one.run(v, &[WRITE]);
    one.backend.held = vec![Held::Executed];
    one.operation(u, 2, WRITE);
    one.entry(u, 2, 0, None);
    one.deliver(commit(v, slot, &[WRITE]));
    assert_eq!(one.committed(v), 0);
    one.now = one.scheduler.next_wake().unwrap();
    one.event(Event::Wake);
    assert_eq!(one.committed(v), 1);
}

#[test]
fn b5_the_constraints_check_need_not_wait_for_the_masters() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, None);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(told(&one, t), ["begin", "1", "complete", "prepare"]);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
}

#[test]
fn b5_a_check_that_fails_before_the_masters_is_done_again_behind_it() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, None);
    one.backend.checks_fail.insert(t);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(told(&one, t), ["begin", "1", "complete", "end", "begin", "1"]);
    assert_eq!(one.cast(t), []);
    one.check(t, 1, 0);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
}

#[test]
fn b5_a_check_that_fails_behind_the_masters_too_is_voted_against() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.stream(t, 1, 0);
    one.backend.checks_fail.insert(t);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(told(&one, t), ["begin", "1", "complete", "end", "begin", "1", "complete", "prepare"]);
    let u = tx(1, 2);
    one.deliver(commit(t, slot, &[WRITE]));
    let slot = one.begin(u);
    one.operations(u, &[WRITE]);
    one.backend.checks_fail.insert(u);
    one.entry(u, 1, 0, None);
    one.finish(u, slot, Decision::Commit, &[WRITE]);
    one.backend.checks_fail.insert(u);
    one.check(u, 1, 0);
    assert_eq!(one.cast(u), [VoteKind::Failed { sqlstate: SqlState::parse("23503") }]);
}

#[test]
fn g8_an_operation_that_a_timing_error_hits_here_alone_is_done_again_once() {
    for (one, finished_first) in [(One::speculative(), false), (One::slave(), true)] {
        let mut one = one;
        one.open(1);
        let t = tx(1, 1);
        let slot = one.begin(t);
        one.operations(t, &[WRITE, WRITE]);
        one.backend.fails.insert((t, 2), "40001");
        if finished_first {
            one.finish(t, slot, Decision::Commit, &[WRITE, WRITE]);
        }
        one.vouched(t, slot, &[WRITE, WRITE]);
        assert_eq!(told(&one, t)[..6], ["begin", "1", "2", "end", "begin", "1"]);
        if !finished_first {
            one.finish(t, slot, Decision::Commit, &[WRITE, WRITE]);
        }
        assert_eq!(one.cast(t), [prepared(&[WRITE, WRITE], t, slot)]);
    }
}

#[test]
fn g8_not_twice() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.backend.fails.insert((t, 1), "40001");
    one.backend.held = vec![Held::Executed];
    one.vouched(t, slot, &[WRITE]);
    let failed = || BackendReport::Executed {
        tx: t,
        number: 1,
        result: steeldb_wire::transaction::ResultDigest::error(*b"40001"),
        sqlstate: Some(SqlState::parse("40001")),
        status: b'E',
        tag: TagKind::Plain,
        copy_started: false,
        draws: Default::default(),
    };
    one.event(Event::Backend { session: session(1), report: failed() });
    one.event(Event::Backend { session: session(1), report: failed() });
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(t), [VoteKind::Mismatch { operation: 1 }]);
}

#[test]
fn a_speculation_that_a_finished_transaction_waits_for_is_undone_and_done_again_behind_it() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_u = one.begin(u);
    one.operations(u, &[WRITE]);
    one.vouched(u, slot_u, &[WRITE]);
    assert_eq!(one.executed(u), 1);
    let slot_t = one.begin(t);
    one.backend.held = vec![Held::Executed];
    one.operations(t, &[WRITE]);
    one.vouched(t, slot_t, &[WRITE]);
    one.finish(t, slot_t, Decision::Commit, &[WRITE]);
    let asked = |one: &One| one.count(|effect| matches!(effect, Effect::FindBlockers { .. }));
    one.event(Event::Tick);
    assert_eq!(asked(&one), 0, "not at once");
    one.now += SECOND;
    one.event(Event::Tick);
    assert_eq!(asked(&one), 1);
    one.event(Event::Blockers { tx: t, blockers: vec![process_of(session(2))] });
    assert_eq!(told(&one, u), ["begin", "1", "end"]);
    let report = BackendReport::Executed {
        tx: t,
        number: 1,
        result: backend::result_of(1),
        sqlstate: None,
        status: b'T',
        tag: TagKind::Plain,
        copy_started: false,
        draws: Default::default(),
    };
    one.backend.held = vec![];
    one.event(Event::Backend { session: session(1), report });
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot_t)]);
    one.event(Event::Tick);
    assert_eq!(told(&one, u), ["begin", "1", "end", "begin", "1"]);
    one.finish(u, slot_u, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(u), [prepared(&[WRITE], u, slot_u)]);
    let counts = one.scheduler.counts();
    assert_eq!((counts.undone, counts.redone), (1, 1));
}

#[test]
fn a11_a_write_set_that_cannot_be_applied_makes_speculations_give_way() {
    let mut one = One::speculative();
    one.open(1);
    let (t, u) = (tx(2, 1), tx(1, 1));
    let slot_u = one.begin(u);
    one.operations(u, &[WRITE]);
    one.vouched(u, slot_u, &[WRITE]);
    let slot_t = one.begin(t);
    one.backend.held = vec![Held::CaughtUp];
    one.deliver_late(commit(t, slot_t, &[WRITE]), true);
    one.event(Event::Tick);
    assert_eq!(one.caught_up(t), 1);
    one.event(Event::CaughtUp { tx: t, result: Err(CatchUpError::Blocked) });
    assert_eq!(told(&one, u), ["begin", "1", "end"]);
    one.now += 2 * SECOND;
    one.backend.held = vec![];
    one.event(Event::Tick);
    one.event(Event::Tick);
    assert_eq!(told(&one, u), ["begin", "1", "end", "begin", "1"]);
}

/// B12: whoever needs an anchor for its first import has it before those that may need theirs once more.
#[test]
fn b12_anchors_kept_for_a_redo_are_the_first_to_go() {
    let mut one = One::speculative();
    let count = steeldb_types::limits::ANCHORS_MAX as u64;
    for of in 1..=count + 1 {
        one.open(of);
        let slot = one.begin(tx(of, 1));
        one.operations(tx(of, 1), &[WRITE]);
        one.vouched(tx(of, 1), slot, &[WRITE]);
        // A commit between them: each has an anchor of its own.
        let other = tx(100 + of, 1);
        let slot = one.begin(other);
        one.deliver_late(commit(other, slot, &[WRITE]), true);
        one.event(Event::Tick);
    }
    let first = tx(1, 1);
    assert_eq!(one.cast(first), [], "it goes on without");
    assert_eq!(one.executed(first), 1);
    assert!(one.scheduler.anchors.len() <= count as usize);
}

#[test]
fn what_is_kept_for_a_redo_is_accounted_for_and_let_go() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let empty: usize = one.scheduler.bytes_by_client.values().sum();
    let slot = one.begin(t);
    one.operations(t, &[WRITE, WRITE]);
    let buffered: usize = one.scheduler.bytes_by_client.values().sum();
    assert!(buffered > empty);
    one.vouched(t, slot, &[WRITE, WRITE]);
    assert_eq!(one.scheduler.bytes_by_client.values().sum::<usize>(), buffered);
    one.finish(t, slot, Decision::Commit, &[WRITE, WRITE]);
    assert_eq!(one.scheduler.bytes_by_client.values().sum::<usize>(), empty);
    assert_eq!(one.scheduler.anchors.len(), 1, "only the one of now");
}
