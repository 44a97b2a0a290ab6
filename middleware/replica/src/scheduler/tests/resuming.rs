//! What becomes of running transactions when another master takes over.

use super::*;

impl One {
    /// Replica 1 takes over: this one.
    pub(super) fn take_over(&mut self) {
        let term = self.scheduler.term();
        self.deliver(Ordered::Depose(DeposeCertificate { term, accusations: vec![] }));
        assert!(self.scheduler.is_master());
        self.skipped();
    }

    /// An administrator moves the master.
    pub(super) fn move_to(&mut self, to: u16) {
        let (term, roster, key) = (self.scheduler.term(), Digest::default(), replica_key(0));
        let wish = steeldb_wire::transaction::MasterMove::new(term, roster, ReplicaId(to), &key);
        self.deliver(Ordered::Move(wish));
    }

    /// Its sequences are past what was drawn, as soon as that was asked for.
    pub(super) fn skipped(&mut self) {
        for database in ["app", "other"] {
            self.event(Event::SequencesSkipped { database: database.into() });
        }
    }

    pub(super) fn resume(&mut self, tx: TxId, slot: Slot, shown: &[u32]) {
        let epoch = self.scheduler.term().epoch;
        let (operations, transcript) = (shown.len() as u32, transcript(tx, slot, shown));
        self.say(ClientMessage::Resume { tx, epoch, operations, transcript });
    }

    /// Operations sent to the backend whose results the client is shown.
    pub(super) fn shown(&self, tx: TxId) -> Vec<u32> {
        let shown = |command: &&Command| match command {
            Command::Execute { tx: of, number, show: true, .. } if *of == tx => Some(*number),
            _ => None,
        };
        self.commands().iter().filter_map(shown).collect()
    }

    pub(super) fn silently(&self, tx: TxId) -> Vec<u32> {
        let silent = |command: &&Command| match command {
            Command::Execute { tx: of, number, show: false, .. } if *of == tx => Some(*number),
            _ => None,
        };
        self.commands().iter().filter_map(silent).collect()
    }

    pub(super) fn not_reproduced(&self, tx: TxId) -> bool {
        self.count(|effect| {
            matches!(effect, Effect::Reply { message: ReplicaMessage::NotReproduced { tx: of }, .. } if *of == tx)
        }) > 0
    }

    /// The numbers that it has streamed of a transaction as the master.
    pub(super) fn streamed(&mut self, tx: TxId) -> Vec<u32> {
        self.pass(SECOND);
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::SendStream(stream) if stream.epoch == 1 => Some(&stream.entries),
                _ => None,
            })
            .flatten()
            .filter(|entry| entry.tx == tx)
            .map(|entry| entry.number)
            .collect()
    }

    pub(super) fn undone(&self, tx: TxId) -> usize {
        let ends =
            |command: &&&Command| matches!(command, Command::End { tx: of, commit: false } if *of == tx);
        self.commands().iter().filter(ends).count()
    }
}

/// One that executes ahead, with an open session and a transaction of which the old master streamed so much.
pub(super) fn follower(operations: &[u32], streamed: usize) -> (One, TxId, Slot) {
    following(One::speculative(), operations, streamed)
}

pub(super) fn following(mut one: One, operations: &[u32], streamed: usize) -> (One, TxId, Slot) {
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, operations);
    for number in 1..=streamed {
        let transcript = transcript(t, slot, &operations[..number]);
        one.stream_of_master(vec![entry(t, number as u32, transcript)]);
    }
    (one, t, slot)
}

/// It was decided by the votes of others, the old master's among them. Sequences wait for all that was decided before, and
/// everybody else waits for them.
#[test]
fn what_is_decided_and_not_executed_when_a_term_begins_is_not_waited_for() {
    let (mut one, t, slot) = follower(&[WRITE], 0);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.deliver(commit(t, slot, &[WRITE]));
    assert_eq!(one.caught_up(t), 0);
    one.take_over();
    assert_eq!(one.caught_up(t), 1);
    assert!(one.count(|effect| matches!(effect, Effect::SkipSequences { .. })) > 0);
}

#[test]
fn the_new_master_goes_on_from_what_was_shown() {
    let (mut one, t, slot) = follower(&[WRITE, READ, READ], 2);
    assert_eq!(one.silently(t), [1, 2]);
    one.take_over();
    assert_eq!(one.shown(t), [0u32; 0], "not before its client has said how far it was shown");
    one.resume(t, slot, &[WRITE, READ]);
    assert_eq!(one.shown(t), [3]);
    assert_eq!(one.undone(t), 0);
    assert_eq!(one.streamed(t), [1, 2, 3], "others may lack what the old master streamed");
    one.finish(t, slot, Decision::Commit, &[WRITE, READ, READ]);
    assert_eq!(one.cast(t), [prepared(&[WRITE, READ, READ], t, slot)]);
}

