//! The log of an ordering core on a disk: a power cut keeps what was confirmed and some of what was not.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use steeldb_ordering::Record;

#[derive(Default)]
pub(crate) struct Disk {
    durable: Vec<Record>,
    unsynced: VecDeque<(u64, Record)>,
}

impl Disk {
    pub(crate) fn write(&mut self, sequence: u64, record: Record) {
        self.unsynced.push_back((sequence, record));
    }

    /// Everything up to `upto` is durable.
    pub(crate) fn flush(&mut self, upto: u64) {
        while self.unsynced.front().is_some_and(|(sequence, _)| *sequence <= upto) {
            self.durable.extend(self.unsynced.pop_front().map(|(_, record)| record));
        }
    }

    /// Power is cut.
    pub(crate) fn cut(&mut self, rng: &mut ChaCha8Rng) {
        let survivors = rng.random_range(0..=self.unsynced.len());
        self.durable.extend(self.unsynced.drain(..).take(survivors).map(|(_, record)| record));
    }

    /// All records.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.durable.iter().chain(self.unsynced.iter().map(|(_, record)| record)).cloned().collect()
    }
}
