//! Transactions in doubt: asking the order what became of one, and what the application is told when the session ends
//! while a COMMIT is under way.

use super::ordered::Work;
use super::planted::PlantedBug;
use super::transaction::Phase;
use super::{Core, Event, report};
use crate::ShimError;
use steeldb_types::{ReplicaId, TxId};
use steeldb_wire::transaction::{Decision, Ordered, TransactionState};

/// How often a question is asked before it is given up. Answers are lost with links; another question does no harm.
const TRIES: u32 = 6;

/// A question that waits for its answer.
pub(super) struct Question {
    tx: TxId,
    tries: u32,
    /// By replica.
    pub answers: Vec<Option<TransactionState>>,
}

impl Core {
    /// Asks what became of a transaction, this client's or another's; answered by [`Event::Told`]. The session needs no
    /// backends: it is asked even where no transaction could run.
    pub fn ask(&mut self, tx: TxId) {
        if self.transaction.is_some() || self.ordering.is_some() {
            let error = ShimError::misuse("a question inside a transaction");
            return self.events.push_back(Event::Told(Err(error)));
        }
        if !self.config.view.has_correct(self.linked()) {
            return self.events.push_back(Event::Told(Err(unanswered())));
        }
        self.put(tx, 1);
    }

    fn put(&mut self, tx: TxId, tries: u32) {
        let work = Work::Ask(Question { tx, tries, answers: vec![None; self.replicas.len()] });
        self.waits += 1;
        self.order(&Ordered::Outcome { session: self.config.session, tx }, work);
    }

    /// The answer takes too long: it is asked for again, some times.
    pub(super) fn ask_again(&mut self) {
        match self.ordering.as_ref().map(|ordering| &ordering.work) {
            Some(Work::Ask(question)) if question.tries < TRIES => {
                let (tx, tries) = (question.tx, question.tries);
                self.put(tx, tries + 1);
            }
            _ => self.give_up_question(),
        }
    }

    /// A replica's answer. f + 1 equal ones are believed: it is a function of the order, so one of them is right.
    pub(super) fn told(&mut self, from: ReplicaId, sequence: u64, state: TransactionState) {
        let Some(answers) = self.questions(sequence) else { return };
        if let Some(answer) = answers.get_mut(usize::from(from.0)) {
            answer.get_or_insert(state);
        }
        let answers = answers.clone();
        let said = |state| {
            let who = answers.iter().zip(0u16..).filter(move |(answer, _)| **answer == Some(state));
            who.map(|(_, index)| ReplicaId(index))
        };
        let one = self.config.has(PlantedBug::ToldOnOneWord);
        let believed =
            answers.iter().flatten().copied().find(|state| one || self.config.view.has_correct(said(*state)));
        if let Some(state) = believed {
            self.end_question(Ok(state));
        }
    }

    /// Whether a question waits for its answer.
    pub(super) fn is_asking(&self) -> bool {
        self.ordering.as_ref().is_some_and(|ordering| matches!(ordering.work, Work::Ask(_)))
    }

    /// The answer cannot come any more.
    pub(super) fn give_up_question(&mut self) {
        self.end_question(Err(unanswered()));
    }

    pub(super) fn end_question(&mut self, result: Result<TransactionState, ShimError>) {
        self.ordering = None;
        self.events.push_back(Event::Told(result));
        self.reopen();
    }

    fn questions(&mut self, sequence: u64) -> Option<&mut Vec<Option<TransactionState>>> {
        match self.ordering.as_mut().filter(|ordering| ordering.sequence == sequence).map(|o| &mut o.work) {
            Some(Work::Ask(question)) => Some(&mut question.answers),
            _ => None,
        }
    }

    /// The transaction whose COMMIT was sent and not answered: whatever ends the session now leaves it in doubt.
    pub fn in_doubt(&self) -> Option<TxId> {
        let transaction = self.transaction.as_ref()?;
        let sent = Phase::Finishing { decision: Decision::Commit, sent: true };
        (transaction.phase == sent).then_some(transaction.tx)
    }

    /// What the application is told when the session ends with `error`.
    pub fn last_word(&self, error: ShimError) -> ShimError {
        match self.in_doubt() {
            Some(tx) => {
                let doubt = report::in_doubt(tx);
                ShimError {
                    detail: Some(format!("The session ended meanwhile: {}.", error.message)),
                    ..doubt
                }
            }
            None => error,
        }
    }
}

fn unanswered() -> ShimError {
    ShimError::new("08006", "too few replicas answered the question for a transaction's outcome")
        .hint("Ask again, or through another proxy.")
}

pub(super) fn turned_away(reason: &str) -> ShimError {
    // As the ordering core words what its validator refuses: here, that one client may not ask for another's.
    let sqlstate = if reason.starts_with("invalid") { "42501" } else { "53300" };
    ShimError::new(sqlstate, format!("the replicas turned the question away: {reason}"))
}
