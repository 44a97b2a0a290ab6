//! A master's words on transactions: what it streams of one that is executed, and streams again in a later term.
//!
//! What wrote nothing, or was rolled back, is over here once it is completed, while others may lack what an old master
//! streamed of it. Nobody would tell them: so its words are kept for a while, for a term in which this replica is the master.

use super::Scheduler;
use super::operations::{Word, is_of_timing};
use super::transaction::Transaction;
use std::collections::VecDeque;
use steeldb_types::{Digest, TxId};

/// Words kept of transactions that are over. Past it the oldest transactions' go.
const WORDS_MAX: usize = 16_384;

/// What a master says of an operation: its number, the transcript up to it, and the rest.
pub(super) type Said = (u32, Digest, Word);

/// Words of transactions that are over here, in the order in which they ended.
#[derive(Default)]
pub(super) struct Words {
    ended: VecDeque<Ended>,
    weight: usize,
}

struct Ended {
    tx: TxId,
    /// When it ended, or a term began behind that.
    at_us: u64,
    words: Vec<Said>,
}

impl Ended {
    fn weight(&self) -> usize {
        1 + self.words.iter().map(|(_, _, word)| 1 + word.draws.size() / 64).sum::<usize>()
    }
}

impl Words {
    fn keep(&mut self, tx: TxId, at_us: u64, words: Vec<Said>) {
        let ended = Ended { tx, at_us, words };
        self.weight += ended.weight();
        self.ended.push_back(ended);
        while self.weight > WORDS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.ended.pop_front() {
            self.weight -= oldest.weight();
        }
    }

    /// A term begins: who waits for them waits anew.
    pub(super) fn renew(&mut self, now_us: u64) {
        self.ended.iter_mut().for_each(|ended| ended.at_us = now_us);
    }

    /// Nobody waits any more for those that ended before.
    pub(super) fn forget_before(&mut self, us: u64) {
        while self.ended.front().is_some_and(|ended| ended.at_us < us) {
            self.forget_oldest();
        }
    }

    #[cfg(test)]
    pub(super) fn weight(&self) -> usize {
        self.weight
    }
}

impl Transaction {
    /// What a master says of each operation that is executed here.
    pub(super) fn words(&self) -> Vec<Said> {
        let word = |number: u32| {
            let found = self.found.get(&number);
            // An earlier master's word; its own where it was that master.
            let before = self.stream.get(&number);
            let failed = before.map_or(found.and_then(|found| found.failed), |entry| entry.failed);
            let draws = self.drawn.get(&number).or(before.map(|entry| &entry.draws));
            Word {
                operation: found.map(|found| found.operation).unwrap_or_default(),
                adopted: before.map_or(failed.filter(is_of_timing), |entry| entry.adopted),
                failed,
                copied: before.map_or(found.is_some_and(|found| found.copied), |entry| entry.copied),
                check: false,
                draws: draws.cloned().unwrap_or_default(),
            }
        };
        (1..).zip(&self.heads).map(|(number, head)| (number, *head, word(number))).collect()
    }
}

impl Scheduler {
    /// A transaction is over here, and has no outcome that all are told: with `checked` its constraints were checked.
    pub(super) fn keep_words(&mut self, tx: TxId, checked: bool) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let mut words = transaction.words();
        if checked {
            let head =
                transaction.transcript.as_ref().map(|transcript| transcript.head()).unwrap_or_default();
            words.push((transaction.executed() + 1, head, Word { check: true, ..Word::default() }));
        }
        self.words.keep(tx, self.now_us, words);
    }

    /// This replica is the master from now on: it streams what others may lack of those that are over here.
    pub(super) fn tell_words(&mut self) {
        let told: Vec<(TxId, Vec<Said>)> =
            self.words.ended.iter().map(|ended| (ended.tx, ended.words.clone())).collect();
        self.stream_due |= !told.is_empty();
        for (tx, words) in told {
            for (number, head, word) in words {
                self.stream(tx, number, head, word);
            }
        }
    }
}
