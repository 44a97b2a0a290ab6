//! Ballots, certificates and outcomes (rule 7).

use super::*;

fn submitted(one: &One) -> Vec<&str> {
    one.effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Submit(ordered) => Some(match ordered.as_ref() {
                Ordered::Commit(_) => "commit",
                Ordered::Abort(_) => "abort",
                _ => "?",
            }),
            _ => None,
        })
        .collect()
}

#[test]
fn a1_a_commit_takes_a_quorum_of_equal_votes_and_not_f_plus_1() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    let kind = prepared(&[WRITE], t, slot);
    one.vote(0, Vote { tx: t, slot, kind });
    assert_eq!(submitted(&one), [""; 0]);
    one.vote(2, Vote { tx: t, slot, kind });
    assert_eq!(submitted(&one), ["commit"]);
    one.vote(3, Vote { tx: t, slot, kind });
    assert_eq!(submitted(&one), ["commit"], "once");
}

#[test]
fn votes_are_wanted_until_they_can_change_nothing() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    let kind = prepared(&[WRITE], t, slot);
    let third = bundle(3, Vote { tx: t, slot, kind });
    one.vote(0, Vote { tx: t, slot, kind });
    assert!(one.scheduler.wants(&third), "two are not enough");
    one.vote(2, Vote { tx: t, slot, kind });
    assert!(!one.scheduler.wants(&third), "there is a certificate");
    let later = Vote { tx: tx(1, 2), slot: Position(slot.0 + 100), kind };
    assert!(one.scheduler.wants(&bundle(3, later)), "from ahead of what is delivered here");
    one.deliver(commit(t, slot, &[WRITE]));
    assert!(!one.scheduler.wants(&third), "it has its outcome");
}

#[test]
fn a2_votes_for_different_effects_make_no_certificate_and_end_it_early() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    let other = VoteKind::Prepared {
        operations: 1,
        transcript: transcript(t, slot, &[WRITE]),
        write_set: Digest([3; 32]),
        wall: steeldb_wire::transaction::Wall::None,
    };
    one.vote(0, Vote { tx: t, slot, kind: other });
    assert_eq!(one.cast(t).len(), 1, "two and two may still become three");
    one.vote(2, Vote { tx: t, slot, kind: other });
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
    one.vote(3, Vote { tx: t, slot, kind: prepared(&[WRITE], t, slot) });
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot), VoteKind::Mismatch { operation: 0 }]);
    assert_eq!(submitted(&one), [""; 0]);
}

#[test]
fn b4_votes_against_count_together_and_one_replica_is_not_enough() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.vote(0, Vote { tx: t, slot, kind: VoteKind::Blocked });
    one.vote(0, Vote { tx: t, slot, kind: VoteKind::Expired });
    assert_eq!(submitted(&one), [""; 0]);
    one.vote(3, Vote { tx: t, slot, kind: VoteKind::Gone });
    assert_eq!(submitted(&one), ["abort"]);
}

#[test]
fn a3_votes_of_another_slot_are_not_counted() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    for replica in [0, 2, 3] {
        one.vote(replica, Vote { tx: t, slot: slot.next(), kind: VoteKind::Gone });
    }
    one.deliver(begin(tx(2, 1), "app"));
    assert_eq!(submitted(&one), [""; 0]);
}

#[test]
fn votes_from_ahead_of_what_is_delivered_here_count_once_it_is() {
    let mut one = One::slave();
    one.open(1);
    let (t, slot) = (tx(1, 1), Position(1));
    // A liar's vote for another slot takes no room from them.
    one.vote(3, Vote { tx: t, slot: Position(u64::MAX - 1), kind: VoteKind::Gone });
    for replica in [0, 2] {
        one.vote(replica, Vote { tx: t, slot, kind: VoteKind::Gone });
    }
    assert_eq!(submitted(&one), [""; 0]);
    assert_eq!(one.begin(t), slot);
    assert_eq!(submitted(&one), ["abort"]);
}

#[test]
fn an_outcome_that_the_order_turned_away_is_submitted_again() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    for replica in [0, 2] {
        one.vote(replica, Vote { tx: t, slot, kind: prepared(&[WRITE], t, slot) });
    }
    one.pass(VOTE_TIMEOUT - 1);
    assert_eq!(submitted(&one), ["commit"]);
    one.pass(1);
    assert_eq!(submitted(&one), ["commit", "commit"]);
    one.deliver(commit(t, slot, &[WRITE]));
    one.pass(VOTE_TIMEOUT);
    assert_eq!(submitted(&one).len(), 2);
}

#[test]
fn the_first_ordered_outcome_counts() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.deliver(abort(t, slot));
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!((one.committed(t), one.caught_up(t), one.rolled_back()), (0, 0, 1));
    assert_eq!(one.outcomes(t), [Outcome::Aborted { reason: AbortReason::Expired }]);
}

#[test]
fn g7_a_rollback_of_another_slot_or_session_changes_nothing() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.deliver(Ordered::Rollback { tx: t, slot: slot.next() });
    assert_eq!(one.rolled_back(), 0);
    one.deliver(Ordered::Rollback { tx: t, slot });
    assert_eq!(one.rolled_back(), 1);
}

/// What is prepared waits for an outcome, which takes f + 1: a replica that had nothing to prepare adds its vote.
#[test]
fn a9_who_found_it_read_only_votes_against_what_another_has_prepared() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[READ]);
    one.vote(2, Vote { tx: t, slot, kind: VoteKind::Expired });
    one.pass(VOTE_TIMEOUT);
    assert_eq!(one.cast(t), [], "its client may still be waiting for f + 1 transcripts");
    one.pass(SECOND);
    assert_eq!(one.cast(t), [VoteKind::Gone]);
    one.pass(VOTE_TIMEOUT);
    assert_eq!(one.cast(t).len(), 1);
    assert_eq!(submitted(&one)[0], "abort");
    one.event(Event::PeerUp(ReplicaId(2)));
    assert_eq!(one.count(|effect| matches!(effect, Effect::ResendVotes { .. })), 1);
}

#[test]
fn votes_without_an_outcome_are_sent_again_when_a_link_is_back() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.event(Event::PeerUp(ReplicaId(3)));
    let resent = |one: &One| one.count(|e| matches!(e, Effect::ResendVotes { to: ReplicaId(3), .. }));
    assert_eq!(resent(&one), 1);
    one.deliver(commit(t, slot, &[WRITE]));
    one.event(Event::PeerUp(ReplicaId(3)));
    assert_eq!(resent(&one), 1);
}
