//! Whatever is sent, what is kept of it is bounded; and each bound at its edge.

use super::backend::Held;
use super::*;
use crate::scheduler::open::OPEN_PER_CLIENT_MAX;
use steeldb_types::limits;

/// Each operation with a new counter would leave a transaction behind.
#[test]
fn operations_without_a_begin_leave_one_transaction_per_session() {
    let mut one = One::slave();
    one.open(1);
    for counter in 1..=1000 {
        one.operation(tx(1, counter), 1, WRITE);
    }
    assert_eq!(one.scheduler.active(), 1);
}

#[test]
fn a_master_cannot_fill_others_with_entries_of_what_nobody_knows() {
    let mut one = One::slave();
    let entries = (0..100_000).map(|of| entry(tx(of, 1), 1, Digest::default())).collect();
    one.stream_of_master(entries);
    assert_eq!(one.scheduler.active(), 0);
    assert_eq!(one.scheduler.early_stream.len(), 65_536);
}

#[test]
fn words_on_what_is_over_are_bounded() {
    let mut one = One::slave();
    one.open(1);
    for counter in 1..=6000 {
        let t = tx(1, counter);
        let slot = one.begin(t);
        one.operations(t, &[READ]);
        one.stream(t, 1, 0);
        one.finish(t, slot, Decision::Commit, &[READ]);
        one.effects.clear();
    }
    assert_eq!(one.scheduler.active(), 0);
    let weight = one.scheduler.words.weight();
    assert!((16_000..=16_384).contains(&weight), "{weight}");
    one.pass(2 * VOTE_TIMEOUT);
    assert_eq!(one.scheduler.words.weight(), 0);
}

#[test]
fn an_entry_ahead_of_its_transaction_is_not_lost() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.stream(t, 1, 0);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
    assert_eq!((one.scheduler.early_stream.len(), one.scheduler.entries_held), (0, 2));
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.scheduler.entries_held, 0);
}

#[test]
fn a_liars_votes_on_slots_to_come_are_bounded_and_take_no_room_from_others() {
    let mut one = One::slave();
    let slot = Position(5_000_000);
    for number in 0..5000 {
        one.vote(3, Vote { tx: tx(number, 1), slot, kind: VoteKind::Gone });
    }
    assert_eq!(one.scheduler.early_votes.len(), 4096);
    assert!(one.scheduler.ballots.is_empty());
    for replica in [0, 2] {
        one.vote(replica, Vote { tx: tx(1, 1), slot: Position(1), kind: VoteKind::Gone });
    }
    one.begin(tx(1, 1));
    assert_eq!(one.count(|effect| matches!(effect, Effect::Submit(_))), 1);
}

#[test]
fn a_client_with_too_many_open_transactions_ends_its_own_oldest() {
    let mut one = One::slave();
    let other = TxId { session: SessionKey { client: OTHER_CLIENT, session: SessionId(1) }, counter: 1 };
    one.begin(other);
    for of in 0..OPEN_PER_CLIENT_MAX as u64 {
        one.begin(tx(of, 1));
    }
    assert!(one.scheduler.open.slot(tx(0, 1)).is_some());
    one.begin(tx(1_000_000, 1));
    assert!(one.scheduler.open.slot(tx(0, 1)).is_none());
    assert!(one.scheduler.open.slot(tx(1, 1)).is_some());
    assert!(one.scheduler.open.slot(other).is_some());
}

#[test]
fn what_is_buffered_is_given_back() {
    let mut one = One::slave();
    one.open(1);
    let idle: usize = one.scheduler.bytes_by_client.values().sum();
    for (counter, ends) in (1..).zip(["commit", "abort", "gone"]) {
        let t = tx(1, counter);
        let slot = one.begin(t);
        one.operations(t, &[COPY, WRITE]);
        one.say(ClientMessage::CopyData { tx: t, number: 1, data: vec![0; 1000] });
        assert!(one.scheduler.bytes_by_client.values().sum::<usize>() > idle + 1000);
        match ends {
            "commit" => {
                one.deliver_late(commit(t, slot, &[COPY, WRITE]), true);
            }
            "abort" => {
                one.deliver(abort(t, slot));
            }
            _ => {
                one.stream(t, 2, 0);
                one.say(ClientMessage::CopyEnd { tx: t, number: 1, failure: None });
                one.pass(IDLE_TIMEOUT + SECOND);
            }
        }
        assert_eq!(one.scheduler.bytes_by_client.values().sum::<usize>(), idle, "{ends}");
    }
    one.say(ClientMessage::CloseSession { session: SessionId(1) });
    assert_eq!(one.scheduler.bytes_by_client.values().sum::<usize>(), 0);
}

