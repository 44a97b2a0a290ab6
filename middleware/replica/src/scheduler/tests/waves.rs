//! Waves and anchors (rules 3 and 8, A6c, B12).

use super::backend::Held;
use super::*;

#[test]
fn a6_a_snapshot_is_taken_between_waves_and_holds_all_before_it() {
    let mut one = One::slave();
    one.backend.held = vec![Held::Applied];
    for of in 1..=3 {
        one.open(of);
    }
    let slots = [1, 2].map(|of| one.run(tx(of, 1), &[WRITE]));
    for (of, slot) in [1, 2].into_iter().zip(slots) {
        one.deliver(commit(tx(of, 1), slot, &[WRITE]));
    }
    one.begin(tx(3, 1));
    let anchors = |one: &One| one.count(|effect| matches!(effect, Effect::TakeAnchor { .. }));
    assert_eq!(anchors(&one), 1, "that of the first two");
    one.event(Event::Applied { tx: tx(2, 1), result: Ok(()) });
    assert_eq!(anchors(&one), 1, "the wave is half applied");
    one.event(Event::Applied { tx: tx(1, 1), result: Ok(()) });
    assert_eq!(anchors(&one), 2);
    assert_eq!(one.backend.snapshots[&tx(3, 1)], format!("{:?}", BTreeSet::from([tx(1, 1), tx(2, 1)])));
}

#[test]
fn a6_no_commit_is_issued_while_a_snapshot_is_being_taken() {
    let mut one = One::slave();
    for of in 1..=2 {
        one.open(of);
    }
    let slot = one.run(tx(1, 1), &[WRITE]);
    // Its anchor serves the next BEGIN too, unless a commit is between.
    let u = one.run(tx(2, 1), &[WRITE]);
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    one.backend.held = vec![Held::Anchored];
    one.open(3);
    one.begin(tx(3, 1));
    one.deliver(commit(tx(2, 1), u, &[WRITE]));
    assert_eq!((one.committed(tx(1, 1)), one.committed(tx(2, 1))), (1, 0));
    one.event(Event::Anchored { anchor: AnchorId(2), snapshot: Ok("x".into()) });
    assert_eq!(one.committed(tx(2, 1)), 1);
}

#[test]
fn anchors_are_released_once_imported_and_a_commit_was_issued() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    assert_eq!(one.scheduler.anchors.len(), 1);
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    assert_eq!(one.scheduler.anchors.len(), 0);
}

/// Where nothing is committed, the snapshot of an hour ago would be the one of now.
#[test]
fn a_verification_takes_a_snapshot_of_its_own_moment() {
    let mut one = One::slave();
    let taken = |one: &One| one.count(|effect| matches!(effect, Effect::TakeAnchor { .. }));
    for verifications in 1..=3 {
        one.deliver(Ordered::Verify { session: session(1), database: "app".into() });
        assert_eq!(taken(&one), verifications);
    }
}

/// BEGINs cost a client nothing; anchors cost every replica a connection.
#[test]
fn b12_begins_of_sessions_that_are_nowhere_cannot_take_all_anchors() {
    let mut one = One::slave();
    one.open(1);
    for i in 1..=2 * steeldb_types::limits::ANCHORS_MAX as u64 {
        one.begin(tx(1000 + i, 1));
        let slot = one.run(tx(1, i), &[WRITE]);
        assert_eq!(one.cast(tx(1, i)).len(), 1, "an honest transaction is served");
        one.deliver(commit(tx(1, i), slot, &[WRITE]));
        assert!(one.scheduler.anchors.len() <= steeldb_types::limits::ANCHORS_MAX);
    }
    assert_eq!(one.cast(tx(1001, 1)), [VoteKind::Blocked]);
    one.pass(VOTE_TIMEOUT + 1);
    assert_eq!(one.cast(tx(1128, 1)), [VoteKind::Gone], "who does not come is gone");
    one.pass(12 * VOTE_TIMEOUT);
    assert_eq!(one.scheduler.anchors.len(), 0, "and its snapshot is not kept for ever");
}

