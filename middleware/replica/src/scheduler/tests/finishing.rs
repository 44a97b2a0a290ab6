//! From Finish to vote (rule 6), read-only ends (rule 11) and rollbacks (rule 10).

use super::backend::Held;
use super::*;

#[test]
fn a2_a_vote_waits_for_the_write_set_and_names_it() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Decoded];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    assert_eq!(one.cast(t), []);
    let gid = steeldb_postgres::transaction::gid(t, slot);
    let write_set = Ok(DecodedSet {
        digest: backend::write_set_of(t, 1),
        wall: steeldb_wire::transaction::Wall::None,
        truncates: false,
        changes: 1,
    });
    one.event(Event::Decoded { gid, write_set });
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
}

#[test]
fn a3_only_the_first_finish_counts_and_it_must_be_the_clients() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.stream(t, 1, 0);
    let mut forged = finish(t, slot, Decision::Commit, &[WRITE]);
    forged.finish.operations = 0;
    one.say(ClientMessage::Finish(forged));
    assert_eq!(one.cast(t), []);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.finish(t, slot, Decision::Rollback, &[]);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
    assert_eq!(one.rolled_back(), 0);
}

#[test]
fn another_transcript_than_the_clients_is_a_mismatch_and_rolled_back() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.stream(t, 1, 0);
    let mut said = finish(t, slot, Decision::Commit, &[WRITE]).finish;
    said.transcript = Digest([7; 32]);
    one.say(ClientMessage::Finish(steeldb_wire::transaction::SignedFinish::new(said, &client_key(CLIENT))));
    assert_eq!(one.cast(t), [VoteKind::Mismatch { operation: 1 }]);
    assert!(one.commands().contains(&&Command::End { tx: t, commit: false }));
}

#[test]
fn b6_a_failed_prepare_is_a_vote_against_and_gives_its_permit_back() {
    let mut one = One::slave();
    one.backend.held = vec![Held::Prepared, Held::Decoded];
    for of in 1..=9 {
        one.open(of);
        one.run(tx(of, 1), &[WRITE]);
    }
    let prepares = |one: &One| one.commands().iter().filter(|c| matches!(c, Command::Prepare { .. })).count();
    assert_eq!(prepares(&one), 8, "one waits for a permit");
    let sqlstate = SqlState::parse("25P02");
    let report = BackendReport::Prepared { tx: tx(1, 1), result: Err(sqlstate) };
    one.event(Event::Backend { session: session(1), report });
    assert_eq!(one.cast(tx(1, 1)), [VoteKind::Failed { sqlstate }]);
    assert_eq!(prepares(&one), 9);
    assert_eq!(one.scheduler.permits_used, 8);
}

/// Else a transaction longer than T_vote would never find a quorum.
#[test]
fn g8_a_transaction_that_took_long_has_longer_to_be_voted_on() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.pass(3 * SECOND);
    one.operations(t, &[WRITE]);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.pass(VOTE_TIMEOUT + 2 * SECOND);
    assert_eq!(one.cast(t), [], "four times the three seconds that it took, besides T_vote");
    one.pass(11 * SECOND);
    assert_eq!(one.cast(t), [VoteKind::Expired]);
}

/// Else the next PREPARE could overtake ROLLBACK PREPARED, and find no room.
#[test]
fn b6_what_is_rolled_back_keeps_its_permit_until_that_is_done() {
    let mut one = One::slave();
    one.backend.held = vec![Held::RolledBack];
    let prepares = |one: &One| one.commands().iter().filter(|c| matches!(c, Command::Prepare { .. })).count();
    let mut slots = Vec::new();
    for of in 1..=9 {
        one.open(of);
        slots.push(one.run(tx(of, 1), &[WRITE]));
    }
    // An Abort; and a Commit of other effects than those that are prepared here.
    one.deliver(abort(tx(1, 1), slots[0]));
    one.deliver(commit(tx(2, 1), slots[1], &[READ]));
    assert_eq!((one.rolled_back(), one.caught_up(tx(2, 1))), (2, 1));
    assert_eq!((prepares(&one), one.scheduler.permits_used), (8, 8));
    let rolled_back = |of: usize| {
        let gid = steeldb_postgres::transaction::gid(tx(of as u64, 1), slots[of - 1]);
        Event::RolledBack { gid }
    };
    one.event(rolled_back(1));
    one.event(rolled_back(1));
    assert_eq!((prepares(&one), one.scheduler.permits_used), (9, 8), "once for each");
    one.event(rolled_back(2));
    assert_eq!(one.scheduler.permits_used, 7);
}

