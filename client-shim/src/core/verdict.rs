//! What became of a finished transaction, from what each replica says of it. Pure functions of the answers so far.
//!
//! Invariants:
//! - "committed" is said on words from weight Q_v that name one position, or on f + 1 equal read-only transcripts
//!   (rules 8 and 11), and on nothing else. The words are Committed, or tentative ones of *one claim*, or both: if a
//!   correct replica among them says Committed, that is decided; if none does, all correct ones have durably seen a WRITE
//!   quorum of that claim, and nothing else can be decided (A7);
//! - "aborted" is said only when it cannot commit any more: f + 1 say that the order aborted it, or replicas of weight
//!   Q_v reached another transcript. With fewer, liars among them could still let the others commit it;
//! - each replica counts once, by its first word of each kind.

use steeldb_types::{Digest, Position, ReplicaId, View};
use steeldb_wire::transaction::{AbortReason, Outcome};

/// What one replica said of the transaction.
#[derive(Clone, Default)]
pub(super) struct Word {
    pub transcript: Option<TranscriptWord>,
    pub outcome: Option<Outcome>,
    pub tentative: Option<TentativeWord>,
    /// It may still say something: its link is up and has been since the transaction began.
    pub reachable: bool,
}

/// A replica's transcript of the transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TranscriptWord {
    pub operations: u32,
    pub transcript: Digest,
    pub read_only: bool,
    pub mismatch: Option<u32>,
}

/// A replica's word that the order will commit the transaction: where, if which claim is decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TentativeWord {
    pub position: Position,
    pub claim: Digest,
}

/// What was shown to the application.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    pub operations: u32,
    pub transcript: Digest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Not known yet.
    Wait,
    /// Committed, where in the order; none for a read-only transaction.
    Committed(Option<Position>),
    /// Aborted by the order.
    Aborted(AbortReason),
    /// Replicas reached other results; the operation that differs first, if known.
    Mismatch(Option<u32>),
    /// f + 1 reached other results, fewer than would settle it: the client asks the order for an abort.
    Disputed(Option<u32>),
    /// Rolled back, and what was shown was true. Whether the order must be told.
    RolledBack { tell_order: bool },
    /// Who is left cannot settle it.
    Unreachable,
}

fn who(words: &[Word], mut is: impl FnMut(&Word) -> bool) -> Vec<ReplicaId> {
    words.iter().zip(0u16..).filter(|(word, _)| is(word)).map(|(_, index)| ReplicaId(index)).collect()
}

fn agrees(word: &Word, shown: Shown) -> bool {
    word.transcript.is_some_and(|t| t.operations == shown.operations && t.transcript == shown.transcript)
}

fn differs(word: &Word, shown: Shown) -> bool {
    word.transcript.is_some() && !agrees(word, shown)
}

/// A commit that some replica speaks of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    position: Position,
    /// The claim that it is tentative by; none: it is decided.
    claim: Option<Digest>,
}

