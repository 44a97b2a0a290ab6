//! Who is accused of what, and when a term ends.

use super::*;
use steeldb_wire::transaction::{Accusation, Cause, SignedAccusation};

impl One {
    /// The accusations that this replica has sent.
    fn accusations(&self) -> Vec<Accusation> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::SendAccusation(signed) => Some(signed.accusation),
                _ => None,
            })
            .collect()
    }

    fn deposals(&self) -> usize {
        let depose = |ordered: &Ordered| matches!(ordered, Ordered::Depose(_));
        self.count(|effect| matches!(effect, Effect::Submit(ordered) if depose(ordered)))
    }

    fn accused_by(&mut self, replica: u16, term: Term, cause: Cause) {
        let accusation = Accusation { term, cause };
        let signed = SignedAccusation::new(ReplicaId(replica), accusation, &replica_key(replica));
        self.event(Event::Accused(signed));
    }

    /// Time passes in ticks.
    fn wait(&mut self, us: u64) {
        for _ in 0..us / 100_000 {
            self.pass(100_000);
        }
    }

    fn depose(&mut self) -> Term {
        let term = self.scheduler.term();
        self.deliver(Ordered::Depose(DeposeCertificate { term, accusations: vec![] }));
        self.scheduler.term()
    }
}

fn first() -> Term {
    Term::first(ReplicaId(0))
}

#[test]
fn a_silent_master_is_accused_and_one_that_has_only_nothing_to_say_is_not() {
    let mut one = One::slave();
    for _ in 0..40 {
        one.wait(SECOND / 2);
        one.stream_of_master(vec![]);
    }
    assert_eq!(one.accusations(), [], "it lives");
    one.wait(MASTER_SILENCE + SECOND);
    let accusation = Accusation { term: first(), cause: Cause::Silent };
    assert_eq!(one.accusations().first(), Some(&accusation));
    let said = one.accusations().len();
    one.wait(3 * SECOND);
    assert!(one.accusations().len() > said, "repeated as long as it holds");
    one.stream_of_master(vec![]);
    let said = one.accusations().len();
    one.wait(SECOND);
    assert_eq!(one.accusations().len(), said, "and over with its reason");
}

#[test]
fn a_master_beats_by_itself_and_one_that_has_diverged_does_not() {
    let mut one = One::master();
    one.wait(10 * SECOND);
    let streams = |one: &One| one.count(|effect| matches!(effect, Effect::SendStream(_)));
    assert!(streams(&one) >= 20, "several times in each silence: {}", streams(&one));
    assert_eq!(one.accusations(), []);
    one.scheduler.mark_diverged(Position(1), tx(1, 1), "rot".into());
    let before = streams(&one);
    one.wait(10 * SECOND);
    assert_eq!(streams(&one), before);
}

#[test]
fn a_replica_that_was_asleep_accuses_nobody() {
    let mut one = One::slave();
    one.wait(SECOND);
    one.stream_of_master(vec![]);
    one.wait(SECOND);
    one.pass(3600 * SECOND);
    one.wait(SECOND / 2);
    assert_eq!(one.accusations(), [], "what came meanwhile is yet to be handled");
    one.wait(2 * SECOND);
    assert!(!one.accusations().is_empty(), "nothing came");
}

#[test]
fn a_starting_replica_waits_longer_for_the_first_word() {
    let mut one = One::slave();
    one.wait(5 * MASTER_SILENCE);
    assert_eq!(one.accusations(), []);
    one.wait(6 * MASTER_SILENCE);
    assert!(!one.accusations().is_empty());
}

#[test]
fn f_plus_1_accusations_of_one_time_depose_and_fewer_do_not() {
    let mut one = One::slave();
    one.accused_by(2, first(), Cause::Silent);
    one.accused_by(2, first(), Cause::Disproved);
    assert_eq!(one.deposals(), 0, "one replica");
    one.wait(6 * SECOND);
    one.accused_by(3, first(), Cause::Silent);
    assert_eq!(one.deposals(), 0, "the other one has not repeated its own");
    one.accused_by(2, first(), Cause::Silent);
    assert_eq!(one.deposals(), 1);
    let later = first().under(ReplicaId(2));
    one.accused_by(0, later, Cause::Silent);
    one.accused_by(3, later, Cause::Silent);
    assert_eq!(one.deposals(), 1, "of another term");
}

