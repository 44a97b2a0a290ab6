//! Clients that vanish, idle, or break the protocol: nothing of theirs stays for ever.

use super::backend::Held;
use super::*;

#[test]
fn b11_settings_are_restored_before_the_first_transaction_and_by_set_alone() {
    let restore = |one: &mut One, settings: &[&str]| {
        let settings = settings.iter().map(ToString::to_string).collect();
        one.say(ClientMessage::Restore { session: SessionId(1), settings });
    };
    let restored = |one: &One| {
        one.count(|effect| matches!(effect, Effect::Backend { command: Command::Restore(_), .. }))
    };
    let mut one = One::slave();
    one.open(1);
    restore(&mut one, &["SET DateStyle = 'German'", "RESET work_mem"]);
    assert_eq!((restored(&one), one.refusals().len()), (2, 0));
    let many = vec!["SET a.b = 1"; 65];
    for refused in [&["DELETE FROM t"][..], &["SET TRANSACTION READ ONLY"], &many] {
        let mut one = One::slave();
        one.open(1);
        restore(&mut one, refused);
        assert_eq!((restored(&one), one.refusals().len()), (0, 1), "{refused:?}");
    }
    let t = tx(1, 1);
    one.begin(t);
    restore(&mut one, &["SET a.b = 1"]);
    assert_eq!((restored(&one), one.refusals().len()), (2, 1), "the transaction may have begun on it");
}

#[test]
fn g7_a_client_that_vanishes_is_gone_and_its_backend_too() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.event(Event::ConnectionLost(CONNECTION));
    assert_eq!(one.cast(t), [VoteKind::Gone]);
    assert!(one.closed(session(1)));
    one.deliver(abort(t, slot));
    assert_eq!(one.scheduler.active(), 0);
}

#[test]
fn an_idle_client_is_gone_after_the_time_out() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.begin(t);
    one.pass(IDLE_TIMEOUT);
    assert_eq!(one.cast(t), []);
    one.pass(SECOND);
    assert_eq!(one.cast(t), [VoteKind::Gone]);
}

/// Locks held before the slot are in no order: only the master can release them.
#[test]
fn a10_leading_locks_of_an_idle_client_are_released() {
    let mut one = One::master();
    one.open(1);
    let t = tx(1, 1);
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(t, 1, LOCK) }));
    one.pass(IDLE_TIMEOUT + SECOND);
    assert!(one.commands().contains(&&Command::End { tx: t, commit: false }));
    assert_eq!(one.scheduler.active(), 0);
    one.begin(t);
    assert_eq!(one.cast(t), [VoteKind::Gone], "a BEGIN that comes after all");
}

#[test]
fn a10_a_client_that_vanishes_while_its_snapshot_is_taken_holds_back_no_commit() {
    let mut one = One::master();
    one.open(1);
    one.backend.held = vec![Held::Begun];
    let t = tx(1, 1);
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(t, 1, LOCK) }));
    one.begin(t);
    assert!(one.commands().iter().any(|command| matches!(command, Command::BeginHere { .. })));
    one.event(Event::ConnectionLost(CONNECTION));
    one.backend.held = vec![];
    one.open(2);
    let slot = one.run(tx(2, 1), &[WRITE]);
    one.deliver(commit(tx(2, 1), slot, &[WRITE]));
    assert_eq!(one.committed(tx(2, 1)), 1);
}

#[test]
fn a_statement_that_runs_long_at_the_master_is_no_idleness_of_its_client() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    one.begin(t);
    one.operations(t, &[WRITE]);
    one.pass(IDLE_TIMEOUT + SECOND);
    assert_eq!(one.cast(t), []);
    one.entry(t, 1, 0, None);
    one.pass(IDLE_TIMEOUT);
    assert_eq!(one.cast(t), []);
    one.pass(SECOND);
    assert_eq!(one.cast(t), [VoteKind::Gone], "now it is the client's turn");
}

#[test]
fn a_statement_that_the_master_has_given_up_is_idleness() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.vote(0, Vote { tx: t, slot, kind: VoteKind::Gone });
    one.pass(IDLE_TIMEOUT + SECOND);
    assert_eq!(one.cast(t), [VoteKind::Gone]);
}

#[test]
fn copy_data_that_do_not_come_are_idleness_everywhere() {
    for mut one in [One::master(), One::slave()] {
        one.open(1);
        let t = tx(1, 1);
        one.begin(t);
        one.operations(t, &[COPY]);
        one.say(ClientMessage::CopyData { tx: t, number: 1, data: vec![1] });
        one.pass(IDLE_TIMEOUT + SECOND);
        assert_eq!(one.cast(t), [VoteKind::Gone]);
    }
}

#[test]
fn a_session_that_is_closed_ends_though_its_transaction_has_no_outcome() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[READ]);
    one.stream(t, 1, 0);
    let mut said = finish(t, slot, Decision::Commit, &[READ]).finish;
    said.transcript = Digest([7; 32]);
    one.say(ClientMessage::Finish(SignedFinish::new(said, &client_key(CLIENT))));
    assert_eq!(one.cast(t).len(), 1, "a mismatch here; elsewhere it may have been a good read");
    one.say(ClientMessage::CloseSession { session: SessionId(1) });
    assert!(one.closed(session(1)));
    assert!(one.backend.sessions.is_empty());
}