#[test]
fn what_the_client_said_before_the_new_master_knew_of_its_term_counts() {
    let (mut one, t, slot) = follower(&[WRITE, READ], 1);
    let (operations, transcript) = (1, transcript(t, slot, &[WRITE]));
    one.say(ClientMessage::Resume { tx: t, epoch: 1, operations, transcript });
    assert_eq!(one.shown(t), [0u32; 0]);
    one.take_over();
    assert_eq!(one.shown(t), [2]);
}

#[test]
fn what_the_client_said_before_its_transaction_was_known_here_counts() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    let transcript = Digest::default();
    one.say(ClientMessage::Resume { tx: t, epoch: 1, operations: 0, transcript });
    // This replica is behind: the order brings it the transaction first, then the term.
    one.begin(t);
    one.take_over();
    one.operations(t, &[WRITE]);
    assert_eq!(one.shown(t), [1]);
}

#[test]
fn what_a_client_began_under_the_new_master_before_that_knew_of_its_term_waits_for_no_word_of_it() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    one.operations(t, &[WRITE, READ]);
    one.take_over();
    one.begin(t);
    assert_eq!(one.shown(t), [1, 2]);
}

/// The client began it under the old master, and has not heard of the new one when that shows it the first results.
#[test]
fn what_was_begun_under_the_old_master_and_ordered_behind_it_is_ended_if_it_cannot_be_shown_again() {
    let mut one = One::speculative();
    one.open(1);
    let t = tx(1, 1);
    one.operations(t, &[WRITE, READ]);
    one.take_over();
    let slot = one.begin(t);
    one.resume(t, slot, &[]);
    assert!(one.not_reproduced(t));
}

#[test]
fn what_was_shown_and_not_executed_here_is_done_first_and_shown_no_more() {
    let (mut one, t, slot) = follower(&[WRITE, READ, READ], 1);
    one.take_over();
    one.resume(t, slot, &[WRITE, READ]);
    assert_eq!(one.silently(t), [1, 2]);
    assert_eq!(one.shown(t), [3]);
    assert!(!one.not_reproduced(t));
}

#[test]
fn what_was_executed_beyond_what_was_shown_is_undone_and_done_again() {
    let (mut one, t, slot) = follower(&[WRITE, READ, READ], 3);
    one.take_over();
    one.resume(t, slot, &[WRITE]);
    assert_eq!(one.undone(t), 1);
    assert_eq!(one.silently(t), [1, 2, 3, 1]);
    assert_eq!(one.shown(t), [2, 3], "the client has not seen these");
    one.finish(t, slot, Decision::Commit, &[WRITE, READ, READ]);
    assert_eq!(one.cast(t), [prepared(&[WRITE, READ, READ], t, slot)]);
}

#[test]
fn what_was_shown_and_comes_out_otherwise_cannot_be_reproduced() {
    for streamed in [0, 1, 2] {
        let (mut one, t, _) = follower(&[WRITE, READ], streamed);
        one.take_over();
        let epoch = one.scheduler.term().epoch;
        let resume = ClientMessage::Resume { tx: t, epoch, operations: 1, transcript: Digest([7; 32]) };
        one.say(resume);
        // With two executed, it is found when it is done again.
        assert!(one.not_reproduced(t), "{streamed}");
        assert_eq!(one.cast(t), [VoteKind::Blocked]);
        assert_eq!(one.shown(t), [0u32; 0]);
    }
}

/// Behind an operation that fails where it was shown to succeed, PostgreSQL answers 25P02, which is no error of the client's.
#[test]
fn nothing_is_shown_before_what_was_shown_has_come_out_alike() {
    for alike in [true, false] {
        let (mut one, t, slot) = follower(&[WRITE, READ], 0);
        one.backend.held.push(backend::Held::Executed);
        one.take_over();
        one.resume(t, slot, &[WRITE]);
        one.pass(2 * SECOND);
        assert_eq!((one.silently(t), one.shown(t)), (vec![1], vec![]), "however long it takes");
        one.backend.held.clear();
        let result = if alike {
            backend::result_of(1)
        } else {
            steeldb_wire::transaction::ResultDigest::error(*b"40001")
        };
        let report = BackendReport::Executed {
            tx: t,
            number: 1,
            result,
            sqlstate: (!alike).then(|| SqlState::parse("40001")),
            status: b'T',
            tag: TagKind::Plain,
            copy_started: false,
            draws: Draws::NONE,
        };
        one.event(Event::Backend { session: t.session, report });
        assert_eq!(one.not_reproduced(t), !alike);
        assert_eq!(one.shown(t), if alike { vec![2] } else { vec![] });
    }
}

