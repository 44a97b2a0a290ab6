//! What a master says of what it has done: its last words, and those that the next one says for it.

use super::resuming::{follower, following};
use super::*;

pub(super) fn drew(value: i64) -> Draws {
    let mut draws = Draws::default();
    draws.push(steeldb_wire::transaction::DrawKind::Value, value, 0, "public.s");
    draws
}

/// Under deferred execution it gathers its words for up to 100 ms.
#[test]
fn a9_a_master_says_what_it_has_done_before_its_term_ends() {
    let (mut one, _, _) = following(One::master(), &[WRITE], 0);
    assert_eq!(one.entries().count(), 0);
    one.move_to(1);
    let ends = |effect: &Effect| match effect {
        Effect::SendStream(stream) => Some((stream.epoch, stream.entries.len())),
        Effect::TermBegan(term) => Some((term.epoch, 0)),
        _ => None,
    };
    assert_eq!(one.effects.iter().filter_map(ends).collect::<Vec<_>>(), [(0, 1), (1, 0)]);
}

/// They are under way when its successor's term begins, and may have been sent later than the client's COMMIT.
#[test]
fn a9_what_a_master_that_was_moved_away_said_last_is_done_again_with_what_it_drew() {
    for (from, finished, late) in [(0, true, false), (0, false, false), (3, true, false), (0, true, true)] {
        let (mut one, t, slot) = following(One::slave(), &[WRITE], 0);
        one.move_to(1);
        if finished {
            one.finish(t, slot, Decision::Commit, &[WRITE]);
        } else {
            one.resume(t, slot, &[WRITE]);
        }
        assert_eq!(one.silently(t), [0u32; 0], "its word on it is waited for");
        if late {
            one.pass(SECOND / 2);
        }
        let said = Executed { draws: drew(7), ..entry(t, 1, transcript(t, slot, &[WRITE])) };
        one.event(Event::Stream { from: ReplicaId(from), epoch: 0, entries: vec![said] });
        one.pass(SECOND / 2);
        assert_eq!(one.silently(t), [1]);
        let handed = one.commands().into_iter().find_map(|command| match command {
            Command::Execute { draws, .. } => Some(draws.clone()),
            _ => None,
        });
        let heard = from == 0 && !late;
        assert_eq!(handed, Some(heard.then(|| drew(7))), "{from}, {finished}, {late}");
        assert!(!one.not_reproduced(t));
    }
}

/// It is accused of something, or dead.
#[test]
fn the_last_words_of_a_master_that_was_deposed_count_for_nothing() {
    let mut one = One::slave();
    let (t, other) = (tx(1, 1), tx(2, 1));
    let slots = [t, other].map(|tx| {
        one.open(tx.session.session.0);
        let slot = one.begin(tx);
        one.operations(tx, &[WRITE]);
        slot
    });
    one.take_over();
    one.resume(t, slots[0], &[WRITE]);
    assert_eq!(one.silently(t), [1], "not waited for");
    let said = Executed { draws: drew(7), ..entry(other, 1, transcript(other, slots[1], &[WRITE])) };
    one.event(Event::Stream { from: ReplicaId(0), epoch: 0, entries: vec![said] });
    assert!(one.scheduler.transactions[&other].stream.is_empty());
}

/// It would be recorded as drawn here, and nowhere else.
#[test]
fn a9_an_old_masters_word_on_what_is_shown_anew_counts_for_nothing() {
    let (mut one, t, slot) = following(One::slave(), &[WRITE, WRITE], 0);
    one.stream_of_master(vec![entry(t, 1, transcript(t, slot, &[WRITE]))]);
    one.stream_of_master(vec![Executed { draws: drew(7), ..entry(t, 2, Digest::default()) }]);
    one.take_over();
    one.resume(t, slot, &[WRITE]);
    one.skipped();
    assert_eq!(one.shown(t), [2]);
    one.finish(t, slot, Decision::Commit, &[WRITE, WRITE]);
    let marks = one.commands().into_iter().find_map(|command| match command {
        Command::Prepare { marks, .. } => Some(marks.len()),
        _ => None,
    });
    assert_eq!(marks, Some(0));
    assert!(one.entries().all(|entry| entry.draws.is_empty()));
    one.deliver(commit(t, slot, &[WRITE, WRITE]));
    assert_eq!(one.scheduler.entries_held, 0);
}

