//! Catching up by peers' write sets (A11).

use super::backend::Held;
use super::*;

#[test]
fn a11_what_was_not_executed_here_in_time_is_taken_as_a_write_set() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.deliver(commit(t, slot, &[WRITE]));
    one.pass(VOTE_TIMEOUT);
    assert_eq!(one.caught_up(t), 0, "its client may be slow");
    one.pass(SECOND);
    assert_eq!(one.caught_up(t), 1);
    assert_eq!(one.outcomes(t), [Outcome::Committed { position: Position(2) }]);
    assert_eq!((one.scheduler.permits_used, one.scheduler.active()), (0, 0));
}

#[test]
fn a11_what_is_late_itself_is_not_waited_for() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.begin(tx(1, 1));
    one.deliver_late(commit(tx(1, 1), slot, &[WRITE]), true);
    assert_eq!(one.caught_up(tx(1, 1)), 1);
}

/// A client that withholds its operations from one replica after another would hold up all commits, T_vote each.
#[test]
fn a_client_that_was_waited_for_in_vain_is_not_waited_for_again_soon() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.begin(tx(1, 1));
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    one.pass(VOTE_TIMEOUT + SECOND);
    let slot = one.begin(tx(1, 2));
    one.deliver(commit(tx(1, 2), slot, &[WRITE]));
    assert_eq!(one.caught_up(tx(1, 2)), 1);
    one.pass(12 * VOTE_TIMEOUT);
    let slot = one.begin(tx(1, 3));
    one.deliver(commit(tx(1, 3), slot, &[WRITE]));
    assert_eq!(one.caught_up(tx(1, 3)), 0);
}

/// Its operations went to the replicas that had its session when it began, and go to no other.
#[test]
fn what_was_decided_before_its_session_was_opened_here_is_not_waited_for() {
    let mut one = One::slave();
    let (t, u) = (tx(1, 1), tx(1, 2));
    let slot = one.begin(t);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.caught_up(t), 0, "its session may be on the way");
    one.open(1);
    assert_eq!(one.caught_up(t), 1);
    let slot = one.begin(u);
    one.deliver(commit(u, slot, &[WRITE]));
    assert_eq!(one.caught_up(u), 0, "its client has done nothing wrong");
}

/// The master streams an operation once. What came over the link before it was lost, or would have, comes no more.
#[test]
fn what_began_before_the_link_to_the_master_is_not_waited_for() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u, v) = (tx(1, 1), tx(2, 1), tx(2, 2));
    let slots = [t, u].map(|tx| one.begin(tx));
    one.operations(t, &[WRITE]);
    one.deliver(commit(t, slots[0], &[WRITE]));
    one.event(Event::PeerUp(ReplicaId(2)));
    assert_eq!(one.caught_up(t), 0, "not the master");
    one.event(Event::PeerUp(ReplicaId(0)));
    assert_eq!(one.caught_up(t), 1);
    one.deliver(commit(u, slots[1], &[WRITE]));
    assert_eq!(one.caught_up(u), 1, "decided later");
    let slot = one.begin(v);
    one.deliver(commit(v, slot, &[WRITE]));
    assert_eq!(one.caught_up(v), 0, "begun later");
}

#[test]
fn what_its_client_has_gone_on_from_is_not_waited_for() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    // Its Finish is known by the votes of others.
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.caught_up(t), 0, "its operations may be on the way");
    one.begin(tx(1, 2));
    assert_eq!(one.caught_up(t), 1);
}

#[test]
fn a3_other_effects_than_the_certificates_are_rolled_back_and_caught_up_with() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.backend.differs.insert(t);
    let slot = one.run(t, &[WRITE]);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!((one.committed(t), one.rolled_back(), one.caught_up(t)), (0, 1, 1));
    assert_eq!(one.scheduler.permits_used, 0);
}

