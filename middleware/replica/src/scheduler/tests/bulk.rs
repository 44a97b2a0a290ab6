//! Bulk transactions (B13): what they may have, that there is one at a time, and who waits for them.

use super::*;
use bytes::Bytes;

const MEBIBYTE: usize = 1024 * 1024;

impl One {
    /// COPY data of operation 1.
    fn data(&mut self, tx: TxId, bytes: usize) {
        let client = CLIENT;
        let data = Bytes::from(vec![7; bytes]);
        self.event(Event::CopyData { connection: CONNECTION, client, tx, number: 1, data });
    }

    /// A transaction that has sent as much COPY data as one that is no bulk transaction may.
    fn large(&mut self, of: u64, counter: u64) -> TxId {
        let t = tx(of, counter);
        self.begin(t);
        self.operations(t, &[COPY]);
        self.data(t, 1000);
        let transaction = self.of(t);
        transaction.received_bytes += limits::BULK_BYTES - transaction.copied_bytes;
        transaction.copied_bytes = limits::BULK_BYTES;
        t
    }

    fn of(&mut self, tx: TxId) -> &mut super::super::transaction::Transaction {
        self.scheduler.transactions.get_mut(&tx).unwrap()
    }

    fn kept(&self, tx: TxId) -> usize {
        self.effects
            .iter()
            .map(|effect| match effect {
                Effect::KeepCopy { tx: of, data, .. } if *of == tx => data.len(),
                _ => 0,
            })
            .sum()
    }

    fn dropped(&self, tx: TxId) -> usize {
        self.count(|effect| matches!(effect, Effect::DropCopies { tx: of, number: None } if *of == tx))
    }
}

fn failed(sqlstate: &str) -> VoteKind {
    VoteKind::Failed { sqlstate: SqlState::parse(sqlstate) }
}

#[test]
fn b13_copy_data_end_at_the_configured_bound_at_the_master_as_elsewhere_and_the_session_goes_on() {
    for mut one in [One::master(), One::slave()] {
        one.open(1);
        let t = tx(1, 1);
        let slot = one.begin(t);
        one.operations(t, &[COPY]);
        for _ in 0..BULK_BYTES_MAX as usize / MEBIBYTE {
            one.data(t, MEBIBYTE);
        }
        assert_eq!((one.cast(t), one.kept(t) as u64), (vec![], BULK_BYTES_MAX));
        one.data(t, 1);
        assert_eq!(one.cast(t), [failed("54000")]);
        assert_eq!((one.kept(t) as u64, one.dropped(t)), (BULK_BYTES_MAX, 1));
        one.data(t, 1);
        assert_eq!(one.kept(t) as u64, BULK_BYTES_MAX, "nothing more is kept");
        one.deliver(abort(t, slot));
        assert_eq!(one.refusals(), [""; 0]);
        let next = one.run(tx(1, 2), &[WRITE]);
        if !one.scheduler.is_master() {
            assert_eq!(one.cast(tx(1, 2)), [prepared(&[WRITE], tx(1, 2), next)]);
        }
    }
}

#[test]
fn b13_one_transaction_at_a_time_has_more_data_than_others_may() {
    for mut one in [One::master(), One::slave()] {
        for session in [1, 2] {
            one.open(session);
        }
        let (first, second) = (one.large(1, 1), one.large(2, 1));
        assert_eq!((one.cast(first), one.cast(second)), (vec![], vec![]), "up to the limit nobody is one");
        one.data(first, 1);
        one.data(second, 1);
        assert_eq!((one.cast(first), one.cast(second)), (vec![], vec![failed(SqlState::BULK_BUSY.as_str())]));
        // Until it is over.
        let slot = one.of(first).slot.unwrap();
        one.deliver(abort(first, slot));
        let third = one.large(1, 2);
        one.data(third, 1);
        assert_eq!(one.cast(third), []);
    }
}

