//! Committed DDL transactions that are executed again from a peer's script (A11), and the scripts that are kept for peers.

use super::backend::Held;
use super::*;
use steeldb_wire::transaction::CommitCertificate;

fn certificate(payload: Ordered) -> CommitCertificate {
    match payload {
        Ordered::Commit(certificate) => certificate,
        other => panic!("{other:?}"),
    }
}

/// The scripts that were to be kept: how many operations each has.
fn scripts(one: &One) -> Vec<Option<usize>> {
    let script = |command: &&Command| match command {
        Command::Prepare { script, .. } => Some(script.as_ref().map(Vec::len)),
        _ => None,
    };
    one.commands().iter().filter_map(script).collect()
}

#[test]
fn a11_a_replica_keeps_the_script_of_ddl_that_it_prepares_and_of_nothing_else() {
    for mut one in [One::slave(), One::speculative()] {
        one.open(1);
        one.run(tx(1, 1), &[WRITE]);
        one.run(tx(1, 2), &[WRITE, DDL]);
        assert_eq!(scripts(&one), [None, Some(2)]);
        let step = one.commands().into_iter().find_map(|command| match command {
            Command::Prepare { script: Some(steps), .. } => Some(steps[1].clone()),
            _ => None,
        });
        let step = step.unwrap();
        assert_eq!((step.operation.number, step.result), (2, backend::result_of(2)));
    }
}

/// Its client may withhold it on purpose from one replica: that must not take the replica out.
#[test]
fn a11_ddl_that_was_withheld_from_this_replica_is_executed_again_on_its_slots_snapshot() {
    let mut one = One::slave();
    one.open(1);
    one.open(2);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot = one.begin(t);
    let slot_u = one.run(u, &[WRITE]);
    one.deliver(commit(u, slot_u, &[WRITE]));
    one.deliver(commit(t, slot, &[DDL]));
    assert_eq!(one.backend.reexecuted, []);
    one.pass(VOTE_TIMEOUT + SECOND);
    let before_u = Some(format!("{:?}", std::collections::BTreeSet::<TxId>::new()));
    assert_eq!(one.backend.reexecuted, [(t, before_u)]);
    assert_eq!((one.committed(t), one.scheduler.diverged()), (1, None));
    assert_eq!(one.outcomes(t).len(), 1);
    assert_eq!((one.scheduler.permits_used, one.scheduler.active(), one.scheduler.anchors.len()), (0, 0, 0));
}

#[test]
fn a11_a_replica_that_was_away_executes_ddl_again_on_its_slots_snapshot() {
    for known_at_its_turn in [false, true] {
        let mut one = One::slave();
        let (t, u, v) = (tx(1, 1), tx(2, 1), tx(3, 1));
        let slot_v = one.deliver_late(begin(v, "app"), true);
        if known_at_its_turn {
            // What is ordered before it takes its time.
            one.backend.held.push(Held::CaughtUp);
        }
        one.deliver_late(commit(v, slot_v, &[WRITE]), true);
        let slot = one.deliver_late(begin(t, "app"), true);
        let slot_u = one.deliver_late(begin(u, "app"), true);
        one.deliver_late(commit(u, slot_u, &[WRITE]), true);
        one.deliver_late(commit(t, slot, &[DDL]), true);
        if known_at_its_turn {
            one.backend.held.clear();
            one.event(Event::CaughtUp { tx: v, result: Ok(()) });
        }
        let with_v = Some(format!("{:?}", std::collections::BTreeSet::from([v])));
        assert_eq!(one.backend.reexecuted, [(t, with_v)], "{known_at_its_turn}");
        assert_eq!((one.committed(t), one.caught_up(u)), (1, 1));
        assert_eq!((one.scheduler.permits_used, one.scheduler.active()), (0, 0));
    }
}

