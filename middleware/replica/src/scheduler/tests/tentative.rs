//! A7: what is told of a commit before its decision.

use super::*;
use steeldb_types::ViewNumber;

/// The position and the claim of each tentative word on a transaction.
fn told(one: &One, tx: TxId) -> Vec<(Position, Digest)> {
    let words = one.effects.iter().filter_map(|effect| match effect {
        Effect::Reply { message: ReplicaMessage::Tentative { tx: of, position, view, claim }, .. }
            if *of == tx =>
        {
            assert_eq!(*view, ViewNumber(0));
            Some((*position, *claim))
        }
        _ => None,
    });
    words.collect()
}

const CLAIM: Digest = Digest([5; 32]);
const LATER: Digest = Digest([6; 32]);

impl One {
    /// The next batch is bound.
    fn bound(&mut self, claim: Digest, requests: &[Option<Ordered>]) {
        let positions = (self.position + 1..).map(Position);
        let requests = positions.zip(requests.iter().cloned()).collect();
        self.event(Event::Bound { view: ViewNumber(0), claim, requests });
    }

    /// A transaction that is prepared here, and its slot.
    fn prepare(&mut self, tx: TxId) -> Slot {
        self.open(tx.session.session.0);
        let slot = self.run(tx, &[WRITE]);
        assert_eq!(self.cast(tx), [prepared(&[WRITE], tx, slot)]);
        slot
    }
}

#[test]
fn a7_a_bound_commit_is_told_and_applied_only_when_it_is_decided() {
    let mut one = One::slave();
    let slot = one.prepare(tx(1, 1));
    let request = commit(tx(1, 1), slot, &[WRITE]);
    one.bound(CLAIM, &[Some(request.clone())]);
    let place = Position(one.position + 1);
    assert_eq!(told(&one, tx(1, 1)), [(place, CLAIM)]);
    assert_eq!((one.committed(tx(1, 1)), one.outcomes(tx(1, 1)).len()), (0, 0));
    // Bound again in a later regency, it is told again: words of different regencies are never added up.
    one.event(Event::Unbound);
    one.bound(LATER, &[Some(request.clone())]);
    assert_eq!(told(&one, tx(1, 1)), [(place, CLAIM), (place, LATER)]);
    assert_eq!(one.committed(tx(1, 1)), 0);
    assert_eq!(one.deliver(request), place);
    assert_eq!(one.committed(tx(1, 1)), 1);
    assert_eq!(one.outcomes(tx(1, 1)), [Outcome::Committed { position: place }]);
}

#[test]
fn a7_nothing_is_undone_when_something_else_is_decided() {
    let mut one = One::slave();
    let slot = one.prepare(tx(1, 1));
    one.bound(CLAIM, &[Some(commit(tx(1, 1), slot, &[WRITE]))]);
    one.event(Event::Unbound);
    assert_eq!((one.committed(tx(1, 1)), one.rolled_back()), (0, 0));
    one.deliver(abort(tx(1, 1), slot));
    assert_eq!((one.committed(tx(1, 1)), one.rolled_back()), (0, 1));
}

/// What is told is durable here: prepared, and with the very effects.
#[test]
fn a7_what_is_not_prepared_here_is_told_once_it_is_and_never_with_other_effects() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.begin(tx(1, 1));
    let request = commit(tx(1, 1), slot, &[WRITE]);
    one.bound(CLAIM, &[Some(request)]);
    assert_eq!(told(&one, tx(1, 1)), []);
    one.operations(tx(1, 1), &[WRITE]);
    one.stream(tx(1, 1), 1, 0);
    one.finish(tx(1, 1), slot, Decision::Commit, &[WRITE]);
    assert_eq!(told(&one, tx(1, 1)).len(), 1, "prepared meanwhile");

    let slot = one.prepare(tx(2, 1));
    one.bound(CLAIM, &[Some(commit(tx(2, 1), slot, &[WRITE, WRITE]))]);
    assert_eq!(told(&one, tx(2, 1)), [], "the certificate names other effects");
}

#[test]
fn a7_what_is_in_front_in_the_batch_is_heeded() {
    let mut one = One::slave();
    let slot = one.prepare(tx(1, 1));
    let request = Some(commit(tx(1, 1), slot, &[WRITE]));
    let session_over = {
        let key = replica_key(0);
        steeldb_wire::transaction::SessionOver::new(session(1), slot, ReplicaId(0), &key)
    };
    let in_front = [
        Some(abort(tx(1, 1), slot)),
        Some(Ordered::Rollback { tx: tx(1, 1), slot }),
        Some(begin(tx(1, 2), "app")),
        Some(Ordered::SessionOver(session_over)),
        None,
    ];
    for first in in_front {
        one.bound(CLAIM, &[first.clone(), request.clone()]);
        assert_eq!(told(&one, tx(1, 1)), [], "behind {first:?}");
    }
    // What is about others changes nothing but its place.
    let other = one.prepare(tx(2, 1));
    one.bound(CLAIM, &[Some(begin(tx(3, 1), "app")), Some(abort(tx(2, 1), other)), request.clone(), request]);
    assert_eq!(told(&one, tx(1, 1)), [(Position(one.position + 3), CLAIM)], "once, at the first place");
}

#[test]
fn a7_what_has_its_outcome_or_another_slot_is_not_told() {
    let mut one = One::slave();
    let slot = one.prepare(tx(1, 1));
    one.bound(CLAIM, &[Some(commit(tx(1, 1), Position(slot.0 + 1), &[WRITE]))]);
    one.deliver(abort(tx(1, 1), slot));
    one.bound(CLAIM, &[Some(commit(tx(1, 1), slot, &[WRITE]))]);
    assert_eq!(told(&one, tx(1, 1)), []);
}

/// Sessions are opened without the order: by roles that were defined before, for one.
#[test]
fn a_definition_is_told_when_it_is_applied_and_so_is_what_is_behind_it() {
    let mut one = One::slave();
    let write = one.prepare(tx(1, 1));
    one.open(2);
    let slot = one.run(tx(2, 1), &[DDL]);
    assert_eq!(one.cast(tx(2, 1)), [prepared(&[DDL], tx(2, 1), slot)]);
    let requests = [commit(tx(2, 1), slot, &[DDL]), commit(tx(1, 1), write, &[WRITE])].map(Some);
    one.bound(CLAIM, &requests);
    assert_eq!((told(&one, tx(2, 1)), told(&one, tx(1, 1))), (vec![], vec![]));
}

#[test]
fn a12_who_vouches_for_nothing_tells_nothing() {
    let mut one = One::slave();
    let slot = one.prepare(tx(1, 1));
    one.scheduler.mark_diverged(slot, tx(1, 1), "a test says so".into());
    one.bound(CLAIM, &[Some(commit(tx(1, 1), slot, &[WRITE]))]);
    assert_eq!(told(&one, tx(1, 1)), []);
}
