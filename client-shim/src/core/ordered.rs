//! Ordered work outside transactions: maintenance and table digests; and requests that were turned away.

use super::doubt::Question;
use super::{Core, Event};
use crate::ShimError;
use crate::message::messages;
use bytes::Bytes;
use steeldb_types::{Digest, Position, ReplicaId, limits};
use steeldb_wire::transaction::{Ordered, ResultDigest, TableDigest};

/// The request in progress.
pub(super) struct Ordering {
    pub sequence: u64,
    refused: Vec<bool>,
    pub work: Work,
}

pub(super) enum Work {
    /// By replica: the canonical result and the messages.
    Maintain(Vec<Option<(Digest, Bytes)>>),
    /// By replica: whether it has answered.
    Verify(Vec<bool>),
    /// What became of a transaction.
    Ask(Question),
}

impl Core {
    /// Runs a statement that no transaction block can hold, on each replica by itself.
    pub fn maintain(&mut self, sql: String) {
        let (session, database, role) =
            (self.config.session, self.config.database.clone(), self.config.role.clone());
        let fault = if self.transaction.is_some() || self.ordering.is_some() {
            Some(ShimError::misuse("maintenance inside a transaction"))
        } else if sql.len() + 1024 > limits::REQUEST_BYTES_MAX {
            Some(ShimError::new("54000", "the statement is too long to be ordered"))
        } else if !self.is_usable() {
            Some(self.unusable())
        } else {
            None
        };
        if let Some(error) = fault {
            return self.events.push_back(Event::Maintained(Err(error)));
        }
        let work = Work::Maintain(vec![None; self.replicas.len()]);
        self.order(&Ordered::Maintain { session, database, role, sql }, work);
    }

    /// Asks every replica for the digests of its tables at one place in the order. The session need not be open.
    pub fn verify(&mut self) {
        let (session, database) = (self.config.session, self.config.database.clone());
        let work = Work::Verify(vec![false; self.replicas.len()]);
        self.order(&Ordered::Verify { session, database }, work);
    }

    pub(super) fn order(&mut self, payload: &Ordered, work: Work) {
        let refused = vec![false; self.replicas.len()];
        let sequence = self.request(payload);
        self.ordering = Some(Ordering { sequence, refused, work });
    }

    pub(super) fn maintained(&mut self, from: ReplicaId, sequence: u64, answer: Bytes) {
        let Some(ordering) = self.ordering.as_mut().filter(|ordering| ordering.sequence == sequence) else {
            return;
        };
        let Work::Maintain(answers) = &mut ordering.work else { return };
        let Some(slot) = answers.get_mut(usize::from(from.0)) else { return };
        if slot.is_none() {
            *slot = canonical(&answer).map(|digest| (digest, answer));
        }
        self.judge_maintenance();
    }

    /// Shown: the master's messages once f + 1 replicas answered alike, or theirs if the master is not among them.
    fn judge_maintenance(&mut self) {
        let master = usize::from(self.config.master.0);
        let master_linked = self.linked().contains(&self.config.master);
        let Some(Ordering { work: Work::Maintain(answers), .. }) = &self.ordering else { return };
        let agreed = answers.iter().flatten().find(|(digest, _)| {
            let who = answers
                .iter()
                .zip(0u16..)
                .filter(|(answer, _)| answer.as_ref().is_some_and(|(other, _)| other == digest));
            self.config.view.has_correct(who.map(|(_, index)| ReplicaId(index)))
        });
        let Some((digest, theirs)) = agreed else { return };
        let shown = match answers.get(master).and_then(Option::as_ref) {
            Some((of_master, messages)) if of_master == digest => messages.clone(),
            None if master_linked => return,
            _ => theirs.clone(),
        };
        self.ordering = None;
        self.events.push_back(Event::Maintained(Ok(shown)));
        self.reopen();
    }

    pub(super) fn verified(
        &mut self,
        from: ReplicaId,
        sequence: u64,
        position: Position,
        tables: Result<Vec<TableDigest>, String>,
    ) {
        let Some(ordering) = self.ordering.as_mut().filter(|ordering| ordering.sequence == sequence) else {
            return;
        };
        let Work::Verify(answered) = &mut ordering.work else { return };
        let Some(answered) = answered.get_mut(usize::from(from.0)) else { return };
        if !std::mem::replace(answered, true) {
            self.events.push_back(Event::Verified { replica: from, position, tables });
        }
    }

    /// A replica turned an ordered request away. f + 1 of them, and it will not be ordered.
    pub(super) fn refused(&mut self, from: ReplicaId, sequence: u64, reason: &str) {
        let view = self.config.view.clone();
        let index = usize::from(from.0);
        let enough = |refused: &mut Vec<bool>| {
            if let Some(refused) = refused.get_mut(index) {
                *refused = true;
            }
            view.has_correct(
                refused
                    .iter()
                    .zip(0u16..)
                    .filter(|(refused, _)| **refused)
                    .map(|(_, index)| ReplicaId(index)),
            )
        };
        let error = ShimError::new("53300", format!("the replicas turned the request away: {reason}"))
            .hint("Retry later, or with fewer sessions at once.");
        if let Some(ordering) = self.ordering.as_mut()
            && ordering.sequence == sequence
            && enough(&mut ordering.refused)
        {
            let event = match ordering.work {
                Work::Maintain(_) => Event::Maintained(Err(error)),
                Work::Verify(_) => Event::Lost(error),
                Work::Ask(_) => Event::Told(Err(super::doubt::turned_away(reason))),
            };
            self.ordering = None;
            self.events.push_back(event);
            return;
        }
        if let Some(transaction) = self.transaction.as_mut()
            && transaction.begin == Some(sequence)
            && enough(&mut transaction.refused)
        {
            self.doom(error);
        }
    }

    /// A replica's link is lost; f + 1 answers may still come from the others.
    pub(super) fn ordering_lost(&mut self, _replica: ReplicaId) {
        self.judge_maintenance();
        let linked = self.linked();
        let answers = match &self.ordering {
            Some(Ordering { work: Work::Maintain(answers), .. }) => answers,
            Some(Ordering { work: Work::Ask(Question { answers, .. }), .. }) => {
                let hopeful = answers
                    .iter()
                    .zip(0u16..)
                    .filter(|(answer, index)| answer.is_some() || linked.contains(&ReplicaId(*index)));
                if !self.config.view.has_correct(hopeful.map(|(_, index)| ReplicaId(index))) {
                    self.give_up_question();
                }
                return;
            }
            _ => return,
        };
        let hopeful = answers
            .iter()
            .zip(0u16..)
            .filter(|(answer, index)| answer.is_some() || linked.contains(&ReplicaId(*index)));
        if !self.config.view.has_correct(hopeful.map(|(_, index)| ReplicaId(index))) {
            self.ordering = None;
            let error = ShimError::new("08006", "too few replicas answered for the maintenance statement");
            self.events.push_back(Event::Maintained(Err(error)));
        }
    }
}

/// The canonical digest of a whole answer; none when it is malformed or does not end.
fn canonical(answer: &[u8]) -> Option<Digest> {
    let mut digest = ResultDigest::new(true);
    let mut ended = false;
    for message in messages(answer) {
        let message = message.ok()?;
        // VACUUM's and ANALYZE's answers are a tag or an error, and notices.
        if !matches!(message.tag, b'C' | b'E' | b'N' | b'S') {
            continue;
        }
        ended |= matches!(message.tag, b'C' | b'E');
        digest.message(message.tag, message.body).ok()?;
    }
    ended.then(|| digest.finish())
}
