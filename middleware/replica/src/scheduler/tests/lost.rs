//! Prepared transactions that vanished (A12).

use super::*;

fn gid(tx: TxId, slot: Slot) -> String {
    steeldb_postgres::transaction::gid(tx, slot)
}

#[test]
fn a12_who_lost_what_it_voted_for_vouches_for_nothing_until_all_that_was_open_has_its_outcome() {
    let mut one = One::slave();
    let mut open = OpenTransactions::new(ReplicaId(0), View::of_size(4).unwrap());
    for of in 1..=2 {
        one.position += 1;
        open.replay(Position(of), Timestamp(1), &begin(tx(of, 1), "app"));
    }
    one.scheduler.restore(open, vec![], vec![], vec![tx(1, 1)]);
    one.event(Event::Tick);
    // Votes against promise nothing; they help the others out of doubt.
    assert_eq!(one.cast(tx(1, 1)), [VoteKind::Expired]);
    assert_eq!(one.cast(tx(2, 1)), [VoteKind::Expired]);
    one.open(3);
    let slot = one.run(tx(3, 1), &[WRITE]);
    assert_eq!(one.cast(tx(3, 1)), [], "prepared, and not vouched for");
    one.deliver(commit(tx(3, 1), slot, &[WRITE]));
    assert_eq!(one.committed(tx(3, 1)), 1, "it goes on applying");
    one.deliver(abort(tx(1, 1), Position(1)));
    one.event(Event::Tick);
    one.run(tx(3, 2), &[WRITE]);
    assert_eq!(one.cast(tx(3, 2)), []);
    one.deliver(abort(tx(2, 1), Position(2)));
    one.event(Event::Tick);
    let slot = one.run(tx(3, 3), &[WRITE]);
    assert_eq!(one.cast(tx(3, 3)), [prepared(&[WRITE], tx(3, 3), slot)]);
}

#[test]
fn a12_a_server_that_comes_back_is_asked_for_what_was_prepared() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot_t = one.run(t, &[WRITE]);
    let slot_u = one.run(u, &[WRITE]);
    one.event(Event::ServerRestarted);
    let asked = one.effects.iter().find_map(|effect| match effect {
        Effect::LookForPrepared { gids } => Some(gids.len()),
        _ => None,
    });
    assert_eq!(asked, Some(2));
    // All is there: nothing changes.
    one.event(Event::Vanished { gids: vec![] });
    assert_eq!((one.cast(t).len(), one.scheduler.lost.len()), (1, 0));
    one.backend.prepared.remove(&gid(t, slot_t));
    one.event(Event::Vanished { gids: vec![gid(t, slot_t)] });
    assert_eq!(one.cast(t)[1..], [VoteKind::Expired]);
    assert_eq!((one.scheduler.lost.len(), one.scheduler.permits_used), (2, 1));
    // A quorum has committed it: its rows come from a peer.
    one.deliver_late(commit(t, slot_t, &[WRITE]), true);
    one.deliver(commit(u, slot_u, &[WRITE]));
    assert_eq!((one.caught_up(t), one.committed(u), one.scheduler.permits_used), (1, 1, 0));
    one.event(Event::Tick);
    assert!(one.scheduler.lost.is_empty());
}

#[test]
fn a_commit_whose_answer_is_lost_with_the_server_has_not_vanished() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held.push(backend::Held::Applied);
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.event(Event::ServerRestarted);
    one.deliver(commit(t, slot, &[WRITE]));
    one.event(Event::Vanished { gids: vec![gid(t, slot)] });
    assert!(one.scheduler.lost.is_empty());
    one.event(Event::Applied { tx: t, result: Ok(()) });
    assert_eq!((one.outcomes(t).len(), one.scheduler.permits_used), (1, 0));
}

/// Else the master would begin every transaction on a snapshot that nobody holds, and nothing would ever be committed
/// that made it take another.
#[test]
fn a_snapshot_whose_backend_is_gone_is_taken_anew() {
    for server in [false, true] {
        let mut one = One::master();
        one.open(1);
        one.open(2);
        one.backend.held.push(backend::Held::Begun);
        one.begin(tx(1, 1));
        let taken = |one: &One| one.count(|effect| matches!(effect, Effect::TakeAnchor { .. }));
        assert_eq!(taken(&one), 1);
        if server {
            one.event(Event::ServerRestarted);
        } else {
            let report = BackendReport::NotBegun { tx: tx(1, 1), reason: "no such snapshot".into() };
            one.event(Event::Backend { session: tx(1, 1).session, report });
            assert_eq!(one.cast(tx(1, 1)), [VoteKind::Blocked]);
        }
        one.begin(tx(2, 1));
        assert_eq!(taken(&one), 2);
    }
}
