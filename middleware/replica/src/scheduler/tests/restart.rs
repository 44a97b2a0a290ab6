//! What a restarted replica takes up (A5, A12, rule 13).

use super::*;

/// A replica whose log holds the BEGINs of sessions 1..=n, with what is prepared and what is decided and missing.
fn restarted(begins: u64, in_doubt: &[u64], missing: &[u64]) -> One {
    let mut one = One::slave();
    let mut open = OpenTransactions::new(ReplicaId(0), View::of_size(4).unwrap());
    for of in 1..=begins {
        one.position += 1;
        open.replay(Position(one.position), Timestamp(1), &begin(tx(of, 1), "app"));
    }
    let mut decided = Vec::new();
    for of in missing {
        one.position += 1;
        let position = Position(one.position);
        let payload = commit(tx(*of, 1), Position(*of), &[WRITE]);
        decided.push(open.replay(position, Timestamp(1), &payload).unwrap());
    }
    for of in in_doubt {
        one.backend.prepared.insert(gid(*of));
    }
    let in_doubt = in_doubt.iter().map(|of| (tx(*of, 1), Position(*of), "app".to_string())).collect();
    one.scheduler.restore(open, in_doubt, decided, vec![]);
    one.event(Event::Tick);
    one
}

fn gid(of: u64) -> String {
    steeldb_postgres::transaction::gid(tx(of, 1), Position(of))
}

fn decode(one: &mut One, of: u64, digest: Digest) {
    let write_set =
        Ok(DecodedSet { digest, wall: steeldb_wire::transaction::Wall::None, truncates: false, changes: 1 });
    one.event(Event::Decoded { gid: gid(of), write_set });
}

#[test]
fn rule_13_what_is_in_doubt_stays_and_says_expired_until_its_outcome() {
    let mut one = restarted(1, &[1], &[]);
    assert_eq!(one.cast(tx(1, 1)), [VoteKind::Expired]);
    one.pass(100 * VOTE_TIMEOUT);
    assert_eq!(one.backend.prepared.len(), 1);
    one.event(Event::PeerUp(ReplicaId(0)));
    assert_eq!(one.count(|effect| matches!(effect, Effect::ResendVotes { .. })), 1);
    one.deliver(abort(tx(1, 1), Position(1)));
    assert_eq!((one.backend.prepared.len(), one.scheduler.permits_used), (0, 0));
}

#[test]
fn a2_what_is_in_doubt_is_committed_once_decoding_shows_it_is_what_was_certified() {
    let mut one = restarted(1, &[1], &[]);
    one.deliver(commit(tx(1, 1), Position(1), &[WRITE]));
    assert_eq!(one.committed(tx(1, 1)), 0);
    decode(&mut one, 1, backend::write_set_of(tx(1, 1), 1));
    assert_eq!(one.committed(tx(1, 1)), 1);
}

/// Prepared with other effects than the quorum's before the restart: the name is the same, the data are not.
#[test]
fn a2_what_was_prepared_with_other_effects_is_not_committed_after_a_restart() {
    let mut one = restarted(1, &[1], &[]);
    decode(&mut one, 1, Digest([3; 32]));
    one.deliver(commit(tx(1, 1), Position(1), &[WRITE]));
    assert_eq!((one.committed(tx(1, 1)), one.caught_up(tx(1, 1)), one.rolled_back()), (0, 1, 1));
}

#[test]
fn what_is_in_doubt_and_never_decoded_is_caught_up_with() {
    let mut one = restarted(1, &[1], &[]);
    one.deliver(commit(tx(1, 1), Position(1), &[WRITE]));
    one.pass(VOTE_TIMEOUT + SECOND);
    assert_eq!((one.committed(tx(1, 1)), one.caught_up(tx(1, 1)), one.rolled_back()), (0, 1, 1));
}

#[test]
fn a5_decided_commits_are_finished_in_order_prepared_or_not() {
    let mut one = restarted(3, &[2], &[1, 2, 3]);
    assert_eq!(one.cast(tx(2, 1)), [], "it has its outcome");
    assert_eq!(one.backend.applied, [tx(1, 1)], "the second waits for decoding, the third for it");
    decode(&mut one, 2, backend::write_set_of(tx(2, 1), 1));
    assert_eq!(one.backend.applied, [tx(1, 1), tx(2, 1), tx(3, 1)]);
    assert_eq!((one.caught_up(tx(2, 1)), one.scheduler.permits_used), (0, 0));
}

/// Its snapshot is gone with the restart; others may commit it all the same.
#[test]
fn a_transaction_open_at_the_restart_and_committed_by_others_is_caught_up_with_in_its_database() {
    let mut one = restarted(1, &[], &[]);
    one.deliver(commit(tx(1, 1), Position(1), &[WRITE]));
    let databases: Vec<_> = one
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CatchUp { database, .. } => Some(database.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(databases, ["app"]);
    assert_eq!(one.scheduler.diverged(), None);
}

/// All went down at once and only one had prepared: f + 1 must vote for its locks to go.
#[test]
fn a12_a_restarted_replica_helps_others_out_of_doubt() {
    let mut one = restarted(1, &[], &[]);
    one.vote(2, Vote { tx: tx(1, 1), slot: Position(1), kind: VoteKind::Expired });
    one.pass(VOTE_TIMEOUT + SECOND);
    assert_eq!(one.cast(tx(1, 1)), [VoteKind::Gone]);
}