#[test]
fn a_closed_session_is_not_kept_by_a_finish_whose_operations_never_come() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.finish(t, slot, Decision::Commit, &[READ]);
    one.say(ClientMessage::CloseSession { session: SessionId(1) });
    assert!(!one.closed(session(1)), "it may still be executed");
    one.pass(VOTE_TIMEOUT + SECOND);
    one.pass(SECOND);
    assert_eq!(one.cast(t), [VoteKind::Expired]);
    assert!(one.closed(session(1)));
}

#[test]
fn a_closed_session_is_not_kept_by_a_finish_without_a_begin() {
    let mut one = One::slave();
    one.open(1);
    one.finish(tx(1, 1), Position(99), Decision::Commit, &[]);
    one.say(ClientMessage::CloseSession { session: SessionId(1) });
    assert!(one.closed(session(1)));
    assert_eq!(one.scheduler.active(), 0);
}

/// A client that closes while PREPARE is under way would leave behind what nobody knows of.
#[test]
fn a_backend_is_not_closed_under_a_prepare() {
    let mut one = One::slave();
    one.open(1);
    one.backend.held = vec![Held::Prepared];
    let t = tx(1, 1);
    let slot = one.run(t, &[WRITE]);
    one.operation(tx(1, 2), 1, WRITE);
    one.say(ClientMessage::CloseSession { session: SessionId(1) });
    assert!(!one.closed(session(1)));
    one.event(Event::Backend {
        session: session(1),
        report: BackendReport::Prepared { tx: t, result: Ok(None) },
    });
    assert!(one.closed(session(1)));
    one.deliver(abort(t, slot));
    assert_eq!((one.rolled_back(), one.backend.prepared.len()), (1, 0));
}

/// Any client can end its own backend at any moment (`pg_terminate_backend`).
#[test]
fn a_backend_lost_while_preparing_leaves_no_locks_and_no_stuck_queue() {
    for was_prepared in [true, false] {
        for commits in [true, false] {
            let mut one = One::slave();
            one.open(1);
            one.backend.held = vec![Held::Prepared, Held::Decoded];
            let t = tx(1, 1);
            let slot = one.run(t, &[WRITE]);
            let gid = steeldb_postgres::transaction::gid(t, slot);
            if !was_prepared {
                one.backend.prepared.clear();
            }
            let sqlstate = SqlState::parse("57P01");
            let report = BackendReport::Lost { sqlstate, message: String::new() };
            one.event(Event::Backend { session: session(1), report });
            assert_eq!(one.cast(t), [VoteKind::Failed { sqlstate }]);
            if was_prepared {
                let write_set = Ok(DecodedSet {
                    digest: backend::write_set_of(t, 1),
                    wall: steeldb_wire::transaction::Wall::None,
                    truncates: false,
                    changes: 1,
                });
                one.event(Event::Decoded { gid, write_set });
            }
            one.deliver(if commits { commit(t, slot, &[WRITE]) } else { abort(t, slot) });
            one.pass(VOTE_TIMEOUT + SECOND);
            let expected = match (commits, was_prepared) {
                (true, true) => (1, 0),
                (true, false) => (0, 1),
                (false, _) => (0, 0),
            };
            assert_eq!((one.committed(t), one.caught_up(t)), expected);
            assert!(one.backend.prepared.is_empty());
            assert_eq!((one.scheduler.active(), one.scheduler.permits_used), (0, 0));
        }
    }
}

#[test]
fn a_session_goes_on_with_its_next_transaction_behind_one_that_still_executes() {
    let mut one = One::master();
    one.open(1);
    one.backend.held = vec![Held::Prepared];
    let (t, u) = (tx(1, 1), tx(1, 2));
    let slot = one.run(t, &[WRITE]);
    one.say(ClientMessage::Operation(Operation { leading: true, ..operation(u, 1, LOCK) }));
    assert_eq!(one.executed(u), 0, "it would run in the block of the first");
    one.event(Event::Backend {
        session: session(1),
        report: BackendReport::Prepared { tx: t, result: Ok(None) },
    });
    assert_eq!(one.executed(u), 1);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.committed(t), 1);
}

#[test]
fn a_begin_ends_the_sessions_previous_transaction_in_the_order() {
    let mut one = One::slave();
    one.open(1);
    let slot = one.run(tx(1, 1), &[WRITE]);
    one.begin(tx(1, 2));
    assert_eq!(one.rolled_back(), 1);
    one.deliver(commit(tx(1, 1), slot, &[WRITE]));
    assert_eq!(one.committed(tx(1, 1)), 0);
}