/// A client can make a statement write on three servers and not on the fourth.
#[test]
fn what_wrote_nothing_here_and_was_committed_by_a_quorum_is_caught_up_with_in_its_database() {
    for rolls_back in [false, true] {
        let mut one = One::slave();
        one.open(1);
        let t = tx(1, 1);
        one.backend.writes_nothing.insert(t);
        let slot = one.begin(t);
        one.operations(t, &[WRITE]);
        one.stream(t, 1, 0);
        let decision = if rolls_back { Decision::Rollback } else { Decision::Commit };
        one.finish(t, slot, decision, &[WRITE]);
        assert_eq!(one.scheduler.active(), 0, "nothing is left to do here");
        one.deliver(commit(t, slot, &[WRITE]));
        assert_eq!(one.caught_up(t), 1);
        assert!(
            one.effects.iter().any(|e| matches!(e, Effect::CatchUp { database, .. } if database == "app"))
        );
        assert_eq!(one.scheduler.diverged(), None);
    }
}

#[test]
fn a_transaction_decided_while_it_completes_as_read_only_is_caught_up_with() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.backend.writes_nothing.insert(t);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.deliver(commit(t, slot, &[WRITE]));
    one.stream(t, 1, 0);
    assert_eq!((one.caught_up(t), one.scheduler.diverged()), (1, None));
    assert_eq!(one.scheduler.active(), 0);
}

#[test]
fn a11_a_write_set_that_is_blocked_is_tried_again_and_who_may_block_it_says_so() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    one.backend.held = vec![Held::CaughtUp];
    let u = tx(2, 1);
    one.run(u, &[WRITE]);
    let slot = one.begin(tx(1, 1));
    one.deliver_late(commit(tx(1, 1), slot, &[WRITE]), true);
    one.event(Event::CaughtUp { tx: tx(1, 1), result: Err(CatchUpError::Blocked) });
    assert_eq!(one.cast(u)[1..], [VoteKind::Blocked]);
    assert_eq!((one.caught_up(tx(1, 1)), one.scheduler.diverged()), (1, None));
    one.pass(2 * SECOND);
    assert_eq!(one.caught_up(tx(1, 1)), 2);
    one.event(Event::CaughtUp { tx: tx(1, 1), result: Ok(()) });
    assert_eq!(one.outcomes(tx(1, 1)).len(), 1);
    assert_eq!(one.scheduler.applied(), Position(one.position));
}

#[test]
fn a_write_set_that_nobody_has_makes_the_replica_take_itself_out() {
    let mut one = One::slave();
    one.backend.held = vec![Held::CaughtUp];
    let slot = one.begin(tx(1, 1));
    one.deliver_late(commit(tx(1, 1), slot, &[WRITE]), true);
    for _ in 0..5 {
        assert_eq!(one.scheduler.diverged(), None);
        one.event(Event::CaughtUp {
            tx: tx(1, 1),
            result: Err(CatchUpError::Failed("no peer keeps it".into())),
        });
        one.pass(2 * SECOND);
    }
    assert!(one.scheduler.diverged().is_some());
    assert_eq!(one.count(|effect| matches!(effect, Effect::Diverged { .. })), 1);
}

/// It was given up here and took no locks, so a later one was prepared here and not at the others.
#[test]
fn a11_what_was_prepared_ahead_of_its_order_makes_way_and_is_caught_up_with_itself() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::CaughtUp];
    let (t, u) = (tx(2, 1), tx(1, 1));
    let slot_t = one.begin(t);
    let slot_u = one.run(u, &[WRITE]);
    one.deliver_late(commit(t, slot_t, &[WRITE]), true);
    let slot_v = one.begin(tx(3, 1));
    one.deliver(commit(u, slot_u, &[WRITE]));
    assert_eq!((one.caught_up(t), one.committed(u)), (1, 0));
    one.event(Event::CaughtUp { tx: t, result: Err(CatchUpError::Blocked) });
    assert_eq!((one.rolled_back(), one.scheduler.diverged()), (1, None));
    one.pass(SECOND);
    one.event(Event::CaughtUp { tx: t, result: Ok(()) });
    assert_eq!((one.caught_up(u), one.committed(u)), (1, 0));
    one.event(Event::CaughtUp { tx: u, result: Ok(()) });
    assert!(slot_v > slot_u);
    assert_eq!((one.scheduler.applied(), one.scheduler.permits_used), (Position(one.position), 0));
}

