//! Votes, and certificates with an own vote in them, leave once the order they rest on is durable here.
//!
//! A decision is delivered when its votes are durable, its own record need not be (the votes bind the order, not this
//! replica's memory of it). But a replica that votes promises to keep the transaction prepared, and after a power cut it
//! keeps what it knows to be open: so the decision that holds the BEGIN has to be durable before the vote is seen. By
//! then it nearly always is.

use crate::scheduler::Effect;
use std::collections::VecDeque;

/// Effects in their order, each with the record of the log that it waits for. Bounded by the votes on open transactions.
#[derive(Default)]
pub(super) struct Promises {
    appended: u64,
    durable: u64,
    waiting: VecDeque<(u64, Effect)>,
}

impl Promises {
    /// A record was handed to the log.
    pub(super) fn appended(&mut self, sequence: u64) {
        self.appended = self.appended.max(sequence);
    }

    /// The records up to this one are durable.
    pub(super) fn persisted(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// Keeps an effect until all that was handed to the log so far is durable.
    pub(super) fn hold(&mut self, effect: Effect) {
        self.waiting.push_back((self.appended, effect));
    }

    /// The next effect that may be done.
    pub(super) fn next(&mut self) -> Option<Effect> {
        self.waiting.front().filter(|(needs, _)| *needs <= self.durable)?;
        self.waiting.pop_front().map(|(_, effect)| effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Connection;
    use steeldb_wire::transaction::ReplicaMessage;

    fn effect(number: u64) -> Effect {
        let session = steeldb_types::SessionId(number);
        let message = ReplicaMessage::Refused { session, sequence: 0, reason: String::new() };
        Effect::Reply { connection: Connection(number), message }
    }

    #[test]
    fn a_vote_waits_for_the_records_before_it_and_for_no_later_ones() {
        let mut promises = Promises::default();
        promises.hold(effect(0));
        assert_eq!(promises.next(), Some(effect(0)), "nothing was appended");
        promises.appended(1);
        promises.appended(2);
        promises.hold(effect(1));
        promises.appended(3);
        promises.hold(effect(2));
        promises.persisted(1);
        assert_eq!(promises.next(), None);
        promises.persisted(2);
        assert_eq!(promises.next(), Some(effect(1)));
        assert_eq!(promises.next(), None);
        promises.persisted(3);
        assert_eq!(promises.next(), Some(effect(2)));
    }
}