#[test]
fn a4_a_session_cannot_choose_its_user_or_database_by_parameters() {
    for name in ["user", "database", "replication"] {
        let mut one = One::slave();
        let (database, role) = ("app".into(), "alice".into());
        let parameters = vec![(name.to_string(), "steeldb".to_string())];
        one.say(ClientMessage::OpenSession { session: SessionId(1), database, role, parameters });
        assert_eq!(one.refusals(), ["42501"]);
        assert_eq!(one.count(|effect| matches!(effect, Effect::OpenBackend { .. })), 0);
    }
}

#[test]
fn a4_a_client_has_its_own_databases_roles_and_sessions() {
    let mut one = One::slave();
    for (database, role) in [("payroll", "alice"), ("app", "bob")] {
        let (database, role) = (database.into(), role.into());
        one.say(ClientMessage::OpenSession { session: SessionId(1), database, role, parameters: vec![] });
    }
    assert_eq!(one.refusals(), ["3D000", "28000"]);
    one.open(1);
    let message = ClientMessage::CloseSession { session: SessionId(1) };
    one.event(Event::Client { connection: Connection(2), client: OTHER_CLIENT, message });
    let message = ClientMessage::Operation(operation(tx(1, 1), 1, WRITE));
    one.event(Event::Client { connection: Connection(2), client: OTHER_CLIENT, message });
    assert!(!one.closed(session(1)));
    assert_eq!(one.scheduler.active(), 0);
}

/// Its client has seen it committed by f + 1 others and goes on. What it SET must hold here, too (B10).
#[test]
fn a_transaction_that_wrote_nothing_is_completed_though_the_next_begin_overtakes_it() {
    for finished_before in [true, false] {
        let mut one = One::slave();
        one.open(1);
        let (t, u) = (tx(1, 1), tx(1, 2));
        let slot = one.begin(t);
        one.operations(t, &[READ]);
        if finished_before {
            one.finish(t, slot, Decision::Commit, &[READ]);
        }
        let slot_u = one.begin(u);
        if !finished_before {
            one.finish(t, slot, Decision::Commit, &[READ]);
        }
        one.operations(u, &[WRITE]);
        one.stream(t, 1, 0);
        let ends = |one: &One, of: TxId| -> Vec<bool> {
            one.commands()
                .iter()
                .filter_map(|command| match command {
                    Command::End { tx, commit } if *tx == of => Some(*commit),
                    _ => None,
                })
                .collect()
        };
        assert_eq!(ends(&one, t), [true]);
        one.stream(u, 1, 0);
        one.finish(u, slot_u, Decision::Commit, &[WRITE]);
        assert_eq!(one.cast(u), [prepared(&[WRITE], u, slot_u)]);
        assert_eq!(one.cast(t), []);
    }
}

#[test]
fn a_transaction_that_wrote_and_is_overtaken_by_the_next_begin_is_rolled_back() {
    for finish in [true, false] {
        let mut one = One::slave();
        one.open(1);
        let (t, u) = (tx(1, 1), tx(1, 2));
        let slot = one.begin(t);
        one.operations(t, &[WRITE]);
        if finish {
            one.finish(t, slot, Decision::Commit, &[WRITE]);
        }
        let slot_u = one.begin(u);
        one.stream(t, 1, 0);
        one.operations(u, &[WRITE]);
        one.stream(u, 1, 0);
        one.finish(u, slot_u, Decision::Commit, &[WRITE]);
        assert!(one.commands().contains(&&Command::End { tx: t, commit: false }));
        assert_eq!((one.cast(t), one.cast(u)), (vec![], vec![prepared(&[WRITE], u, slot_u)]));
        assert_eq!(one.scheduler.active(), 1);
    }
}

/// Its session was opened again behind it, so its client ends it nowhere here: neither this master nor another replica waits
/// for that.
#[test]
fn a_transaction_begun_before_its_session_was_opened_does_not_hold_up_the_next() {
    for master in [true, false] {
        let mut one = if master { One::master() } else { One::slave() };
        let (t, u) = (tx(1, 1), tx(1, 2));
        one.begin(t);
        one.open(1);
        let slot_u = one.begin(u);
        one.operations(u, &[WRITE]);
        one.stream(u, 1, 0);
        one.finish(u, slot_u, Decision::Commit, &[WRITE]);
        assert_eq!((one.executed(u), one.cast(u)), (1, vec![prepared(&[WRITE], u, slot_u)]), "{master}");
        assert_eq!(one.scheduler.active(), 1);
    }
}

/// A replica may be several transactions behind.
#[test]
fn transactions_that_are_overtaken_one_after_the_other_are_completed_in_turn() {
    let mut one = One::slave();
    one.open(1);
    let all: Vec<TxId> = (1..=4).map(|counter| tx(1, counter)).collect();
    for t in &all {
        let slot = one.begin(*t);
        one.operations(*t, &[READ]);
        one.finish(*t, slot, Decision::Commit, &[READ]);
    }
    for t in &all {
        assert_eq!(one.executed(*t), 0);
        one.stream(*t, 1, 0);
        assert_eq!(one.executed(*t), 1);
    }
    assert_eq!((one.transcripts(), one.scheduler.active()), (4, 0));
}