#[test]
fn a_write_set_without_digest_is_no_vote_and_its_abort_releases_it() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Decoded];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    let gid = steeldb_postgres::transaction::gid(t, slot);
    one.event(Event::Decoded { gid, write_set: Err("incomplete".into()) });
    assert_eq!(one.cast(t), [VoteKind::Failed { sqlstate: SqlState::parse("0A000") }]);
    one.deliver(abort(t, slot));
    assert_eq!((one.rolled_back(), one.scheduler.permits_used, one.scheduler.active()), (1, 0, 0));
}

/// A quorum could digest what this replica could not: its own is as good as different.
#[test]
fn a_write_set_without_digest_is_replaced_by_the_one_that_was_certified() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Decoded];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    let gid = steeldb_postgres::transaction::gid(t, slot);
    one.event(Event::Decoded { gid, write_set: Err("incomplete".into()) });
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!((one.committed(t), one.rolled_back(), one.caught_up(t)), (0, 1, 1));
    assert_eq!((one.scheduler.permits_used, one.scheduler.active()), (0, 0));
}

#[test]
fn g4_no_vote_for_a_transaction_follows_one_against_it() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Prepared];
    let t = tx(1, 1);
    one.run(t, &[WRITE]);
    one.pass(VOTE_TIMEOUT + SECOND);
    one.event(Event::Backend {
        session: session(1),
        report: BackendReport::Prepared { tx: t, result: Ok(None) },
    });
    assert_eq!(one.cast(t), [VoteKind::Expired]);
    assert_eq!(one.backend.prepared.len(), 1, "its outcome will tell");
}

#[test]
fn b13_an_abort_releases_what_is_prepared_before_it_is_decoded() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Decoded];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.deliver(abort(t, slot));
    assert_eq!((one.rolled_back(), one.scheduler.permits_used, one.scheduler.active()), (1, 0, 0));
}

#[test]
fn an_abort_during_prepare_waits_for_it() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Prepared];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.deliver(abort(t, slot));
    assert_eq!(one.rolled_back(), 0);
    one.event(Event::Backend {
        session: session(1),
        report: BackendReport::Prepared { tx: t, result: Ok(None) },
    });
    assert_eq!((one.rolled_back(), one.scheduler.permits_used), (1, 0));
}

#[test]
fn a9_a_transaction_that_wrote_nothing_ends_without_a_vote() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.run(t, &[READ]);
    assert_eq!(one.cast(t), []);
    assert_eq!((one.transcripts(), one.scheduler.active()), (1, 0));
    assert!(one.commands().contains(&&Command::End { tx: t, commit: true }));
}

#[test]
fn a9_an_explicit_lock_must_be_voted_on() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[LOCK]);
    assert_eq!(one.cast(t), [prepared(&[LOCK], t, slot)]);
}

#[test]
fn a15_a_rollback_is_answered_by_a_transcript_and_never_voted_for() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.stream(t, 1, 0);
    one.finish(t, slot, Decision::Rollback, &[WRITE]);
    assert_eq!((one.transcripts(), one.cast(t).len(), one.scheduler.active()), (1, 0, 0));
    one.pass(10 * VOTE_TIMEOUT);
    assert_eq!(one.cast(t), []);
}

/// f + 1 transcripts are believed: one of a replica whose data are wrong is as good as a liar's.
#[test]
fn a9_a_diverged_replica_vouches_for_nothing() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.begin(t);
    let slot_u = one.begin(u);
    one.scheduler.mark_diverged(Position(1), t, "test".into());
    for (tx, slot, statement) in [(t, slot_t, READ), (u, slot_u, WRITE)] {
        one.operations(tx, &[statement]);
        one.stream(tx, 1, 0);
        one.finish(tx, slot, Decision::Commit, &[statement]);
    }
    assert_eq!(one.transcripts(), 0);
    assert_eq!(one.cast(u), []);
}

#[test]
fn g4_t_vote_expires_even_what_is_prepared_and_releases_nothing() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.pass(VOTE_TIMEOUT);
    assert_eq!(one.cast(t).len(), 1);
    one.pass(SECOND);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot), VoteKind::Expired]);
    assert_eq!((one.rolled_back(), one.backend.prepared.len()), (0, 1));
}

/// An agent that is to stop waits for it: DDL that was not executed here cannot be had from a peer.
#[test]
fn a_replica_is_settled_once_what_was_finished_is_prepared_and_what_was_decided_is_applied() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[DDL]);
    assert!(one.scheduler.is_settled(), "its client has not finished");
    one.finish(t, slot, Decision::Commit, &[DDL]);
    assert!(!one.scheduler.is_settled());
    one.stream(t, 1, 0);
    assert!(one.scheduler.is_settled(), "it is prepared");
    one.backend.held = vec![super::backend::Held::Applied];
    one.deliver(commit(t, slot, &[DDL]));
    assert!(!one.scheduler.is_settled());
    one.event(Event::Applied { tx: t, result: Ok(()) });
    assert!(one.scheduler.is_settled());
}