/// Sent to the backend behind the old master's word, answered when the new one's term has begun.
#[test]
fn a_result_that_comes_between_two_masters_is_neither_shown_nor_streamed_before_the_client_speaks() {
    for shown in [&[][..], &[WRITE]] {
        let mut one = One::speculative();
        one.open(1);
        let t = tx(1, 1);
        let slot = one.begin(t);
        one.backend.held.push(backend::Held::Executed);
        one.operations(t, &[WRITE]);
        one.entry(t, 1, 0, None);
        one.take_over();
        one.backend.held.clear();
        let report = BackendReport::Executed {
            tx: t,
            number: 1,
            result: backend::result_of(1),
            sqlstate: None,
            status: b'T',
            tag: TagKind::Plain,
            copy_started: false,
            draws: Draws::NONE,
        };
        one.event(Event::Backend { session: t.session, report });
        let told = |effect: &Effect| {
            matches!(effect, Effect::Reply { message: ReplicaMessage::Executed { .. }, .. })
        };
        assert_eq!(one.count(told), 0);
        assert_eq!(one.streamed(t), [0u32; 0]);
        one.resume(t, slot, shown);
        assert_eq!(one.streamed(t), [1]);
        assert_eq!(one.undone(t), 1 - shown.len());
        assert_eq!(one.count(told), 1 - shown.len());
    }
}

#[test]
fn a_finished_transaction_needs_no_word_of_its_client() {
    let (mut one, t, slot) = follower(&[WRITE, READ], 1);
    one.finish(t, slot, Decision::Commit, &[WRITE, READ]);
    assert_eq!(one.cast(t), [], "the old master's word on the second is missing");
    one.take_over();
    assert_eq!(one.cast(t), [prepared(&[WRITE, READ], t, slot)]);
    assert_eq!(one.shown(t), [0u32; 0]);
    assert_eq!(one.streamed(t), [1, 2, 3], "with the check");
}

/// The Finish was under way when the term began: its client knew of no other master, and has nothing else to say to it.
#[test]
fn a_finish_tells_the_new_master_that_all_was_shown() {
    for execution in [Execution::Deferred, Execution::Speculative] {
        for streamed in 0..=2 {
            let scheduler = Scheduler::new(Config { execution, ..config(1, 0) });
            let one = One { scheduler, ..One::slave() };
            let (mut one, t, slot) = following(one, &[WRITE, READ], streamed);
            one.take_over();
            assert_eq!(one.cast(t), []);
            one.finish(t, slot, Decision::Commit, &[WRITE, READ]);
            assert_eq!(one.cast(t), [prepared(&[WRITE, READ], t, slot)], "{execution:?}, {streamed}");
            assert_eq!(one.shown(t), [0u32; 0]);
            assert_eq!(one.streamed(t), [1, 2, 3], "what others may lack, and the check");
        }
    }
}

/// Others have vouched for it with the old master. What it drew, this replica knows once it has it.
#[test]
fn a9_a_new_masters_sequences_wait_for_what_was_open_and_is_committed_without_it() {
    let (mut one, t, slot) = following(One::slave(), &[WRITE], 0);
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    one.backend.held.push(backend::Held::CaughtUp);
    one.move_to(1);
    let skips = |one: &One| one.count(|effect| matches!(effect, Effect::SkipSequences { .. }));
    one.deliver(commit(t, slot, &[WRITE]));
    one.pass(2 * SECOND);
    assert_eq!((one.caught_up(t), skips(&one)), (1, 0));
    one.event(Event::CaughtUp { tx: t, result: Ok(()) });
    assert_eq!(skips(&one), 2, "of both databases");
}

/// It can only end as one that wrote nothing: it keeps nobody from a lock.
#[test]
fn what_its_client_has_gone_on_from_does_not_go_first() {
    for (finished, before) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut one, t, slot) = follower(&[], 0);
        one.open(2);
        if finished {
            // Before its operation, which is slower.
            one.finish(t, slot, Decision::Commit, &[READ]);
        } else {
            one.operations(t, &[READ]);
        }
        let next = before.then(|| one.begin(tx(1, 2)));
        one.take_over();
        let new = tx(2, 1);
        one.begin(new);
        one.operations(new, &[WRITE]);
        assert_eq!(one.shown(new), [0u32; 0]);
        match next {
            Some(slot) => one.resume(tx(1, 2), slot, &[]),
            None => drop(one.begin(tx(1, 2))),
        }
        one.skipped();
        assert_eq!(one.shown(new), [1], "{finished}, {before}");
        assert_eq!(one.transcripts(), 0);
        // It is completed all the same, and shown to nobody.
        one.backend.writes_nothing.insert(t);
        if finished {
            one.operations(t, &[READ]);
        } else {
            assert_eq!(one.silently(t), [0u32; 0]);
            one.finish(t, slot, Decision::Commit, &[READ]);
        }
        assert_eq!((one.silently(t), one.shown(t)), (vec![1], vec![]));
        assert_eq!(one.transcripts(), 1);
    }
}