#[test]
fn b12_an_anchor_that_is_being_imported_is_never_let_go() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    one.backend.held = vec![Held::Begun];
    one.begin(tx(2, 1));
    one.backend.held = vec![];
    for i in 1..=2 * steeldb_types::limits::ANCHORS_MAX as u64 {
        let slot = one.run(tx(1, i), &[WRITE]);
        one.deliver(commit(tx(1, i), slot, &[WRITE]));
        one.begin(tx(1000 + i, 1));
    }
    assert_eq!(one.cast(tx(2, 1)), []);
    let released = |one: &One| one.count(|effect| *effect == Effect::ReleaseAnchor(AnchorId(1)));
    assert_eq!(released(&one), 0);
    one.event(Event::Backend { session: session(2), report: BackendReport::Begun { tx: tx(2, 1) } });
    let slot = one.run(tx(1, 1000), &[WRITE]);
    one.deliver(commit(tx(1, 1000), slot, &[WRITE]));
    one.begin(tx(2000, 1));
    assert_eq!(released(&one), 1, "now it is the oldest, kept for a redo at most");
    assert_eq!(one.cast(tx(2, 1)), []);
}

#[test]
fn an_anchor_is_not_kept_by_a_backend_that_is_lost_while_importing() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Begun];
    one.begin(tx(1, 1));
    let sqlstate = SqlState::parse("57P01");
    one.event(Event::Backend {
        session: session(1),
        report: BackendReport::Lost { sqlstate, message: String::new() },
    });
    one.backend.held = vec![];
    one.open(2);
    let slot = one.run(tx(2, 1), &[WRITE]);
    one.deliver(commit(tx(2, 1), slot, &[WRITE]));
    assert_eq!(one.scheduler.anchors.len(), 0);
}

#[test]
fn a_snapshot_that_cannot_be_taken_does_not_hold_back_the_order() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    one.backend.held = vec![Held::Anchored];
    one.deliver(begin(tx(2, 1), "other"));
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    for _ in 0..5 {
        assert_eq!(one.committed(tx(1, 1)), 0);
        let anchor = one
            .effects
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::TakeAnchor { anchor, .. } => Some(*anchor),
                _ => None,
            })
            .unwrap();
        let before = one.effects.len();
        one.event(Event::Anchored { anchor, snapshot: Err("no such database".into()) });
        assert_eq!(
            one.count(|e| matches!(e, Effect::TakeAnchor { .. })),
            one.count(|e| matches!(e, Effect::TakeAnchor { .. }))
        );
        assert!(one.effects[before..].iter().all(|e| !matches!(e, Effect::TakeAnchor { .. })), "not at once");
        one.pass(SECOND / 5);
    }
    assert_eq!(one.cast(tx(2, 1)), [VoteKind::Blocked]);
    assert_eq!(one.committed(tx(1, 1)), 1);
}

#[test]
fn a13_the_masters_barrier_is_what_was_issued_when_the_result_was_read() {
    let mut one = One::master();
    one.open(1);
    one.open(2);
    one.backend.held = vec![Held::Applied];
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.begin(tx(2, 1));
    let position = one.deliver(commit(t, slot, &[WRITE]));
    one.operations(tx(2, 1), &[WRITE]);
    one.event(Event::Tick);
    let barrier = one.effects.iter().rev().find_map(|effect| match effect {
        Effect::SendStream(stream) => stream.entries.last().map(|entry| (entry.tx, entry.barrier)),
        _ => None,
    });
    assert_eq!(barrier, Some((tx(2, 1), position)), "issued, not yet applied");
}

#[test]
fn a11_an_abort_does_not_wait_for_the_commits_before_it() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let t = one.begin(tx(1, 1));
    let u = one.run(tx(2, 1), &[WRITE]);
    one.deliver(commit(tx(1, 1), t, &[WRITE]));
    one.deliver(abort(tx(2, 1), u));
    assert_eq!((one.committed(tx(1, 1)), one.rolled_back()), (0, 1));
}