/// Replica 2 was cut off and is back; right after that replica 1 is. The master was there all the time.
#[test]
fn two_replicas_cut_off_one_after_the_other_do_not_depose_a_master_together() {
    let mut one = One::slave();
    one.stream_of_master(vec![]);
    one.accused_by(2, first(), Cause::Silent);
    one.wait(SECOND / 10);
    one.stream_of_master(vec![]);
    one.wait(MASTER_SILENCE + SECOND / 2);
    assert!(!one.accusations().is_empty());
    assert_eq!(one.deposals(), 0, "the other one's is older than the master's last word");
    one.accused_by(2, first(), Cause::Silent);
    assert_eq!(one.deposals(), 1, "it still finds it silent");
}

#[test]
fn who_hears_the_master_counts_no_silence_and_other_causes_all_the_same() {
    let mut one = One::slave();
    for replica in [2, 3] {
        one.accused_by(replica, first(), Cause::Silent);
        one.wait(SECOND / 10);
        one.stream_of_master(vec![]);
        one.wait(SECOND / 10);
    }
    assert_eq!(one.deposals(), 0, "one after the other");
    one.accused_by(2, first(), Cause::NoVotes);
    one.stream_of_master(vec![]);
    one.wait(SECOND / 10);
    assert_eq!(one.deposals(), 0, "one replica");
    one.accused_by(3, first(), Cause::Doubted);
    assert_eq!(one.deposals(), 1);
}

#[test]
fn a_deposed_master_is_followed_by_the_next_and_a_certificate_is_of_use_once() {
    let mut one = One::slave();
    assert!(!one.scheduler.is_master());
    let term = one.depose();
    assert_eq!(term, Term { epoch: 1, master: ReplicaId(1) });
    assert!(one.scheduler.is_master());
    one.deliver(Ordered::Depose(DeposeCertificate { term: first(), accusations: vec![] }));
    assert_eq!(one.scheduler.term(), term, "an old one");
    assert_eq!(one.count(|effect| matches!(effect, Effect::TermBegan(began) if *began == term)), 1);

    let roster = Digest::default();
    let wish = steeldb_wire::transaction::MasterMove::new(term, roster, ReplicaId(3), &replica_key(9));
    one.deliver(Ordered::Move(wish.clone()));
    assert_eq!(one.scheduler.term(), Term { epoch: 2, master: ReplicaId(3) });
    one.deliver(Ordered::Move(wish));
    assert_eq!(one.scheduler.term().epoch, 2);
}

#[test]
fn accusations_end_with_their_term() {
    let mut one = One::new(2, 0);
    one.wait(SECOND);
    one.stream_of_master(vec![]);
    one.wait(MASTER_SILENCE + SECOND);
    assert!(!one.accusations().is_empty());
    one.depose();
    let said = one.accusations().len();
    one.wait(SECOND);
    assert_eq!(one.accusations().len(), said, "the new master has its time");
    assert_eq!(one.scheduler.accusations().count(), 0);
}

/// B2: what a client can do to make a correct master look bad.
#[test]
fn b2_no_client_can_have_the_master_accused() {
    let mut one = One::speculative();
    for of in 1..=4 {
        one.open(of);
    }
    // Operations that the master was never sent, a Finish for what it never ran, results that differ.
    let withheld = tx(1, 1);
    let slot = one.begin(withheld);
    one.operations(withheld, &[WRITE, READ]);
    one.finish(withheld, slot, Decision::Commit, &[WRITE, READ]);
    let idle = tx(2, 1);
    one.begin(idle);
    one.operations(idle, &[WRITE]);
    for counter in 1..20 {
        let lied = tx(3, counter);
        let slot = one.begin(lied);
        one.operations(lied, &[READ]);
        one.entry(lied, 1, 0, None);
        one.finish(lied, slot, Decision::Commit, &[READ, WRITE]);
        one.stream_of_master(vec![]);
        one.wait(SECOND);
    }
    assert_eq!(one.accusations(), []);
}

