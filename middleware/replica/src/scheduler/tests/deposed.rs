//! What a deposed master does with what it was showing, also as the master again.

use super::resuming::{follower, following};
use super::words::drew;
use super::*;

/// It votes like any other, and goes on with it if it is the master again soon.
#[test]
fn a_deposed_master_does_again_what_it_was_showing() {
    for again in [false, true] {
        let mut one = One::master();
        one.open(1);
        let t = tx(1, 1);
        let slot = one.begin(t);
        one.operation(t, 1, WRITE);
        one.backend.held.push(backend::Held::Executed);
        one.operation(t, 2, READ);
        one.move_to(1);
        assert_eq!((one.cast(t), one.undone(t)), (vec![], 1));
        one.backend.held.clear();
        if again {
            one.move_to(0);
            one.resume(t, slot, &[WRITE]);
            one.skipped();
            assert_eq!((one.silently(t), one.shown(t)), (vec![1], vec![1, 2, 2]));
            assert!(!one.not_reproduced(t));
        } else {
            one.vouched(t, slot, &[WRITE, READ]);
        }
        one.finish(t, slot, Decision::Commit, &[WRITE, READ]);
        assert_eq!(one.cast(t), [prepared(&[WRITE, READ], t, slot)], "{again}");
    }
}

/// Its client had heard of the other master by then.
#[test]
fn what_a_deposed_master_showed_to_nobody_it_undoes_if_it_is_the_master_again() {
    let (mut one, t, slot) = following(One::master(), &[WRITE, READ], 0);
    one.move_to(1);
    one.move_to(0);
    one.resume(t, slot, &[WRITE]);
    one.skipped();
    assert!(!one.not_reproduced(t));
    assert_eq!((one.undone(t), one.silently(t), one.shown(t)), (1, vec![1], vec![1, 2, 2]));
}

/// The client counts anew with each term, and acknowledges in portions. What it never did would add up.
#[test]
fn who_is_the_master_again_has_its_whole_window() {
    let mut one = One::master();
    one.open(1);
    let all = Command::Acknowledge(u32::MAX);
    one.move_to(1);
    assert!(!one.commands().contains(&&all));
    one.move_to(0);
    assert!(one.commands().contains(&&all));
}

/// COPY data are not kept for it, and what it drew it would draw anew.
#[test]
fn a_deposed_master_gives_up_what_it_was_showing_and_cannot_do_again() {
    let mut one = One::master();
    for of in [1, 2, 3] {
        one.open(of);
    }
    let [shown, copies, draws] = [1, 2, 3].map(|of| tx(of, 1));
    let slot = one.begin(shown);
    one.operations(shown, &[WRITE]);
    one.begin(copies);
    one.operations(copies, &[COPY]);
    one.begin(draws);
    one.backend.held.push(backend::Held::Executed);
    one.operations(draws, &[WRITE, READ]);
    let report = BackendReport::Executed {
        tx: draws,
        number: 1,
        result: backend::result_of(1),
        sqlstate: None,
        status: b'T',
        tag: TagKind::Plain,
        copy_started: false,
        draws: drew(7),
    };
    one.event(Event::Backend { session: draws.session, report });
    one.backend.held.clear();
    one.move_to(1);
    assert_eq!(one.cast(copies), [VoteKind::Blocked]);
    assert_eq!(one.cast(draws), [VoteKind::Blocked]);
    assert_eq!(one.cast(shown), [], "it was done");
    one.vouched(shown, slot, &[WRITE]);
    one.finish(shown, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(shown), [prepared(&[WRITE], shown, slot)]);
}

#[test]
fn what_was_done_at_a_master_can_be_done_again_behind_the_next() {
    let (mut one, t, slot) = follower(&[WRITE, READ], 0);
    one.take_over();
    one.resume(t, slot, &[WRITE]);
    one.skipped();
    assert_eq!((one.silently(t), one.shown(t)), (vec![1], vec![2]));
    one.move_to(2);
    one.stream_of_master(vec![entry(t, 1, Digest([7; 32]))]);
    assert_eq!((one.undone(t), one.silently(t)), (1, vec![1, 1]));
}

/// Its client would see the results twice.
#[test]
fn a_master_does_nothing_again_that_it_has_shown_in_its_term() {
    let (mut one, t, slot) = follower(&[WRITE, READ], 1);
    one.take_over();
    one.resume(t, slot, &[WRITE]);
    one.skipped();
    assert_eq!(one.shown(t), [2]);
    one.backend.checks_fail.insert(t);
    one.finish(t, slot, Decision::Commit, &[WRITE, READ]);
    assert_eq!((one.silently(t), one.shown(t)), (vec![1], vec![2]));
    assert_eq!(one.cast(t), [VoteKind::Failed { sqlstate: SqlState::parse("23503") }]);
}
