//! What a client believes of answers given without order. Sans-IO.
//!
//! An answer names the position of the last command that what was read depends on, and the batch that was executed ahead
//! if it depends on that. It is believed when replicas of weight Q_v agree in result and position, those that depend on a
//! batch ahead in one claim: as with replies ([`collector`](crate::collector)), that batch is then bound.
//!
//! Such reads are linearizable. A request that was completed anywhere was executed by Q_v replicas before they replied
//! (`Acceptance::Quorum`), decided or bound. They share a correct replica with those that answer, and its state still
//! has that request: what is bound is never taken back, and a restarted replica does not answer before it has executed
//! again what it may have spoken of. So the answer is that of a state not before the request. And answers of one position
//! are of one state of what was read, whatever else the replicas had executed: without it a value that changed and
//! changed back would look like one that stayed (A6).
//!
//! And across views: only answers of replicas that are in the client's own view count, as replies do. Who is in a view
//! has executed all that came before it. And a view is not served from any more once the next has begun: the change was
//! accepted by a quorum of it, of which every quorum of answers has a correct one; it has executed what came before the
//! change, and does not answer before it knows what became of it ([`is_changing_view`]).
//!
//! [`is_changing_view`]: steeldb_ordering::Core::is_changing_view

use crate::limits;
use crate::message::Answer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use steeldb_types::{ReplicaId, View, ViewNumber};

/// Gathers answers to queries.
pub struct Reads {
    view: View,
    waiting: BTreeMap<u64, Waiting>,
    due: BTreeSet<(Instant, u64)>,
}

struct Waiting {
    /// By replica, its first word; nothing: it has none.
    answers: BTreeMap<ReplicaId, Option<Answer>>,
    due: Instant,
}

/// What became of a query; it is no longer waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// The result that a quorum stands for.
    Agreed(Vec<u8>),
    /// No quorum can agree any more.
    Differ,
}