#[test]
fn the_old_stream_is_void_and_the_new_one_is_heard_though_it_is_early() {
    let mut one = One::new(2, 0);
    one.scheduler = Scheduler::new(Config { execution: Execution::Speculative, ..config(2, 0) });
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.operations(t, &[WRITE, READ]);
    let entry = |number: u32| {
        let transcript = transcript(t, slot, &[WRITE, READ][..number as usize]);
        entry(t, number, transcript)
    };
    let piece = |from: u16, epoch, number| Event::Stream {
        from: ReplicaId(from),
        epoch,
        entries: vec![entry(number)],
    };
    one.event(piece(1, 0, 1));
    assert_eq!(one.executed(t), 0, "not the master's");
    one.event(piece(1, 1, 1));
    one.event(piece(3, 1, 2));
    assert_eq!(one.executed(t), 0, "of a term that is not known yet");
    let term = one.scheduler.term();
    one.deliver(Ordered::Depose(DeposeCertificate { term, accusations: vec![] }));
    assert_eq!(one.executed(t), 1, "kept, and replica 3 is no master");
    one.event(piece(0, 0, 2));
    assert_eq!(one.executed(t), 1, "the old master's");
    one.event(piece(1, 1, 2));
    assert_eq!(one.executed(t), 2);
}

#[test]
fn what_went_another_way_behind_the_old_master_is_done_again() {
    let mut one = One::new(2, 0);
    one.scheduler = Scheduler::new(Config { execution: Execution::Speculative, ..config(2, 0) });
    one.open(1);
    let t = tx(1, 1);
    let slot = one.begin(t);
    one.backend.fails.insert((t, 1), "23505");
    one.operations(t, &[WRITE]);
    one.entry(t, 1, 0, None);
    assert_eq!(one.executed(t), 1);
    let term = one.scheduler.term();
    one.deliver(Ordered::Depose(DeposeCertificate { term, accusations: vec![] }));
    one.vouched(t, slot, &[WRITE]);
    assert_eq!((one.undone(t), one.executed(t)), (1, 2));
    one.finish(t, slot, Decision::Commit, &[WRITE]);
    assert_eq!(one.cast(t), [prepared(&[WRITE], t, slot)]);
}

#[test]
fn what_was_shown_goes_first_and_nobody_waits_for_it_for_ever() {
    let (mut one, t, slot) = follower(&[WRITE], 0);
    one.open(2);
    one.take_over();
    let new = tx(2, 1);
    one.begin(new);
    one.operations(new, &[WRITE]);
    assert_eq!(one.shown(new), [0u32; 0], "another one's locks come first");
    one.resume(t, slot, &[WRITE]);
    assert_eq!(one.silently(t), [1]);
    assert_eq!(one.shown(new), [1]);

    let (mut one, _, _) = follower(&[WRITE], 0);
    one.open(2);
    one.take_over();
    one.begin(new);
    one.operations(new, &[WRITE]);
    one.pass(2 * SECOND);
    assert_eq!(one.shown(new), [1], "its client says nothing");
}

#[test]
fn a9_a_new_master_runs_nothing_before_its_sequences_are_past_what_was_drawn() {
    let (mut one, _, _) = follower(&[], 0);
    one.open(2);
    let term = one.scheduler.term();
    one.deliver(Ordered::Depose(DeposeCertificate { term, accusations: vec![] }));
    one.pass(2 * SECOND);
    let skips = one.count(|effect| matches!(effect, Effect::SkipSequences { .. }));
    assert_eq!(skips, 2, "of both databases");
    let new = tx(2, 1);
    one.begin(new);
    one.operations(new, &[WRITE]);
    assert_eq!(one.shown(new), [0u32; 0]);
    one.event(Event::SequencesSkipped { database: "other".into() });
    assert_eq!(one.shown(new), [0u32; 0]);
    one.event(Event::SequencesSkipped { database: "app".into() });
    assert_eq!(one.shown(new), [1]);
}
