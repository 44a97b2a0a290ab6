//! Going on under another master: the term that the core knows of, and what the application has of an answer that an
//! earlier master began.

use super::transaction::{Outstanding, Phase};
use super::{Core, Event, answer::Answer};
use crate::ShimError;
use bytes::Bytes;
use steeldb_types::{Digest, Hasher, ReplicaId, Term, TxId};
use steeldb_wire::transaction::ClientMessage;

/// What of an operation's answer was handed on, by the masters before this one and by this one.
#[derive(Default)]
pub(super) struct Relayed {
    bytes: usize,
    hasher: Option<Hasher>,
    /// An earlier master's part, which this one has to begin with.
    owed: Option<Owed>,
}

struct Owed {
    bytes: usize,
    digest: Digest,
}

/// The new master's answer does not begin with what the application has.
pub(super) struct NotReproduced;

fn hasher() -> Hasher {
    Hasher::new("steeldb/relayed")
}

impl Relayed {
    /// Takes a piece of the answer; gives what the application does not have yet.
    pub(super) fn take(&mut self, mut piece: Bytes) -> Result<Bytes, NotReproduced> {
        let hasher = self.hasher.get_or_insert_with(hasher);
        if let Some(owed) = &self.owed {
            let known = piece.split_to(piece.len().min(owed.bytes - self.bytes));
            hasher.stream(&known);
            self.bytes += known.len();
            if self.bytes < owed.bytes {
                return Ok(piece);
            }
            if hasher.clone().finish() != owed.digest {
                return Err(NotReproduced);
            }
            self.owed = None;
        }
        hasher.stream(&piece);
        self.bytes += piece.len();
        Ok(piece)
    }

    /// Another master answers from the beginning.
    fn begin_again(&mut self) {
        let (bytes, hasher) = (std::mem::take(&mut self.bytes), self.hasher.take());
        // What an earlier one showed is owed until it is shown again whole.
        if self.owed.is_none() && bytes > 0 {
            let digest = hasher.unwrap_or_else(self::hasher).finish();
            self.owed = Some(Owed { bytes, digest });
        }
    }

    /// Whether the answer does not hold yet what the application has.
    pub(super) fn is_owed(&self) -> bool {
        self.owed.is_some()
    }
}

impl Outstanding {
    /// COPY data are wanted, or were by an earlier master.
    pub(super) fn asks_for_data(&self) -> bool {
        self.copying || self.answer.copying()
    }
}

impl Core {
    /// A master's term has begun, as f + 1 replicas say. What runs goes on there, from what the application was shown.
    pub fn begin_term(&mut self, term: Term) {
        if self.over || term.epoch <= self.config.epoch {
            return;
        }
        self.config.epoch = term.epoch;
        self.config.master = term.master;
        self.stale += std::mem::take(&mut self.unconsumed);
        self.unacknowledged = 0;
        self.waits += 1;
        self.become_usable();
        let reachable = |words: &[super::verdict::Word]| {
            words.get(usize::from(term.master.0)).is_some_and(|word| word.reachable)
        };
        let Some(transaction) = self.transaction.as_mut() else { return };
        if !transaction.started {
            return self.pump();
        }
        match transaction.phase {
            Phase::Doomed { .. } | Phase::Finishing { sent: true, .. } => return,
            Phase::Running | Phase::Finishing { sent: false, .. } => {}
        }
        if transaction.begin.is_none() {
            // Its locks were the old master's to hold, and it has no snapshot yet.
            return self.doom(retry("the master changed before the transaction had its snapshot"));
        }
        if !reachable(&transaction.words) {
            return self.doom(retry("the new master does not have the session"));
        }
        transaction.orphaned = false;
        for outstanding in &mut transaction.outstanding {
            outstanding.begin_again(&transaction.operations);
        }
        let shown = transaction.shown();
        let (tx, epoch) = (transaction.tx, term.epoch);
        let (operations, transcript) = (shown.operations, shown.transcript);
        self.send(vec![term.master], ClientMessage::Resume { tx, epoch, operations, transcript });
        self.pump();
    }

    /// The term that the core knows of.
    pub fn term(&self) -> Term {
        Term { epoch: self.config.epoch, master: self.config.master }
    }

    /// The new master says that it cannot show again what was shown.
    pub(super) fn not_reproduced_at(&mut self, from: ReplicaId, tx: TxId) {
        if self.is_master(from) && self.running(tx).is_some() {
            self.not_reproduced();
        }
    }

    pub(super) fn not_reproduced(&mut self) {
        self.doom(retry("what the transaction has shown could not be shown again by the new master"));
    }

    /// The link to the master is lost while it answers: another one may take over.
    pub(super) fn orphan(&mut self) {
        if let Some(transaction) = self.transaction.as_mut() {
            transaction.orphaned = true;
            self.waits += 1;
        }
    }

    /// No other master took over, or the old one is back and has lost the transaction.
    pub(super) fn lose_master(&mut self) {
        let master = self.config.master;
        self.doom(retry(&format!("the connection to the master replica {master} was lost")));
    }

    /// Tells the application that the session is usable, once.
    pub(super) fn become_usable(&mut self) {
        if self.opened || !self.is_usable() {
            return;
        }
        self.opened = true;
        self.waits += 1;
        if let Some(parameters) = self.parameters_of_master() {
            self.events.push_back(Event::Opened { parameters });
        }
    }
}

impl Outstanding {
    /// Another master answers it, from the beginning.
    fn begin_again(&mut self, operations: &[(super::transaction::Text, super::OperationFlags)]) {
        let index = (self.number as usize).saturating_sub(1);
        let row_order = operations.get(index).is_some_and(|(_, flags)| flags.row_order);
        self.copying |= self.answer.copying();
        self.cancelled = false;
        self.answer = Answer::new(self.answer.shape(), row_order);
        self.relayed.begin_again();
        // Nobody has seen what was held back.
        self.held.clear();
        self.held_bytes = 0;
    }
}

fn retry(message: &str) -> ShimError {
    ShimError::new("40001", message.to_string()).hint("The transaction is rolled back. Retry it.")
}