/// The positions of the commits whose rows were asked for, in the order of asking.
fn asked(one: &One) -> Vec<u64> {
    let positions = one.effects.iter().filter_map(|effect| match effect {
        Effect::CatchUp { position, .. } => Some(position.0),
        _ => None,
    });
    positions.collect()
}

/// One may be the change of what another left; the BEGINs that parted their waves were given up here.
#[test]
fn a11_rows_are_taken_in_the_order_of_their_commits_many_at_once() {
    let mut one = One::slave();
    one.backend.held.push(Held::CaughtUp);
    let slots: Vec<(TxId, Slot)> = (1..=80).map(|of| (tx(of, 1), one.begin(tx(of, 1)))).collect();
    for (tx, slot) in &slots {
        one.deliver_late(commit(*tx, *slot, &[WRITE]), true);
    }
    assert_eq!(asked(&one), (81..=144).collect::<Vec<u64>>(), "no more than are made soon");
    // The third cannot be made yet: those before it land, and it is asked for again.
    for (tx, _) in &slots[..2] {
        one.event(Event::CaughtUp { tx: *tx, result: Ok(()) });
    }
    one.event(Event::CaughtUp { tx: slots[2].0, result: Err(CatchUpError::Blocked) });
    assert_eq!(one.scheduler.applied(), Position(82));
    one.pass(SECOND);
    assert_eq!(asked(&one)[64..], [145, 146, 83]);
    for (tx, _) in &slots[2..] {
        one.event(Event::CaughtUp { tx: *tx, result: Ok(()) });
    }
    assert_eq!(one.scheduler.applied(), Position(160));
}

/// What ran DDL is executed again behind all rows before it, and before those after it.
#[test]
fn a11_a_script_parts_the_rows_before_it_from_those_behind_it() {
    let mut one = One::slave();
    one.backend.held.push(Held::CaughtUp);
    let (t, u, v) = (tx(1, 1), tx(2, 1), tx(3, 1));
    let slots = [t, u, v].map(|tx| one.begin(tx));
    one.deliver_late(commit(t, slots[0], &[WRITE]), true);
    one.deliver_late(commit(u, slots[1], &[DDL]), true);
    one.deliver_late(commit(v, slots[2], &[WRITE]), true);
    assert_eq!(asked(&one), [4]);
    one.event(Event::CaughtUp { tx: t, result: Ok(()) });
    assert_eq!(asked(&one), [4, 5]);
}

/// A replica that executed what is decided already would stay as far behind as it is.
#[test]
fn a11_who_is_behind_executes_nothing_that_is_decided_and_votes_on_what_is_not() {
    let mut one = One::slave();
    for of in 1..=3 {
        one.open(of);
    }
    // The first commit holds up all behind it, for T_vote.
    let (t, u, v) = (tx(1, 1), tx(2, 1), tx(3, 1));
    let slot = one.begin(t);
    one.deliver(commit(t, slot, &[WRITE]));
    let slot = one.begin(u);
    one.deliver(commit(u, slot, &[WRITE]));
    one.operations(u, &[WRITE]);
    one.stream(u, 1, 0);
    one.pass(VOTE_TIMEOUT - SECOND);
    let slot = one.begin(v);
    one.operations(v, &[WRITE]);
    one.stream(v, 1, 0);
    one.finish(v, slot, Decision::Commit, &[WRITE]);
    assert_eq!((one.caught_up(t), one.caught_up(u)), (0, 0));
    one.pass(2 * SECOND);
    assert_eq!((one.caught_up(t), one.caught_up(u), one.backend.snapshots.contains_key(&u)), (1, 1, false));
    assert_eq!(one.cast(v), [prepared(&[WRITE], v, slot)]);
}