impl Reads {
    /// Reads from the replicas of `view`.
    pub fn new(view: View) -> Reads {
        Reads { view, waiting: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// The replicas of another view count from now on; queries that are waited for are so no longer, and given back.
    pub fn set_view(&mut self, view: View) -> Vec<u64> {
        self.view = view;
        self.due.clear();
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    /// How many are waited for.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none is waited for.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits for answers to the query of this number.
    pub fn begin(&mut self, number: u64, now: Instant) {
        let due = now + limits::READ_TIMEOUT;
        self.due.insert((due, number));
        self.waiting.insert(number, Waiting { answers: BTreeMap::new(), due });
    }

    /// When [`expire`](Reads::expire) is due.
    pub fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Queries that have waited for long enough; they are no longer waited for.
    pub fn expire(&mut self, now: Instant) -> Vec<u64> {
        let mut expired = Vec::new();
        while let Some((due, number)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, number));
            self.waiting.remove(&number);
            expired.push(number);
        }
        expired
    }

    /// A replica that is in a view answered; nothing: it said that it cannot.
    pub fn answered(
        &mut self,
        from: ReplicaId,
        number: u64,
        view: ViewNumber,
        answer: Option<Answer>,
    ) -> Option<ReadOutcome> {
        if !self.view.contains(from) {
            return None;
        }
        let answer = answer.filter(|_| view == self.view.number());
        let waiting = self.waiting.get_mut(&number)?;
        waiting.answers.entry(from).or_insert(answer);
        let outcome = judge(&self.view, &waiting.answers)?;
        let due = waiting.due;
        self.waiting.remove(&number);
        self.due.remove(&(due, number));
        Some(outcome)
    }
}

fn judge(view: &View, answers: &BTreeMap<ReplicaId, Option<Answer>>) -> Option<ReadOutcome> {
    let silent = || view.replicas().filter(|replica| !answers.contains_key(replica));
    let mut hope = view.is_quorum(silent());
    for answer in answers.values().flatten() {
        let with = |other: &Answer| {
            let alike = other.since == answer.since && other.result == answer.result;
            alike && (other.ahead.is_none() || other.ahead == answer.ahead)
        };
        let agreed = || {
            let all = answers.iter().filter(|(_, other)| other.as_ref().is_some_and(with));
            all.map(|(replica, _)| *replica)
        };
        if view.is_quorum(agreed()) {
            return Some(ReadOutcome::Agreed(answer.result.clone()));
        }
        hope |= view.is_quorum(agreed().chain(silent()));
    }
    (!hope).then_some(ReadOutcome::Differ)
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::{Claim, InstanceNumber, Regency};
    use steeldb_types::{Digest, Position};

    fn reads() -> Reads {
        let mut reads = Reads::new(View::of_size(4).unwrap());
        reads.begin(1, Instant::now());
        reads
    }

    fn answer(result: &str, since: u64, regency: Option<u64>) -> Option<Answer> {
        let ahead = regency.map(|number| {
            let claim = Claim { regency: Regency { number, ..Regency::default() }, value: Digest::default() };
            (InstanceNumber(9), claim)
        });
        Some(Answer { result: result.into(), since: Position(since), ahead })
    }

    fn says(reads: &mut Reads, replica: u16, answer: Option<Answer>) -> Option<ReadOutcome> {
        reads.answered(ReplicaId(replica), 1, ViewNumber(0), answer)
    }

    fn agreed(result: &str) -> Option<ReadOutcome> {
        Some(ReadOutcome::Agreed(result.into()))
    }

    #[test]
    fn a_quorum_of_one_result_and_one_position_is_believed() {
        let mut reads = reads();
        assert_eq!(says(&mut reads, 0, answer("x", 5, None)), None);
        assert_eq!(says(&mut reads, 0, answer("x", 5, None)), None, "the same replica");
        assert_eq!(says(&mut reads, 7, answer("x", 5, None)), None, "a stranger");
        let other = reads.answered(ReplicaId(3), 1, ViewNumber(1), answer("x", 5, None));
        assert_eq!(other, None, "one that is in another view");
        assert_eq!(says(&mut reads, 1, answer("x", 5, None)), None);
        assert_eq!(says(&mut reads, 2, answer("x", 5, None)), agreed("x"));
        assert!(reads.is_empty() && reads.due().is_none());
    }

    #[test]
    fn the_same_value_of_another_position_is_another_answer() {
        let mut reads = reads();
        assert_eq!(says(&mut reads, 0, answer("x", 5, None)), None);
        assert_eq!(says(&mut reads, 1, answer("x", 8, None)), None);
        assert_eq!(says(&mut reads, 2, answer("x", 8, None)), None, "the fourth may agree");
        assert_eq!(says(&mut reads, 3, answer("x", 5, None)), Some(ReadOutcome::Differ));
    }

    #[test]
    fn what_depends_on_a_batch_ahead_is_believed_of_one_claim() {
        let mut one = reads();
        assert_eq!(says(&mut one, 0, answer("x", 5, Some(0))), None);
        assert_eq!(says(&mut one, 1, answer("x", 5, None)), None, "decided there");
        assert_eq!(says(&mut one, 2, answer("x", 5, Some(0))), agreed("x"));
        let mut two = reads();
        assert_eq!(says(&mut two, 0, answer("x", 5, Some(0))), None);
        assert_eq!(says(&mut two, 1, answer("x", 5, Some(1))), None);
        assert_eq!(
            says(&mut two, 2, answer("y", 6, None)),
            Some(ReadOutcome::Differ),
            "two with the silent one"
        );
    }

    #[test]
    fn hope_ends_with_too_many_that_cannot_answer_and_with_time() {
        let mut reads = reads();
        assert_eq!(says(&mut reads, 0, None), None);
        assert_eq!(says(&mut reads, 1, None), Some(ReadOutcome::Differ));
        let now = Instant::now();
        reads.begin(2, now);
        assert_eq!(reads.expire(now), Vec::<u64>::new());
        let due = reads.due().unwrap();
        assert_eq!(reads.expire(due), vec![2]);
        assert_eq!((reads.expire(due), reads.len()), (vec![], 0));
    }
}
