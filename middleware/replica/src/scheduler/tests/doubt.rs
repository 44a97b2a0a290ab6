//! E1: what a replica says of transactions in doubt, and tombstones (G7).

use super::TransactionState::{Aborted, InProgress, NoChanges};
use super::*;

impl One {
    /// What is told of a transaction, asked by another client's session.
    fn ask(&mut self, tx: TxId) -> TransactionState {
        let session = SessionKey { client: OTHER_CLIENT, session: SessionId(9) };
        let at = self.deliver(Ordered::Outcome { session, tx });
        let told = self.effects.iter().find_map(|effect| match effect {
            Effect::Answer {
                session: to,
                message: ReplicaMessage::Told { session: number, sequence, state },
            } if *to == session && *number == session.session && *sequence == at.0 => Some(*state),
            _ => None,
        });
        told.expect("an answer")
    }
}

fn committed(position: Position) -> TransactionState {
    TransactionState::Committed { position }
}

#[test]
fn e1_every_end_is_told_as_the_order_has_it() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    assert_eq!(one.ask(tx(1, 1)), InProgress);
    let at = one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    assert_eq!(one.ask(tx(1, 1)), committed(at));
    one.deliver(abort(tx(1, 1), slot));
    assert_eq!(one.ask(tx(1, 1)), committed(at), "the first outcome counts");

    let slot = one.run(tx(1, 2), &[WRITE]);
    one.deliver(abort(tx(1, 2), slot));
    assert_eq!(one.ask(tx(1, 2)), NoChanges);
    one.deliver(commit(tx(1, 2), slot, &[WRITE]));
    assert_eq!(one.ask(tx(1, 2)), NoChanges);

    let slot = one.begin(tx(1, 3));
    one.deliver(Ordered::Rollback { tx: tx(1, 3), slot });
    assert_eq!(one.ask(tx(1, 3)), NoChanges);

    // Read-only: its session's next one closes it. It may have been confirmed: it is not called aborted.
    one.run(tx(1, 4), &[READ]);
    assert_eq!(one.ask(tx(1, 4)), InProgress);
    one.begin(tx(1, 5));
    assert_eq!((one.ask(tx(1, 4)), one.ask(tx(1, 5))), (NoChanges, InProgress));

    // What never began: behind what the session did, and before.
    assert_eq!((one.ask(tx(1, 7)), one.ask(tx(8, 1))), (Aborted, Aborted));
    one.event(Event::ViewChanged { position: Position(one.position), view: View::of_size(4).unwrap() });
    assert_eq!(one.ask(tx(1, 5)), NoChanges);
}

#[test]
fn e1_g7_a_begin_behind_its_tombstone_opens_nothing_and_its_client_is_told() {
    let mut one = One::slave();
    one.open(1);
    one.operations(tx(1, 1), &[WRITE]);
    assert_eq!(one.ask(tx(1, 1)), Aborted);
    one.begin(tx(1, 1));
    assert_eq!(one.outcomes(tx(1, 1)), [Outcome::Aborted { reason: AbortReason::Void }]);
    assert_eq!((one.scheduler.active(), one.executed(tx(1, 1))), (0, 0));
    // Nothing that votes say opens it either.
    one.deliver(commit(tx(1, 1), Position(2), &[WRITE]));
    assert_eq!((one.ask(tx(1, 1)), one.caught_up(tx(1, 1))), (Aborted, 0));
    // The session's next one is as any.
    let slot = one.run(tx(1, 2), &[WRITE]);
    let at = one.deliver(commit(tx(1, 2), slot, &[WRITE]));
    assert_eq!((one.ask(tx(1, 2)), one.committed(tx(1, 2))), (committed(at), 1));
}

/// A3: a number that was used opens nothing again, also when what used it is over.
#[test]
fn a3_a_transactions_number_is_used_once() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    one.begin(tx(1, 1));
    assert_eq!(one.outcomes(tx(1, 1)), [], "it is open");
    let at = one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    one.begin(tx(1, 1));
    assert_eq!(one.scheduler.open.slot(tx(1, 1)), None);
    assert_eq!(one.ask(tx(1, 1)), committed(at));
}

/// The Finish may come as often as it likes.
#[test]
fn e1_a_finish_that_comes_again_changes_nothing() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    assert_eq!(one.cast(tx(1, 1)).len(), 1);
    one.finish(tx(1, 1), slot, Decision::Commit, &[WRITE]);
    one.finish(tx(1, 1), slot, Decision::Rollback, &[WRITE]);
    assert_eq!(one.cast(tx(1, 1)).len(), 1);
    let at = one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    one.finish(tx(1, 1), slot, Decision::Commit, &[WRITE]);
    assert_eq!((one.committed(tx(1, 1)), one.ask(tx(1, 1)), one.scheduler.active()), (1, committed(at), 0));
}

/// No session of its client begins anything any more: the question ends it, once nobody can still count on it.
#[test]
fn e1_a_question_ends_what_was_left_open_in_the_order() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[READ]);
    assert_eq!(one.transcripts(), 1);
    one.event(Event::ConnectionLost(CONNECTION));
    one.pass(VOTE_TIMEOUT + SECOND);
    assert_eq!(one.cast(tx(1, 1)), [], "nobody has asked");
    assert_eq!(one.ask(tx(1, 1)), InProgress);
    one.pass(SECOND);
    assert_eq!(one.cast(tx(1, 1)), [VoteKind::Gone]);
    one.deliver(abort(tx(1, 1), slot));
    assert_eq!(one.ask(tx(1, 1)), NoChanges);
}

/// The same order, lived through and read back from the journal.
#[test]
fn e1_a_restart_changes_no_answer() {
    let asks =
        |tx| Ordered::Outcome { session: SessionKey { client: OTHER_CLIENT, session: SessionId(9) }, tx };
    let order = [
        begin(tx(1, 1), "app"),
        commit(tx(1, 1), Position(1), &[WRITE]),
        begin(tx(2, 1), "app"),
        abort(tx(2, 1), Position(3)),
        asks(tx(3, 1)),
        begin(tx(3, 1), "app"),
        begin(tx(1, 2), "app"),
        begin(tx(1, 3), "app"),
        begin(tx(4, 1), "app"),
        Ordered::Rollback { tx: tx(4, 1), slot: Position(9) },
        begin(tx(4, 1), "app"),
    ];
    let mut lived = One::slave();
    let mut read = One::slave();
    let mut open = OpenTransactions::new(ReplicaId(0), View::of_size(4).unwrap());
    for payload in order {
        let position = lived.deliver(payload.clone());
        open.replay(position, Timestamp(1), &payload);
    }
    read.position = lived.position;
    read.scheduler.restore(open, vec![], vec![], vec![]);
    for session in 1..6 {
        for counter in 1..5 {
            let asked = tx(session, counter);
            assert_eq!(lived.ask(asked), read.ask(asked), "{asked}");
        }
    }
    assert_eq!(lived.ask(tx(3, 1)), Aborted);
}
