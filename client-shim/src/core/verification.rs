//! `steeldb.verify = 'eager'` (rule 11): a result is shown once f + 1 replicas have reached the transcript that it leads
//! to; one of them is correct. Until then it is held here.
//!
//! Invariants: an operation that is to be verified is answered only so, or fails; answers keep their order; what is held
//! is bounded; a replica counts once for an operation, by its latest word, since it may have executed it again.

use super::{Core, Event, report};
use crate::ShimError;
use crate::message::messages;
use bytes::Bytes;
use steeldb_types::{Digest, ReplicaId, TxId, limits};

/// An operation that the master has answered, and whose answer is not shown yet.
pub(super) struct Unverified {
    pub number: u32,
    pub head: Digest,
    pub failed: bool,
    pub drew: bool,
    /// Else it only waits for those before it.
    pub verify: bool,
    pub held: Vec<Bytes>,
}

impl Core {
    /// Keeps a piece of an answer back; gives what of it is shown at once: that data are wanted, since without them there
    /// is no answer to verify.
    pub(super) fn hold(&mut self, piece: Bytes) {
        let bytes = piece.len();
        // The master may go on: what is held has a bound of its own.
        self.acknowledge(bytes);
        let Some(transaction) = self.transaction.as_mut() else { return };
        let Some(outstanding) = transaction.outstanding.front_mut() else { return };
        let number = outstanding.number;
        let mut at = 0;
        for message in messages(&piece).flatten() {
            let whole = at..at + message.whole.len();
            at = whole.end;
            if message.tag == b'G' && outstanding.copying {
                // An earlier master's request was shown.
            } else if message.tag == b'G' && transaction.unverified.is_empty() {
                self.prepaid += message.whole.len();
                self.events.push_back(Event::Result { number, messages: piece.slice(whole) });
            } else {
                outstanding.held_bytes += message.whole.len();
                outstanding.held.push(piece.slice(whole));
            }
        }
        if outstanding.held_bytes > limits::VERIFIED_RESULT_BYTES_MAX {
            let max = limits::VERIFIED_RESULT_BYTES_MAX;
            self.doom(
                ShimError::new("54000", format!("the result is too large to be verified before it is shown: {max} bytes"))
                    .hint("Fetch it in portions from a cursor, or set steeldb.verify to 'commit' for the transaction."),
            );
        }
    }

    /// The master is done with an operation that is not to be shown yet.
    pub(super) fn answered(&mut self, answer: Unverified) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        transaction.unverified.push_back(answer);
        self.waits += 1;
        self.show_verified();
    }

    /// A replica's transcript after an operation.
    pub(super) fn vouched(&mut self, from: ReplicaId, tx: TxId, number: u32, head: Digest) {
        let replicas = self.replicas.len();
        let Some(transaction) = self.running(tx) else { return };
        let awaited = transaction
            .outstanding
            .iter()
            .any(|operation| operation.number == number && operation.verify)
            || transaction.unverified.iter().any(|operation| operation.number == number && operation.verify);
        if !awaited {
            return;
        }
        let heads = transaction.heads.entry(number).or_insert_with(|| vec![None; replicas]);
        if let Some(said) = heads.get_mut(usize::from(from.0)) {
            *said = Some(head);
        }
        self.show_verified();
    }

    /// Shows what is verified by now, in order.
    fn show_verified(&mut self) {
        let view = self.config.view.clone();
        loop {
            let Some(transaction) = self.transaction.as_mut() else { return };
            let Some(front) = transaction.unverified.front() else { break };
            let none = Vec::new();
            let heads = transaction.heads.get(&front.number).unwrap_or(&none);
            let who = |is: &dyn Fn(&Digest) -> bool| {
                let said = heads.iter().zip(0u16..).filter(|(said, _)| said.as_ref().is_some_and(is));
                view.has_correct(said.map(|(_, index)| ReplicaId(index)))
            };
            if front.verify && !who(&|said| *said == front.head) {
                if who(&|said| *said != front.head) {
                    let error = report::of_mismatch(transaction, Some(front.number), false);
                    return self.doom(error);
                }
                return;
            }
            let Some(shown) = transaction.unverified.pop_front() else { break };
            transaction.heads.remove(&shown.number);
            let number = shown.number;
            for messages in shown.held {
                self.prepaid += messages.len();
                self.events.push_back(Event::Result { number, messages });
            }
            self.events.push_back(Event::Executed { number, failed: shown.failed, drew: shown.drew });
        }
        self.pump();
    }

    /// Too few replicas have executed an operation in time.
    pub(super) fn unverified_in_time(&mut self) {
        let number =
            self.transaction.as_ref().and_then(|t| t.unverified.front()).map(|operation| operation.number);
        let number = number.unwrap_or_default();
        self.doom(
            ShimError::new(
                "40001",
                format!("too few replicas executed statement {number} in time to verify its result"),
            )
            .hint("Retry the transaction."),
        );
    }
}