/// The master's word on an operation is not what is found here, and is compared with what the client was shown.
fn differs(change: impl Fn(&mut Executed), counter: u64, one: &mut One) -> usize {
    let t = tx(1, counter);
    let slot = one.begin(t);
    one.operations(t, &[READ, READ]);
    let mut entry = entry(t, 1, transcript(t, slot, &[READ]));
    entry.operation = operation(t, 1, READ).digest(statement_digest(READ), None);
    one.stream_of_master(vec![entry.clone()]);
    entry.number = 2;
    entry.operation = operation(t, 2, READ).digest(statement_digest(READ), None);
    entry.transcript = Digest([7; 32]);
    change(&mut entry);
    one.stream_of_master(vec![entry.clone()]);
    let finish =
        Finish { tx: t, slot, decision: Decision::Commit, operations: 2, transcript: entry.transcript };
    one.say(ClientMessage::Finish(SignedFinish::new(finish, &client_key(CLIENT))));
    one.wait(2 * SECOND);
    one.stream_of_master(vec![]);
    one.deliver(abort(t, slot));
    one.count(|effect| matches!(effect, Effect::Certify { .. }))
}

#[test]
fn a_master_that_is_wrong_about_what_has_one_result_only_is_accused() {
    let mut one = One::speculative();
    one.open(1);
    assert_eq!(differs(|_| {}, 1, &mut one), 1);
    let asked = one.effects.iter().find_map(|effect| match effect {
        Effect::Certify { statements, .. } => Some(statements.len()),
        _ => None,
    });
    assert_eq!(asked, Some(2), "the state that the second ran on is the first one's doing");
    one.event(Event::Certified { epoch: 0, certified: false });
    one.wait(SECOND / 2);
    assert_eq!(one.accusations(), [], "it may have several");
    one.event(Event::Certified { epoch: 9, certified: true });
    one.wait(SECOND / 2);
    assert_eq!(one.accusations(), [], "of another term");
    one.event(Event::Certified { epoch: 0, certified: true });
    one.wait(SECOND / 2);
    assert_eq!(one.accusations().first().map(|accusation| accusation.cause), Some(Cause::Disproved));
}

/// B2: other reasons for a difference than the master's fault.
#[test]
fn b2_errors_and_settings_brought_along_disprove_nobody() {
    let mut one = One::speculative();
    one.open(1);
    let failed = |entry: &mut Executed| entry.failed = Some(SqlState::parse("53200"));
    assert_eq!(differs(failed, 1, &mut one), 0, "an error at the master");
    let asked = |entry: &mut Executed| entry.operation = Digest([3; 32]);
    assert_eq!(differs(asked, 2, &mut one), 0, "the client asked the master something else");
    assert_eq!(differs(|entry| entry.restored = true, 3, &mut one), 0, "settings brought along there");
    one.backend.fails.insert((tx(1, 4), 2), "53200");
    assert_eq!(differs(|_| {}, 4, &mut one), 0, "an error here");
    assert_eq!(differs(|_| {}, 5, &mut one), 1);

    let mut one = One::speculative();
    one.open(1);
    let session = SessionId(1);
    one.say(ClientMessage::Restore { session, settings: vec!["SET a.b = 1".into()] });
    assert_eq!(differs(|_| {}, 1, &mut one), 0, "settings brought along here");
}

/// G10: a client that starts its session otherwise at one replica.
#[test]
fn g10_a_begin_names_the_start_of_its_session() {
    let mut one = One::slave();
    one.open(1);
    let t = tx(1, 1);
    let Ordered::Begin { database, role, modes, .. } = begin(t, "app") else { unreachable!() };
    let other = Ordered::Begin { tx: t, database, role, modes, preamble: Digest([5; 32]) };
    one.deliver(other);
    assert_eq!(one.cast(t), [VoteKind::Gone]);
    assert_eq!(one.refusals(), ["08P01"]);
}

/// A master that shows operations and does not vote (B3).
#[test]
fn b3_a_master_that_does_not_vote_on_what_others_prepared_is_accused() {
    let mut one = One::speculative();
    one.open(1);
    let run = |one: &mut One, counter: u64, votes: bool| {
        let t = tx(1, counter);
        let slot = one.begin(t);
        one.operations(t, &[WRITE]);
        one.vouched(t, slot, &[WRITE]);
        one.finish(t, slot, Decision::Commit, &[WRITE]);
        if votes {
            one.vote(0, Vote { tx: t, slot, kind: prepared(&[WRITE], t, slot) });
        }
        for _ in 0..12 {
            one.wait(SECOND / 2);
            one.stream_of_master(vec![]);
        }
        one.deliver(abort(t, slot));
    };
    for counter in 1..=4 {
        run(&mut one, counter, true);
    }
    assert_eq!(one.accusations(), []);
    for counter in 5..=7 {
        run(&mut one, counter, false);
    }
    one.wait(SECOND / 2);
    assert_eq!(one.accusations().first().map(|accusation| accusation.cause), Some(Cause::NoVotes));
}
