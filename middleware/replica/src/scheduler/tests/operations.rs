//! Operations and barriers (rules 4 and 5), and what a replica keeps of them.

use super::backend::Held;
use super::*;

#[test]
fn deferred_an_operation_runs_after_finish_entry_and_barrier() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    assert_eq!(one.executed(t), 0, "no entry, no Finish");
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.executed(t), 0, "no entry");
    one.stream(t, 1, 0);
    assert_eq!(one.executed(t), 1);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
}

#[test]
fn a13_an_operation_waits_until_its_barrier_is_applied() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    one.backend.held = vec![Held::Applied];
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.run(t, &[WRITE]);
    let slot_u = one.begin(u);
    let position = one.deliver(commit(t, slot_t, &[WRITE]));
    one.operations(u, &[WRITE]);
    one.stream(u, 1, position.0);
    one.finish(u, slot_u, Decision::Commit, &[WRITE]);
    assert_eq!((one.committed(t), one.executed(u)), (1, 0));
    one.event(Event::Applied { tx: t, result: Ok(()) });
    assert_eq!(one.executed(u), 1);
    assert_eq!(one.cast(u), [prepared(&[WRITE], u, slot_u)]);
}

#[test]
fn b5_the_constraints_check_has_a_barrier_of_its_own() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, None);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    let completes =
        |one: &One| one.commands().iter().filter(|c| matches!(c, Command::Complete { .. })).count();
    assert_eq!((one.executed(t), completes(&one)), (1, 0));
    one.entry(t, 2, 0, None);
    assert_eq!(completes(&one), 1);
}

/// With links of different speed, others' votes bring the Finish before the client's own operations.
#[test]
fn a3_operations_that_come_behind_the_finish_still_count_up_to_its_k() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.stream(t, 2, 0);
    let cast = Vote { tx: t, slot, kind: prepared(&[WRITE, WRITE], t, slot) };
    let signed = finish(t, slot, Decision::Commit, &[WRITE, WRITE]);
    one.event(Event::Votes(vec![(vote(0, cast), Some(signed))]));
    one.operations(t, &[WRITE, WRITE, WRITE]);
    assert_eq!(one.executed(t), 2, "the third is one too many");
    assert_eq!(one.cast(t), [prepared(&[WRITE, WRITE], t, slot)]);
}

#[test]
fn b8_errors_of_timing_are_adopted() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, Some(SqlState::parse("40P01")));
    one.finish(t, slot, Decision::Rollback, &[WRITE]);
    assert_eq!(one.executed(t), 0);
    assert!(one.commands().iter().any(|command| matches!(command, Command::Adopt { .. })));
}

/// A lying master that says "P0001: insufficient funds" must not have every replica vouch for it unseen.
#[test]
fn b8_a15_other_errors_are_executed_whatever_the_master_says() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, Some(SqlState::parse("P0001")));
    one.finish(t, slot, Decision::Rollback, &[WRITE]);
    assert_eq!(one.executed(t), 1);
    assert!(!one.commands().iter().any(|command| matches!(command, Command::Adopt { .. })));
}

#[test]
fn a10_leading_locks_run_at_the_master_before_the_slot_and_enter_the_transcript() {
    let mut one = One::master();
    one.open(1);
    let t = tx(1, 1);
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(t, 1, LOCK) }));
    assert!(matches!(one.commands()[5..], [Command::BeginLeading { .. }, Command::Execute { .. }]));
    let slot = one.begin(t);
    one.event(Event::Tick);
    let entries =
        one.count(|effect| matches!(effect, Effect::SendStream(stream) if !stream.entries.is_empty()));
    assert_eq!(entries, 1, "its entry comes with the slot");
    one.operation(t, 2, WRITE);
    assert_eq!(one.executed(t), 2);
    assert!(slot > Position(0));
}

