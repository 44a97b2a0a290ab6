//! Draws from sequences: from the master's backend over the stream to the others' backends (A9).

use super::backend::{Held, result_of};
use super::*;
use steeldb_wire::transaction::DrawKind;

fn drawn(values: impl IntoIterator<Item = i64>) -> Draws {
    let mut draws = Draws::default();
    for value in values {
        draws.push(DrawKind::Value, value, 0, "public.s");
    }
    draws
}

fn with_draws(tx: TxId, number: u32, draws: Draws) -> Executed {
    Executed { draws, ..entry(tx, number, Digest::default()) }
}

#[test]
fn a9_what_the_master_draws_is_streamed_and_voted_on() {
    let mut one = One::master();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.backend.held = vec![Held::Executed];
    one.operation(t, 1, READ);
    let report = BackendReport::Executed {
        tx: t,
        number: 1,
        result: result_of(1),
        sqlstate: None,
        status: b'T',
        tag: TagKind::Plain,
        copy_started: false,
        draws: drawn([7, 8]),
    };
    one.event(Event::Backend { session: session(1), report });
    one.finish(t, slot, Decision::Commit, &[READ]);
    // It wrote nothing, and is voted on.
    assert_eq!(one.cast(t), [prepared(&[READ], t, slot)]);
    assert_eq!(one.transcripts(), 0);
    let streamed: Vec<&Executed> = one.entries().collect();
    assert_eq!(streamed[0].draws, drawn([7, 8]));
    assert!(one.commands().iter().any(|c| matches!(c, Command::Execute { draws: None, show: true, .. })));
}

#[test]
fn a9_others_take_the_masters_draws_and_vote() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operation(t, 1, READ);
    one.stream_of_master(vec![with_draws(t, 1, drawn([7, 8])), with_draws(t, 2, Draws::NONE)]);
    one.finish(t, slot, Decision::Commit, &[READ]);
    let handed = one.commands().iter().any(
        |command| matches!(command, Command::Execute { draws: Some(draws), .. } if *draws == drawn([7, 8])),
    );
    assert!(handed);
    assert_eq!(one.cast(t), [prepared(&[READ], t, slot)]);
}

#[test]
fn a_masters_draws_take_the_room_of_entries() {
    let mut one = One::slave();
    // Runs of one value each.
    let draws = drawn((0..1000).map(|n| n * n));
    let weight = 1 + draws.size() / 64;
    one.stream_of_master((0..1000).map(|of| with_draws(tx(of, 1), 1, draws.clone())).collect());
    assert!(one.scheduler.early_stream.len() <= 65_536 && one.scheduler.early_stream.len() > 65_536 - weight);
    one.open(5000);
    let t = tx(5000, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE]);
    one.stream_of_master(vec![with_draws(t, 1, draws), with_draws(t, 2, Draws::NONE)]);
    assert_eq!(one.scheduler.entries_held, weight + 1);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.scheduler.entries_held, 0);
}