impl Named {
    /// Those that replicas speak of.
    fn all(words: &[Word]) -> Vec<Named> {
        let decided = words.iter().filter_map(|word| match word.outcome {
            Some(Outcome::Committed { position }) => Some(Named { position, claim: None }),
            _ => None,
        });
        let tentative = words.iter().filter_map(|word| word.tentative);
        let tentative = tentative.map(|said| Named { position: said.position, claim: Some(said.claim) });
        let mut all: Vec<Named> = decided.chain(tentative).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a replica's word counts for it.
    fn is_said_by(&self, word: &Word) -> bool {
        match word.outcome {
            Some(Outcome::Committed { position }) => position == self.position,
            Some(Outcome::Aborted { .. }) => false,
            None => word
                .tentative
                .is_some_and(|said| said.position == self.position && Some(said.claim) == self.claim),
        }
    }

    /// Whether a replica that does not say so may still.
    fn may_be_said_by(&self, word: &Word) -> bool {
        word.outcome.is_none() && word.reachable
    }
}

/// After COMMIT.
pub(super) fn of_commit(view: &View, words: &[Word], shown: Shown) -> Verdict {
    let named = Named::all(words);
    if let Some(commit) =
        named.iter().find(|commit| view.is_quorum(who(words, |word| commit.is_said_by(word))))
    {
        return Verdict::Committed(Some(commit.position));
    }
    let read_only = who(words, |w| agrees(w, shown) && w.transcript.is_some_and(|t| t.read_only));
    if view.has_correct(read_only) {
        return Verdict::Committed(None);
    }
    if let Some(reason) = abort(view, words) {
        return Verdict::Aborted(reason);
    }
    let different = who(words, |word| differs(word, shown));
    if view.is_quorum(different.iter().copied()) {
        return Verdict::Mismatch(first_mismatch(view, words, shown));
    }
    // Each may still be reached by those who have not spoken.
    let unnamed = view.is_quorum(who(words, |word| word.outcome.is_none() && word.reachable));
    let reachable = |commit: &Named| {
        view.is_quorum(who(words, |word| commit.is_said_by(word) || commit.may_be_said_by(word)))
    };
    let commit_possible = unnamed || named.iter().any(reachable);
    let abort_possible = view.has_correct(who(words, |word| match &word.outcome {
        Some(outcome) => matches!(outcome, Outcome::Aborted { .. }),
        None => word.reachable,
    }));
    let read_possible = view.has_correct(who(words, |word| match word.transcript {
        Some(said) => said.read_only && agrees(word, shown),
        None => word.reachable && word.outcome.is_none(),
    }));
    let mismatch_possible = view.is_quorum(who(words, |word| match word.transcript {
        Some(_) => differs(word, shown),
        None => word.reachable && word.outcome.is_none(),
    }));
    if !commit_possible && !abort_possible && !read_possible && !mismatch_possible {
        return Verdict::Unreachable;
    }
    if view.has_correct(different) {
        return Verdict::Disputed(first_mismatch(view, words, shown));
    }
    Verdict::Wait
}

/// After ROLLBACK (rule 10). It is undone in any case; what is open is whether what was shown was true.
pub(super) fn of_rollback(view: &View, words: &[Word], shown: Shown) -> Verdict {
    let equal = who(words, |word| agrees(word, shown));
    if view.has_correct(equal.iter().copied()) {
        let wrote = words
            .iter()
            .any(|word| agrees(word, shown) && word.transcript.is_some_and(|said| !said.read_only));
        return Verdict::RolledBack { tell_order: wrote };
    }
    if view.has_correct(who(words, |word| differs(word, shown))) {
        return Verdict::Mismatch(first_mismatch(view, words, shown));
    }
    if let Some(reason) = abort(view, words) {
        return Verdict::Aborted(reason);
    }
    let silent = |word: &Word| word.transcript.is_none() && word.outcome.is_none() && word.reachable;
    let equal_possible = view.has_correct(who(words, |word| agrees(word, shown) || silent(word)));
    let differing_possible = view.has_correct(who(words, |word| differs(word, shown) || silent(word)));
    let aborted = |word: &Word| matches!(word.outcome, Some(Outcome::Aborted { .. }));
    let abort_possible = view.has_correct(who(words, |word| aborted(word) || silent(word)));
    if equal_possible || differing_possible || abort_possible { Verdict::Wait } else { Verdict::Unreachable }
}

/// Why the order aborted it, once f + 1 replicas say it did: the reason f + 1 give, else the one most give.
pub(super) fn abort(view: &View, words: &[Word]) -> Option<AbortReason> {
    if !view.has_correct(who(words, |word| matches!(word.outcome, Some(Outcome::Aborted { .. })))) {
        return None;
    }
    let reasons: Vec<AbortReason> = words
        .iter()
        .filter_map(|word| match word.outcome {
            Some(Outcome::Aborted { reason }) => Some(reason),
            _ => None,
        })
        .collect();
    let votes = |reason: &AbortReason| reasons.iter().filter(|other| *other == reason).count();
    let most = reasons.iter().map(votes).max()?;
    reasons.iter().find(|reason| votes(reason) == most).copied()
}

/// The operation that differs first: as f + 1 replicas say, else the lowest named.
fn first_mismatch(view: &View, words: &[Word], shown: Shown) -> Option<u32> {
    let mut named: Vec<u32> = words
        .iter()
        .filter(|word| differs(word, shown))
        .filter_map(|word| word.transcript.and_then(|said| said.mismatch))
        .filter(|operation| (1..=shown.operations).contains(operation))
        .collect();
    named.sort_unstable();
    let agreed = named.iter().find(|operation| {
        view.has_correct(who(words, |word| {
            differs(word, shown) && word.transcript.is_some_and(|said| said.mismatch == Some(**operation))
        }))
    });
    agreed.or(named.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: Shown = Shown { operations: 2, transcript: Digest([1; 32]) };

    fn view() -> View {
        View::of_size(4).unwrap()
    }

    fn silent() -> Word {
        Word { reachable: true, ..Word::default() }
    }

    fn said(transcript: u8, read_only: bool) -> Word {
        let transcript = Digest([transcript; 32]);
        let word = TranscriptWord { operations: 2, transcript, read_only, mismatch: Some(2) };
        Word { transcript: Some(word), ..silent() }
    }

    fn committed(position: u64) -> Word {
        Word { outcome: Some(Outcome::Committed { position: Position(position) }), ..silent() }
    }

    fn aborted(reason: AbortReason) -> Word {
        Word { outcome: Some(Outcome::Aborted { reason }), ..silent() }
    }

    fn commit(words: [Word; 4]) -> Verdict {
        of_commit(&view(), &words, SHOWN)
    }

    #[test]
    fn a_commit_takes_a_quorum_at_one_position() {
        assert_eq!(commit([committed(9), committed(9), silent(), silent()]), Verdict::Wait);
        assert_eq!(
            commit([committed(9), committed(9), committed(9), silent()]),
            Verdict::Committed(Some(Position(9)))
        );
        assert_eq!(commit([committed(9), committed(9), committed(8), silent()]), Verdict::Wait);
    }

    fn tentative(position: u64, claim: u8) -> Word {
        let word = TentativeWord { position: Position(position), claim: Digest([claim; 32]) };
        Word { tentative: Some(word), ..silent() }
    }

    #[test]
    fn a7_tentative_words_of_a_quorum_commit_if_they_name_one_claim_and_position() {
        let nine = Verdict::Committed(Some(Position(9)));
        assert_eq!(commit([tentative(9, 1), tentative(9, 1), silent(), silent()]), Verdict::Wait);
        assert_eq!(commit([tentative(9, 1), silent(), tentative(9, 1), tentative(9, 1)]), nine);
        assert_eq!(
            commit([tentative(9, 1), tentative(9, 1), tentative(9, 2), silent()]),
            Verdict::Wait,
            "WRITE quorums of different regencies bind nothing together"
        );
        assert_eq!(commit([tentative(9, 1), tentative(9, 1), tentative(8, 1), silent()]), Verdict::Wait);
    }

    #[test]
    fn a7_what_is_decided_counts_with_the_tentative_words_of_one_claim() {
        let nine = Verdict::Committed(Some(Position(9)));
        assert_eq!(commit([committed(9), tentative(9, 1), tentative(9, 1), silent()]), nine);
        assert_eq!(commit([committed(9), tentative(9, 1), tentative(9, 2), silent()]), Verdict::Wait);
        assert_eq!(commit([committed(8), tentative(9, 1), tentative(9, 1), silent()]), Verdict::Wait);
        let both = Word { tentative: tentative(9, 1).tentative, ..committed(9) };
        assert_eq!(commit([both.clone(), both, tentative(9, 2), silent()]), nine);
    }

    /// Who said that it will commit and then that it did not was overtaken by another regency.
    #[test]
    fn a7_a_decision_replaces_a_replicas_tentative_word() {
        let revoked = Word { tentative: tentative(9, 1).tentative, ..aborted(AbortReason::Expired) };
        assert_eq!(commit([revoked.clone(), tentative(9, 1), tentative(9, 1), silent()]), Verdict::Wait);
        assert_eq!(
            commit([revoked.clone(), revoked, tentative(9, 1), silent()]),
            Verdict::Aborted(AbortReason::Expired)
        );
    }

    #[test]
    fn lost_links_leave_tentative_words_standing() {
        let gone = Word::default();
        let said = Word { reachable: false, ..tentative(9, 1) };
        assert_eq!(commit([said.clone(), said.clone(), silent(), gone.clone()]), Verdict::Wait);
        assert_eq!(commit([said.clone(), said, gone.clone(), gone]), Verdict::Unreachable);
    }

    #[test]
    fn a_read_only_transaction_takes_f_plus_1_equal_transcripts_that_say_so() {
        assert_eq!(commit([said(1, true), said(1, true), silent(), silent()]), Verdict::Committed(None));
        assert_eq!(commit([said(1, true), said(1, false), silent(), silent()]), Verdict::Wait);
        assert_eq!(commit([said(1, true), said(7, true), silent(), silent()]), Verdict::Wait);
    }

    #[test]
    fn an_abort_takes_f_plus_1_and_names_the_reason_most_give() {
        assert_eq!(commit([aborted(AbortReason::Expired), silent(), silent(), silent()]), Verdict::Wait);
        assert_eq!(
            commit([
                aborted(AbortReason::Gone),
                aborted(AbortReason::Expired),
                aborted(AbortReason::Expired),
                silent()
            ]),
            Verdict::Aborted(AbortReason::Expired)
        );
    }

    /// One liar and one correct replica that differs cannot make the application believe in an abort that the other
    /// three may still commit.
    #[test]
    fn differing_transcripts_below_a_quorum_are_only_a_dispute() {
        assert_eq!(
            commit([said(1, false), said(7, true), said(7, true), silent()]),
            Verdict::Disputed(Some(2))
        );
        assert_eq!(
            commit([silent(), said(7, true), said(7, true), said(7, true)]),
            Verdict::Mismatch(Some(2))
        );
    }

    #[test]
    fn lost_links_make_a_commit_unsettled_only_when_those_left_cannot_settle_it() {
        let gone = Word::default();
        assert_eq!(commit([gone.clone(), silent(), silent(), silent()]), Verdict::Wait);
        assert_eq!(commit([gone.clone(), gone.clone(), silent(), silent()]), Verdict::Wait);
        assert_eq!(commit([gone.clone(), gone.clone(), gone, silent()]), Verdict::Unreachable);
    }

    #[test]
    fn a15_a_rollback_is_verified_by_f_plus_1() {
        let rollback = |words: [Word; 4]| of_rollback(&view(), &words, SHOWN);
        assert_eq!(rollback([said(1, true), silent(), silent(), silent()]), Verdict::Wait);
        assert_eq!(
            rollback([said(1, true), silent(), said(1, true), silent()]),
            Verdict::RolledBack { tell_order: false }
        );
        assert_eq!(
            rollback([said(1, true), silent(), said(1, false), silent()]),
            Verdict::RolledBack { tell_order: true }
        );
        assert_eq!(
            rollback([said(1, true), said(2, true), said(2, true), silent()]),
            Verdict::Mismatch(Some(2))
        );
        assert_eq!(
            rollback([aborted(AbortReason::Walled), aborted(AbortReason::Walled), silent(), silent()]),
            Verdict::Aborted(AbortReason::Walled)
        );
    }

    #[test]
    fn a_mismatch_that_names_no_operation_of_the_transaction_is_not_believed() {
        let mut liar = said(7, true);
        liar.transcript = liar.transcript.map(|word| TranscriptWord { mismatch: Some(999), ..word });
        assert_eq!(commit([silent(), liar.clone(), liar.clone(), liar]), Verdict::Mismatch(None));
    }
}