/// The lock waits for a prepared transaction, its commit for the snapshot, the snapshot for the lock: any client could
/// stop the master with it.
#[test]
fn a10_a_begin_that_comes_before_its_leading_locks_are_held_holds_back_no_commit() {
    let mut one = One::master();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot = one.run(u, &[WRITE]);
    one.backend.held = vec![Held::Executed];
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(t, 1, LOCK) }));
    one.begin(t);
    one.deliver(commit(u, slot, &[WRITE]));
    assert_eq!(one.committed(u), 1);
    assert_eq!(one.cast(t), [VoteKind::Blocked]);
    assert!(one.commands().contains(&&Command::End { tx: t, commit: false }));
}

#[test]
fn a10_only_lock_table_may_lead() {
    let mut one = One::master();
    one.open(1);
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(tx(1, 1), 1, WRITE) }));
    assert_eq!(one.refusals(), ["08P01"]);
    assert_eq!(one.executed(tx(1, 1)), 0);
}

#[test]
fn operations_out_of_sequence_end_the_session() {
    let mut one = One::slave();
    one.open(1);
    one.operation(tx(1, 1), 2, WRITE);
    assert_eq!(one.refusals(), ["08P01"]);
    assert!(one.closed(session(1)));
    assert_eq!(one.scheduler.active(), 0);
}

#[test]
fn a4_a_statement_that_ended_the_block_ends_the_session() {
    let mut one = One::master();
    one.open(1);
    one.backend.held = vec![Held::Executed];
    let t = tx(1, 1);
    one.begin(t);
    one.operation(t, 1, WRITE);
    let report = BackendReport::Executed {
        tx: t,
        number: 1,
        result: Digest::default(),
        sqlstate: None,
        status: b'I',
        tag: TagKind::BlockEnded,
        copy_started: false,
        draws: Draws::NONE,
    };
    one.event(Event::Backend { session: session(1), report });
    assert_eq!(one.cast(t), [VoteKind::Failed { sqlstate: SqlState::parse("2D000") }]);
    assert!(one.closed(session(1)));
}

#[test]
fn a4_a_statement_number_means_one_text() {
    let mut one = One::slave();
    one.open(1);
    one.say(ClientMessage::Define {
        session: SessionId(1),
        statement: StatementId(1),
        text: text("SELECT 2"),
    });
    assert_eq!(one.refusals(), ["08P01"]);
}

/// A client that heard from faster replicas goes on and forgets what this one has yet to run.
#[test]
fn a_statement_is_forgotten_behind_the_operations_that_name_it() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.say(ClientMessage::Forget { session: SessionId(1), statement: StatementId(WRITE) });
    one.stream(t, 1, 0);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
    assert_eq!(one.refusals(), [""; 0]);
    assert!(one.commands().contains(&&Command::Forget(StatementId(WRITE))));
}

/// Rule 11, eagerly: what waits for it is executed without a Finish, deferred or not, with what stands before it.
#[test]
fn what_is_to_be_verified_is_executed_at_once_and_its_transcript_sent() {
    for mut one in [One::slave(), One::speculative()] {
        one.open(1);
        let t = tx(1, 1);
        one.begin(t);
        let verified = |number, statement| {
            ClientMessage::Operation(Operation { verify: true, ..operation(t, number, statement) })
        };
        one.operation(t, 1, WRITE);
        one.say(verified(2, READ));
        let words = |one: &One| {
            one.count(|effect| {
                matches!(effect, Effect::Reply { message: ReplicaMessage::Executed { .. }, .. })
            })
        };
        assert_eq!((one.executed(t), words(&one)), (0, 0), "not ahead of the master");
        one.entry(t, 1, 0, None);
        one.entry(t, 2, 0, None);
        assert_eq!((one.executed(t), words(&one)), (2, 1), "a word on what is verified, and on nothing else");
        // A definition runs behind the Finish all the same.
        one.say(verified(3, DDL));
        one.entry(t, 3, 0, None);
        assert_eq!((one.executed(t), words(&one)), (2, 1));
    }
}