#[test]
fn b13_a_prepared_bulk_transaction_keeps_others_out_until_its_outcome_is_applied() {
    let mut one = One::slave();
    for session in [1, 2] {
        one.open(session);
    }
    let first = tx(1, 1);
    let slot = one.begin(first);
    one.operations(first, &[WRITE]);
    one.stream(first, 1, 0);
    one.of(first).has_copies = true;
    assert!(one.scheduler.is_or_becomes_bulk(first));
    one.finish(first, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(first), [prepared(&[WRITE], first, slot)]);
    assert_eq!(one.dropped(first), 1, "what is prepared is not done again");
    let second = one.large(2, 1);
    one.data(second, 1);
    assert_eq!(one.cast(second), [failed(SqlState::BULK_BUSY.as_str())]);
    one.deliver(commit(first, slot, &[WRITE]));
    let third = one.large(2, 2);
    one.data(third, 1);
    assert_eq!(one.cast(third), []);
}

#[test]
fn b13_a_role_has_a_burst_of_bulk_transactions_and_then_one_at_a_time() {
    let mut one = One::slave();
    one.open(1);
    let mut counter = 0;
    let mut another = |one: &mut One| {
        counter += 1;
        let t = one.large(1, counter);
        one.data(t, 1);
        let cast = one.cast(t);
        let slot = one.of(t).slot.unwrap();
        one.deliver(abort(t, slot));
        cast
    };
    for _ in 0..=limits::BULK_BURST {
        assert_eq!(another(&mut one), []);
    }
    assert_eq!(another(&mut one), [failed(SqlState::BULK_BUSY.as_str())]);
    one.now += limits::BULK_INTERVAL.as_micros() as u64;
    assert_eq!(another(&mut one), []);
    assert_eq!(another(&mut one), [failed(SqlState::BULK_BUSY.as_str())]);
}

/// Votes on whatever is prepared behind a bulk transaction come later on every replica, whose server decodes in turn.
#[test]
fn b13_the_time_of_a_bulk_transactions_votes_is_not_counted_against_those_that_wait_behind_it() {
    #[derive(PartialEq)]
    enum By {
        Data,
        Rows,
        Decoding,
    }
    for by in [By::Data, By::Rows, By::Decoding] {
        let mut one = One::slave();
        for session in [1, 2, 3] {
            one.open(session);
        }
        if by == By::Decoding {
            one.backend.held = vec![backend::Held::Decoded];
        }
        one.backend.rows = if by == By::Rows { limits::BULK_ROWS + 1 } else { limits::BULK_ROWS };
        let large = tx(1, 1);
        one.begin(large);
        one.operations(large, &[WRITE]);
        one.stream(large, 1, 0);
        if by == By::Data {
            one.of(large).copied_bytes = limits::BULK_BYTES + 1;
        }
        let slot = one.of(large).slot.unwrap();
        one.finish(large, slot, Decision::Commit, &[WRITE]);
        one.backend.rows = 0;
        if by == By::Decoding {
            // Few rows, whose values are large: nobody knew before.
            one.event(Event::DecodesLong { gid: steeldb_postgres::transaction::gid(large, slot), bytes: 1 });
        }
        let (small, slot) = (tx(2, 1), one.run(tx(2, 1), &[WRITE]));
        let is_expired = |one: &One, t: TxId| one.cast(t).contains(&VoteKind::Expired);
        one.pass(1);
        for _ in 0..5 {
            one.pass(VOTE_TIMEOUT);
        }
        assert!(!is_expired(&one, small), "it waits behind the bulk transaction");
        assert!(is_expired(&one, large), "which does not wait for itself");
        let of_large = one.of(large).slot.unwrap();
        one.deliver(abort(large, of_large));
        one.pass(VOTE_TIMEOUT / 2);
        assert!(!is_expired(&one, small), "from here on it has T_vote as always");
        one.pass(VOTE_TIMEOUT);
        assert!(is_expired(&one, small), "{slot}");
    }
}