#[test]
fn what_a_replica_has_given_up_it_does_not_buffer() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let t = tx(1, 1);
    one.begin(t);
    let slot = one.run(tx(2, 1), &[DDL]);
    one.deliver(commit(tx(2, 1), slot, &[DDL]));
    assert_eq!(one.cast(t), [VoteKind::Walled]);
    let before: usize = one.scheduler.bytes_by_client.values().sum();
    one.operations(t, &[WRITE, WRITE]);
    assert_eq!(one.scheduler.bytes_by_client.values().sum::<usize>(), before);
    assert_eq!(one.refusals(), [""; 0]);
}

#[test]
fn statements_are_limited_in_number_and_bytes() {
    let mut one = One::slave();
    one.open(1);
    let define = |one: &mut One, number: u32, sql: String| {
        let (session, statement) = (SessionId(1), StatementId(number));
        one.say(ClientMessage::Define { session, statement, text: text(&sql) });
    };
    for number in 10..=250 {
        define(&mut one, number, "x".repeat(limits::STATEMENT_BYTES_MAX));
    }
    assert_eq!(one.refusals(), [""; 0]);
    for number in 251..270 {
        define(&mut one, number, "x".repeat(limits::STATEMENT_BYTES_MAX));
    }
    assert_eq!(one.refusals(), ["54000"], "256 MiB of one client");
    one.open(2);
    assert_eq!(one.refusals(), ["54000"], "given back with the session");
}

#[test]
fn start_up_parameters_are_limited() {
    let mut one = One::slave();
    for (of, bytes, refused) in [(1, 8000, 0), (2, 9000, 1)] {
        let (database, role) = ("app".into(), "alice".into());
        let parameters = vec![("application_name".to_string(), "x".repeat(bytes))];
        one.say(ClientMessage::OpenSession { session: SessionId(of), database, role, parameters });
        assert_eq!(one.refusals().len(), refused);
    }
}

#[test]
fn sessions_of_one_client_are_limited() {
    let mut one = One::slave();
    for of in 1..=limits::SESSIONS_PER_CLIENT_MAX as u64 {
        one.open(of);
    }
    assert_eq!(one.refusals(), [""; 0]);
    one.open(1000);
    assert_eq!(one.refusals(), ["53300"]);
}

#[test]
fn maintenance_and_verification_take_only_so_many_connections() {
    let mut one = One::slave();
    one.backend.held = vec![Held::Maintained];
    for of in 1..=20 {
        let (session, database, role, sql) = (session(of), "app".into(), "alice".into(), "VACUUM".into());
        one.deliver(Ordered::Maintain { session, database, role, sql });
        one.deliver(Ordered::Verify { session, database: "app".into() });
    }
    let running = |one: &One| one.count(|effect| matches!(effect, Effect::Maintain { .. }));
    let verifying = |one: &One| one.count(|effect| matches!(effect, Effect::Verify { .. }));
    let answers = |one: &One| one.count(|effect| matches!(effect, Effect::Answer { .. }));
    assert_eq!((running(&one), verifying(&one), answers(&one)), (4, 4, 16));
    one.event(Event::Maintained { session: session(1), sequence: 1, messages: vec![] });
    assert_eq!(running(&one), 5);
    let tables = Ok(vec![]);
    one.event(Event::Verified { session: session(1), sequence: 2, position: Position(2), tables });
    one.deliver(Ordered::Verify { session: session(1), database: "app".into() });
    assert_eq!(verifying(&one), 5);
}