#[test]
fn a11_ddl_that_is_missing_after_a_restart_is_executed_again_in_its_place() {
    let mut one = One::slave();
    let mut open = OpenTransactions::new(ReplicaId(0), View::of_size(4).unwrap());
    let (t, u, v) = (tx(1, 1), tx(2, 1), tx(3, 1));
    let mut at = 0;
    let mut replay = |payload: Ordered| {
        at += 1;
        open.replay(Position(at), Timestamp(at as i64), &payload)
    };
    let mut missing = Vec::new();
    for tx in [t, u, v] {
        replay(begin(tx, "app"));
    }
    for (tx, slot, statement) in [(u, 2, WRITE), (t, 1, DDL), (v, 3, WRITE)] {
        missing.extend(replay(commit(tx, Position(slot), &[statement])));
    }
    one.position = 6;
    one.scheduler.restore(open, vec![], missing, vec![]);
    one.event(Event::Tick);
    let before_all = Some(format!("{:?}", std::collections::BTreeSet::<TxId>::new()));
    assert_eq!(one.backend.reexecuted, [(t, before_all)]);
    assert_eq!(one.backend.applied, [u, t, v]);
    let timestamps: Vec<Timestamp> = one
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CatchUp { reexecution: Some(reexecution), .. } => Some(reexecution.timestamp),
            _ => None,
        })
        .collect();
    assert_eq!(timestamps, [Timestamp(1)], "the agreed time is that of its slot");
}

/// A liar's script may be of a transaction with the same results; what counts is w.
#[test]
fn a11_other_effects_than_the_certificates_are_never_committed_and_end_in_divergence() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.backend.differs.insert(t);
    let slot = one.begin(t);
    one.deliver_late(commit(t, slot, &[DDL]), true);
    assert_eq!((one.committed(t), one.rolled_back(), one.backend.prepared.len()), (0, 1, 0));
    one.pass(2 * SECOND);
    one.pass(2 * SECOND);
    assert_eq!(one.rolled_back(), 3);
    let attempts: Vec<u32> = one
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CatchUp { attempt, .. } => Some(*attempt),
            _ => None,
        })
        .collect();
    assert_eq!(attempts, [0, 1, 2], "another peer is asked first each time");
    one.pass(2 * SECOND);
    one.pass(2 * SECOND);
    assert!(one.scheduler.diverged().unwrap().contains("other effects"));
    assert_eq!((one.committed(t), one.backend.prepared.len()), (0, 0));
}

/// A TRUNCATE raises the wall as well, and its rows are all there is of it: a write set does.
#[test]
fn a11_a_wall_without_ddl_may_come_as_a_write_set() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held.push(Held::CaughtUp);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.deliver_late(commit(t, slot, &[DDL]), true);
    one.event(Event::CaughtUp { tx: t, result: Ok(()) });
    assert_eq!((one.outcomes(t).len(), one.scheduler.permits_used, one.scheduler.active()), (1, 0, 0));
}

#[test]
fn a11_who_is_in_the_way_of_what_is_executed_again_makes_way() {
    let mut one = One::speculative();
    one.open(1);
    one.open(2);
    one.backend.held.push(Held::CaughtUp);
    let (t, u) = (tx(1, 1), tx(2, 1));
    let slot = one.begin(t);
    let slot_u = one.run(u, &[WRITE]);
    assert_eq!(one.cast(u), [prepared(&[WRITE], u, slot_u)]);
    one.deliver_late(commit(t, slot, &[DDL]), true);
    one.event(Event::ReexecutionWaits { tx: t });
    assert_eq!(one.cast(u)[1..], [VoteKind::Blocked]);
    let wanted = certificate(commit(t, slot, &[DDL])).write_set;
    let gid = steeldb_postgres::transaction::gid(t, slot);
    one.backend.prepared.insert(gid.clone());
    one.event(Event::Reexecuted { tx: t, result: Ok(None) });
    assert_eq!(one.committed(t), 0, "not before its effects are known");
    one.event(Event::Decoded {
        gid,
        write_set: Ok(DecodedSet {
            digest: wanted,
            wall: steeldb_wire::transaction::Wall::Database,
            truncates: false,
            changes: 1,
        }),
    });
    assert_eq!(one.committed(t), 1);
}