#[test]
fn b13_what_is_stuck_beside_a_stuck_bulk_transaction_ends_all_the_same() {
    let mut one = One::slave();
    for session in [1, 2] {
        one.open(session);
    }
    let (large, small) = (tx(1, 1), tx(2, 1));
    one.run(large, &[WRITE]);
    one.of(large).copied_bytes = limits::BULK_BYTES + 1;
    one.run(small, &[WRITE]);
    one.pass(1);
    for _ in 0..13 {
        one.pass(60 * SECOND);
    }
    assert!(one.cast(small).contains(&VoteKind::Expired));
}

/// Its rows are many to fetch.
#[test]
fn b13_a_replica_that_is_slow_with_a_bulk_transaction_goes_on_executing_it() {
    for is_bulk in [true, false] {
        let mut one = One::slave();
        one.open(1);
        one.backend.held = vec![backend::Held::Executed];
        let t = tx(1, 1);
        let slot = one.begin(t);
        one.operations(t, &[WRITE]);
        if is_bulk {
            let transaction = one.of(t);
            transaction.received_bytes += limits::BULK_BYTES + 1;
            transaction.copied_bytes = limits::BULK_BYTES + 1;
        }
        one.stream(t, 1, 0);
        one.finish(t, slot, Decision::Commit, &[WRITE]);
        one.deliver(commit(t, slot, &[WRITE]));
        one.pass(10 * VOTE_TIMEOUT);
        assert_eq!(one.caught_up(t), usize::from(!is_bulk));
        one.pass(30 * VOTE_TIMEOUT);
        assert_eq!(one.caught_up(t), 1, "but not for ever");
    }
}

/// If the others have let it in and the master has not, nobody would answer its client.
#[test]
fn b13_a_client_whose_bulk_transaction_the_master_alone_turned_away_is_told() {
    let mut one = One::master();
    for session in [1, 2] {
        one.open(session);
    }
    let (first, second) = (one.large(1, 1), one.large(2, 1));
    one.data(first, 1);
    one.data(second, 1);
    let told = |one: &One| {
        one.count(|effect| matches!(effect, Effect::Reply { message: ReplicaMessage::NotReproduced { tx }, .. } if *tx == second))
    };
    one.pass(VOTE_TIMEOUT / 2);
    assert_eq!(told(&one), 0, "the order may abort it");
    one.pass(VOTE_TIMEOUT);
    assert_eq!(told(&one), 1);
}

#[test]
fn copy_data_that_are_lost_here_are_a_vote_against_and_at_the_master_the_backends_to_tell() {
    for (mut one, expected) in [(One::slave(), vec![failed("53100")]), (One::master(), vec![])] {
        one.open(1);
        let t = tx(1, 1);
        one.begin(t);
        one.operations(t, &[COPY]);
        one.data(t, 100);
        one.event(Event::CopyLost { tx: t });
        assert_eq!(one.cast(t), expected);
    }
}

#[test]
fn copy_data_that_never_came_are_let_go_of_all_the_same() {
    let mut one = One::master();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[COPY]);
    assert_eq!(one.executed(t), 1);
    one.deliver(abort(t, slot));
    assert_eq!(one.dropped(t), 1);
}

#[test]
fn what_bulk_transactions_have_beyond_others_is_not_their_clients_share() {
    let mut one = One::slave();
    one.open(1);
    let t = one.large(1, 1);
    let before = one.scheduler.bytes_by_client.clone();
    one.data(t, MEBIBYTE);
    assert_eq!(one.scheduler.bytes_by_client, before);
    let slot = one.of(t).slot.unwrap();
    one.deliver(abort(t, slot));
    let idle = one.scheduler.bytes_by_client.clone();
    assert!(idle[&CLIENT] < before[&CLIENT] - 1000);
}