/// As where its client says itself how far it was shown.
#[test]
fn a9_what_an_old_master_drew_is_not_drawn_again_for_a_finish_that_comes_late() {
    for late in [false, true] {
        let (mut one, t, slot) = following(One::slave(), &[WRITE], 0);
        let transcript = transcript(t, slot, &[WRITE]);
        one.stream_of_master(vec![Executed { draws: drew(7), ..entry(t, 1, transcript) }]);
        one.take_over();
        if late {
            one.pass(2 * SECOND);
            one.skipped();
        }
        one.finish(t, slot, Decision::Commit, &[WRITE]);
        assert_eq!(one.not_reproduced(t), late);
        let cast = if late { VoteKind::Blocked } else { prepared(&[WRITE], t, slot) };
        assert_eq!(one.cast(t), [cast]);
    }
}

/// The old master's last words on it went nowhere, and whoever lacks them would wait for T_vote, where its session is concerned.
#[test]
fn what_is_over_and_wrote_nothing_a_new_master_streams_again() {
    for decision in [Decision::Commit, Decision::Rollback] {
        for late in [false, true] {
            let (mut one, t, slot) = follower(&[READ, READ], 2);
            one.check(t, 2, 0);
            one.backend.writes_nothing.insert(t);
            one.finish(t, slot, decision, &[READ, READ]);
            assert_eq!((one.transcripts(), one.scheduler.active()), (1, 0));
            if late {
                one.pass(2 * VOTE_TIMEOUT);
                one.pass(1);
            }
            one.take_over();
            let words = match decision {
                _ if late => vec![],
                Decision::Commit => vec![1, 2, 3],
                Decision::Rollback => vec![1, 2],
            };
            assert_eq!(one.streamed(t), words, "{decision:?}");
        }
    }
}

/// They wait anew with each term.
#[test]
fn words_are_kept_for_as_long_as_others_may_wait_for_them() {
    let (mut one, t, slot) = follower(&[READ], 1);
    one.check(t, 1, 0);
    one.finish(t, slot, Decision::Commit, &[READ]);
    one.pass(VOTE_TIMEOUT - SECOND);
    one.move_to(2);
    one.pass(VOTE_TIMEOUT - SECOND);
    one.move_to(1);
    one.pass(SECOND);
    assert_eq!(one.entries().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2]);
}

/// The one between has streamed nothing: the first one's own word, which went out in its old term, is void.
#[test]
fn a9_who_is_the_master_again_streams_what_it_said_itself() {
    let mut one = One::master();
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.backend.held.push(backend::Held::Executed);
    one.operations(t, &[COPY]);
    let draws = drew(7);
    one.say(ClientMessage::CopyEnd { tx: t, number: 1, failure: None });
    let sqlstate = Some(SqlState::parse("57014"));
    let report = BackendReport::Executed {
        tx: t,
        number: 1,
        result: backend::result_of(1),
        sqlstate,
        status: b'E',
        tag: TagKind::Plain,
        copy_started: true,
        draws: draws.clone(),
    };
    one.event(Event::Backend { session: t.session, report });
    one.move_to(1);
    one.move_to(0);
    one.effects.clear();
    let transcript = one.scheduler.transactions[&t].heads[0];
    one.say(ClientMessage::Resume { tx: t, epoch: 2, operations: 1, transcript });
    one.pass(SECOND);
    let streamed: Vec<&Executed> = one.entries().filter(|entry| entry.tx == t).collect();
    let [entry] = streamed[..] else { panic!("{slot}: {streamed:?}") };
    assert_eq!((entry.draws.clone(), entry.copied), (draws, true));
    assert_eq!((entry.adopted, entry.failed), (sqlstate, sqlstate));
}
